package probes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// shortPolicy makes every wait of a probe a fraction of a second.
func shortPolicy() audit.Policy {
	return audit.Policy{
		RateLimit: 20, RateWindow: 500 * time.Millisecond, Deadline: 200 * time.Millisecond, Grace: 100 * time.Millisecond,
		SlowClient: 600 * time.Millisecond,
	}
}

// auditOf runs the probes named against a server and gives the finding of the last.
func auditOf(t *testing.T, h http.Handler, knobs func(url string, t *audit.Target, c *audit.Config), ids ...string) audit.Finding {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	return auditAt(t, server.URL, knobs, ids...)
}

func auditAt(t *testing.T, url string, knobs func(url string, t *audit.Target, c *audit.Config), ids ...string) audit.Finding {
	t.Helper()
	target, err := audit.ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	target.Token, target.ProtectedPaths = "good", []string{"/me"}
	c := audit.Config{Active: true, Load: true, Pace: 1000, Policy: shortPolicy(), Only: ids}
	if knobs != nil {
		knobs(url, target, &c)
	}
	report, err := audit.Run(t.Context(), target, All(), c)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := report.Find(ids[len(ids)-1])
	if !ok {
		t.Fatalf("%v: no finding", ids)
	}
	return f
}

func wantOutcome(t *testing.T, f audit.Finding, want audit.Outcome, as audit.Severity) {
	t.Helper()
	if f.Outcome != want || (as != 0 && f.FailedAs != as) {
		t.Errorf("%s: got %s %s (%s), want %s %s", f.Probe, f.Outcome, f.FailedAs, f.Message, want, as)
	}
}

// api answers /me to the two good tokens, after what goes before has had its say, and 404 elsewhere.
func api(before func(http.ResponseWriter, *http.Request) (done bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		known := token == "good" || token == "other"
		switch {
		case r.URL.Path == "/me" && !known:
			jsonAnswer(w, 401, `{"error":"unauthorized"}`)
		case before != nil && before(w, r):
		case r.URL.Path == "/me":
			jsonAnswer(w, 200, `{"id":"a","email":"a@example.com","plan":"free"}`)
		default:
			jsonAnswer(w, 404, `{"error":"not found"}`)
		}
	})
}

func jsonAnswer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func refuse429(w http.ResponseWriter) bool {
	w.Header().Set("Retry-After", "1")
	jsonAnswer(w, 429, `{"error":"too many requests"}`)
	return true
}

// gate is a limiter under test: whether the request of a key passes.
type gate func(key string) bool

func limitedAPI(pass gate) http.Handler {
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/me" && !pass(r.Header.Get("Authorization")) && refuse429(w)
	})
}

// sliding lets n through in any window.
func sliding(n int, window time.Duration) gate {
	var mu sync.Mutex
	at := map[string][]time.Time{}
	return func(key string) bool {
		mu.Lock()
		defer mu.Unlock()
		list, now := at[key], time.Now()
		for len(list) > 0 && now.Sub(list[0]) >= window {
			list = list[1:]
		}
		at[key] = list
		if len(list) >= n {
			return false
		}
		at[key] = append(list, now)
		return true
	}
}

// bucket holds n tokens and refills them evenly over a window.
func bucket(n int, window time.Duration) gate {
	var mu sync.Mutex
	level, last := float64(n), time.Now()
	return func(string) bool {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		level = min(float64(n), level+float64(n)*now.Sub(last).Seconds()/window.Seconds())
		last = now
		if level < 1 {
			return false
		}
		level--
		return true
	}
}

// fixed is a fixed window of n, with edges at these requests too, counted from 1.
func fixed(n int, window time.Duration, edges ...int64) gate {
	var mu sync.Mutex
	var count, all int64
	var began time.Time
	return func(string) bool {
		mu.Lock()
		defer mu.Unlock()
		all++
		if now := time.Now(); slices.Contains(edges, all) || now.Sub(began) >= window {
			count, began = 0, now
		}
		count++
		return count <= int64(n)
	}
}

// afterwards answers otherwise from the n-th request on.
func afterwards(n int, otherwise func(http.ResponseWriter)) http.Handler {
	var all atomic.Int64
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/me" || all.Add(1) <= int64(n) {
			return false
		}
		otherwise(w)
		return true
	})
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { jsonAnswer(w, code, `{"error":"no"}`) }
}

