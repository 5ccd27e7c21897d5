package guard

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bothWays runs a test with handlers that run on a goroutine of their own, and with cooperative ones.
func bothWays(t *testing.T, test func(t *testing.T)) {
	t.Run("abandoned", test)
	t.Run(cooperative, test)
}

// isCooperative says which of the two a test is.
func isCooperative(t testing.TB) bool { return strings.Contains(t.Name()+"/", "/"+cooperative+"/") }

const cooperative = "cooperative"

// pipeline is the guard alone, in front of h, with a short deadline.
func pipeline(t testing.TB, timeout time.Duration, h http.Handler, routes ...Route) (http.Handler, *Deadlines) {
	rs, err := NewRoutes(routes)
	if err != nil {
		panic(err)
	}
	d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t), Timeout: timeout, StreamIdle: 300 * time.Millisecond, MaxAbandoned: 3})
	t.Cleanup(d.Close)
	return Pipeline{
		Trace:    Trace(TraceConfig{}),
		Recover:  Recover(nil),
		Shape:    Shape(ShapeConfig{Routes: rs, MaxBody: 1 << 20}),
		Deadline: d.Middleware,
	}.Then(h), d
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	return res, string(text)
}

func TestHandlerThatIgnoresItsContextStillYields504(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		release := make(chan struct{})
		late := make(chan error, 1)
		h, d := pipeline(t, 50*time.Millisecond, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Half", "done")
			<-release
			_, err := w.Write([]byte("too late"))
			late <- err
		}))
		res, text := get(t, serve(t, h).URL)
		if res.StatusCode != 504 || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("answer = %d %s, want 504 problem+json", res.StatusCode, res.Header.Get("Content-Type"))
		}
		if res.Header.Get("X-Half") != "" || !strings.Contains(text, `"status":504`) || res.Close {
			t.Errorf("a clean 504 on a reusable connection, got %v %q", res.Header, text)
		}
		if d.Abandoned() != 1 {
			t.Errorf("abandoned = %d, want 1", d.Abandoned())
		}
		close(release)
		if err := <-late; !errors.Is(err, http.ErrHandlerTimeout) {
			t.Errorf("late write = %v, want ErrHandlerTimeout", err)
		}
		eventually(t, func() bool { return d.Abandoned() == 0 })
	})
}

func TestHandlerThatOnlySetsHeadersIsHeard(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Said", "this")
		}))
		if res, _ := get(t, serve(t, h).URL); res.StatusCode != 200 || res.Header.Get("X-Said") != "this" || res.ContentLength != 0 {
			t.Errorf("answer = %d %v", res.StatusCode, res.Header)
		}
	})
}

func TestContextEndsWithTheRequest(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		kept := make(chan context.Context, 2)
		h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { kept <- r.Context() }))
		for _, wait := range []bool{false, true} {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://localhost/", nil))
			ctx := <-kept
			if wait {
				<-ctx.Done()
			}
			child, cancel := context.WithCancel(ctx)
			if ctx.Err() != context.Canceled || child.Err() != context.Canceled || context.Cause(child) != context.Canceled {
				t.Errorf("after the request: %v, its child %v", ctx.Err(), child.Err())
			}
			cancel()
		}
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
	}
}

func TestDeadlineIsInTheContext(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		seen := make(chan error, 2)
		h, _ := pipeline(t, 30*time.Millisecond, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left, ok := Remaining(r.Context()); !ok || left > 30*time.Millisecond {
				seen <- fmt.Errorf("remaining = %v, %v", left, ok)
			}
			child, cancel := context.WithTimeout(r.Context(), time.Hour)
			defer cancel()
			<-child.Done()
			seen <- r.Context().Err()
		}))
		if res, _ := get(t, serve(t, h).URL); res.StatusCode != 504 {
			t.Errorf("status = %d, want 504", res.StatusCode)
		}
		if err := <-seen; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context error = %v, want DeadlineExceeded", err)
		}
	})
}

