package probes

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// authority signs certificates of the test's own making.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(10_000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = sign(t, template, template, a.key, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf for a host, good for so long.
func (a authority) leaf(t *testing.T, host string, left time.Duration) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-900 * time.Hour), NotAfter: time.Now().Add(left),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	cert := sign(t, template, a.cert, key, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func TestCertificatesAreJudgedByTheirWorst(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	const day = 24 * time.Hour
	for _, c := range []struct {
		name     string
		by       authority
		host     string
		left     time.Duration
		want     audit.Outcome
		severity audit.Severity
	}{
		{"good", a, "api.example.com", 90 * day, audit.Pass, 0},
		{"expired", a, "api.example.com", -time.Hour, audit.Fail, audit.Critical},
		{"of another name", a, "other.example.com", 90 * day, audit.Fail, audit.Critical},
		{"of an unknown authority", stranger, "api.example.com", 90 * day, audit.Fail, 0},
		{"about to expire", a, "api.example.com", 6 * day, audit.Fail, 0},
		{"soon to expire", a, "api.example.com", 10 * day, audit.Inconclusive, 0},
	} {
		leaf := c.by.leaf(t, c.host, c.left).Leaf
		v := judgeCertificate([]*x509.Certificate{leaf}, "api.example.com", a.pool(), time.Now())
		if v.Outcome != c.want || v.Severity != c.severity {
			t.Errorf("%s: %s %v (%s), want %s %v", c.name, v.Outcome, v.Severity, v.Message, c.want, c.severity)
		}
	}
}

// secured serves h with TLS as configured.
func secured(t *testing.T, a authority, h http.Handler, c *tls.Config) (address string, knobs func(*audit.Target)) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	c.Certificates = []tls.Certificate{a.leaf(t, "127.0.0.1", 2000*time.Hour)}
	server.TLS = c
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, func(t *audit.Target) { t.CA = a.pool() }
}

func TestOnlyModernTLSPasses(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		name     string
		least    uint16
		want     audit.Outcome
		severity audit.Severity
	}{
		{"1.2 and 1.3", tls.VersionTLS12, audit.Pass, 0},
		{"1.3 alone", tls.VersionTLS13, audit.Pass, 0},
		{"1.1 too", tls.VersionTLS11, audit.Fail, audit.High},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, knobs := secured(t, a, site(nil), &tls.Config{MinVersion: c.least})
			expect(t, outcomesAt(t, address, knobs, "TRN-02"), "TRN-02", c.want, c.severity)
		})
	}
}

func TestNothingTransportIsAskedOfLoopbackWithoutTLS(t *testing.T) {
	r := outcomes(t, site(nil), nil, "TRN-01", "TRN-02", "TRN-05")
	for _, id := range []string{"TRN-01", "TRN-02", "TRN-05"} {
		expect(t, r, id, audit.NotApplicable, 0)
	}
}

func TestPublicHTTPFailsAndPrivateIsLeftOpen(t *testing.T) {
	for host, want := range map[string]audit.Outcome{
		"http://127.0.0.1:1": audit.NotApplicable, "http://[::1]:1": audit.NotApplicable, "http://localhost:1": audit.NotApplicable,
		"http://10.1.2.3": audit.Inconclusive, "http://api.example.com": audit.Fail,
	} {
		u, err := url.Parse(host)
		if err != nil {
			t.Fatal(err)
		}
		c := &audit.Calibration{Missing: &audit.Exchange{Status: 401}}
		if v := judgeWithoutTLS(&audit.Target{URL: u}, c); v.Outcome != want {
			t.Errorf("%s: %s (%s), want %s", host, v.Outcome, v.Message, want)
		}
	}
}

func TestRealTokenNeverTravelsInClear(t *testing.T) {
	var seen atomic.Value
	a := newAuthority(t)
	cert := a.leaf(t, "127.0.0.1", 2000*time.Hour)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: site(nil), ReadHeaderTimeout: time.Second}
	go server.Serve(redirecting{ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, &seen})
	t.Cleanup(func() { server.Close() })
	r := outcomesAt(t, "https://"+ln.Addr().String(), func(t *audit.Target) { t.CA = a.pool() }, "TRN-01")
	expect(t, r, "TRN-01", audit.Pass, 0)
	if f, _ := r.Find("TRN-01"); !strings.Contains(f.Message, "redirected") {
		t.Errorf("the message is %q, want one about the redirect", f.Message)
	}
	text, _ := seen.Load().(string)
	if !strings.Contains(text, "Bearer "+madeUpToken) {
		t.Errorf("in clear went %q, want the made-up token", text)
	}
}