func cutOff(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func TestRateLimitIsToldFromItsLookAlikes(t *testing.T) {
	window := shortPolicy().RateWindow
	otherUser := func(_ string, t *audit.Target, _ *audit.Config) { t.TokenB = "other" }
	for _, c := range []struct {
		name   string
		server http.Handler
		knobs  func(string, *audit.Target, *audit.Config)
		want   audit.Outcome
	}{
		{"sliding window", limitedAPI(sliding(20, window)), otherUser, audit.Pass},
		{"token bucket, refilled meanwhile", limitedAPI(bucket(20, window)), nil, audit.Pass},
		{"fixed window whose edge falls into the probe", limitedAPI(fixed(20, window, 15)), nil, audit.Pass},
		{"fixed window whose edge falls into the second try as well", limitedAPI(fixed(20, window, 15, 46)), nil, audit.Pass},
		{"fixed window of twice the policy", limitedAPI(fixed(40, window, 15)), nil, audit.Fail},
		{"no limit", api(nil), nil, audit.Fail},
		{"twice the policy", limitedAPI(sliding(40, window)), nil, audit.Fail},
		{"half more than the policy", limitedAPI(sliding(30, window)), nil, audit.Fail},
		{"a limit of a quarter", limitedAPI(sliding(5, window)), nil, audit.Inconclusive},
		{"one limit for all users", limitedAPI(func(g gate) gate { return func(string) bool { return g("all") } }(sliding(20, window))), otherUser, audit.Inconclusive},
		{"503 from a gateway", afterwards(20, status(503)), nil, audit.Inconclusive},
		{"403 in place of 429", afterwards(20, status(403)), nil, audit.Inconclusive},
		{"200 with another body", afterwards(20, func(w http.ResponseWriter) { jsonAnswer(w, 200, `{"error":"slow down"}`) }), nil, audit.Inconclusive},
		{"the target dies", afterwards(15, cutOff), nil, audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, c.knobs, "RL-01"), c.want, 0)
		})
	}
}

func TestLimitBypassIsNoBypassWhenNothingIsGivenAway(t *testing.T) {
	window := 2 * time.Second
	long := func(_ string, _ *audit.Target, c *audit.Config) { c.Policy.RateWindow = window }
	limit := func(special func(w http.ResponseWriter, r *http.Request, pass gate) bool) http.Handler {
		pass := sliding(20, window)
		return api(func(w http.ResponseWriter, r *http.Request) bool {
			return special(w, r, pass) || (strings.EqualFold(strings.Trim(r.URL.Path, "/"), "me") && !pass(r.Header.Get("Authorization")) && refuse429(w))
		})
	}
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
	}{
		{"a page for every unknown path", limit(func(w http.ResponseWriter, r *http.Request, _ gate) bool {
			if r.URL.Path == "/me" {
				return false
			}
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>the application</html>")
			return true
		}), audit.Pass},
		{"a bucket that refills between two requests", limitedAPI(bucket(20, window)), audit.Pass},
		{"each URL has a limit of its own", limitedAPI(func(string) bool { return true }), audit.Inconclusive},
		{"HEAD is not counted", limit(func(w http.ResponseWriter, r *http.Request, _ gate) bool {
			return r.Method == http.MethodHead && r.URL.Path == "/me" && func() bool { jsonAnswer(w, 200, ""); return true }()
		}), audit.Fail},
		{"a query makes another key", limit(func(_ http.ResponseWriter, r *http.Request, _ gate) bool {
			if r.URL.RawQuery != "" {
				r.Header.Set("Authorization", "Bearer good"+r.URL.RawQuery)
			}
			return false
		}), audit.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, long, "RL-01", "RL-02"), c.want, 0)
		})
	}
}

func TestRefusalIsUsefulWhenItSaysWhen(t *testing.T) {
	for _, c := range []struct {
		name, header, value, body string
		want                      audit.Outcome
		as                        audit.Severity
	}{
		{"seconds", "Retry-After", "1", `{}`, audit.Pass, 0},
		{"a date", "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), `{}`, audit.Pass, 0},
		{"RateLimit", "RateLimit", `"default";r=0;t=5`, `{}`, audit.Pass, 0},
		{"now", "Retry-After", "0", `{}`, audit.Fail, audit.Medium},
		{"nothing", "X-Nothing", "1", `{}`, audit.Fail, audit.Medium},
		{"text", "Retry-After", "1", "slow down", audit.Fail, audit.Low},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := afterwards(20, func(w http.ResponseWriter) {
				w.Header().Set(c.header, c.value)
				jsonAnswer(w, 429, c.body)
			})
			wantOutcome(t, auditOf(t, h, nil, "RL-01", "RL-03"), c.want, c.as)
		})
	}
	wantOutcome(t, auditOf(t, api(nil), nil, "RL-03"), audit.Inconclusive, 0)
}

