package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// beyond serves /me as api does, and everything else by h.
func beyond(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/me" {
			api(w, r)
			return
		}
		h(w, r)
	}
}

// whole audits tg with one probe.
func whole(t *testing.T, tg *audit.Target, c audit.Config, f func(context.Context, *audit.Session) (audit.Verdict, error)) audit.Report {
	t.Helper()
	p := asking(f)
	p.Confirms = true
	r, err := audit.Run(t.Context(), tg, []audit.Probe{p}, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTimeBudgetEndsARequestUnderWay(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	tg := target(t, beyond(func(http.ResponseWriter, *http.Request) { <-release }))
	c := quick()
	c.Budget.Time = 500 * time.Millisecond
	began := time.Now()
	r := whole(t, tg, c, func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		_, err := s.Do(ctx, audit.Request{Path: "/slow", Timeout: time.Minute})
		return audit.Passed("it answered"), err
	})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if want := "the audit's budget is spent: 500ms have passed"; r.Incomplete != want || r.Findings[0].Message != want || r.Findings[0].Outcome != audit.Inconclusive {
		t.Errorf("incomplete %q, finding %s %q, want %q", r.Incomplete, r.Findings[0].Outcome, r.Findings[0].Message, want)
	}
}

func TestBudgetThatWasNotMissedIsNotOverrun(t *testing.T) {
	c := quick()
	c.Budget.Requests = 9 // calibration, to the last
	r, err := audit.Run(t.Context(), target(t, api), nil, c)
	if err != nil || r.Incomplete != "" || r.Requests != 9 {
		t.Errorf("%d requests, incomplete %q, %v", r.Requests, r.Incomplete, err)
	}
}

func TestLimiterThatAsksForTooMuchIsNotWaitedFor(t *testing.T) {
	for _, ask := range []string{"99999999999", "3600", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		var asked atomic.Int64
		tg := target(t, beyond(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", ask)
			w.WriteHeader(http.StatusTooManyRequests)
		}))
		began := time.Now()
		r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
			_, err := s.Do(ctx, audit.Request{Path: "/x"})
			if !errors.Is(err, audit.ErrRateLimited) {
				return audit.Failed("error: %v", err), nil
			}
			return audit.Verdict{}, err
		})
		if f := r.Findings[0]; f.Outcome != audit.Inconclusive || asked.Load() != 1 || time.Since(began) > 30*time.Second {
			t.Errorf("Retry-After %s: asked %d times in %s: %s", ask, asked.Load(), time.Since(began), f.Message)
		}
	}
}

func TestPatienceWithALimiterRunsOutOnce(t *testing.T) {
	var closed atomic.Bool
	var asked atomic.Int64
	closed.Store(true)
	tg := target(t, beyond(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if closed.Load() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		_, first := s.Do(ctx, audit.Request{Path: "/x"}) // asked again three times
		_, second := s.Do(ctx, audit.Request{Path: "/x"})
		n := asked.Load()
		closed.Store(false)
		_, third := s.Do(ctx, audit.Request{Path: "/x"})
		return audit.Failed("%v; %v; %v; %d", first, second, third, n), nil
	})
	if want := fmt.Sprintf("%v; %v; <nil>; 5", audit.ErrRateLimited, audit.ErrRateLimited); r.Findings[0].Message != want {
		t.Errorf("got %q, want %q", r.Findings[0].Message, want)
	}
}

func TestTargetThatOnlyLimitsMakesNoWholeAudit(t *testing.T) {
	tg := target(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	r, err := audit.Run(t.Context(), tg, nil, quick())
	if err != nil || !strings.HasPrefix(r.Incomplete, audit.ErrRateLimited.Error()) {
		t.Errorf("incomplete %q, %v", r.Incomplete, err)
	}
}

func TestSilentPathDoesNotMakeTheTargetUnreachable(t *testing.T) {
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/me" {
			panic(http.ErrAbortHandler)
		}
		r.URL.Path = "/me"
		api(w, r)
	})
	tg.ProtectedPaths = []string{"/gone", "/v1/me"}
	r, err := audit.Run(t.Context(), tg, nil, quick())
	if err != nil || !r.Calibration.Tells || r.Calibration.Path != "/v1/me" {
		t.Errorf("calibration %+v, %v", r.Calibration, err)
	}
	tg.ProtectedPaths = []string{"/gone"}
	if _, err = audit.Run(t.Context(), tg, nil, quick()); !errors.Is(err, audit.ErrUnreachable) {
		t.Errorf("error %v, want unreachable", err)
	}
}

