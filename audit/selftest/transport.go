package selftest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func transportCases() []Case {
	return []Case{
		{Probe: "TRN-01", Prepare: secure, Knobs: trusted, Break: func(a *API) { a.Serve = a.serveBoth }},
		{Probe: "TRN-02", Prepare: secure, Knobs: trusted, Break: func(a *API) {
			a.Serve = a.serveTLS(&tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS10}) // for an old client
		}},
		{Probe: "TRN-03", Break: func(a *API) {
			a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if origin := r.Header.Get("Origin"); origin != "" { // so that it works from everywhere
						w.Header().Set("Access-Control-Allow-Origin", origin)
						w.Header().Set("Access-Control-Allow-Credentials", "true")
					}
					next.ServeHTTP(w, r)
				})
			})
		}},
		{Probe: "TRN-04", Break: func(a *API) {
			a.Routes["GET /me"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
				w.Header().Set("Cache-Control", "public, max-age=300") // the load went down nicely
				Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com"})
			})
		}},
		{
			Probe: "TRN-05", Knobs: trusted,
			Prepare: func(a *API) {
				secure(a)
				withCookie(a, http.Cookie{Name: "sid", Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
			},
			Break: func(a *API) { withCookie(a, http.Cookie{Name: "sid", Path: "/"}) },
		},
		{
			Probe:   "TRN-06",
			Prepare: func(a *API) { a.Serve = a.serveStrict },
			Break:   func(a *API) { a.Serve = a.serve }, // as the standard library reads HTTP
		},
	}
}

// certificate for 127.0.0.1, made once a process, good for a year, and its own authority.
var certificate = sync.OnceValue(func() tls.Certificate {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system has no randomness
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gantry self-test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(365 * 24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		panic(err) // the template is ours
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
})

// trusted tells the audit the authority.
func trusted(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.CA = x509.NewCertPool()
	t.CA.AddCert(certificate().Leaf)
}

// secure makes the API speak TLS 1.2 and 1.3, with HSTS.
func secure(a *API) {
	a.Scheme = "https"
	a.Serve = a.serveTLS(modern())
	a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
			next.ServeHTTP(w, r)
		})
	})
}

func modern() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS12}
}

func (a *API) serveTLS(c *tls.Config) func(net.Listener, http.Handler) {
	return func(ln net.Listener, h http.Handler) { a.serve(tls.NewListener(ln, c), h) }
}

// serveBoth answers TLS and clear text on one port: whoever does not speak TLS is served all the same.
func (a *API) serveBoth(ln net.Listener, h http.Handler) { a.serve(bothListener{ln, modern()}, h) }

type bothListener struct {
	net.Listener
	tls *tls.Config
}

func (l bothListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eitherConn{Conn: c, tls: l.tls}, nil
}

// eitherConn finds out with the first read, which the server does in a goroutine of its own.
type eitherConn struct {
	net.Conn
	tls  *tls.Config
	once sync.Once
	in   io.Reader
}

func (c *eitherConn) Read(p []byte) (int, error) {
	c.once.Do(func() {
		buffered := bufio.NewReader(c.Conn)
		c.in = buffered
		if first, err := buffered.Peek(1); err == nil && first[0] == 0x16 { // a TLS handshake record
			c.Conn = tls.Server(&replayed{c.Conn, buffered}, c.tls)
			c.in = c.Conn
		}
	})
	return c.in.Read(p)
}

// replayed reads again what was peeked at.
type replayed struct {
	net.Conn
	in io.Reader
}

func (r *replayed) Read(p []byte) (int, error) { return r.in.Read(p) }

// withCookie signs in by token and, from then on, by cookie.
func withCookie(a *API, c http.Cookie) {
	const session = "5b1f0c9a7e"
	inner := a.verified
	a.Identify = func(r *http.Request) (map[string]any, error) {
		if sid, err := r.Cookie(c.Name); err == nil && sid.Value == session && r.Header.Get("Authorization") == "" {
			return map[string]any{"sub": "user_a"}, nil
		}
		return inner(r)
	}
	a.Routes["GET /me"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
		c.Value = session
		http.SetCookie(w, &c)
		Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com", "plan": "free"})
	})
}

// serveStrict reads the head of each request before net/http does, and refuses what that would let pass: bare line feeds,
// folded lines, and a length said twice. A connection serves one request, so that no head goes by unread.
func (a *API) serveStrict(ln net.Listener, h http.Handler) {
	a.serve(strictListener{ln}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		h.ServeHTTP(w, r)
	}))
}

type strictListener struct{ net.Listener }

func (l strictListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &strictConn{Conn: c}, nil
}

type strictConn struct {
	net.Conn
	once sync.Once
	in   io.Reader
	err  error
}

var errLoose = errors.New("the head of the request is malformed")

func (c *strictConn) Read(p []byte) (int, error) {
	c.once.Do(func() {
		buffered := bufio.NewReader(c.Conn)
		head, err := readHead(buffered)
		c.in, c.err = io.MultiReader(bytes.NewReader(head), buffered), err
		if errors.Is(err, errLoose) {
			io.WriteString(c.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}
	})
	if c.err != nil {
		return 0, c.err
	}
	return c.in.Read(p)
}

// readHead reads up to the empty line, 16 KiB at most.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	lengths := 0
	for len(head) < 16<<10 {
		line, err := r.ReadSlice('\n')
		head = append(head, line...)
		if err != nil {
			return head, err
		}
		text := string(line)
		name, _, _ := strings.Cut(strings.ToLower(text), ":")
		if name == "content-length" || name == "transfer-encoding" {
			lengths++
		}
		if !strings.HasSuffix(text, "\r\n") || text[0] == ' ' || text[0] == '\t' || lengths > 1 {
			return head, errLoose
		}
		if text == "\r\n" {
			return head, nil
		}
	}
	return head, errLoose
}