func TestBurstShowsACounterInEachReplica(t *testing.T) {
	window := shortPolicy().RateWindow
	replicas := []gate{sliding(20, window), sliding(20, window)}
	var mu sync.Mutex
	known := map[string]int{} // a connection stays with its replica
	balanced := api(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		n, ok := known[r.RemoteAddr]
		if !ok {
			n = len(known) % 2
			known[r.RemoteAddr] = n
		}
		mu.Unlock()
		return !replicas[n]("") && refuse429(w)
	})
	f := auditOf(t, balanced, nil, "RL-01", "RL-04")
	wantOutcome(t, f, audit.Fail, audit.High)
	if k, _ := f.Data["timesLimit"].(float64); k < 1.5 || k > 2.01 {
		t.Errorf("times the limit = %v, want about 2", f.Data["timesLimit"])
	}
}

func TestLogInLimitIsToldFromItsLookAlikes(t *testing.T) {
	recipe := func(_ string, t *audit.Target, _ *audit.Config) {
		t.Recipes = map[string]audit.Recipe{"login": {Path: "/login", Body: "user={{marker}}&password={{password}}"}}
	}
	login := func(answer func(w http.ResponseWriter, n int)) http.Handler {
		var n atomic.Int64
		return api(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/login" {
				answer(w, int(n.Add(1)))
			}
			return r.URL.Path == "/login"
		})
	}
	var everybody atomic.Bool
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
	}{
		{"200 with an error inside", login(func(w http.ResponseWriter, _ int) { jsonAnswer(w, 200, `{"error":"wrong"}`) }), audit.Inconclusive},
		{"a lock at try 5", login(func(w http.ResponseWriter, n int) {
			jsonAnswer(w, 401, map[bool]string{true: `{"error":"account locked"}`, false: `{"error":"wrong"}`}[n >= 5])
		}), audit.Pass},
		{"tries are counted aloud and nothing follows", login(func(w http.ResponseWriter, _ int) {
			jsonAnswer(w, 401, `{"error":"wrong, 3 attempts left"}`)
		}), audit.Fail},
		{"a limit at try 15", login(func(w http.ResponseWriter, n int) {
			jsonAnswer(w, map[bool]int{true: 429, false: 401}[n >= 15], `{}`)
		}), audit.Inconclusive},
		{"the target breaks", login(func(w http.ResponseWriter, n int) {
			if n > 3 {
				cutOff(w)
			}
			jsonAnswer(w, 401, `{}`)
		}), audit.Inconclusive},
		{"everybody is locked out", api(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/login" && everybody.Swap(true):
				return refuse429(w)
			case r.URL.Path == "/login":
				jsonAnswer(w, 401, `{}`)
				return true
			}
			return everybody.Load() && refuse429(w)
		}), audit.Inconclusive},
		{"no log-in there", api(nil), audit.Inconclusive},
		{"refused from the first try on", login(func(w http.ResponseWriter, _ int) { refuse429(w) }), audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, recipe, "RL-05"), c.want, 0)
		})
	}
}

func TestDeadlineIsJudgedOnlyWhenSomethingWasSlow(t *testing.T) {
	// A deadline of a second, so that a busy machine does not make slow what comes at once.
	slow := func(_ string, t *audit.Target, c *audit.Config) {
		t.SlowPath = "/slow"
		c.Policy.Deadline, c.Policy.Grace = time.Second, 500*time.Millisecond
	}
	at := func(d time.Duration, then func(http.ResponseWriter)) http.Handler {
		return api(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/slow" {
				return false
			}
			select {
			case <-time.After(d):
				then(w)
			case <-r.Context().Done():
			}
			return true
		})
	}
	var gone atomic.Bool
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
		as     audit.Severity
	}{
		{"504 in time", at(700*time.Millisecond, status(504)), audit.Pass, 0},
		{"504 too late", at(1800*time.Millisecond, status(504)), audit.Fail, audit.Critical},
		{"503 at once", at(0, status(503)), audit.Inconclusive, 0},
		{"504 without a body", at(700*time.Millisecond, func(w http.ResponseWriter) { w.WriteHeader(504) }), audit.Fail, audit.Low},
		{"a success before the deadline", at(100*time.Millisecond, status(200)), audit.Inconclusive, 0},
		{"a success after the deadline", at(1800*time.Millisecond, status(200)), audit.Fail, audit.Critical},
		{"the worker is killed", at(700*time.Millisecond, cutOff), audit.Fail, audit.Critical},
		{"the token died", at(0, status(401)), audit.Inconclusive, 0},
		{"the target died", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() || r.URL.Path == "/slow" {
				gone.Store(true)
				cutOff(w)
			}
			api(nil).ServeHTTP(w, r)
		}), audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, slow, "LIM-01"), c.want, c.as)
		})
	}
}

