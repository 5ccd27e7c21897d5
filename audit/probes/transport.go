package probes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func transport() []audit.Probe {
	return []audit.Probe{
		{
			ID: "TRN-01", Title: "TLS, and nothing in clear", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Transport,
			Sends:        "the protected path over HTTP without TLS, with a made-up token, to the API's own port and, when that is 443, to port 80",
			Passes:       "refused, 4xx of a server that wants TLS, or 301/308 to https",
			Fails:        "HTTP in clear is answered as the API answers over TLS; or the API's public address is HTTP",
			Inconclusive: "the address is private and without TLS; not applicable on loopback without TLS, or where a TLS terminator is declared",
			Guard:        "the real token is never sent in clear",
			Refs:         []string{"CWE-319", "ASVS 12.2.1"},
			Why:          "Everybody on the way, a café's network for one, reads and keeps the tokens.",
			Fix:          "Terminate TLS at the edge, and close port 80 for APIs: a redirect comes after the token was sent.",
			Run:          tlsOnly,
		},
		{
			ID: "TRN-02", Title: "Certificate and protocol versions", Severity: audit.High, Mode: audit.Safe, Category: audit.Transport,
			Sends:        "five TLS handshakes: TLS 1.2 or 1.3, and each of 1.0, 1.1, 1.2 and 1.3 alone; nothing after them",
			Passes:       "1.2 and 1.3 only, a chain that verifies, the right name, 14 days and more until it expires",
			Fails:        "1.0 or 1.1 is spoken, the chain does not verify, fewer than 7 days are left; expired or for another name is critical",
			Inconclusive: "no handshake succeeds, or 7 to 14 days are left; not applicable without TLS",
			Guard:        "a private authority is right with --cacert",
			Knobs:        []string{"--cacert"},
			Refs:         []string{"RFC 9325 section 3.1.1", "RFC 8996", "ASVS 12.1.1"},
			Why:          "An expired certificate is an outage with a date; old versions have known breaks that an insurer's or bank's scan finds first.",
			Fix:          "Renew certificates by machine, alert at 21 days, and set TLS 1.2 as the least.",
			Run:          certificate,
		},
	}
}

// madeUpToken is sent where a real one must not go.
const madeUpToken = "gantry-made-up-token"

func tlsOnly(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t := s.Target()
	if reason := s.Declared(); reason != "" {
		return audit.DoesNotApply("declared: %s", reason), nil
	}
	if t.URL.Scheme != "https" {
		return judgeWithoutTLS(t, s.Calibration()), nil
	}
	ports := []string{t.URL.Port()}
	if ports[0] == "" || ports[0] == "443" {
		ports = []string{"443", "80"}
	}
	var evidence []*audit.Exchange
	redirects := false
	for _, port := range ports {
		x, err := inClear(ctx, s, port)
		if err != nil {
			return audit.Verdict{}, err
		}
		if x == nil {
			continue // nobody listens
		}
		evidence = append(evidence, x)
		if answersInClear(s, x) {
			return audit.Failed("port %s answers HTTP in clear as it does over TLS (%d)", port, x.Status).With(x), nil
		}
		redirects = redirects || x.Status >= 301 && x.Status <= 308
	}
	switch {
	case redirects:
		return audit.Passed("HTTP in clear is redirected; for an API a closed port is better, because the token has been sent by then").With(evidence...), nil
	case len(evidence) > 0:
		return audit.Passed("HTTP in clear is refused (%s)", statusList(evidence)).With(evidence...), nil
	}
	return audit.Passed("no port speaks HTTP in clear").Measured("ports", strings.Join(ports, ", ")), nil
}

// judgeWithoutTLS judges an API whose given address has no TLS.
func judgeWithoutTLS(t *audit.Target, c *audit.Calibration) audit.Verdict {
	switch {
	case onLoopback(t.URL.Hostname()):
		return audit.DoesNotApply("the target is on loopback: TLS is the edge's; audit the public address too")
	case t.Local():
		return audit.Unproven("the address is private and has no TLS").Unlock("the public https address, or a declared TLS terminator")
	case c.Missing == nil || c.Missing.Status == 0:
		return audit.Unproven("the API did not answer")
	}
	return audit.Failed("the API is served over HTTP without TLS").With(c.Missing)
}

func onLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

// inClear asks on a port without TLS; nil when nobody accepts the connection.
func inClear(ctx context.Context, s *audit.Session, port string) (*audit.Exchange, error) {
	conn, err := s.DialPlain(ctx, port, "in clear, port "+port+", made-up token")
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, audit.ErrBudget) {
			return nil, err
		}
		return nil, nil
	}
	path := s.Target().URL.EscapedPath() + s.Calibration().Path
	if path == "" {
		path = "/"
	}
	err = conn.Send(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nAccept: application/json\r\nConnection: close\r\n\r\n", path, s.Target().URL.Host, madeUpToken))
	if err == nil {
		_, _, err = conn.Receive(5*time.Second, 64<<10)
	}
	x := conn.Done()
	if errors.Is(err, audit.ErrSecret) {
		return nil, err
	}
	return x, nil
}

// answersInClear says that x is what the API answers over TLS, with a valid, a garbage or no credential.
func answersInClear(s *audit.Session, x *audit.Exchange) bool {
	c := s.Calibration()
	for _, known := range []*audit.Exchange{c.Valid, c.Missing, c.Garbage} {
		if known == nil || known.Status == 0 || known.Status == http.StatusNotFound || known.Status >= 500 {
			continue
		}
		if x.Status == known.Status && x.Shape().Similarity(known.Shape()) >= 0.9 && (x.Status < 300 || x.Status >= 400) {
			return true
		}
	}
	return false
}

func certificate(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t := s.Target()
	if t.URL.Scheme != "https" {
		return audit.DoesNotApply("the target has no TLS"), nil
	}
	state, modern, err := s.Handshake(ctx, "TLS 1.2 or 1.3", tls.VersionTLS12, tls.VersionTLS13)
	if err != nil {
		return audit.Verdict{}, err
	}
	spoken, evidence := []string{}, []*audit.Exchange{modern}
	old := false
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		only, x, err := s.Handshake(ctx, tls.VersionName(version)+" alone", version, version)
		if err != nil {
			return audit.Verdict{}, err
		}
		if only.Version == version {
			spoken = append(spoken, tls.VersionName(version))
			if version < tls.VersionTLS12 {
				old = true
				evidence = append(evidence, x)
			}
			if len(state.PeerCertificates) == 0 {
				state = only
			}
		}
	}
	if len(spoken) == 0 {
		return audit.Unproven("no handshake succeeded: %v", modern.Err).With(modern), nil
	}
	v := judgeCertificate(state.PeerCertificates, t.URL.Hostname(), t.CA, s.Now())
	if old && v.Outcome != audit.Fail {
		v = audit.Failed("%s are spoken", strings.Join(spoken, ", "))
	} else if v.Outcome == audit.Pass {
		v.Message = strings.Join(spoken, " and ") + " only; " + v.Message
	}
	return v.With(evidence...).Measured("versions", spoken), nil
}

// judgeCertificate by its name, its dates and its chain, the worst first. roots nil are the system's.
func judgeCertificate(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) audit.Verdict {
	if len(chain) == 0 {
		return audit.Unproven("the server showed no certificate")
	}
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	left := leaf.NotAfter.Sub(now)
	days := int(left.Hours() / 24)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	switch {
	case left < 0:
		return audit.Failed("the certificate expired on %s", leaf.NotAfter.Format(time.DateOnly)).As(audit.Critical)
	case leaf.VerifyHostname(host) != nil:
		return audit.Failed("the certificate is not for %s: %v", host, leaf.VerifyHostname(host)).As(audit.Critical)
	case err != nil:
		return audit.Failed("the certificate does not verify: %v", err)
	case days < 7:
		return audit.Failed("the certificate expires in %d days, on %s", days, leaf.NotAfter.Format(time.DateOnly))
	case days < 14:
		return audit.Unproven("the certificate expires in %d days: whether it is renewed by machine will show", days)
	}
	return audit.Passed("the certificate is good for %d days", days).Measured("days", days)
}