func TestTooManyAbandonedHandlersAreRefusedAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		release := make(chan struct{})
		h, d := pipeline(t, 20*time.Millisecond, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		s := serve(t, h)
		for range 3 {
			get(t, s.URL)
		}
		if res, _ := get(t, s.URL); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("status = %d, want 503 with Retry-After", res.StatusCode)
		}
		close(release)
		eventually(t, func() bool { return d.Abandoned() == 0 })
	})
}

func TestTimeoutAfterTheAnswerBeganTruncatesIt(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := pipeline(t, 50*time.Millisecond, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "half of ")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		res, err := http.Get(serve(t, h).URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the client took a truncated answer for a whole one")
		}
	})
}

func TestEventStreamOutlivesTheDeadlineAndEndsWhenIdle(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := pipeline(t, 50*time.Millisecond, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 4 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(40 * time.Millisecond) // the source's own pace
			}
			<-r.Context().Done()
		}))
		res, err := http.Get(serve(t, h).URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if strings.Count(string(text), "data:") != 4 || err == nil {
			t.Errorf("stream = %q, %v; want four events, then a cut", text, err)
		}
	})
}

func TestDrainCutsStreams(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		started := make(chan struct{})
		h, d := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			close(started)
			_, _ = conn.Read(make([]byte, 1))
		}))
		conn := dial(t, serve(t, h))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		<-started
		d.CutStreams()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the hijacked connection is still open")
		}
	})
}

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestPanicBecomes500WithoutItsText(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		var log strings.Builder
		d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t)})
		t.Cleanup(d.Close)
		h := Pipeline{
			Recover: Recover(slog.New(slog.NewTextHandler(&log, nil))), Shape: Shape(ShapeConfig{}), Deadline: d.Middleware,
		}.Then(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the secret is 42") }))
		res, text := get(t, serve(t, h).URL)
		if res.StatusCode != 500 || strings.Contains(text, "42") {
			t.Errorf("answer = %d %q, want a plain 500", res.StatusCode, text)
		}
		if !strings.Contains(log.String(), "the secret is 42") || !strings.Contains(log.String(), "guard_test.go") {
			t.Errorf("the log lacks the panic and its stack: %s", log.String())
		}
	})
}

func TestSlowBodyIsAnswered408(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes the five seconds of grace")
		}
		h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			if !errors.Is(err, ErrSlowBody) {
				t.Errorf("read = %v, want ErrSlowBody", err)
			}
		}))
		conn := dial(t, serve(t, h))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
		status, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(status, "408") {
			t.Errorf("answer = %q, want 408", status)
		}
	})
}

func TestBodyLimits(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		read := make(chan int64, 1)
		h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			read <- n
		}))
		s := serve(t, h)
		for _, tt := range []struct {
			name   string
			body   io.Reader
			status int
		}{
			{"exactly the limit", strings.NewReader(strings.Repeat("x", 1<<20)), 200},
			{"announced too long", strings.NewReader(strings.Repeat("x", 1<<20+1)), 413},
			{"unannounced too long", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), strings.NewReader("x")), 413},
		} {
			res, err := http.Post(s.URL, "text/plain", tt.body)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			res.Body.Close()
			if res.StatusCode != tt.status {
				t.Errorf("%s: status = %d, want %d", tt.name, res.StatusCode, tt.status)
			}
			if tt.status == 200 {
				if n := <-read; n != 1<<20 {
					t.Errorf("%s: read %d", tt.name, n)
				}
			}
		}
	})
}