func TestSlowClientsAreCutByTheServerAndNotByChance(t *testing.T) {
	write := func(_ string, t *audit.Target, _ *audit.Config) { t.WritePath = "/notes" }
	reads := api(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
		}
		return false
	})
	for _, c := range []struct {
		name   string
		server *http.Server
		want   audit.Outcome
	}{
		{"both timeouts", &http.Server{ReadHeaderTimeout: 200 * time.Millisecond, ReadTimeout: 300 * time.Millisecond}, audit.Pass},
		{"headers only", &http.Server{ReadHeaderTimeout: 200 * time.Millisecond}, audit.Fail},
		{"none", &http.Server{}, audit.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(reads)
			server.Config.ReadHeaderTimeout, server.Config.ReadTimeout = c.server.ReadHeaderTimeout, c.server.ReadTimeout
			server.Start()
			defer server.Close()
			wantOutcome(t, auditAt(t, server.URL, write, "LIM-02"), c.want, 0)
		})
	}
	t.Run("the body is refused before it is read", func(t *testing.T) {
		t.Parallel()
		wantOutcome(t, auditAt(t, refusesBodies(t, false), write, "LIM-02"), audit.Inconclusive, 0)
	})
	t.Run("the body is refused before it is read, and thrown away as it comes", func(t *testing.T) {
		t.Parallel()
		wantOutcome(t, auditAt(t, refusesBodies(t, true), write, "LIM-02"), audit.Inconclusive, 0)
	})
}

// refusesBodies is a server that answers 405 to a POST from its head alone and closes, at once or when the client has
// sent everything, and cuts slow heads.
func refusesBodies(t *testing.T, linger bool) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { ln.Close(); group.Wait() })
	one := func(conn net.Conn) {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		r, err := http.ReadRequest(bufio.NewReader(conn))
		switch {
		case err != nil:
		case r.Method == http.MethodPost:
			io.WriteString(conn, "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if linger {
				conn.SetDeadline(time.Time{})
				io.Copy(io.Discard, conn)
			}
		case r.Header.Get("Authorization") == "Bearer good":
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{\"id\":\"a\"}")
		default:
			io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
		}
	}
	group.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			group.Go(func() { one(conn) })
		}
	})
	return "http://" + ln.Addr().String()
}

// noteAPI is an API with POST /notes.
func noteAPI(post http.HandlerFunc) http.Handler {
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/notes" && r.Method == http.MethodPost {
			post(w, r)
			return true
		}
		return false
	})
}

func readAll(then func(http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		then(w)
	}
}

func TestBodyCapIsSeenWhereBodiesAreRead(t *testing.T) {
	active := func(_ string, t *audit.Target, _ *audit.Config) { t.WritePath = "/notes" }
	safe := func(_ string, t *audit.Target, c *audit.Config) { t.WritePath, c.Active = "/notes", false }
	capped := func(then func(http.ResponseWriter)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1<<20)); err != nil {
				then(w)
				return
			}
			jsonAnswer(w, 201, `{}`)
		}
	}
	for _, c := range []struct {
		name   string
		server http.Handler
		knobs  func(string, *audit.Target, *audit.Config)
		want   audit.Outcome
		as     audit.Severity
	}{
		{"413 at 1 MiB", noteAPI(capped(status(413))), active, audit.Pass, 0},
		{"400 at 1 MiB", noteAPI(capped(status(400))), active, audit.Pass, 0},
		{"the connection is cut at 1 MiB", noteAPI(capped(cutOff)), active, audit.Pass, 0},
		{"everything is read and taken", noteAPI(readAll(status(201))), active, audit.Fail, audit.High},
		{"everything is read, then found broken", noteAPI(readAll(status(400))), safe, audit.Fail, audit.Medium},
		{"only the declared length is looked at", noteAPI(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength > 1<<20 {
				status(413)(w)
				return
			}
			readAll(status(201))(w, r)
		}), active, audit.Fail, audit.High},
		{"nothing takes a body", api(nil), active, audit.Inconclusive, 0},
		{"the caller is refused", noteAPI(func(w http.ResponseWriter, _ *http.Request) { status(401)(w) }), active, audit.Inconclusive, 0},
		{"answered without reading", noteAPI(func(w http.ResponseWriter, _ *http.Request) { status(200)(w) }), active, audit.Inconclusive, 0},
		{"the handler breaks", noteAPI(capped(status(500))), active, audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantOutcome(t, auditOf(t, c.server, c.knobs, "LIM-04"), c.want, c.as)
		})
	}
}

