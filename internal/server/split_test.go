package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/rollout"
)

const (
	staffToken = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9"
	openRoutes = "routes:\n  - path: /\n    auth: optional\n  - path: /legacy/\n    auth: none\n    rollout: false\n  - path: /quick/\n    auth: none\n    timeout: 400ms\n"
)

// pair is a door with real connections in front of two versions.
type pair struct {
	*Server
	url               string
	stable, candidate string // addresses
	launches          int
	stableGot         atomic.Int64
	headers           sync.Map // of the last request, by version
}

// newPair opens the door without a launch. Stable answers its own name to everything; an empty candidate is
// an address where nobody listens.
func newPair(t testing.TB, log *slog.Logger, candidate http.HandlerFunc, env ...string) *pair {
	t.Helper()
	p := new(pair)
	p.stable = p.version(t, "stable", func(w http.ResponseWriter, r *http.Request) {
		p.stableGot.Add(1)
		fmt.Fprint(w, "stable")
	})
	p.try(t, candidate)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gantry.yaml"), []byte(openRoutes), 0o600); err != nil {
		t.Fatal(err)
	}
	const plenty = "1000000/s"
	p.Server = openIn(t, dir, log, append([]string{
		"UPSTREAM_URL=" + p.stable, "UPSTREAM_HEALTH_PATH=/healthz", "ROLLOUT_COOKIE=sessionid", "ADMIN_TOKEN=" + staffToken,
		"RATE_LIMIT_PER_USER=" + plenty, "RATE_LIMIT_GLOBAL=" + plenty, "RATE_LIMIT_ANONYMOUS=" + plenty, "RATE_LIMIT_ANONYMOUS_SHARE=100%",
	}, env...)...)
	door := httptest.NewServer(p.main.Handler)
	p.url = door.URL
	t.Cleanup(func() { door.CloseClientConnections(); door.Close() })
	return p
}

// try makes a handler the candidate of the launches to come.
func (p *pair) try(t testing.TB, candidate http.HandlerFunc) {
	if p.candidate = deadAddress(t); candidate != nil {
		p.candidate = p.version(t, "candidate", candidate)
	}
}

func (p *pair) version(t testing.TB, name string, h http.HandlerFunc) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.headers.Store(name, r.Header.Clone())
		h(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

func deadAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return "http://" + l.Addr().String()
}

// launch is at a step of the default plan: 10, 50 and 100 %. An answer is slow after 300 ms.
func (p *pair) launch(t testing.TB, step int) rollout.Launch {
	t.Helper()
	now := time.Now()
	p.launches++
	l, _, err := rollout.Start(rollout.Request{
		ID: fmt.Sprint("launch-", p.launches), Salt: []byte("a salt of sixteen"), StableURL: p.stable, CandidateURL: p.candidate,
		Plan: rollout.Plan{SlowAfter: 300 * time.Millisecond},
	}, now)
	for range step {
		if err == nil {
			l, _, err = l.Promote("test", "", now)
		}
	}
	if err != nil || !p.traffic.Set(l) {
		t.Fatalf("launch %+v: %v", l, err)
	}
	return l
}

// abort ends a launch.
func (p *pair) abort(t testing.TB, l rollout.Launch) {
	t.Helper()
	l, _, err := l.Abort("test", "", time.Now())
	if err != nil || !p.traffic.Set(l) {
		t.Fatalf("abort: %v", err)
	}
}

// counts is "requests failed slow" of both versions.
func (p *pair) counts() string {
	o := p.traffic.Observe()
	one := func(c rollout.Side) string { return fmt.Sprint(c.Requests, c.Failed.Sum(), c.Slow.Sum()) }
	return "stable " + one(o.Stable) + ", candidate " + one(o.Candidate)
}

// ask sends a request and returns status, version and body of the answer, or its error.
func (p *pair) ask(t testing.TB, method, path string, h http.Header, body io.Reader) string {
	t.Helper()
	req, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if h != nil {
		req.Header = h
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "broken"
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return "broken"
	}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		text = nil
	}
	return strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", strings.Join(res.Header[rollout.VersionHeader], "+"), " ", string(text)))
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(rollout.VersionHeader, "forged")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// saying writes raw bytes and closes the connection.
func saying(text string) http.HandlerFunc { return raw(text, net.Conn.Close) }

// resetting is saying, with a reset instead of an end.
func resetting(text string) http.HandlerFunc {
	return raw(text, func(c net.Conn) error { return errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()) })
}