// The error of net/http quotes a malformed header line as it came.
func TestErrorsDoNotQuoteWhatTheTargetSentAsItCame(t *testing.T) {
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		c, out, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(out, "HTTP/1.1 200 OK\r\n\x1b[31m %s\r\n\r\n", r.Header.Get("Authorization"))
		out.Flush()
	})
	_, err := audit.Run(t.Context(), tg, nil, quick())
	if !errors.Is(err, audit.ErrUnreachable) || strings.Contains(err.Error(), "\x1b") || strings.Contains(err.Error(), secret) {
		t.Errorf("error %q", err)
	}
}

func TestRedirectsStayOnTheOrigin(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	beside := strings.TrimPrefix(other.URL, "http://")
	var location atomic.Value
	var own atomic.Int64
	tg := target(t, beyond(func(w http.ResponseWriter, r *http.Request) {
		own.Add(1)
		w.Header()["Location"] = []string{location.Load().(string)}
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	origin := tg.URL.Host
	for to, want := range map[string]int64{
		other.URL: 1, "//" + beside + "/x": 1, "http://" + origin + "@" + beside + "/": 1, `http:\\` + beside: 1, `/\` + beside: 6, "//" + beside + "@" + origin + "/": 6,
		"http://169.254.169.254/latest/meta-data/": 1, "http://[fd00:ec2::254]/": 1, "file:///etc/passwd": 1, "gopher://" + beside: 1, "javascript:alert(1)": 1,
		"https://" + origin + "/": 1, "http://%zz": 1, "": 6, "/again": 6, "?x=%zz": 6, strings.Repeat("../", 10_000): 6,
	} {
		location.Store(to)
		own.Store(0)
		whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
			_, err := s.Do(ctx, audit.Request{Path: "/go", Token: secret, Follow: true})
			return audit.Passed("done"), err
		})
		if own.Load() != want {
			t.Errorf("%.60q: %d requests to the target, want %d", to, own.Load(), want)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests left the origin", n)
	}
}

// raw is a target that answers /me as api does, and hands every other connection to f.
func raw(t *testing.T, f func(net.Conn)) *audit.Target {
	t.Helper()
	return target(t, beyond(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		f(c)
	}))
}

func flood(c net.Conn) {
	block := bytes.Repeat([]byte("X-More: and more\r\n"), 1000)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func TestSwitchedProtocolIsNotReadOn(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	tg := raw(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		<-over
	})
	began := time.Now()
	r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Do(ctx, audit.Request{Path: "/x"})
		return audit.Failed("%s", x), err
	})
	if want := "GET /x → 101, then the target switched to another protocol, unasked"; r.Findings[0].Message != want || time.Since(began) > 8*time.Second {
		t.Errorf("after %s: %q, want %q", time.Since(began), r.Findings[0].Message, want)
	}
}

func TestRawConnectionReadsAsMuchAsItSays(t *testing.T) {
	tg := raw(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		flood(c)
	})
	r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		c, err := s.Dial(ctx, "endless header")
		if err != nil {
			return audit.Verdict{}, err
		}
		defer c.Done()
		c.Send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _, err = c.Receive(20*time.Second, 1000)
		return audit.Failed("%v; closed %v", err, c.Closed(20*time.Second)), nil
	})
	if want := "the answer is longer than the audit reads; closed false"; r.Findings[0].Message != want {
		t.Errorf("got %q, want %q", r.Findings[0].Message, want)
	}
	if r.Received > 4<<20 {
		t.Errorf("%d bytes were read", r.Received)
	}
}

func TestRawConnectionEndsWithTheRun(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	tg := raw(t, func(net.Conn) { <-over })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		c, err := s.Dial(ctx, "no answer")
		if err != nil {
			return audit.Verdict{}, err
		}
		defer c.Done()
		c.Send("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		time.AfterFunc(100*time.Millisecond, cancel)
		_, _, err = c.Receive(time.Minute, 1000)
		return audit.Verdict{}, err
	})
	began := time.Now()
	r, err := audit.Run(ctx, tg, []audit.Probe{p}, quick())
	if err != nil || r.Incomplete != "the run was interrupted" || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: incomplete %q, %v", time.Since(began), r.Incomplete, err)
	}
}

func TestWhatIsKeptOfLargeAnswersIsBounded(t *testing.T) {
	tg := target(t, beyond(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header()[fmt.Sprintf("X-%03d", i)] = []string{strings.Repeat("v", 500), "again"}
		}
		io.WriteString(w, strings.Repeat("word ", 100_000))
	}))
	var kept int
	r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Do(ctx, audit.Request{Path: "/x", Method: "POST", Body: make([]byte, 1<<20)})
		for _, old := range s.History() {
			if old.Request.Path != "/x" {
				continue
			}
			kept = len(old.Body) + cap(old.Request.Body)
			for key, values := range old.Header {
				kept += len(key) + len(strings.Join(values, ""))
			}
		}
		return audit.Failed("large").With(x), err
	})
	if kept == 0 || kept > 20<<10 {
		t.Errorf("the history keeps %d bytes", kept)
	}
	e := r.Findings[0].Evidence[0]
	text, err := json.Marshal(e.Header)
	if err != nil || len(text) > 8<<10 || len(e.Header["X-000"]) != 2 || len(e.Header["..."]) != 1 {
		t.Errorf("evidence has %d bytes of headers: %.200s", len(text), text)
	}
}

func TestShapeIsOfTheWholeBody(t *testing.T) {
	a, b := audit.ShapeOf(200, "text/plain", []byte("404 page not found")), audit.ShapeOf(200, "text/plain", []byte("200 welcome back"))
	if got := a.Similarity(b); got != 0 {
		t.Errorf("two texts that begin with a number are alike: %v", got)
	}
}

func TestShapeOfHostileBodiesIsSmall(t *testing.T) {
	long := strings.Repeat("k", 79)
	var bush strings.Builder
	bush.WriteString(strings.Repeat(`{"`+long+`":`, 38) + "{")
	for i := range 3000 {
		fmt.Fprintf(&bush, `"%s%d":1,`, long, i)
	}
	bush.WriteString(`"end":1}` + strings.Repeat("}", 38))
	for name, body := range map[string]string{
		"long paths": bush.String(), "long word": strings.Repeat("w", 8<<20), "deep": strings.Repeat("[", 1_000_000), "words": strings.Repeat("abcdefgh ijklmnop ", 100_000),
	} {
		n := 0
		s := audit.ShapeOf(200, "application/json", []byte(body))
		for p := range s.Parts {
			n += len(p)
		}
		if n > 500<<10 || len(s.Parts) > 2001 {
			t.Errorf("%s: %d parts of %d bytes", name, len(s.Parts), n)
		}
	}
	if one, two := audit.ShapeOf(200, "", []byte(bush.String())), audit.ShapeOf(200, "", []byte(strings.Replace(bush.String(), long, "x"+long, 1))); one.Similarity(two) > 0.1 {
		t.Error("two trees with long paths are alike although one root differs")
	}
}

func TestFaultCommandThatFailedIsMended(t *testing.T) {
	mended := filepath.Join(t.TempDir(), "mended")
	c := quick()
	c.Hooks = audit.Hooks{Fault: "exit 3", Restore: "echo yes >> " + mended}
	whole(t, target(t, api), c, func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		return audit.Verdict{}, s.Broken(ctx, c.Hooks.Fault, func(context.Context) error { t.Error("nothing is broken"); return nil })
	})
	if text, err := os.ReadFile(mended); err != nil || string(text) != "yes\n" {
		t.Errorf("the restore command ran: %q, %v; want once", text, err)
	}
}

func TestCallbackKeepsLittleOfWhatItIsSent(t *testing.T) {
	var kept, bodies int
	whole(t, target(t, api), quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		c, err := s.Callback(ctx)
		if err != nil {
			return audit.Verdict{}, err
		}
		body := strings.Repeat("x", 64<<10)
		for i := range 1200 {
			res, err := http.Post(fmt.Sprintf("%s/made-up-%d/x", c.URL, i/50), "text/plain", strings.NewReader(body))
			if err != nil {
				return audit.Verdict{}, err
			}
			res.Body.Close()
		}
		for i := range 24 {
			for _, hit := range c.Hits(fmt.Sprintf("made-up-%d", i)) {
				kept, bodies = kept+1, bodies+len(hit.Body)
			}
		}
		return audit.Passed("done"), nil
	})
	if kept != 1000 || bodies != 4<<20 {
		t.Errorf("it keeps %d hits and %d bytes, want 1000 and 4 MiB", kept, bodies)
	}
}

func TestFiguresOfAFindingHoldNoSecret(t *testing.T) {
	r := whole(t, target(t, api), quick(), func(context.Context, *audit.Session) (audit.Verdict, error) {
		return audit.Failed("x").Measured("n", 7).Measured("seen", []string{secret, "\x1b[31m"}).Measured("by", map[string]any{"token": secret}), nil
	})
	text, err := json.Marshal(r.Findings[0].Data)
	if err != nil || strings.Contains(string(text), secret) || strings.Contains(string(text), `\u001b`) || r.Findings[0].Data["n"] != 7 {
		t.Errorf("data %s, %v", text, err)
	}
}

// What is cut short must not be cut in the middle of a secret, which nothing would recognise any more.
func TestHalfASecretIsNotShown(t *testing.T) {
	tg := target(t, api)
	tg.JWTKey = strings.Repeat("an opaque signing key of staging ", 10)
	r := whole(t, tg, quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Do(ctx, audit.Request{
			Path: "/x?key=" + strings.Repeat("a", 900) + strings.ReplaceAll(tg.JWTKey, " ", "%20"), Method: "POST",
			Header: audit.Header("X-Key", strings.Repeat("a", 150)+tg.JWTKey), Body: []byte(strings.Repeat("a", 450) + tg.JWTKey),
		})
		if err != nil {
			return audit.Verdict{}, err
		}
		c, err := s.Dial(ctx, "raw")
		if err != nil {
			return audit.Verdict{}, err
		}
		c.Send("GET /me HTTP/1.1\r\nHost: x\r\nX-Key: " + strings.Repeat("a", 150) + tg.JWTKey + "\r\n\r\n")
		return audit.Failed("x").With(x, c.Done()), nil
	})
	text, err := json.Marshal(r)
	for _, part := range []string{"opaque signing", "opaque%20signing", "opaque+signing"} {
		if err != nil || bytes.Contains(text, []byte(part)) {
			t.Errorf("%s, part of the key, is shown: %s, %v", part, text, err)
		}
	}
}

func TestListenerHoldsFewConnections(t *testing.T) {
	whole(t, target(t, api), quick(), func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		c, err := s.Callback(ctx)
		if err != nil {
			return audit.Verdict{}, err
		}
		var held []net.Conn
		for range 200 {
			conn, err := net.Dial("tcp", c.Host())
			if err != nil {
				return audit.Verdict{}, err
			}
			held = append(held, conn)
		}
		answered := make(chan error, 1)
		go func() {
			res, err := http.Get(c.URL + "/late")
			if err == nil {
				res.Body.Close()
			}
			answered <- err
		}()
		select {
		case <-answered:
			t.Error("one more was answered")
		case <-time.After(200 * time.Millisecond):
		}
		for _, conn := range held {
			conn.Close()
		}
		if err := <-answered; err != nil || len(c.Hits("late")) != 1 {
			t.Errorf("after the others were gone: %v, %d hits", err, len(c.Hits("late")))
		}
		return audit.Passed("done"), nil
	})
}