func TestHeadCapsAreJudgedByTheAnswer(t *testing.T) {
	overall := func(long func(http.ResponseWriter)) http.Handler {
		return api(func(w http.ResponseWriter, r *http.Request) bool {
			if len(r.RequestURI) <= 8<<10 && len(r.Header.Get("X-Gantry")) <= 8<<10 {
				return false
			}
			long(w)
			return true
		})
	}
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
		as     audit.Severity
	}{
		{"431, and 200 headers served", overall(status(431)), audit.Pass, 0},
		{"cut without a word", overall(cutOff), audit.Pass, 0},
		{"500", overall(status(500)), audit.Fail, audit.Medium},
		{"served", api(nil), audit.Fail, audit.Low},
		{"the caller is refused", overall(status(403)), audit.Inconclusive, 0},
		{"a query that is not known is refused, long or short", api(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.RawQuery != "":
				status(400)(w)
			case r.Header.Get("X-Gantry") != "":
				status(431)(w)
			default:
				return false
			}
			return true
		}), audit.Pass, 0},
		{"a cap of the whole head above the URL's 16 KiB", api(func(w http.ResponseWriter, r *http.Request) bool {
			if len(r.RequestURI)+len(r.Header.Get("X-Gantry")) <= 20<<10 {
				return false
			}
			status(431)(w)
			return true
		}), audit.Pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, nil, "LIM-05"), c.want, c.as)
		})
	}
}

func TestHostileJSONIsWholeOnlyWhereWritingIsAllowed(t *testing.T) {
	for _, active := range []bool{false, true} {
		var whole atomic.Bool
		server := noteAPI(func(w http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body)
			if strings.HasPrefix(string(text), "[") && json.Valid(text) {
				whole.Store(true)
			}
			status(400)(w)
		})
		auditOf(t, server, func(_ string, t *audit.Target, c *audit.Config) { t.WritePath, c.Active = "/notes", active }, "LIM-06")
		if whole.Load() != active {
			t.Errorf("with active %v, valid JSON was sent: %v", active, whole.Load())
		}
	}
}

func TestHostileJSONIsJudgedWhereJSONIsRead(t *testing.T) {
	write := func(_ string, t *audit.Target, c *audit.Config) { t.WritePath, c.Active = "/notes", false }
	var gone atomic.Bool
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
	}{
		{"refused", noteAPI(readAll(status(400))), audit.Pass},
		{"refused from the head alone", noteAPI(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			status(400)(w)
		}), audit.Pass},
		{"cut with nothing left to read", noteAPI(func(w http.ResponseWriter, r *http.Request) {
			if n, _ := io.Copy(io.Discard, r.Body); n > 1<<10 {
				cutOff(w)
			}
			status(400)(w)
		}), audit.Inconclusive},
		{"a page for everything", noteAPI(readAll(status(200))), audit.Inconclusive},
		{"nothing there", api(nil), audit.Inconclusive},
		{"500 for anything broken", noteAPI(readAll(status(500))), audit.Inconclusive},
		{"500 once", func() http.Handler {
			var n atomic.Int64
			return noteAPI(readAll(func(w http.ResponseWriter) { status(map[bool]int{true: 500, false: 400}[n.Add(1) == 2])(w) }))
		}(), audit.Pass},
		{"500 for long ones", noteAPI(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			status(map[bool]int{true: 500, false: 400}[n > 1<<16])(w)
		}), audit.Fail},
		{"the process dies of it", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() {
				cutOff(w)
			}
			noteAPI(func(w http.ResponseWriter, r *http.Request) {
				if n, _ := io.Copy(io.Discard, r.Body); n > 1<<10 {
					gone.Store(true)
					cutOff(w)
				}
				status(400)(w)
			}).ServeHTTP(w, r)
		}), audit.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, c.server, write, "LIM-06"), c.want, 0)
		})
	}
}

func TestInflatingBodyIsSmallAndWhole(t *testing.T) {
	packed := inflating(64)
	if got, want := len(packed), 80<<10; got > want {
		t.Errorf("packed = %d bytes, want at most %d", got, want)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if want := int64(64<<20 + len(`{"gantry":"`)); err != nil || n != want {
		t.Errorf("unpacked = %d bytes (%v), want %d", n, err, want)
	}
}
