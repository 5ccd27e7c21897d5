package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// outcomes collects what Seen hears.
type outcomes struct {
	mu   sync.Mutex
	list []Outcome
}

func (o *outcomes) add(_ *http.Request, one Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, one)
}

func (o *outcomes) count(reason Reason) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, one := range o.list {
		if one.Reason == reason {
			n++
		}
	}
	return n
}

func TestTruncatedAnswersOpenTheBreaker(t *testing.T) {
	for name, answer := range map[string]string{
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
		"last chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"bad framing": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfxx\r\nzz",
	} {
		var seen outcomes
		s := front(t, raw(t, answer), Config{Seen: seen.add})
		for range breakerTrip {
			res, err := http.Get(s.URL)
			if err != nil {
				continue // it broke off before the headers were out
			}
			if text, err := io.ReadAll(res.Body); err == nil {
				t.Fatalf("%s: the client took %d %q for a whole answer", name, res.StatusCode, text)
			}
			res.Body.Close()
		}
		if got := status(t, s, "GET", "", nil); got != 503 || seen.count(ReasonTruncated) != breakerTrip {
			t.Errorf("%s: after %d broken answers %d, and Seen heard of %d", name, breakerTrip, got, seen.count(ReasonTruncated))
		}
	}
}

func TestClientsThatLeaveDoNotOpenTheBreaker(t *testing.T) {
	var seen outcomes
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/whole" {
			return
		}
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, strings.Repeat("x", 32<<10))
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer up.Close()
	s := front(t, up.URL, Config{Seen: seen.add})
	for range 2 * breakerTrip {
		res, err := http.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(res.Body, make([]byte, 100))
		res.Body.Close()
	}
	if got := status(t, s, "GET", "", nil); got != 200 || seen.count(ReasonTruncated) != 0 {
		t.Errorf("then = %d; %d truncated", got, seen.count(ReasonTruncated))
	}
}

func TestHeadersThatNetHTTPWillNotSendDoNotOpenTheBreaker(t *testing.T) {
	got := make(chan *http.Request, 1)
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r
	}))
	defer up.Close()
	s := front(t, up.URL, Config{})
	for name, request := range map[string]string{
		"upgrade": "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: \xff\r\n\r\n",
		"two":     "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
		"list":    "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket, h2c\r\n\r\n",
		"trailer": "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: a b, Cookie\xff\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"expect":  "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n",
	} {
		if text := talk(t, s, request); !strings.HasPrefix(text, "HTTP/1.1 200 ") {
			t.Errorf("%s = %.100q, want 200", name, text)
			continue
		}
		if r := <-got; r.Header.Get("Upgrade") != "" || r.Header.Get("Expect") != "" || len(r.Trailer) != 0 {
			t.Errorf("%s: the upstream got %v, trailers %v", name, r.Header, r.Trailer)
		}
	}
}

func TestTrailersPassWhenAnnouncedAndAllowed(t *testing.T) {
	got := make(chan http.Header, 1)
	up := scripted(t, func(c net.Conn, _ *bufio.Reader, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nTrailer: X-Sum, Set-Cookie, Alt-Svc\r\nTransfer-Encoding: chunked\r\n\r\n"+
			"2\r\nhi\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\nX-Silent: 1\r\n\r\n")
	})
	s := front(t, up, Config{})
	text := talk(t, s, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: X-Sum, Authorization\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"2\r\nhi\r\n0\r\nX-Sum: 2\r\nAuthorization: evil\r\nX-Silent: 1\r\n\r\n")
	if h := <-got; len(h) != 1 || h.Get("X-Sum") != "2" {
		t.Errorf("the upstream got trailers %v", h)
	}
	if !strings.HasSuffix(text, "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n") {
		t.Errorf("the client got %q", text)
	}
}

func TestNothingLeadsRoundTheDoor(t *testing.T) {
	s := front(t, raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAlt-Svc: h3=\"evil:443\"\r\nAlternate-Protocol: 443:quic\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"+
		"Proxy-Status: inner; error=x\r\nServer: inner\r\n\r\n"), Config{})
	res, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, name := range []string{"Alt-Svc", "Alternate-Protocol", "Upgrade"} {
		if got := res.Header.Get(name); got != "" {
			t.Errorf("%s: %q came through", name, got)
		}
	}
	if res.Header.Get("Proxy-Status") == "" || res.Header.Get("Server") != "inner" {
		t.Errorf("headers = %v", res.Header)
	}
}

func TestUpgradesAreRelayedWithHalfClose(t *testing.T) {
	up := scripted(t, func(c net.Conn, in *bufio.Reader, r *http.Request) {
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if r.URL.Path == "/first" {
			fmt.Fprint(c, "server is done")
			_ = c.(*net.TCPConn).CloseWrite()
			text, _ := io.ReadAll(in)
			if string(text) != "client went on" {
				t.Errorf("after its own half-close the upstream got %q", text)
			}
			return
		}
		text, _ := io.ReadAll(in)
		fmt.Fprintf(c, "got %s", text)
	})
	s := front(t, up, Config{})
	for _, path := range []string{"/first", "/last"} {
		c, in := upgrade(t, s, path)
		if path == "/first" {
			if text, _ := io.ReadAll(in); string(text) != "server is done" {
				t.Errorf("the client got %q", text)
			}
		}
		fmt.Fprint(c, "client went on")
		_ = c.(*net.TCPConn).CloseWrite()
		if text, _ := io.ReadAll(in); path == "/last" && string(text) != "got client went on" {
			t.Errorf("after its half-close the client got %q", text)
		}
	}
}

func upgrade(t *testing.T, s *httptest.Server, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", path)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("upgrade = %v, %v", res, err)
	}
	return c, in
}