func raw(text string, end func(net.Conn) error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			fmt.Fprint(conn, text)
			_ = end(conn)
		}
	}
}

func lateBy(d time.Duration, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(d):
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

// slowly is a body that takes its time.
type slowly struct {
	parts []string
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.pause)
	n := copy(p, s.parts[0])
	s.parts = s.parts[1:]
	return n, nil
}

func TestEveryOutcomeCountsOnceOnItsVersion(t *testing.T) {
	forced := http.Header{"X-Gantry-Version": {"candidate"}, "X-Gantry-Admin-Token": {staffToken}}
	ok := answering(200, "candidate")
	p := newPair(t, slog.New(slog.DiscardHandler), nil, "REQUEST_TIMEOUT=2s")
	for _, tt := range []struct {
		name, method, path string
		header             http.Header
		body               io.Reader
		candidate          http.HandlerFunc
		want, counts       string
	}{
		{"200", "GET", "/", nil, nil, ok, "200 candidate candidate", "stable 0 0 0, candidate 1 0 0"},
		{"404", "GET", "/", nil, nil, answering(404, "none"), "404 candidate none", "stable 0 0 0, candidate 1 0 0"},
		{"500", "GET", "/", nil, nil, answering(500, "oh"), "500 candidate oh", "stable 0 0 0, candidate 1 1 0"},
		{"503 to POST", "POST", "/", nil, nil, answering(503, "oh"), "503 candidate oh", "stable 0 0 0, candidate 1 1 0"},
		{"503 to GET", "GET", "/", nil, nil, answering(503, "oh"), "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"503 to HEAD", "HEAD", "/", nil, nil, answering(503, ""), "200 stable", "stable 1 0 0, candidate 1 1 0"},
		{"503 to a GET with a body", "GET", "/", nil, strings.NewReader("x"), answering(503, "oh"), "503 candidate oh", "stable 0 0 0, candidate 1 1 0"},
		{"refused POST", "POST", "/", nil, nil, nil, "502 candidate", "stable 0 0 0, candidate 1 1 0"},
		{"refused GET", "GET", "/", nil, nil, nil, "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"reset in the headers", "POST", "/", nil, nil, resetting("HTTP/1.1 200 OK\r\nX-Half: "), "502 candidate", "stable 0 0 0, candidate 1 1 0"},
		{"reset in the headers of a GET", "GET", "/", nil, nil, resetting("HTTP/1.1 200 OK\r\nX-Half: "), "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"truncated", "GET", "/", nil, nil, saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), "broken", "stable 0 0 0, candidate 1 1 0"},
		{"truncated 500", "GET", "/", nil, nil, saying("HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\nhalf"), "broken", "stable 0 0 0, candidate 1 1 0"},
		{"unacceptable to GET", "GET", "/", nil, nil, saying("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 200) + "\r\n"), "200 stable stable", "stable 1 0 0, candidate 1 1 0"},
		{"slow", "GET", "/", nil, nil, lateBy(400*time.Millisecond, ok), "200 candidate candidate", "stable 0 0 0, candidate 1 0 1"},
		{"slow client", "POST", "/", nil, &slowly{[]string{"a", "b"}, 200 * time.Millisecond}, lateBy(0, ok), "200 candidate candidate", "stable 0 0 0, candidate 1 0 0"},
		{"no answer in time", "POST", "/", nil, nil, lateBy(time.Minute, ok), "504 candidate", "stable 0 0 0, candidate 1 1 1"},
		{"no answer to GET in time", "GET", "/", nil, nil, lateBy(time.Minute, ok), "200 stable stable", "stable 1 0 0, candidate 1 1 1"},
		{"forced", "GET", "/", forced, nil, answering(503, "oh"), "503 candidate oh", "stable 0 0 0, candidate 0 0 0"},
		{"exempt route", "POST", "/legacy/x", nil, nil, answering(500, "oh"), "500 candidate oh", "stable 0 0 0, candidate 0 0 0"},
		{"exempt route, shielded", "GET", "/legacy/x", nil, nil, answering(503, "oh"), "200 stable stable", "stable 0 0 0, candidate 0 0 0"},
		{"health probe through the door", "GET", "/healthz", nil, nil, answering(500, "oh"), "500 candidate oh", "stable 0 0 0, candidate 0 0 0"},
		{"refused by the door", "GET", "/", http.Header{"Authorization": {"Bearer nonsense"}}, nil, ok, "401", "stable 0 0 0, candidate 0 0 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.try(t, tt.candidate)
			p.launch(t, 2)
			if got := p.ask(t, tt.method, tt.path, tt.header.Clone(), tt.body); got != tt.want {
				t.Errorf("the client got %q, want %q", got, tt.want)
			}
			if got := p.counts(); got != tt.counts {
				t.Errorf("counted %s, want %s", got, tt.counts)
			}
		})
	}
}

func TestTheDoorsDeadlineIsChargedToTheVersion(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), lateBy(time.Minute, answering(200, "late")))
	p.launch(t, 2)
	if got := p.ask(t, "GET", "/quick/x", nil, nil); got != "504 candidate" {
		t.Errorf("the client got %q, want the door's own 504, and the version that it waited for", got)
	}
	const want = "stable 0 0 0, candidate 1 1 1"
	for end := time.Now().Add(10 * time.Second); p.counts() != want; runtime.Gosched() { // the client is answered first
		if time.Now().After(end) {
			t.Fatalf("counted %s, want %s", p.counts(), want)
		}
	}
}

func TestAClientThatLeavesCountsForNobody(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	p := newPair(t, slog.New(slog.DiscardHandler), func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	p.launch(t, 2)
	h := p.main.Handler
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		h.ServeHTTP(w, r)
	}))
	defer door.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "GET", door.URL, nil)
	if _, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		t.Fatalf("the client got %v", err)
	}
	<-over
	if got := p.counts(); got != "stable 0 0 0, candidate 0 0 0" || p.stableGot.Load() != 0 {
		t.Errorf("counted %s; stable was asked %d times", got, p.stableGot.Load())
	}
}