func TestLongURLIsAnswered414(t *testing.T) {
	h := Pipeline{Shape: Shape(ShapeConfig{MaxURL: 100})}.Then(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s := serve(t, h)
	for n, want := range map[int]int{100: 200, 101: 414} {
		res, text := get(t, s.URL+"/?"+strings.Repeat("a", n-len("/?")))
		if res.StatusCode != want {
			t.Errorf("%d bytes = %d, want %d", n, res.StatusCode, want)
		}
		if want == 414 && !strings.Contains(text, `"uri-too-long"`) {
			t.Errorf("the refusal says %s", text)
		}
	}
}

// A proxy in front that goes by Content-Length sees the request end elsewhere; what it sends next must not be read as
// a request of its own (RFC 9112 section 6.1).
func TestConnectionEndsAfterARequestOfDoubtfulLength(t *testing.T) {
	h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	s := serve(t, h)
	for name, tt := range map[string]struct {
		headers, body string
		closes        bool
	}{
		"both":             {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", true},
		"chunked":          {"Transfer-Encoding: chunked\r\n", "0\r\n\r\n", true},
		"a length":         {"Content-Length: 5\r\n", "hello", false},
		"without a body":   {"", "", false},
		"a length of zero": {"Content-Length: 0\r\n", "", false},
	} {
		conn := dial(t, s)
		_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: localhost\r\n"+tt.headers+"\r\n"+tt.body)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if res.StatusCode != 200 || res.Close != tt.closes {
			t.Errorf("%s: %d, closes = %v, want 200 and %v", name, res.StatusCode, res.Close, tt.closes)
		}
		conn.Close()
	}
}

func TestAnswersToCredentialsAreNoSharedCaches(t *testing.T) {
	h, _ := pipeline(t, time.Minute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own := r.URL.Query().Get("own"); own != "" {
			w.Header().Set("Cache-Control", own)
		}
	}))
	s := serve(t, h)
	for name, tt := range map[string]struct{ header, path, want string }{
		"with a token":               {"Authorization", "/", "private"},
		"with a cookie":              {"Cookie", "/", "private"},
		"a stranger's":               {"Accept", "/", ""},
		"the handler knows better":   {"Authorization", "/?own=no-store", "no-store"},
		"the handler means to share": {"Authorization", "/?own=public", "public"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(tt.header, "x=1")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := strings.Join(res.Header.Values("Cache-Control"), " and "); got != tt.want {
			t.Errorf("%s: Cache-Control %q, want %q", name, got, tt.want)
		}
	}
}

func TestTrustedCallerMayOnlyShortenTheDeadline(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"100": 100 * time.Millisecond, "0": time.Second, "-5": time.Second, "NaN": time.Second,
		"60000": time.Second, "99999999999999": time.Second, "": time.Second, "1e3": time.Second,
	} {
		if got := shorten(time.Second, true, http.Header{TimeoutHeader: {value}}); got != want {
			t.Errorf("%q = %v, want %v", value, got, want)
		}
	}
	if got := shorten(time.Second, false, http.Header{TimeoutHeader: {"100"}}); got != time.Second {
		t.Errorf("a stranger's deadline = %v, want %v", got, time.Second)
	}
}

func TestIdentityHeadersDoNotPass(t *testing.T) {
	h := Pipeline{Shape: Shape(ShapeConfig{})}.Then(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, ""), "evil") {
				t.Errorf("%s passed", name)
			}
		}
	}))
	conn := dial(t, serve(t, h))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nx-user-id: evil\r\nX_User_Id: evil\r\nX-USER-ID: evil\r\n"+
		"X-User_Id: evil\r\nx-auth-claims: evil\r\nX-Org-Id: evil\r\nX-Session-Id: evil\r\nX-Request-Timeout-Ms: evil\r\nX-Request-Id: evil\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("answer = %q", answer)
	}
}

func vectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../shared/vectors/" + name)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("the shared test vectors are absent: %v", err)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestClientAddressVectors(t *testing.T) {
	var file struct {
		Cases []struct {
			Name    string
			Peer    string
			Lines   []string `json:"xff_lines"`
			Trusted []string `json:"trusted_cidrs"`
			Prefix  int      `json:"v6_prefix"`
			Want    string   `json:"expect_key"`
		}
	}
	vectors(t, "gantry/client_ip_vectors.json", &file)
	for _, c := range file.Cases {
		var trusted []netip.Prefix
		for _, cidr := range c.Trusted {
			trusted = append(trusted, netip.MustParsePrefix(cidr))
		}
		addr, _ := ClientAddr(c.Peer, c.Lines, trusted)
		got := addr.String()
		if addr.Is6() {
			got = netip.PrefixFrom(addr, c.Prefix).Masked().String()
		}
		if got != c.Want {
			t.Errorf("%s: %s, want %s", c.Name, got, c.Want)
		}
	}
}

