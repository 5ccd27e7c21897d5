package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

const secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJlLXRoYXQtbm9ib2R5LW1heS1zZWU"

// api answers /me to the one token, and refuses everybody else.
func api(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path != "/me":
		w.WriteHeader(404)
		fmt.Fprint(w, `{"error":"not found"}`)
	case r.Header.Get("Authorization") != "Bearer "+secret:
		w.WriteHeader(401)
		fmt.Fprint(w, `{"error":"who are you"}`)
	default:
		fmt.Fprintf(w, `{"id":"user_1","time":%q,"seen":%q}`, time.Now(), r.Header.Get("Authorization"))
	}
}

func target(t *testing.T, h http.HandlerFunc) *audit.Target {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	tg, err := audit.ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	tg.Token, tg.ProtectedPaths = secret, []string{"/me"}
	return tg
}

func quick() audit.Config { return audit.Config{Pace: 1000} }

// asking is a probe that runs f.
func asking(f func(context.Context, *audit.Session) (audit.Verdict, error)) audit.Probe {
	return audit.Probe{ID: "T-01", Title: "a test", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Errors, Run: f}
}

func run(t *testing.T, tg *audit.Target, p audit.Probe, c audit.Config) audit.Finding {
	t.Helper()
	r, err := audit.Run(t.Context(), tg, []audit.Probe{p}, c)
	if err != nil {
		t.Fatal(err)
	}
	return r.Findings[0]
}

func TestCalibrationTellsCredentialsApart(t *testing.T) {
	for name, c := range map[string]struct {
		h     http.HandlerFunc
		tells bool
	}{
		"sound":       {api, true},
		"no identity": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":1}`) }, false},
		"200 with an error in the body": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.Header.Get("Authorization") == "Bearer "+secret {
				fmt.Fprint(w, `{"ok":true,"user":{"id":"user_1","email":"a@example.com","plan":"free"}}`)
				return
			}
			fmt.Fprint(w, `{"ok":false,"error":"unauthorized"}`)
		}, true},
		"valid token refused": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := audit.Run(t.Context(), target(t, c.h), nil, quick())
			if err != nil {
				t.Fatal(err)
			}
			if r.Calibration.Tells != c.tells {
				t.Errorf("tells = %v (%s), want %v", r.Calibration.Tells, r.Calibration.Why, c.tells)
			}
		})
	}
}

func TestReportHoldsNoSecret(t *testing.T) {
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Get(ctx, "/me") // the API echoes the token
		forged := secret[:len(secret)-4] + "AAAA"
		y, err2 := s.Do(ctx, audit.Request{Path: "/me?token=" + secret, Token: forged, Label: "forged"})
		return audit.Failed("the token %s came back", secret).With(x, y), errors.Join(err, err2)
	})
	p.Confirms = true
	tg := target(t, api)
	tg.JWTKey = "a-signing-key-of-staging-0123456789"
	r, err := audit.Run(t.Context(), tg, []audit.Probe{p}, quick())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{secret, secret[strings.LastIndex(secret, ".")+1:], tg.JWTKey} {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("the report shows %s", s)
		}
	}
	if !bytes.Contains(text, []byte(audit.Fingerprint(secret))) {
		t.Error("the report does not name the token by its fingerprint")
	}
}

func TestFailureThatDoesNotRepeatIsNotOne(t *testing.T) {
	n := 0
	p := asking(func(context.Context, *audit.Session) (audit.Verdict, error) {
		if n++; n == 1 {
			return audit.Failed("once"), nil
		}
		return audit.Passed("fine"), nil
	})
	if f := run(t, target(t, api), p, quick()); f.Outcome != audit.Inconclusive {
		t.Errorf("outcome = %s, want inconclusive", f.Outcome)
	}
}

