package gantry_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/ratelimit"
)

// bare is a handler as many are: it works, and leaves to others whether tokens are genuine, how often somebody may
// ask, and how long anything may take. It knows nothing of Gantry.
func bare() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		claims := payloadOf(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if claims["sub"] == nil {
			http.Error(w, `{"title":"who are you?"}`, http.StatusUnauthorized)
			return
		}
		answer(w, 200, map[string]any{"id": claims["sub"], "plan": "free"})
	})
	mux.HandleFunc("POST /notes", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(text) {
			answer(w, 400, map[string]any{"title": "that is no JSON"})
			return
		}
		answer(w, 201, map[string]any{"id": "1"})
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(4 * time.Second) // a query that nobody bounded; it looks at no context
		answer(w, 200, map[string]any{"rows": 1})
	})
	return mux
}

// payloadOf reads a token without verifying it.
func payloadOf(token string) (claims map[string]any) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		if text, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(text, &claims)
		}
	}
	return claims
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

const (
	selfLimit    = 40
	selfWindow   = 2 * time.Second
	selfDeadline = 1500 * time.Millisecond // long enough to read a large body on a busy machine
	selfAudience = "https://api.example.org"
)

// behind puts a handler behind the default pipeline.
func behind(t *testing.T, h http.Handler, issuer *testenv.Issuer) http.Handler {
	t.Helper()
	verifier, err := identity.New([]identity.Issuer{{URL: issuer.URL, Profile: identity.OIDC, Audience: selfAudience}}, identity.Config{})
	if err != nil {
		t.Fatal(err)
	}
	rate := ratelimit.Rate{Limit: selfLimit, Window: selfWindow}
	limiter, err := ratelimit.New(ratelimit.Config{PerUser: rate, Anonymous: rate})
	if err != nil {
		t.Fatal(err)
	}
	well, err := health.New(health.Config{})
	if err != nil {
		t.Fatal(err)
	}
	well.Open()
	deadlines := guard.NewDeadlines(guard.DeadlineConfig{Timeout: selfDeadline})
	t.Cleanup(deadlines.Close)
	h = well.Middleware(guard.Pipeline{
		Trace:    guard.Trace(guard.TraceConfig{}),
		Recover:  guard.Recover(nil),
		Shape:    guard.Shape(guard.ShapeConfig{}),
		Deadline: deadlines.Middleware,
		Identify: verifier.Middleware(identity.Door{
			BeforeRefuse: func(w http.ResponseWriter, r *http.Request) bool {
				return limiter.Admit(w, r, ratelimit.Caller{Addr: clientOf(r), Rejected: true})
			},
		}),
		Quota: limiter.Middleware(func(r *http.Request) ratelimit.Caller {
			c := ratelimit.Caller{Addr: clientOf(r)}
			if p, ok := identity.FromContext(r.Context()); ok {
				c.User = p.Subject
			}
			return c
		}),
	}.Then(h))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard.CloseUnlessFramed(w, r) // health answers before the pipeline
		h.ServeHTTP(w, r)
	})
}

func clientOf(r *http.Request) (addr netip.Addr) {
	if x, ok := guard.FromContext(r.Context()); ok {
		return x.Client
	}
	return addr
}

// serveAt serves until the test ends.
func serveAt(t *testing.T, s *http.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.ErrorLog = log.New(io.Discard, "", 0)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(ln) // ErrServerClosed
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-ended
	})
	return "http://" + ln.Addr().String()
}

// measure audits what s serves with all probes that send neither load nor faults.
func measure(t *testing.T, s *http.Server, issuer *testenv.Issuer) map[string]audit.Finding {
	t.Helper()
	target, err := audit.ParseTarget(serveAt(t, s))
	if err != nil {
		t.Fatal(err)
	}
	token := func(user string) string {
		return issuer.Mint(map[string]any{"sub": user, "aud": selfAudience, "exp": time.Now().Add(10 * time.Minute).Unix()})
	}
	target.Token, target.TokenB, target.JWTKey, target.JWKS = token("user_a"), token("user_b"), issuer.PrivatePEM(), issuer.JWKSURL()
	target.ProtectedPaths, target.SlowPath, target.WritePath = []string{"/me"}, "/report", "/notes"
	r, err := audit.Run(t.Context(), target, probes.All(), audit.Config{Pace: 200, Policy: audit.Policy{
		RateLimit: selfLimit, RateWindow: selfWindow, Deadline: selfDeadline, Grace: 500 * time.Millisecond, SlowClient: 2 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Incomplete != "" {
		t.Fatalf("the audit is incomplete: %s", r.Incomplete)
	}
	found := map[string]audit.Finding{}
	for _, f := range r.Findings {
		found[f.Probe] = f
	}
	t.Logf("%.1f (%.1f before caps), %s; %d requests in %s", r.Score.Value, r.Score.Base, r.Score.Label, r.Requests, r.Took.Round(time.Second))
	return found
}

// mended are the probes that a bare handler fails and the pipeline passes.
var mended = []string{
	"JWT-01", "JWT-02", "JWT-03", "JWT-04", "JWT-05", "JWT-07", "JWT-08", "JWT-09", "JWT-10", "JWT-11", "JWT-12", "JWT-13", "JWT-14", "JWT-15",
	"JWT-16", "JWT-17", "JWT-18", "JWT-19", "JWT-20", "JWT-21", "JWT-25", "JWT-26", "RL-01", "LIM-01", "LIM-02", "LIM-04", "LIM-05", "HLT-01",
	"OBS-01", "TRN-04",
}

// left is what the pipeline leaves, with the severity and whose it is.
var left = map[string]struct {
	severity audit.Severity
	whose    string
}{
	"ERR-02": {audit.Medium, "the handler's own words for what is not there"},
	"TRN-06": {audit.Low, "net/http's: a bare line feed ends a line"},
}

// settled measures, and once more when a probe that must have found out something could not tell: one that is
// disturbed by other work on this machine says so.
func settled(measure func() map[string]audit.Finding, must func(id string) bool) map[string]audit.Finding {
	found := measure()
	for id, f := range found {
		if f.Outcome == audit.Inconclusive && must(id) {
			return measure()
		}
	}
	return found
}

func TestThePipelineMendsABareHandler(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	before := settled(func() map[string]audit.Finding {
		return measure(t, &http.Server{Handler: bare()}, issuer)
	}, func(id string) bool { return slices.Contains(mended, id) })
	after := settled(func() map[string]audit.Finding {
		return measure(t, &http.Server{Handler: behind(t, bare(), issuer), ReadHeaderTimeout: time.Second, MaxHeaderBytes: 32 << 10}, issuer)
	}, func(id string) bool { return slices.Contains(mended, id) || before[id].Outcome == audit.Pass })
	for _, id := range mended {
		if before[id].Outcome != audit.Fail {
			t.Errorf("bare, %s: %s: %s; want it to fail", id, before[id].Outcome, before[id].Message)
		}
		if after[id].Outcome != audit.Pass {
			t.Errorf("behind the pipeline, %s: %s: %s; want it to pass", id, after[id].Outcome, after[id].Message)
		}
	}
	for id, f := range after {
		if known, ok := left[id]; f.Outcome == audit.Fail && (!ok || f.FailedAs > known.severity) {
			t.Errorf("behind the pipeline, %s fails (%s): %s", id, f.FailedAs, f.Message)
		}
		if f.Outcome != audit.Pass && before[id].Outcome == audit.Pass {
			t.Errorf("%s passed without the pipeline, and with it is %s: %s", id, f.Outcome, f.Message)
		}
	}
}