// hidden are the probes whose fault net/http's parser removes before any handler runs. They wait for
// an engine of our own.
var hidden = map[string]string{
	"dup CL same":   "net/http folds equal Content-Length lines",
	"bare LF lines": "net/http accepts a bare LF as a line end",
	"obs-fold":      "net/http unfolds continuation lines",
	"HTTP/1.0 TE":   "net/http drops Transfer-Encoding in HTTP/1.0",
}

func TestProxyProbes(t *testing.T) {
	var file struct {
		Cases []struct {
			Name     string
			Raw      string `json:"raw_base64"`
			Proposed string `json:"proposed_gantry"`
		}
	}
	vectors(t, "gantry/http1_proxy_probes.json", &file)
	h := Pipeline{Shape: Shape(ShapeConfig{AllowedHosts: []string{"a.example"}})}.Then(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for name := range r.Header {
			if strings.Contains(strings.ToLower(name), "user") {
				w.WriteHeader(http.StatusTeapot)
			}
		}
	}))
	s := serve(t, h)
	for _, c := range file.Cases {
		raw, err := base64.StdEncoding.DecodeString(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		conn := dial(t, s)
		_, _ = conn.Write(raw)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		status := strings.TrimPrefix(line, "HTTP/1.1 ")
		if why, ok := hidden[c.Name]; ok {
			t.Logf("open: %s: %s (answered %.3s)", c.Name, why, status)
			continue
		}
		if !acceptable(c.Proposed, status) {
			t.Errorf("%s: answered %q, want %s", c.Name, strings.TrimSpace(line), c.Proposed)
		}
	}
}

// acceptable reads the vector file's prose: it names the statuses, and "removed" or "forwarded" allow 200.
func acceptable(proposed, status string) bool {
	if len(status) < 3 {
		return false
	}
	ok200 := strings.Contains(proposed, "removed") || strings.Contains(proposed, "forwarded") || strings.Contains(proposed, "reaches upstream")
	return strings.Contains(proposed, status[:3]) || ok200 && status[:3] == "200"
}

func TestCanonicalPath(t *testing.T) {
	for _, tt := range []struct {
		raw, want string
		fault     pathFault
	}{
		{"/", "/", pathOK},
		{"/v1/users/me/", "/v1/users/me/", pathOK},
		{"/%61dmin", "/admin", pathOK},
		{"/caf%c3%a9", "/caf%C3%A9", pathOK},
		{"/a.b/..c", "/a.b/..c", pathOK},
		{"/a/../b", "", pathBad},
		{"/a/%2e%2E/b", "", pathBad},
		{"/a/..", "", pathBad},
		{"/./a", "", pathBad},
		{"/..;x=1/a", "", pathBad},
		{"/a%00b", "", pathBad},
		{"/a%0d%0a", "", pathBad},
		{"/a\\b", "", pathBad},
		{"/a%5cb", "", pathBad},
		{"/a%zz", "", pathBad},
		{"/a%2", "", pathBad},
		{"/%c0%af", "", pathBad},
		{"/a b", "", pathBad},
		{"a", "", pathBad},
		{"//a", "//a", pathLoose},
		{"/a//b", "/a//b", pathLoose},
		{"/a%2Fb", "/a%2Fb", pathLoose},
		{"/a;b=c", "/a;b=c", pathLoose},
	} {
		got, fault := canonicalPath(tt.raw)
		if fault != tt.fault || fault != pathBad && got != tt.want {
			t.Errorf("canonicalPath(%q) = %q, %d; want %q, %d", tt.raw, got, fault, tt.want, tt.fault)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/%2e%2e/b", "/%61", "//", "/%c0%af", "/a;b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		clean, fault := canonicalPath(raw)
		if fault == pathBad {
			return
		}
		if again, f2 := canonicalPath(clean); again != clean || f2 != fault {
			t.Errorf("%q became %q, then %q", raw, clean, again)
		}
		if strings.Contains(clean, "/../") || strings.HasSuffix(clean, "/..") || strings.ContainsAny(clean, "\\\x00\r\n ") {
			t.Errorf("%q passed as %q", raw, clean)
		}
	})
}