func TestDeadTokenMakesNoVerdict(t *testing.T) {
	var died atomic.Bool
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		if died.Load() {
			w.WriteHeader(401)
			return
		}
		api(w, r)
	})
	p := asking(func(context.Context, *audit.Session) (audit.Verdict, error) {
		died.Store(true)
		return audit.Passed("everything forged was refused"), nil
	})
	p.NeedsCredential = true
	f := run(t, tg, p, quick())
	if f.Outcome != audit.Inconclusive || !strings.Contains(f.Message, "unchanged valid token") {
		t.Errorf("finding = %s %q, want inconclusive for the control", f.Outcome, f.Message)
	}
}

func TestCrashingProbeIsInconclusive(t *testing.T) {
	p := asking(func(context.Context, *audit.Session) (audit.Verdict, error) { panic("a bug") })
	if f := run(t, target(t, api), p, quick()); f.Outcome != audit.Inconclusive {
		t.Errorf("outcome = %s, want inconclusive", f.Outcome)
	}
}

func TestRateLimitIsWaitedFor(t *testing.T) {
	var limited atomic.Int32
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/limited" && limited.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		api(w, r)
	})
	waited := false
	c := quick()
	c.Progress = func(p audit.Progress) { waited = waited || p.Waiting > 0 }
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Do(ctx, audit.Request{Path: "/limited"})
		if err != nil {
			return audit.Verdict{}, err
		}
		return audit.Passed("%d", x.Status), nil
	})
	if f := run(t, tg, p, c); f.Message != "404" || !waited {
		t.Errorf("finding %q, waited %v; want 404 after a wait", f.Message, waited)
	}
}

func TestBudgetEndsTheRunAndStillReports(t *testing.T) {
	c := quick()
	c.Budget.Requests = 20
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		for {
			if _, err := s.Get(ctx, "/me"); err != nil {
				return audit.Verdict{}, err
			}
		}
	})
	r, err := audit.Run(t.Context(), target(t, api), []audit.Probe{p}, c)
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Findings[0]; f.Outcome != audit.Inconclusive || r.Incomplete == "" {
		t.Errorf("finding %s, incomplete %q; want inconclusive in an incomplete report", f.Outcome, r.Incomplete)
	}
}

func TestNothingLeavesTheOrigin(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL+"/me", http.StatusFound)
			return
		}
		if r.URL.Path == "/near" {
			http.Redirect(w, r, "/me", http.StatusFound)
			return
		}
		api(w, r)
	})
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		away, err := s.Do(ctx, audit.Request{Path: "/away", Token: secret, Follow: true})
		near, err2 := s.Do(ctx, audit.Request{Path: "/near", Token: secret, Follow: true})
		if err := errors.Join(err, err2); err != nil {
			return audit.Verdict{}, err
		}
		return audit.Passed("%d %d", away.Status, near.Status), nil
	})
	if f := run(t, tg, p, quick()); f.Message != "302 200" || elsewhere.Load() != 0 {
		t.Errorf("finding %q, %d requests elsewhere; want 302 200 and none", f.Message, elsewhere.Load())
	}
}

func TestCatchAllPageIsAbsence(t *testing.T) {
	tg := target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.env" {
			fmt.Fprint(w, "SECRET=1\nDATABASE=2\n")
			return
		}
		fmt.Fprintf(w, "<html><body>Welcome to the shop %d</body></html>", time.Now().UnixNano())
	})
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		var answers []bool
		for _, path := range []string{"/.env", "/.aws", "/backup.sql"} {
			x, err := s.Do(ctx, audit.Request{Path: path})
			if err != nil {
				return audit.Verdict{}, err
			}
			absent, err := s.Absent(ctx, x)
			if err != nil {
				return audit.Verdict{}, err
			}
			answers = append(answers, absent)
		}
		return audit.Passed("%v", answers), nil
	})
	if f := run(t, tg, p, quick()); f.Message != "[false true true]" {
		t.Errorf("absent = %s, want [false true true]", f.Message)
	}
}

