package guard

import (
	"net"
	"net/netip"
	"strings"
)

// ClientAddr finds the caller's address. Without trusted proxies, or when the peer is not one of
// them, it is the peer. Otherwise all X-Forwarded-For lines are read as one list from right to left,
// past trusted addresses, to the first that is not trusted. An entry that does not parse ends the
// walk at the last good hop: what stands further left was written by a stranger.
//
// The second result says whether the peer is trusted.
func ClientAddr(peer string, forwarded []string, trusted []netip.Prefix) (netip.Addr, bool) {
	addr, ok := parsePeer(peer)
	if !ok || !contains(trusted, addr) {
		return addr, false
	}
	for i := len(forwarded) - 1; i >= 0; i-- {
		for rest := forwarded[i]; ; {
			var entry string
			rest, entry = cutLast(rest)
			hop, ok := parseHop(entry)
			if !ok {
				return addr, true
			}
			addr = hop
			if !contains(trusted, hop) {
				return addr, true
			}
			if rest == "" {
				break
			}
		}
	}
	return addr, true
}

// cutLast splits "a, b, c" into "a, b" and "c".
func cutLast(list string) (rest, last string) {
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		return list[:i], strings.TrimSpace(list[i+1:])
	}
	return "", strings.TrimSpace(list)
}

func parsePeer(peer string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(peer); err == nil {
		return plain(at.Addr()), true
	}
	return parseHop(peer)
}

// parseHop reads an address with or without brackets and port. netip refuses leading zeros and
// integer forms, which other parsers read in different ways.
func parseHop(s string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return plain(addr), true
	}
	if at, err := netip.ParseAddrPort(s); err == nil {
		return plain(at.Addr()), true
	}
	if host, found := strings.CutPrefix(s, "["); found {
		if addr, err := netip.ParseAddr(strings.TrimSuffix(host, "]")); err == nil {
			return plain(addr), true
		}
	}
	return netip.Addr{}, false
}

// plain makes ::ffff:192.0.2.1 the IPv4 address it is, and drops the zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// hostname splits a Host header into its name, lower case and without port, and says whether it is
// well formed (RFC 9110 section 7.2: uri-host [ ":" port ]).
func hostname(host string) (string, bool) {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		h, port, err := net.SplitHostPort(host)
		if err != nil || !isPort(port) {
			return "", false
		}
		name = h
		if strings.Contains(h, ":") {
			name = "[" + h + "]"
		}
	}
	if inner, found := strings.CutPrefix(name, "["); found {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return strings.ToLower(name), err == nil && addr.Is6() && addr.Zone() == ""
	}
	return strings.ToLower(strings.TrimSuffix(name, ".")), isRegName(name)
}

func isPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func isRegName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return !strings.Contains(s, "..")
}

// hosts is an allow-list in Django's spelling: "api.example.com", ".example.com" for a domain and
// all below it, "*" for anything.
type hosts struct {
	usual  map[string]bool // those of exact that need no parsing when they are sent just so
	exact  map[string]bool
	suffix []string
	any    bool
}

func newHosts(list []string) hosts {
	h := hosts{exact: make(map[string]bool), usual: make(map[string]bool)}
	for _, name := range list {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "*":
			h.any = true
		case strings.HasPrefix(name, "."):
			h.suffix = append(h.suffix, name)
			h.exact[name[1:]] = true
		case name != "":
			h.exact[name] = true
		}
	}
	for name := range h.exact {
		if plain, ok := hostname(name); ok && plain == name {
			h.usual[name] = true
		}
	}
	return h
}

func (h hosts) allow(name string) bool {
	if h.any || h.exact[name] {
		return true
	}
	for _, s := range h.suffix {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}