func FuzzClientAddr(f *testing.F) {
	f.Add("10.0.0.1:1", "1.2.3.4, 10.0.0.2")
	f.Add("[::1]:9", "[2001:db8::1]:443")
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	f.Fuzz(func(t *testing.T, peer, line string) {
		addr, ok := ClientAddr(peer, []string{line}, trusted)
		if addr.Zone() != "" || addr.Is4In6() {
			t.Errorf("%q %q gave %v", peer, line, addr)
		}
		if want, _ := ClientAddr(peer, nil, nil); !ok && addr != want {
			t.Errorf("an untrusted peer was believed: %v", addr)
		}
	})
}

func FuzzHostname(f *testing.F) {
	for _, s := range []string{"a.example", "a:80", "[::1]:8000", "a@b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		name, ok := hostname(host)
		if ok && (name != strings.ToLower(name) || strings.ContainsAny(name, "@/ \\?#\r\n")) {
			t.Errorf("hostname(%q) = %q", host, name)
		}
	})
}

func TestHosts(t *testing.T) {
	h := newHosts([]string{"api.example.com", ".example.org", "[::1]"})
	for host, want := range map[string]bool{
		"api.example.com": true, "API.example.com:443": true, "api.example.com.": true, "evil.example.com": false,
		"example.org": true, "a.b.example.org": true, "badexample.org": false, "[::1]:8000": true, "": false, "a b": false, "x:port": false,
	} {
		name, ok := hostname(host)
		if got := ok && h.allow(name); got != want {
			t.Errorf("%q allowed = %v, want %v", host, got, want)
		}
	}
}

func TestConflictingRoutesAreAnError(t *testing.T) {
	if _, err := NewRoutes([]Route{{Pattern: "/a/{x}/b"}, {Pattern: "/a/b/{y}"}}); err == nil {
		t.Error("conflicting patterns were accepted")
	}
	if _, err := NewRoutes([]Route{{Pattern: "no slash"}}); err == nil {
		t.Error("a malformed pattern was accepted")
	}
}

func BenchmarkPipeline(b *testing.B) {
	empty := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	h, _ := pipeline(b, 30*time.Second, empty)
	for name, h := range map[string]http.Handler{"bare": empty, "guarded": h} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v1/users/me/", nil)
			r.Host = "localhost"
			w := &nullWriter{h: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}

type nullWriter struct{ h http.Header }

func (n *nullWriter) Header() http.Header         { return n.h }
func (n *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (n *nullWriter) WriteHeader(int)             {}

func TestARouteForEverythingMayBeSpelledAnyWay(t *testing.T) {
	for _, pattern := range []string{"/", "/{rest...}", "GET /", "GET /{rest...}"} {
		routes, err := NewRoutes([]Route{{Pattern: pattern}, {Pattern: "POST /a"}})
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		for target, want := range map[string]int{"GET /b": 0, "POST /a": 1} {
			method, path, _ := strings.Cut(target, " ")
			if got := routes.Match(httptest.NewRequest(method, path, nil)).Index; got != want {
				t.Errorf("%q: route of %s = %d, want %d", pattern, target, got, want)
			}
		}
	}
}

func TestAPathOfOtherMethodsHasTheDefaultRoute(t *testing.T) {
	routes, err := NewRoutes([]Route{{Pattern: "GET /a"}, {Pattern: "/b/"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"POST /a", "GET /b", "GET /c"} {
		method, path, _ := strings.Cut(target, " ")
		if got := routes.Match(httptest.NewRequest(method, path, nil)).Index; got != -1 {
			t.Errorf("route of %s = %d, want the default's -1", target, got)
		}
	}
}