func TestRiskNeedsAuthorisationBeyondPrivateAddresses(t *testing.T) {
	for url, local := range map[string]bool{
		"http://127.0.0.1:8000": true, "http://localhost": true, "http://10.1.2.3": true, "http://[::1]:80": true,
		"https://api.example.com": false, "http://8.8.8.8": false, "http://localhost.example.com": false,
		"http://169.254.169.254": false, "http://2130706433": false,
	} {
		tg, err := audit.ParseTarget(url)
		if err != nil {
			t.Fatal(err)
		}
		if err := (audit.Config{Active: true}).Validate(tg); (err == nil) != local {
			t.Errorf("%s: Validate = %v, want local %v", url, err, local)
		}
		if err := (audit.Config{Active: true, Authorized: tg.URL.Hostname()}).Validate(tg); err != nil {
			t.Errorf("%s, authorised: %v", url, err)
		}
		if err := (audit.Config{Load: true, Authorized: "example.com"}).Validate(tg); (err == nil) != local {
			t.Errorf("%s, authorised for another host: Validate = %v", url, err)
		}
	}
}

func TestInterruptionMendsWhatTheFaultBroke(t *testing.T) {
	mended := filepath.Join(t.TempDir(), "mended")
	ctx, interrupt := context.WithCancel(t.Context())
	c := quick()
	c.Faults = true
	c.Hooks = audit.Hooks{Fault: "true", Restore: "touch " + mended}
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		err := s.Broken(ctx, s.Hooks().Fault, func(ctx context.Context) error {
			interrupt()
			<-ctx.Done()
			return ctx.Err()
		})
		return audit.Passed("not reached"), err
	})
	p.Mode = audit.Fault
	r, err := audit.Run(ctx, target(t, api), []audit.Probe{p}, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mended); err != nil {
		t.Error("the restore command did not run")
	}
	if r.Findings[0].Outcome != audit.Inconclusive || r.Incomplete != "the run was interrupted" {
		t.Errorf("finding %s, incomplete %q", r.Findings[0].Outcome, r.Incomplete)
	}
}

func TestUnreachableTargetIsAnErrorOfItsOwn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(api))
	tg, err := audit.ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := audit.Run(t.Context(), tg, nil, quick()); !errors.Is(err, audit.ErrUnreachable) {
		t.Errorf("Run = %v, want ErrUnreachable", err)
	}
}

func TestSameSeedGivesTheSameNames(t *testing.T) {
	tg := target(t, api)
	p := asking(func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
		x, err := s.Get(ctx, "/"+s.Nonce(1))
		return audit.Passed("%s", s.Nonce(1)).With(x), err
	})
	a, b := run(t, tg, p, quick()), run(t, tg, p, quick())
	if a.Message != b.Message || a.Evidence[0].ID != b.Evidence[0].ID {
		t.Errorf("two runs: %s %s and %s %s", a.Message, a.Evidence[0].ID, b.Message, b.Evidence[0].ID)
	}
}

func TestDeclaredAndAttestedNeverHideAFailure(t *testing.T) {
	day := 24 * time.Hour
	c := quick()
	c.Attested = []audit.Attestation{{ID: "T-01", Owner: "ops", Link: "https://wiki", Date: time.Now().Add(-day), Expires: time.Now().Add(day)}}
	open := asking(func(context.Context, *audit.Session) (audit.Verdict, error) { return audit.Unproven("no hook"), nil })
	open.Category = audit.Launch
	fails := asking(func(context.Context, *audit.Session) (audit.Verdict, error) { return audit.Failed("seen"), nil })
	fails.Category = audit.Launch
	if f := run(t, target(t, api), open, c); f.Outcome != audit.Attested {
		t.Errorf("attested probe: %s", f.Outcome)
	}
	tg := target(t, api)
	tg.Declared = map[string]string{"T-01": "we have none"}
	if f := run(t, tg, open, quick()); f.Outcome != audit.NotApplicable || !f.Declared {
		t.Errorf("declared probe: %s", f.Outcome)
	}
	if f := run(t, tg, fails, c); f.Outcome != audit.Fail {
		t.Errorf("failing probe, declared and attested: %s", f.Outcome)
	}
}