// redirecting answers clear text with a redirect and hands TLS on.
type redirecting struct {
	net.Listener
	tls  *tls.Config
	seen *atomic.Value
}

func (l redirecting) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		in := bufio.NewReader(c)
		if first, err := in.Peek(1); err == nil && first[0] == 0x16 {
			return tls.Server(peeked{c, in}, l.tls), nil
		}
		if r, err := http.ReadRequest(in); err == nil {
			l.seen.Store("Bearer " + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			io.WriteString(c, "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://example.com/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		c.Close()
	}
}

type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

func TestCrossOrigin(t *testing.T) {
	for _, c := range []struct {
		name     string
		allow    func(origin string) (allowed, credentials string)
		cookie   bool
		want     audit.Outcome
		severity audit.Severity
	}{
		{"nothing", func(string) (string, string) { return "", "" }, false, audit.Pass, 0},
		{"a fixed one", func(string) (string, string) { return "https://app.example.com", "true" }, false, audit.Pass, 0},
		{"any, without credentials", func(string) (string, string) { return "*", "" }, false, audit.Pass, 0},
		{"reflected, without credentials", func(o string) (string, string) { return o, "" }, false, audit.Pass, 0},
		{"any, with credentials", func(string) (string, string) { return "*", "true" }, false, audit.Fail, audit.Low},
		{"reflected", func(o string) (string, string) { return o, "true" }, false, audit.Fail, audit.High},
		{"reflected, with a cookie that signs in", func(o string) (string, string) { return o, "true" }, true, audit.Fail, audit.Critical},
		{"null only", func(o string) (string, string) {
			if o == "null" {
				return o, "true"
			}
			return "", ""
		}, false, audit.Fail, audit.High},
		{"what begins like the target", func(o string) (string, string) {
			if strings.HasPrefix(o, "https://127.0.0.1") {
				return o, "true"
			}
			return "", ""
		}, false, audit.Fail, audit.High},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := http.Handler(site(nil))
			if c.cookie {
				inner = signedIn(http.Cookie{Name: "x", HttpOnly: true})
			}
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				allowed, credentials := c.allow(r.Header.Get("Origin"))
				if r.Header.Get("Origin") != "" && allowed != "" {
					w.Header().Set("Access-Control-Allow-Origin", allowed)
				}
				if credentials != "" {
					w.Header().Set("Access-Control-Allow-Credentials", credentials)
				}
				inner.ServeHTTP(w, r)
			})
			expect(t, outcomes(t, h, nil, "TRN-03"), "TRN-03", c.want, c.severity)
		})
	}
}

// signedIn is a site whose /me takes the token or a cookie that it sets.
func signedIn(c http.Cookie) http.Handler {
	c.Value = "c0ffee"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := r.Cookie(c.Name)
		byCookie := err == nil && sent.Value == c.Value && r.Header.Get("Authorization") == ""
		if r.Header.Get("Authorization") != "Bearer valid" && !byCookie {
			answerJSON(w, 401, map[string]any{"title": "who are you?"})
			return
		}
		http.SetCookie(w, &c)
		w.Header().Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains")
		answerJSON(w, 200, map[string]any{"id": "a"})
	})
}

