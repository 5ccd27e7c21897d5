package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/gantryhq/gantry/internal/testenv"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startTLS is start with a certificate; the client speaks HTTP/2 with it.
func startTLS(t *testing.T, env ...string) *door {
	t.Helper()
	cert, key, pool := testenv.Certificate(t, t.TempDir(), time.Now().Add(time.Hour))
	d := newDoor(t, append([]string{"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key}, env...)...)
	d.transport = &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
	d.client = &http.Client{Transport: d.transport, Timeout: 30 * time.Second}
	d.shareKey()
	d.run()
	return d
}

func (d *door) host() string {
	return strings.TrimPrefix(strings.TrimPrefix(d.url, "https://"), "http://")
}

func TestTLSEndToEnd(t *testing.T) {
	seen := make(chan *http.Request, 1)
	d := startTLS(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- r })))
	res, text := d.do("GET", "/x", d.token("user_1"), nil)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("answer = %d %s", res.StatusCode, text)
	}
	if res.ProtoMajor != 2 || res.TLS.Version != tls.VersionTLS13 {
		t.Errorf("negotiated HTTP/%d over %s", res.ProtoMajor, tls.VersionName(res.TLS.Version))
	}
	if res.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("no HSTS in %v", res.Header)
	}
	if r := <-seen; r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-Host") != d.host() || r.ProtoMajor != 1 {
		t.Errorf("the upstream got %s %v", r.Proto, r.Header)
	}
}

func TestTLSBefore12IsRefused(t *testing.T) {
	d := startTLS(t)
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := d.transport.TLSClientConfig.Clone()
		config.MinVersion, config.MaxVersion = version, version
		conn, err := tls.Dial("tcp", d.host(), config)
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestPlainHTTPOnTheTLSPortReachesNothing(t *testing.T) {
	d := startTLS(t, upstream(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the upstream was reached") })))
	res, err := http.Get("http://" + d.host() + "/x")
	if err != nil {
		return
	}
	res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("plain HTTP = %d, want 400", res.StatusCode)
	}
}

func TestWebSocketOverTLS(t *testing.T) {
	d := startTLS(t, upstream(t, http.HandlerFunc(echo)))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	plain := d.transport.Clone()
	plain.ForceAttemptHTTP2, plain.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	plain.TLSClientConfig.NextProtos = []string{"http/1.1"}
	defer plain.CloseIdleConnections()
	c, _, err := websocket.Dial(ctx, d.url+"/echo", &websocket.DialOptions{HTTPHeader: d.token("user_1"), HTTPClient: &http.Client{Transport: plain}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte("over TLS")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "over TLS" {
		t.Errorf("echo = %q, %v", got, err)
	}
}

// echo is a WebSocket that sends back what it gets.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, text) != nil {
			return
		}
	}
}

func TestBadCertificatesAreNamed(t *testing.T) {
	cert, key, _ := testenv.Certificate(t, t.TempDir(), time.Now().Add(time.Hour))
	_, otherKey, _ := testenv.Certificate(t, t.TempDir(), time.Now().Add(time.Hour))
	junk := filepath.Join(t.TempDir(), "junk.pem")
	write(t, junk, "not PEM, and a secret: kQ8Zr2vXnT5y")
	for name, tt := range map[string]struct{ cert, key, want string }{
		"missing certificate": {"/nowhere/cert.pem", key, "TLS_CERT_FILE"},
		"missing key":         {cert, "/nowhere/key.pem", "TLS_KEY_FILE"},
		"no certificate":      {junk, key, "TLS_CERT_FILE"},
		"no key":              {cert, junk, "TLS_KEY_FILE"},
		"another's key":       {cert, otherKey, "TLS_KEY_FILE"},
		"swapped":             {key, cert, "TLS_CERT_FILE"},
		"folder":              {cert, t.TempDir(), "TLS_KEY_FILE"},
	} {
		for _, verb := range []string{"check", "serve"} {
			text, code := command(t, t.TempDir(), []string{"TLS_CERT_FILE=" + tt.cert, "TLS_KEY_FILE=" + tt.key}, verb)
			if code != 78 || !strings.Contains(text, "  "+tt.want+"  ") || strings.Contains(text, "kQ8Zr2v") || strings.Contains(text, "/nowhere") {
				t.Errorf("%s, %s: exit %d:\n%s", name, verb, code, text)
			}
		}
	}
	old, oldKey, _ := testenv.Certificate(t, t.TempDir(), time.Now().Add(-time.Hour))
	text, code := command(t, t.TempDir(), []string{"TLS_CERT_FILE=" + old, "TLS_KEY_FILE=" + oldKey}, "check")
	if code != 0 || !strings.Contains(text, "out of date") {
		t.Errorf("out of date: exit %d:\n%s", code, text)
	}
}

func TestRefusedClientsDoNotHoldTheirConnection(t *testing.T) {
	t.Parallel()
	d := start(t)
	for name, expect := range map[string]string{"waits": "Expect: 100-continue\r\n", "stalls": ""} {
		c, err := net.Dial("tcp", d.host())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		fmt.Fprintf(c, "POST /v1/users/me/ HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: 10\r\n\r\n", expect)
		text, err := readAll(c)
		if err != nil || !strings.HasPrefix(text, "HTTP/1.1 401 ") || strings.Contains(text, " 100 ") {
			t.Errorf("%s: %v after %.100q", name, err, text)
		}
	}
}

func readAll(c net.Conn) (string, error) {
	text, err := io.ReadAll(c)
	return string(text), err
}

func TestDrainEndsWebSockets(t *testing.T) {
	d := start(t, "DRAIN_DELAY=10ms", "DRAIN_TIMEOUT=20s", upstream(t, http.HandlerFunc(echo)))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, d.url+"/echo", &websocket.DialOptions{HTTPHeader: d.token("user_1")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	started := time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the connection went on: %v", err)
	}
	err = <-d.exited
	d.exited <- nil
	if err != nil || time.Since(started) > 10*time.Second {
		t.Errorf("exit %v after %v", err, time.Since(started))
	}
}
