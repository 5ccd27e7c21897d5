package config

import (
	"cmp"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/secret"
)

const valkeyExample = "redis://localhost:6379/0"

// valkey reads where Valkey or Redis is: SCHEME://[[user]:password@]host[:port][,host[:port]...][/db].
// Several hosts are a cluster, whose only database is 0.
func (l *loader) valkey(text string) {
	store, err := parseValkey(text)
	if err != nil {
		l.bad(idInvalid, "VALKEY_URL", err.Error(), valkeyExample)
		return
	}
	store.CA = l.valkeyCA()
	l.cfg.Cache = store
	if secret.IsPlaceholder(text) {
		l.bad(idPlaceholder, "VALKEY_URL", "is still the example from the documentation", valkeyExample)
	}
	for _, addr := range store.Addrs {
		if !store.TLS && !isLoopback(addr) && l.cfg.Environment == Production {
			l.bad(idPolicy, "VALKEY_URL", "is not encrypted: limits and sessions can be read or changed on the way", "rediss://user:password@valkey.internal:6379/0")
			break
		}
	}
}

// valkeyCA reads VALKEY_CA_FILE here, and not where it is used, so that check finds what serve would.
func (l *loader) valkeyCA() []byte {
	const name = "VALKEY_CA_FILE"
	if path := l.text(name, ""); path != "" {
		return l.authority(name, path, "/etc/gantry/valkey-ca.pem")
	}
	return nil
}

// authority reads a file of certificates that are trusted instead of the system's.
func (l *loader) authority(name, path, example string) []byte {
	text := l.pem(name, path)
	if _, err := firstCertificate(text); text != nil && err != nil {
		l.bad(idInvalid, name, "the file holds no certificate in PEM form", example)
	}
	return text
}

func parseValkey(text string) (Store, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	store := Store{Kind: Valkey, TLS: scheme == "rediss" || scheme == "valkeys"}
	switch scheme {
	case "redis", "rediss", "valkey", "valkeys":
	default:
		return Store{}, errors.New("begins with none of redis://, rediss://, valkey://, valkeys://, memory:")
	}
	// Only the list of hosts is not a URL's; the rest is read by the standard rules.
	head, path, _ := strings.Cut(rest, "/")
	hosts := head[strings.LastIndexByte(head, '@')+1:]
	u, err := url.Parse("redis://" + strings.TrimSuffix(head, hosts) + "host/" + path)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return Store{}, errors.New("is not an address")
	}
	store.Username = u.User.Username()
	password, _ := u.User.Password()
	store.Password = NewSecret(password)
	if store.Addrs, err = addresses(hosts); err != nil {
		return Store{}, err
	}
	store.DB, err = strconv.Atoi(cmp.Or(strings.Trim(u.Path, "/"), "0"))
	if err != nil || store.DB < 0 || store.DB > 15 || store.DB > 0 && len(store.Addrs) > 1 {
		return Store{}, errors.New("has a database that is not a number from 0 to 15, or not 0 in a cluster")
	}
	return store, nil
}

func addresses(hosts string) ([]string, error) {
	var out []string
	for host := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "6379")
		}
		name, port, err := net.SplitHostPort(host)
		if _, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil || name == "" {
			return nil, errors.New("has a host that is not host:port")
		}
		out = append(out, host)
	}
	return out, nil
}