func TestPrivateAnswersStayOutOfCaches(t *testing.T) {
	for _, c := range []struct {
		name, media, body string
		headers           []string
		want              audit.Outcome
		severity          audit.Severity
	}{
		{"no-store", "application/json", `{"id":1}`, []string{"Cache-Control", "no-store", "X-Content-Type-Options", "nosniff"}, audit.Pass, 0},
		{"private", "application/problem+json", `{"id":1}`, []string{"Cache-Control", "private, max-age=60", "X-Content-Type-Options", "nosniff"}, audit.Pass, 0},
		{"no-cache", "application/json", `{"id":1}`, []string{"Cache-Control", "no-cache", "X-Content-Type-Options", "nosniff"}, audit.Pass, 0},
		{"public", "application/json", `{"id":1}`, []string{"Cache-Control", "public", "X-Content-Type-Options", "nosniff"}, audit.Fail, audit.High},
		{"max-age", "application/json", `{"id":1}`, []string{"Cache-Control", "max-age=60", "X-Content-Type-Options", "nosniff"}, audit.Fail, audit.High},
		{"a CDN's hit", "application/json", `{"id":1}`, []string{"X-Cache", "HIT from edge", "X-Content-Type-Options", "nosniff"}, audit.Fail, audit.High},
		{"nothing said", "application/json", `{"id":1}`, []string{"X-Content-Type-Options", "nosniff"}, audit.Fail, audit.Low},
		{"no nosniff", "application/json", `{"id":1}`, []string{"Cache-Control", "no-store"}, audit.Fail, audit.Low},
		{"JSON as HTML", "text/html", `{"id":1}`, []string{"Cache-Control", "no-store", "X-Content-Type-Options", "nosniff"}, audit.Fail, audit.High},
		{"HTML that may be framed", "text/html", `<p>hello user</p>`, []string{"Cache-Control", "no-store", "X-Content-Type-Options", "nosniff"}, audit.Fail, audit.Medium},
		{"HTML that may not", "text/html", `<p>hello user</p>`, []string{"Cache-Control", "no-store", "X-Content-Type-Options", "nosniff", "X-Frame-Options", "DENY"}, audit.Pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer valid" {
					answerJSON(w, 401, map[string]any{"title": "no"})
					return
				}
				for i := 0; i < len(c.headers); i += 2 {
					w.Header().Set(c.headers[i], c.headers[i+1])
				}
				w.Header().Set("Content-Type", c.media)
				io.WriteString(w, c.body)
			})
			expect(t, outcomes(t, h, nil, "TRN-04"), "TRN-04", c.want, c.severity)
		})
	}
}

func TestPublicAnswersMayBeCached(t *testing.T) {
	h := site(map[string]http.HandlerFunc{"GET /things": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		answerJSON(w, 200, []any{})
	}})
	r := outcomes(t, h, listing(tagParam), "VAL-02", "TRN-04") // VAL-02 fetches it with the token
	expect(t, r, "TRN-04", audit.Pass, 0)
}

func TestSessionCookieIsKnownByWhatItDoes(t *testing.T) {
	a := newAuthority(t)
	full := http.Cookie{Name: "theme", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	bare := http.Cookie{Name: "theme"}
	decoration := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // looks like a session, and is none
		http.SetCookie(w, &http.Cookie{Name: "sessionid", Value: "abc"})
		w.Header().Set("Strict-Transport-Security", "max-age=63072000")
		site(nil).ServeHTTP(w, r)
	})
	unlasting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=3600")
		site(nil).ServeHTTP(w, r)
	})
	for _, c := range []struct {
		name     string
		h        http.Handler
		want     audit.Outcome
		severity audit.Severity
	}{
		{"with its attributes", signedIn(full), audit.Pass, 0},
		{"without", signedIn(bare), audit.Fail, audit.High},
		{"one that does nothing", decoration, audit.Pass, 0},
		{"no HSTS", site(nil), audit.Fail, audit.Medium},
		{"HSTS for an hour", unlasting, audit.Fail, audit.Medium},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, knobs := secured(t, a, c.h, &tls.Config{MinVersion: tls.VersionTLS12})
			r := outcomesAt(t, address, knobs, "TRN-05")
			expect(t, r, "TRN-05", c.want, c.severity)
		})
	}
}

func TestSecureIsNotAskedOfCookiesOverPlainHTTP(t *testing.T) {
	r := outcomes(t, signedIn(http.Cookie{Name: "x", HttpOnly: true, SameSite: http.SameSiteStrictMode}), nil, "TRN-05")
	expect(t, r, "TRN-05", audit.Inconclusive, 0)
}

