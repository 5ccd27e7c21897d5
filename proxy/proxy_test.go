package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func front(t testing.TB, target string, cfg Config) *httptest.Server {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Upstream = u
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close(); p.Upstream().Close() })
	return s
}

// raw is an upstream that answers every connection with the same bytes and closes it.
func raw(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestBadUpstreamsAre502(t *testing.T) {
	for name, answer := range map[string]string{
		"status 042":    "HTTP/1.1 042 Odd\r\nContent-Length: 0\r\n\r\n",
		"status 999":    "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
		"garbage":       "nonsense\r\n\r\n",
		"nothing":       "",
		"unasked 101":   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"many fields":   "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 200) + "Content-Length: 0\r\n\r\n",
		"long field":    "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("b", 64<<10) + "\r\nContent-Length: 0\r\n\r\n",
		"two lengths":   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"bad length":    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"broken header": "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
	} {
		res, err := http.Get(front(t, raw(t, answer), Config{}).URL)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		res.Body.Close()
		if res.StatusCode != 502 || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s = %d, want 502 problem+json", name, res.StatusCode)
		}
	}
}

func TestTruncatedAnswerIsTruncatedForTheClient(t *testing.T) {
	res, err := http.Get(front(t, raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Config{}).URL)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("the client took half an answer for a whole one")
	}
}

func TestSlowHeadersAre504(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	var seen Outcome
	res, err := http.Get(front(t, s.URL, Config{HeaderTimeout: 50 * time.Millisecond, Seen: func(_ *http.Request, o Outcome) { seen = o }}).URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 504 || seen.Reason != ReasonHeaderTimeout {
		t.Errorf("answer = %d, reason %q", res.StatusCode, seen.Reason)
	}
}

func TestWhatReachesTheUpstream(t *testing.T) {
	got := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
	}))
	defer s.Close()
	f := front(t, s.URL, Config{Protected: []string{"X-User-Id"}, SetHeaders: func(_ *http.Request, out http.Header) { out.Set("X-User-Id", "user_1") }})
	c, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /a%2Fb?x=1;y=2&&z=%zz HTTP/1.1\r\nHost: client.example\r\nConnection: X-User-Id, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: abc\r\n"+
		"X-User-Id: evil\r\nX_User_Id: evil\r\nX.User.Id: evil\r\nX-Real-Ip: evil\r\nTrue-Client-Ip: evil\r\nX-Original-Url: evil\r\nX-Forwarded-Port: evil\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nIdempotency-Key: k\r\nTE: trailers, gzip\r\nContent-Length: 2\r\n\r\nhi")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.RequestURI != "/a%2Fb?x=1;y=2&&z=%zz" || r.Host != s.Listener.Addr().String() {
		t.Errorf("target = %s at %s", r.RequestURI, r.Host)
	}
	if fmt.Sprint(r.Header["X-User-Id"]) != "[user_1]" || strings.Contains(fmt.Sprint(r.Header), "evil") || strings.Contains(fmt.Sprint(r.Header), "6.6.6.6") {
		t.Errorf("headers = %v", r.Header)
	}
	if r.Header.Get("Upgrade") != "" || r.Header.Get("Http2-Settings") != "" || r.Header.Get("Idempotency-Key") != "k" || r.Header.Get("X-Forwarded-Host") != "client.example" {
		t.Errorf("headers = %v", r.Header)
	}
	if res.Header.Get("X-Hop") != "" {
		t.Error("a hop-by-hop header came back")
	}
}

func TestMalformedUploadsDoNotOpenTheBreaker(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer s.Close()
	f := front(t, s.URL, Config{})
	for range 20 {
		c, err := net.Dial("tcp", f.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		c.Close()
		if err != nil || res.StatusCode != 400 {
			t.Fatalf("a malformed body = %v, %v; want 400", res, err)
		}
	}
	res, err := http.Get(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("an innocent GET = %d, want 200", res.StatusCode)
	}
}

func TestLocalAddressesNeedTheirName(t *testing.T) {
	rule := addressRule{}
	for address, want := range map[string]bool{"127.0.0.1:80": false, "[::1]:80": false, "169.254.169.254:80": false, "[fe80::1]:80": false, "0.0.0.0:80": false, "10.0.0.1:80": true, "[::ffff:127.0.0.1]:80": false} {
		if got := rule.control("tcp", address, nil) == nil; got != want {
			t.Errorf("%s allowed = %v, want %v", address, got, want)
		}
	}
	if !namesLoopback("localhost") || !namesLoopback("127.0.0.1") || namesLoopback("evil.example") {
		t.Error("namesLoopback is wrong")
	}
}
