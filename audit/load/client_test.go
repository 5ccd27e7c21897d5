package load

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ask sends one GET with a Client of this configuration.
func ask(t *testing.T, c ClientConfig, url string) Answer {
	t.Helper()
	client := NewClient(c)
	defer client.Close()
	return client.Send(t.Context(), newRequest(t, url))
}

func newRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func httpServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// listen starts a server of connections, one after the other, and stops it.
func listen(t *testing.T, each func(net.Conn)) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			each(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return "http://" + listener.Addr().String()
}

func TestClientFollowsNoRedirect(t *testing.T) {
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			t.Errorf("it went on to %s", r.URL.Path)
		}
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	})
	if a := ask(t, ClientConfig{}, url); a.Status != http.StatusFound || a.Err != nil {
		t.Errorf("%d, %v; want 302", a.Status, a.Err)
	}
}

func TestClientAsksForNoCompression(t *testing.T) {
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" || r.ProtoMajor != 1 {
			t.Errorf("Accept-Encoding %q by %s", got, r.Proto)
		}
	})
	if a := ask(t, ClientConfig{}, url); a.Status != 200 {
		t.Errorf("%d, %v; want 200", a.Status, a.Err)
	}
}

func TestClientReadsNoMoreThanItMay(t *testing.T) {
	cut := make(chan struct{})
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(cut)
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return // it would go on for ever
			}
		}
	})
	a := ask(t, ClientConfig{MaxBody: 1 << 20}, url)
	if a.Bytes != 1<<20 || a.Status != 200 || a.Err != nil {
		t.Errorf("%d bytes of %d, %v; want 1 MiB of 200", a.Bytes, a.Status, a.Err)
	}
	<-cut
}

func TestClientTimesOutInTheBodyToo(t *testing.T) {
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("begun"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	a := ask(t, ClientConfig{Timeout: 300 * time.Millisecond}, url)
	if KindOf(a.Err) != Timeout || a.Bytes != 5 || a.End.Sub(a.Start) < 300*time.Millisecond {
		t.Errorf("%v with %d bytes after %v, want a timeout with 5 after 300ms", a.Err, a.Bytes, a.End.Sub(a.Start))
	}
}

func TestClientTellsTheFirstByteFromTheLast(t *testing.T) {
	const pause = 300 * time.Millisecond
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-time.After(pause)
		_, _ = w.Write([]byte("at last"))
	})
	a := ask(t, ClientConfig{}, url)
	if a.Start.After(a.FirstByte) || a.End.Sub(a.FirstByte) < pause/2 {
		t.Errorf("the first byte came after %v, the last after %v", a.FirstByte.Sub(a.Start), a.End.Sub(a.Start))
	}
}

func TestClientKeepsItsConnections(t *testing.T) {
	var dialled atomic.Int64
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := NewClient(ClientConfig{Dial: dial})
	defer client.Close()
	request := newRequest(t, httpServer(t, ok))
	r, err := Burst{Requests: 640, Connections: 16}.Run(t.Context(), client.Repeat(request).Arm)
	if err != nil {
		t.Fatal(err)
	}
	// More than 16, since the transport dials when a connection is not back yet.
	if n := dialled.Load(); n > 160 || r.Answered != 640 {
		t.Errorf("%d connections for 640 requests of 16 at a time, %d answered", n, r.Answered)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + listener.Addr().String()
	_ = listener.Close()
	for _, c := range []struct {
		name string
		url  func() string
		want Kind
	}{
		{"a server that closes after the request", func() string {
			return listen(t, func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
		}, Reset},
		{"one that resets", func() string {
			return listen(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_ = c.(*net.TCPConn).SetLinger(0)
			})
		}, Reset},
		{"one that closes within the body", func() string {
			return listen(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
			})
		}, Reset},
		{"one that talks nonsense", func() string {
			return listen(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "+OK POP3 ready\r\n\r\n")
			})
		}, Other},
		{"nobody", func() string { return nobody }, Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := ask(t, ClientConfig{Timeout: 5 * time.Second}, c.url()); KindOf(a.Err) != c.want {
				t.Errorf("%q of %v, want %q", KindOf(a.Err), a.Err, c.want)
			}
		})
	}
}

func TestKindOfWhatHasNoName(t *testing.T) {
	for err, want := range map[error]Kind{
		nil:              None,
		context.Canceled: Cancelled,
		errors.New("http: server closed idle connection"): Reset,
		errors.New("what else"):                           Other,
	} {
		if got := KindOf(err); got != want {
			t.Errorf("KindOf(%v) = %q, want %q", err, got, want)
		}
	}
}

// A server that closes a kept connection when it gets a second request, as one does that is being
// stopped without a drain. The transport sends again, and a count of statuses alone would hide it.
func TestResentRequestsAreCounted(t *testing.T) {
	url := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for n := range 2 {
			if _, err := http.ReadRequest(in); err != nil || n == 1 {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	client := NewClient(ClientConfig{})
	defer client.Close()
	if a := client.Send(t.Context(), newRequest(t, url)); a.Status != 200 || a.Resent {
		t.Fatalf("%d, resent %v, %v", a.Status, a.Resent, a.Err)
	}
	if a := client.Send(t.Context(), newRequest(t, url)); a.Status != 200 || !a.Resent {
		t.Errorf("%d, resent %v, %v; want 200 by a second connection", a.Status, a.Resent, a.Err)
	}
}

func TestClientGoesThroughNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	var dialled string
	dial := func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = address
		return nil, errors.New("no need")
	}
	a := ask(t, ClientConfig{Dial: dial}, "http://api.example:80/")
	if dialled != "api.example:80" || !strings.Contains(a.Err.Error(), "no need") {
		t.Errorf("dialled %q, %v", dialled, a.Err)
	}
}

func TestLookSeesTheStartOfAnAnswer(t *testing.T) {
	url := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "FATAL: too many connections"+strings.Repeat(".", 10_000))
	})
	var status int
	var seen string
	look := func(r *http.Response, start []byte) { status, seen = r.StatusCode, string(start) }
	a := ask(t, ClientConfig{Look: look}, url)
	if a.Bytes != 10_027 || a.Err != nil {
		t.Errorf("%d bytes, %v; want 10027", a.Bytes, a.Err)
	}
	if status != 500 || len(seen) != 2<<10 || !strings.HasPrefix(seen, "FATAL: too many") {
		t.Errorf("%d with %d bytes, %.30q", status, len(seen), seen)
	}
}