func TestARefusedConnectionIsUnreachable(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), nil)
	p.launch(t, 2)
	for range 3 {
		p.ask(t, "POST", "/", nil, nil)
	}
	if got := p.traffic.Observe().Candidate.Streak.Unreachable; got != 3 {
		t.Errorf("unreachable %d times in a row, want 3", got)
	}
}

func TestAWebSocketKeepsItsVersionAndCountsWhenItBegins(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(conn, "candidate heard ", line)
		}
	})
	l := p.launch(t, 2)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get(rollout.VersionHeader) != "candidate" {
		t.Fatalf("%v, %v", res, err)
	}
	if got := p.counts(); got != "stable 0 0 0, candidate 1 0 0" {
		t.Errorf("counted %s", got)
	}
	p.abort(t, l)
	fmt.Fprint(conn, "after the roll back\n")
	if line, err := in.ReadString('\n'); line != "candidate heard after the roll back\n" {
		t.Errorf("after the roll back %q, %v", line, err)
	}
	if got := p.ask(t, "GET", "/", nil, nil); got != "200  stable" {
		t.Errorf("a new request is answered %q", got)
	}
}

func TestGETsOfAReleaseThatRefusesConnectionsDoNotFail(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), nil)
	p.launch(t, 2)
	for i := range 300 { // through the opening of the candidate's breaker and beyond
		if got := p.ask(t, "GET", "/", nil, nil); got != "200 stable stable" {
			t.Fatalf("GET %d = %q", i, got)
		}
	}
	if !p.traffic.ways.Load().sides[rollout.Candidate].BreakerOpen() {
		t.Fatal("the breaker never opened, so half of this was not tested")
	}
	if got := p.ask(t, "POST", "/", nil, nil); got != "200 stable stable" {
		t.Errorf("a POST that the candidate's breaker refused = %q", got)
	}
	o := p.traffic.Observe()
	if o.Stable.Requests != 301 || o.Stable.Failed.Sum() != 0 || o.Candidate.Requests != o.Candidate.Failed.Sum() || o.Candidate.Requests < 10 {
		t.Errorf("counted %s", p.counts())
	}
}

func TestTheShieldOfA503HasABudget(t *testing.T) {
	var candidateGot atomic.Int64
	p := newPair(t, slog.New(slog.DiscardHandler), func(w http.ResponseWriter, _ *http.Request) {
		if candidateGot.Add(1)%3 == 0 { // a third, so that the breaker stays closed
			w.WriteHeader(503)
		}
	})
	p.launch(t, 2)
	seen := 0
	for range 600 {
		if strings.HasPrefix(p.ask(t, "GET", "/", nil, nil), "503") {
			seen++
		}
	}
	hidden := int(p.stableGot.Load())
	if hidden < 100 || hidden > 100+600/10 || hidden+seen != 200 {
		t.Errorf("%d of 200 failures were hidden and %d seen, want 100 and a tenth of the requests hidden", hidden, seen)
	}
}

