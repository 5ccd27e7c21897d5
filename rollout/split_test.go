package rollout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// splitAt serves both versions at a weight of 100 %, so that the candidate has everybody, and stable what
// is kept from them.
func splitAt(t *testing.T, candidate http.HandlerFunc) (*Splitter, *httptest.Server) {
	t.Helper()
	s := new(Splitter)
	l := launchAt(t, "split", 2)
	l.Plan.SlowAfter = 300 * time.Millisecond
	s.Set(l)
	stable := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "stable") })
	server := httptest.NewServer(Split(stable, candidate, s, func(r *http.Request) string { return r.Header.Get("X-User") }))
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	return s, server
}

// tallies is what a splitter has counted, as "requests failed slow" of both versions.
func tallies(s *Splitter) string {
	o := s.Observe()
	one := func(c Side) string {
		return fmt.Sprint(c.Requests, c.Failed.Sum(), c.Slow.Sum())
	}
	return "stable " + one(o.Stable) + ", candidate " + one(o.Candidate)
}

func TestSplitCountsEachAnswerOnceOnItsVersion(t *testing.T) {
	write := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, "candidate")
		}
	}
	for _, tt := range []struct {
		name, method string
		candidate    http.HandlerFunc
		want         string // status, version and body
		counts       string
	}{
		{"nothing written", "GET", func(http.ResponseWriter, *http.Request) {}, "200 candidate ", "stable 0 0 0, candidate 1 0 0"},
		{"200", "GET", write(200), "200 candidate candidate", "stable 0 0 0, candidate 1 0 0"},
		{"404", "GET", write(404), "404 candidate candidate", "stable 0 0 0, candidate 1 0 0"},
		{"500", "GET", write(500), "500 candidate candidate", "stable 0 0 0, candidate 1 1 0"},
		{"503 to GET", "GET", write(503), "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"503 to HEAD", "HEAD", write(503), "200 stable ", "stable 1 0 0, candidate 1 1 0"},
		{"503 to POST", "POST", write(503), "503 candidate candidate", "stable 0 0 0, candidate 1 1 0"},
		{"503 that was flushed", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Leaves", "no trace")
			w.WriteHeader(503)
			w.(http.Flusher).Flush()
		}, "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"503 after early hints", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(503)
		}, "503 candidate ", "stable 0 0 0, candidate 1 1 0"},
		{"slow", "GET", func(w http.ResponseWriter, r *http.Request) {
			<-time.After(400 * time.Millisecond)
			fmt.Fprint(w, "late")
		}, "200 candidate late", "stable 0 0 0, candidate 1 0 1"},
		{"slow after the first byte", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-time.After(400 * time.Millisecond)
			fmt.Fprint(w, "late")
		}, "200 candidate late", "stable 0 0 0, candidate 1 0 0"},
		{"panic", "GET", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", "stable 0 0 0, candidate 1 1 0"},
		{"panic in the answer", "GET", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "unexpected EOF", "stable 0 0 0, candidate 1 1 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, server := splitAt(t, tt.candidate)
			if got := exchange(t, server, tt.method); got != tt.want {
				t.Errorf("the client got %q, want %q", got, tt.want)
			}
			server.Close() // waits for the handler
			if got := tallies(s); got != tt.counts {
				t.Errorf("counted %s, want %s", got, tt.counts)
			}
		})
	}
}

// exchange is status, version and body of an answer, or the error.
func exchange(t *testing.T, server *httptest.Server, method string) string {
	t.Helper()
	req, err := http.NewRequest(method, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(req)
	if err == nil {
		defer res.Body.Close()
		var body []byte
		if body, err = io.ReadAll(res.Body); err == nil {
			if res.Header.Get("X-Leaves") != "" {
				t.Error("a header of the hidden answer came through")
			}
			return fmt.Sprint(res.StatusCode, " ", strings.Join(res.Header[VersionHeader], "+"), " ", string(body))
		}
	}
	causes := strings.Split(err.Error(), ": ")
	return causes[len(causes)-1]
}

func TestSplitDoesNotCountClientsThatLeave(t *testing.T) {
	left := make(chan struct{})
	s, server := splitAt(t, func(w http.ResponseWriter, r *http.Request) {
		close(left)
		<-r.Context().Done()
		w.WriteHeader(502)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-left; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "POST", server.URL, nil)
	if _, err := server.Client().Do(req); err == nil {
		t.Fatal("an answer came")
	}
	server.Close()
	if got := tallies(s); got != "stable 0 0 0, candidate 0 0 0" {
		t.Errorf("counted %s", got)
	}
}

func TestSplitCountsHijackedConnectionsWhenTheyBegin(t *testing.T) {
	s, server := splitAt(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		fmt.Fprint(conn, line)
	})
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	if got := tallies(s); got != "stable 0 0 0, candidate 1 0 0" {
		t.Errorf("counted %s while it is open", got)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Errorf("echo = %q, %v", line, err)
	}
}

func TestSplitGoesByTheCaller(t *testing.T) {
	s, server := splitAt(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "candidate") })
	s.Trip("so that all go to stable")
	if got := exchange(t, server, "GET"); got != "200 stable stable" {
		t.Errorf("after a trip %q", got)
	}
	half := launchAt(t, "half", 1)
	half.StartedAt = began.Add(time.Hour)
	s.Set(half)
	for _, u := range append(users(50), "") {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-User", u)
		server.Config.Handler.ServeHTTP(w, r)
		want := s.Choose(u).Version
		if u == "" {
			want = s.ChooseAddr(netip.MustParseAddrPort(r.RemoteAddr).Addr()).Version
		}
		if got := w.Body.String(); got != want.String() || w.Header().Get(VersionHeader) != got {
			t.Errorf("%q is on %s, want %v", u, got, want)
		}
	}
}

func TestSplitWithoutALaunchIsStable(t *testing.T) {
	w := httptest.NewRecorder()
	Split(http.NotFoundHandler(), nil, new(Splitter), nil).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 404 || w.Header()[VersionHeader] != nil {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}
