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
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// forgetful is an upstream that serves one request on each connection, promises to keep it, and
// drops it when the next one comes.
type forgetful struct {
	net.Listener
	got     atomic.Int64
	dropped atomic.Int64
	hold    atomic.Pointer[sync.WaitGroup] // the first answers wait for each other
}

func newForgetful(t *testing.T) *forgetful {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f
}

func (f *forgetful) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	f.got.Add(1)
	if all := f.hold.Load(); all != nil {
		all.Done()
		all.Wait()
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if _, err := http.ReadRequest(in); err == nil {
		f.got.Add(1)
		f.dropped.Add(1)
	}
}

// keep makes the proxy hold n connections to f.
func (f *forgetful) keep(t *testing.T, s *httptest.Server, n int) {
	t.Helper()
	all := new(sync.WaitGroup)
	all.Add(n)
	f.hold.Store(all)
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() { status(t, s, http.MethodGet, "", nil) })
	}
	clients.Wait()
	f.hold.Store(nil)
	f.got.Store(0)
}

func status(t *testing.T, s *httptest.Server, method, body string, h http.Header) int {
	t.Helper()
	req, err := http.NewRequest(method, s.URL, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	if h != nil {
		req.Header = h
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func TestDeadConnectionsCostOneRepetition(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		up := newForgetful(t)
		s := front(t, "http://"+up.Addr().String(), Config{})
		up.keep(t, s, 5)
		if got := status(t, s, method, "", nil); got != 200 || up.got.Load() != 2 {
			t.Errorf("%s = %d after %d sendings, want 200 after 2", method, got, up.got.Load())
		}
	}
}

func TestOthersAreNotRepeated(t *testing.T) {
	key := http.Header{"Idempotency-Key": {"k"}, "X-Idempotency-Key": {"k"}}
	for _, tt := range []struct{ method, body string }{{"POST", ""}, {"POST", "x"}, {"PATCH", "x"}, {"PUT", ""}, {"DELETE", ""}, {"GET", "x"}} {
		up := newForgetful(t)
		s := front(t, "http://"+up.Addr().String(), Config{})
		up.keep(t, s, 3)
		if got := status(t, s, tt.method, tt.body, key.Clone()); got != 502 || up.got.Load() != 1 {
			t.Errorf("%s %q = %d after %d sendings, want 502 after 1", tt.method, tt.body, got, up.got.Load())
		}
	}
}

func TestIdempotentMethodsAreRepeatedOnDemand(t *testing.T) {
	for method, want := range map[string]int{"PUT": 200, "DELETE": 200, "POST": 502} {
		up := newForgetful(t)
		s := front(t, "http://"+up.Addr().String(), Config{RetryIdempotent: true})
		up.keep(t, s, 3)
		if got := status(t, s, method, "", nil); got != want {
			t.Errorf("%s = %d, want %d", method, got, want)
		}
	}
}

func TestRepetitionHasABudget(t *testing.T) {
	const requests = 300
	var sent, retried atomic.Int64
	up := newForgetful(t)
	s := front(t, "http://"+up.Addr().String(), Config{Seen: func(_ *http.Request, o Outcome) {
		if o.Reason != ReasonBreaker {
			sent.Add(1)
		}
		if o.Retried {
			retried.Add(1)
		}
	}})
	for range requests {
		status(t, s, "GET", "", nil)
	}
	if n := retried.Load(); n < 10 || n > 10+sent.Load()/10 {
		t.Errorf("%d of %d were repeated, want 10 and a tenth at most", n, sent.Load())
	}
	if up.dropped.Load() <= retried.Load() {
		t.Error("the budget was never at its end, so nothing was tested")
	}
}

func TestBudgetIsATenthAndTen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget()
		earned, spent := 0, 0
		for _, retry := range rapid.SliceOf(rapid.Bool()).Draw(t, "requests") {
			b.earn()
			earned++
			if retry && b.spend() {
				spent++
			}
			if spent > 10+earned/10 {
				t.Fatalf("%d spent of %d", spent, earned)
			}
		}
		if earned-spent >= 10 && spent < 10 && !b.spend() {
			t.Fatal("nothing left of the first ten")
		}
	})
}

func TestRequestsWithoutABodyHaveNoneOnTheWire(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"} {
		target, wire := recorder(t)
		if got := status(t, front(t, target, Config{}), method, "", http.Header{"Expect": nil}); got != 200 {
			t.Errorf("%s = %d", method, got)
		}
		text := strings.ToLower(<-wire)
		withLength := method == "POST" || method == "PUT" || method == "PATCH"
		if strings.Contains(text, "content-length: 0") != withLength || strings.Contains(text, "transfer-encoding") || !strings.HasSuffix(text, "\r\n\r\n") {
			t.Errorf("%s went out as %q", method, text)
		}
	}
}

// recorder is an upstream that shows the first bytes it gets, up to the end of the headers and what
// came with them.
func recorder(t *testing.T) (string, <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	wire := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var text []byte
		for buf := make([]byte, 4096); !strings.Contains(string(text), "\r\n\r\n"); {
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			text = append(text, buf[:n]...)
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = c.(*net.TCPConn).CloseWrite()
		rest, _ := io.ReadAll(c)
		wire <- string(text) + string(rest)
	}()
	return "http://" + l.Addr().String(), wire
}