func TestTheSplitIsByUserThenCookieThenAddress(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, "candidate"))
	p.launch(t, 1)
	on := func(h http.Header) rollout.Version {
		for _, v := range []rollout.Version{rollout.Stable, rollout.Candidate} {
			if got := p.ask(t, "GET", "/", h.Clone(), nil); strings.Contains(got, v.String()) {
				return v
			}
		}
		t.Fatal("no version answered")
		return 0
	}
	choose := func(caller string) rollout.Version { return p.traffic.Choose(caller).Version }
	var seen [2]bool
	for i := range 12 {
		session := fmt.Sprint("session-", i)
		h := http.Header{"Cookie": {"other=1; sessionid=" + session + "; x=y"}}
		if got := on(h); got != choose(session) {
			t.Errorf("cookie %s is on %v", session, got)
		}
		user := fmt.Sprint("user_", i)
		token, err := p.dev.Mint(devissuer.Claims{Subject: user})
		if err != nil {
			t.Fatal(err)
		}
		h.Set("Authorization", "Bearer "+token)
		if got := on(h); got != choose(user) {
			t.Errorf("%s is on %v", user, got)
		}
		seen[choose(user)] = true
	}
	if seen != [2]bool{true, true} {
		t.Error("all users are on one version, so nothing was tested")
	}
	if a, b := on(nil), on(http.Header{"Cookie": {"other=2"}}); a != b {
		t.Error("one address is on two versions")
	}
}

func TestNobodyAndEverybody(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, "candidate"))
	ask := func(session int) string {
		return p.ask(t, "GET", "/", http.Header{"Cookie": {fmt.Sprint("sessionid=", session)}}, nil)
	}
	for i := range 50 {
		if got := ask(i); got != "200  stable" {
			t.Fatalf("without a launch %q", got)
		}
	}
	l := p.launch(t, 2)
	for i := range 50 {
		if got := ask(i); got != "200 candidate candidate" {
			t.Fatalf("at 100 %% %q", got)
		}
	}
	p.traffic.Trip("test")
	for i := range 50 {
		if got := ask(i); got != "200 stable stable" {
			t.Fatalf("after a trip %q", got)
		}
	}
	p.abort(t, l)
	for i := range 50 {
		if got := ask(i); got != "200  stable" {
			t.Fatalf("after the roll back %q", got)
		}
	}
}

func TestOnlyStaffChooseTheirVersion(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, "candidate"))
	p.launch(t, 2)
	for _, tt := range []struct {
		name string
		h    http.Header
		want string
	}{
		{"staff", http.Header{"X-Gantry-Version": {"stable"}, "X-Gantry-Admin-Token": {staffToken}}, "stable"},
		{"no proof", http.Header{"X-Gantry-Version": {"stable"}}, "candidate"},
		{"wrong proof", http.Header{"X-Gantry-Version": {"stable"}, "X-Gantry-Admin-Token": {"wrong"}}, "candidate"},
		{"empty proof", http.Header{"X-Gantry-Version": {"stable"}, "X-Gantry-Admin-Token": {""}}, "candidate"},
		{"no such version", http.Header{"X-Gantry-Version": {"newest"}, "X-Gantry-Admin-Token": {staffToken}}, "candidate"},
		{"two versions", http.Header{"X-Gantry-Version": {"stable", "candidate"}, "X-Gantry-Admin-Token": {staffToken}}, "candidate"},
		{"other spellings", http.Header{"X_Gantry_Version": {"stable"}, "X_Gantry_Admin_Token": {staffToken}, "X.Gantry.Admin.Token": {staffToken}}, "candidate"},
	} {
		if got := p.ask(t, "GET", "/", tt.h.Clone(), nil); got != "200 "+tt.want+" "+tt.want {
			t.Errorf("%s: %q, want %s", tt.name, got, tt.want)
		}
		h, _ := p.headers.Load(tt.want)
		if text := fmt.Sprint(h); strings.Contains(text, staffToken) || strings.Contains(strings.ToLower(text), "gantry") {
			t.Errorf("%s: the upstream got %v", tt.name, text)
		}
	}
}

func TestTheLogTellsVersionAndShield(t *testing.T) {
	var lines bytes.Buffer
	p := newPair(t, slog.New(slog.NewJSONHandler(&lines, nil)), answering(503, "oh"))
	p.launch(t, 2)
	p.main.Handler.ServeHTTP(httptest.NewRecorder(), func() *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "localhost"
		return r
	}())
	for _, want := range []string{`"version":"candidate"`, `"decision":"shielded"`, `"hidden_status":503`, `"upstream_status":200`} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &lines)
		}
	}
}