// talk answers raw connections with what say returns for the head of a request; nothing means silence.
func talk(t *testing.T, say func(head string) string) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					head := ""
					for !strings.HasSuffix(head, "\r\n\r\n") && !strings.HasSuffix(head, "\n\n") {
						line, err := in.ReadString('\n')
						if err != nil {
							return
						}
						head += line
					}
					in.Discard(in.Buffered())
					answer := say(head)
					io.WriteString(c, answer)
					if strings.Contains(answer, "Connection: close") {
						return
					}
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

const (
	rawOK  = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	rawBad = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)

func TestParsing(t *testing.T) {
	odd := func(head string) bool {
		return strings.Count(head, "Content-Length") > 1 || strings.Contains(head, "Transfer-Encoding") || strings.Contains(head, "+5") ||
			strings.Contains(head, "X-Gantry") || strings.Count(head, "Host:") > 1 || strings.Contains(head, "a@b") || !strings.Contains(head, "\r\n")
	}
	except := func(part, answer string) func(string) string {
		return func(head string) string {
			switch {
			case strings.Contains(head, part):
				return answer
			case odd(head):
				return rawBad
			}
			return rawOK
		}
	}
	closing := strings.Replace(rawOK, "Content-Length", "Connection: close\r\nContent-Length", 1)
	for _, c := range []struct {
		name     string
		say      func(string) string
		want     audit.Outcome
		severity audit.Severity
	}{
		{"strict", except("nothing of the kind", ""), audit.Pass, 0},
		{"both lengths, kept open", except("Transfer-Encoding", rawOK), audit.Fail, audit.High},
		{"both lengths, closed after", except("Transfer-Encoding", closing), audit.Pass, 0},
		{"two lengths, kept open", except("Content-Length: 6", rawOK), audit.Fail, audit.High},
		{"two lengths, closed after", except("Content-Length: 6", closing), audit.Fail, audit.Medium},
		{"a signed length", except("+5", rawOK), audit.Fail, audit.Medium},
		{"a folded header", except("\r\n 2", rawOK), audit.Pass, 0},
		{"a bad host", except("a@b", rawOK), audit.Fail, audit.Low},
		{"no answer to two lengths", except("Content-Length: 6", ""), audit.Inconclusive, 0},
		{"never let in", func(string) string { return strings.Replace(rawBad, "400", "401", 1) }, audit.Inconclusive, 0},
		{"behind a proxy", func(head string) string {
			if odd(head) {
				return rawBad
			}
			return strings.Replace(rawOK, "Content-Length", "Via: 1.1 edge\r\nContent-Length", 1)
		}, audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := outcomesAt(t, talk(t, c.say), func(t *audit.Target) { t.HealthPath = "/health" }, "TRN-06")
			expect(t, r, "TRN-06", c.want, c.severity)
		})
	}
}

func TestRawRequestLeavesNothingOver(t *testing.T) {
	for _, o := range oddities {
		text := rawGet{path: "/", host: "h"}.text(o)
		_, body, _ := strings.Cut(text, "\r\n\r\n")
		if o.edit == nil && body != o.body {
			t.Errorf("%s: the body is %q, want %q", o.label, body, o.body)
		}
		for _, length := range []string{"5", "+5"} {
			if strings.Contains(o.headers, "Content-Length: "+length+"\r\n") && len(body) != 5 {
				t.Errorf("%s: %d bytes follow a length of 5", o.label, len(body))
			}
		}
	}
}

func TestTranscriptHoldsNoToken(t *testing.T) {
	long := strings.Repeat("opaque", 60)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+long {
			answerJSON(w, 401, map[string]any{"title": "no"})
			return
		}
		answerJSON(w, 200, map[string]any{"id": 1})
	})
	r := outcomes(t, mux, func(t *audit.Target) { t.Token = long }, "TRN-06")
	expect(t, r, "TRN-06", audit.Fail, audit.High) // net/http keeps the connection open after both lengths
	for _, f := range r.Findings {
		for _, e := range f.Evidence {
			if strings.Contains(e.Raw, "opaqueopaque") || e.Raw == "" {
				t.Errorf("the transcript is empty or shows the token: %s", e.Raw)
			}
		}
	}
}