func TestSetDuringTrafficMissesNoRequest(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, "candidate"))
	l := p.launch(t, 0)
	var senders sync.WaitGroup
	for sender := range 4 {
		senders.Go(func() {
			for i := range 100 {
				got := p.ask(t, "GET", "/", http.Header{"Cookie": {fmt.Sprint("sessionid=", sender*100+i)}}, nil)
				if !strings.HasPrefix(got, "200") {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	for _, next := range []func() (rollout.Launch, rollout.Record, error){
		func() (rollout.Launch, rollout.Record, error) { return l.Promote("test", "", time.Now()) },
		func() (rollout.Launch, rollout.Record, error) { return l.Pause("test", "", time.Now()) },
		func() (rollout.Launch, rollout.Record, error) { return l.Resume("test", "", time.Now()) },
		func() (rollout.Launch, rollout.Record, error) { return l.Promote("test", "", time.Now()) },
		func() (rollout.Launch, rollout.Record, error) { return l.Promote("test", "", time.Now()) },
	} {
		var err error
		if l, _, err = next(); err != nil {
			t.Fatal(err)
		}
		if !p.traffic.Set(l) {
			t.Fatalf("%v was not put in force", l.Phase)
		}
	}
	senders.Wait()
	if l.Phase != rollout.Completed {
		t.Fatalf("phase %v", l.Phase)
	}
	if got := p.ask(t, "GET", "/", nil, nil); got != "200 forged candidate" {
		t.Errorf("when it is completed: %q, want the candidate's answer as it is", got)
	}
}

func TestALaunchLeavesNoGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("launch", func(t *testing.T) {
		p := newPair(t, slog.New(slog.DiscardHandler), answering(200, "candidate"))
		p.traffic.every = time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.traffic.Run(ctx) }()
		l := p.launch(t, 1)
		for i := range 20 {
			p.ask(t, "GET", "/", http.Header{"Cookie": {fmt.Sprint("sessionid=", i)}}, nil)
		}
		p.abort(t, l)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	goleak.VerifyNone(t, before)
}

func TestBothVersionsAreProbed(t *testing.T) {
	probed := make(chan string, 100)
	p := newPair(t, slog.New(slog.DiscardHandler), func(w http.ResponseWriter, r *http.Request) {
		probed <- r.URL.Path
		w.WriteHeader(500)
	})
	p.traffic.every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.traffic.Run(ctx) }()
	p.launch(t, 0)
	o := p.traffic.Observe()
	for n := 0; n < 100 && o.Candidate.FailedProbes < 3; n++ { // those that the launch has only just begun for are not recorded
		if path := <-probed; path != "/healthz" {
			t.Errorf("probed at %s", path)
		}
		o = p.traffic.Observe()
	}
	if o.Candidate.FailedProbes < 3 || o.Stable.FailedProbes != 0 || p.stableGot.Load() == 0 {
		t.Errorf("failed probes: stable %d, candidate %d", o.Stable.FailedProbes, o.Candidate.FailedProbes)
	}
	if got := p.counts(); got != "stable 0 0 0, candidate 0 0 0" {
		t.Errorf("probes were counted as requests: %s", got)
	}
	cancel()
	<-done
}

func TestAProbeHasItsOwnTimeout(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p.traffic.within = 10 * time.Millisecond
	p.launch(t, 0)
	p.traffic.probe(t.Context())
	if got := p.traffic.Observe().Candidate.FailedProbes; got != 1 {
		t.Errorf("a candidate that hangs failed %d probes, want 1", got)
	}
}

func TestALaunchThatIsOverDecidesWhereRequestsGo(t *testing.T) {
	const a, b, c = "http://127.0.0.1:1001", "http://127.0.0.1:1002", "http://127.0.0.1:1003"
	over := func(stable, candidate string, end func(rollout.Launch) (rollout.Launch, rollout.Record, error)) rollout.Launch {
		l, _, err := rollout.Start(rollout.Request{ID: candidate, Salt: make([]byte, 16), StableURL: stable, CandidateURL: candidate}, time.Now())
		for err == nil && !l.Phase.Over() {
			l, _, err = end(l)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	completed := func(l rollout.Launch) (rollout.Launch, rollout.Record, error) {
		return l.Promote("test", "", time.Now())
	}
	rolledBack := func(l rollout.Launch) (rollout.Launch, rollout.Record, error) { return l.Abort("test", "", time.Now()) }
	for _, tt := range []struct {
		name, upstream string
		launches       []rollout.Launch
		want           string
		warns          bool
	}{
		{"none", a, nil, a, false},
		{"completed", a, []rollout.Launch{over(a, b, completed)}, b, true},
		{"completed, and set since", b, []rollout.Launch{over(a, b, completed)}, b, false},
		{"rolled back", a, []rollout.Launch{over(a, b, rolledBack)}, a, false},
		{"completed, and the next rolled back", a, []rollout.Launch{over(b, c, rolledBack)}, b, true},
		{"two, one after the other", a, []rollout.Launch{over(a, b, completed), over(b, c, completed)}, c, true},
		{"with a slash", a + "/", []rollout.Launch{over(a, b, rolledBack)}, a, false},
	} {
		target, err := url.Parse(tt.upstream)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		traffic, err := newTraffic(target, "", proxy.Config{}, slog.New(slog.NewTextHandler(&lines, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range tt.launches {
			if !traffic.Set(l) {
				t.Fatalf("%s: %v was not put in force", tt.name, l.Phase)
			}
		}
		w := traffic.ways.Load()
		if w.home.origin != tt.want || w.launch != "" {
			t.Errorf("%s: requests go to %s, want %s", tt.name, w.home.origin, tt.want)
		}
		if got := strings.Contains(lines.String(), "that UPSTREAM_URL names"); got != tt.warns {
			t.Errorf("%s: warned = %v, want %v", tt.name, got, tt.warns)
		}
	}
}

func TestALaunchWithoutAnUpstreamToReachIsRefused(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, ""))
	l, _, err := rollout.Start(rollout.Request{ID: "bad", Salt: make([]byte, 16), StableURL: "v1", CandidateURL: "v2"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if p.traffic.Set(l) {
		t.Error("names without a host were accepted as upstreams")
	}
	if got := p.ask(t, "GET", "/", nil, nil); got != "200  stable" {
		t.Errorf("requests are answered %q", got)
	}
}

// inDoor runs f as the handler behind the stages, for a user whose token is known.
func inDoor(t testing.TB, p *pair, f func(*http.Request)) {
	t.Helper()
	token, err := p.dev.Mint(devissuer.Claims{Subject: "user_2abcdefghijklmnopqrstuvwxyz"})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := compileRoutes(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/v1/things", nil)
	r.Host = "localhost"
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	p.pipeline(p.policy.Load(), nil, routes).Then(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(r) })).ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("the door answered %d", w.Code)
	}
}

func TestChoosingAndCountingAllocateNothing(t *testing.T) {
	p := newPair(t, slog.New(slog.DiscardHandler), answering(200, ""))
	p.launch(t, 1)
	inDoor(t, p, func(r *http.Request) {
		stranger := httptest.NewRequest("GET", "/", nil)
		stranger.Header.Set("Cookie", "a=b; sessionid=0123456789abcdef0123456789abcdef; c=d")
		answer := make(http.Header)
		if n := testing.AllocsPerRun(1000, func() {
			for _, r := range []*http.Request{r, stranger} {
				_, mark := p.chooseUpstream(r)
				o := proxy.Outcome{Mark: mark, Status: 200, Wait: time.Millisecond}
				nameVersion(r, o, answer, nil)
				p.traffic.count(o)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// BenchmarkChooseUpstream is all that a launch adds to a request of the door; without a launch, what the
// possibility of one does.
func BenchmarkChooseUpstream(b *testing.B) {
	for name, step := range map[string]int{"none": -1, "launch": 1} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b, slog.New(slog.DiscardHandler), answering(200, ""))
			if step >= 0 {
				p.launch(b, step)
			}
			inDoor(b, p, func(r *http.Request) {
				answer := make(http.Header)
				b.ReportAllocs()
				for b.Loop() {
					_, mark := p.chooseUpstream(r)
					o := proxy.Outcome{Mark: mark, Status: 200, Wait: time.Millisecond}
					nameVersion(r, o, answer, nil)
					p.traffic.count(o)
				}
			})
		})
	}
}

// BenchmarkForward is a GET through the whole door to an upstream on this machine.
func BenchmarkForward(b *testing.B) {
	for name, step := range map[string]int{"none": -1, "launch": 1} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b, slog.New(slog.DiscardHandler), answering(200, "stable"))
			if step >= 0 {
				p.launch(b, step)
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = "localhost"
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				p.main.Handler.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
