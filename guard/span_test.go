package guard

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const callersTrace, callersSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

// traced serves one request behind Trace and Shape, and returns what its end was told and asked.
func traced(t *testing.T, sample func(Head) bool, trusted []netip.Prefix, parent string, h http.HandlerFunc) (s Summary, heads []Head, log string) {
	t.Helper()
	var lines bytes.Buffer
	cfg := TraceConfig{Logger: slog.New(slog.NewTextHandler(&lines, nil)), Done: func(sum Summary) { s = sum; s.Steps = append([]Step(nil), sum.Steps...) }}
	if sample != nil {
		cfg.Sample = func(h Head) bool { heads = append(heads, h); return sample(h) }
	}
	r := httptest.NewRequest("GET", "http://localhost/", nil)
	if parent != "" {
		r.Header.Set("Traceparent", parent)
	}
	Pipeline{Trace: Trace(cfg), Shape: Shape(ShapeConfig{TrustedProxies: trusted})}.Then(h).ServeHTTP(httptest.NewRecorder(), r)
	return s, heads, lines.String()
}

var everybody = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}

func TestTracingGivesEveryExchangeIDsOfItsOwn(t *testing.T) {
	var header string
	var continued bool
	s, heads, log := traced(t, func(Head) bool { return true }, nil, "", func(_ http.ResponseWriter, r *http.Request) {
		x, _ := FromContext(r.Context())
		header, continued = x.Traceparent()
	})
	if want := "00-" + s.TraceID + "-" + s.CallID + "-01"; header != want || continued || parseParent([]string{header}).TraceID == "" {
		t.Errorf("to the upstream goes %q, want %q", header, want)
	}
	if s.SpanID == s.CallID || !s.Sampled || len(heads) != 1 || heads[0].HasParent {
		t.Errorf("span %s, call %s, sampled %v, asked %v", s.SpanID, s.CallID, s.Sampled, heads)
	}
	if !strings.Contains(log, "trace_id="+s.TraceID+" span_id="+s.SpanID) {
		t.Errorf("the log line names neither: %s", log)
	}
}

func TestACallersTraceGoesOn(t *testing.T) {
	for flags, sampled := range map[string]bool{"00": false, "01": true, "02": false, "03": true, "ff": true} {
		s, heads, _ := traced(t, func(h Head) bool { return h.Sampled }, everybody, "00-"+callersTrace+"-"+callersSpan+"-"+flags, func(http.ResponseWriter, *http.Request) {})
		want := Parent{TraceID: callersTrace, SpanID: callersSpan, Sampled: sampled}
		if s.TraceID != callersTrace || s.Parent != want || s.Sampled != sampled {
			t.Errorf("flags %s: trace %s, parent %+v, sampled %v", flags, s.TraceID, s.Parent, s.Sampled)
		}
		end, _ := hex.DecodeString(callersTrace[16:])
		if h := heads[0]; !h.HasParent || h.Random != binary.BigEndian.Uint64(end) {
			t.Errorf("flags %s: decided by %+v, want the end of the trace id", flags, h)
		}
	}
}

// TestAStrangerDoesNotDecideWhatIsRecorded: neither by the flag nor by the choice of a trace id.
func TestAStrangerDoesNotDecideWhatIsRecorded(t *testing.T) {
	randoms := make(map[uint64]bool)
	for range 10 {
		s, heads, _ := traced(t, func(h Head) bool { return h.Sampled }, nil, "00-"+callersTrace+"-"+callersSpan+"-01", func(http.ResponseWriter, *http.Request) {})
		if s.TraceID != callersTrace || s.Sampled || heads[0].HasParent {
			t.Fatalf("trace %s, sampled %v, decided by %+v", s.TraceID, s.Sampled, heads[0])
		}
		randoms[heads[0].Random] = true
	}
	if len(randoms) < 9 {
		t.Errorf("the trace id decides: %v", randoms)
	}
}

func TestWithoutASamplerTheCallersTraceGoesByAsItCame(t *testing.T) {
	parent := "00-" + callersTrace + "-" + callersSpan + "-01"
	s, _, log := traced(t, nil, nil, parent, func(_ http.ResponseWriter, r *http.Request) {
		x, _ := FromContext(r.Context())
		if header, _ := x.Traceparent(); header != "" || r.Header.Get("Traceparent") != parent {
			t.Errorf("header %q, the request's %q", header, r.Header.Get("Traceparent"))
		}
	})
	if s.SpanID != "" || s.CallID != "" || strings.Contains(log, "span_id") || s.TraceID != callersTrace {
		t.Errorf("%+v", s)
	}
}

func TestTheStagesStepsFollowOneAnother(t *testing.T) {
	s, _, _ := traced(t, nil, nil, "", func(w http.ResponseWriter, r *http.Request) {
		x, _ := FromContext(r.Context())
		x.Write(func(j *Journal) {
			j.Step(StepIdentity, "refused")
			j.Outcome(StepIdentity, "expired")
			j.Count(Limit{Policy: "user", Limit: 5, Used: 2})
			j.Step(StepQuota, "allowed")
			j.Admit()
			j.Forward(Forward{Upstream: "a:1", Status: 200}, "200", time.Now())
			j.Outcome(StepUpstream, "truncated")
			for range 2 * maxSteps {
				j.Call(StepStore, "find", time.Now())
			}
		})
	})
	var got []string
	for i, step := range s.Steps {
		got = append(got, step.Name+" "+step.Outcome)
		if step.Start > step.End || i > 0 && step.Name != StepHandler && step.Start < s.Steps[i-1].Start {
			t.Errorf("step %d of %+v is out of order", i, s.Steps)
		}
	}
	want := []string{"shape passed", "identity expired", "quota allowed", "handler ", "upstream truncated", "store find", "store find", "store find"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if s.Steps[3].End != s.Duration || s.Forward.Upstream != "a:1" || len(s.Limits) != 1 {
		t.Errorf("handler %+v of %v, forward %+v, limits %v", s.Steps[3], s.Duration, s.Forward, s.Limits)
	}
}

func TestARefusalByShapeIsAStep(t *testing.T) {
	var s Summary
	h := Pipeline{
		Trace: Trace(TraceConfig{Done: func(sum Summary) { s = sum; s.Steps = append([]Step(nil), sum.Steps...) }, Scrub: func(string) string { return "/scrubbed" }}),
		Shape: Shape(ShapeConfig{}),
	}.Then(http.NotFoundHandler())
	r := httptest.NewRequest("GET", "http://elsewhere.example/", nil)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if len(s.Steps) != 1 || s.Steps[0].Outcome != s.Decision || s.Path != "/scrubbed" {
		t.Errorf("steps %+v, decision %q, path %q", s.Steps, s.Decision, s.Path)
	}
}

func TestThePanicIsTold(t *testing.T) {
	var s Summary
	h := Pipeline{Trace: Trace(TraceConfig{Done: func(sum Summary) { s = sum }}), Recover: Recover(nil)}.Then(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if s.Panic == nil || s.Panic.Value != "boom" || !strings.Contains(string(s.Panic.Stack), "TestThePanicIsTold") {
		t.Errorf("panic = %+v", s.Panic)
	}
}

// TestAnAbandonedHandlerWritesIntoNobodysJournal: the journal of a request that was answered 504 serves
// the next one while the handler still runs.
func TestAnAbandonedHandlerWritesIntoNobodysJournal(t *testing.T) {
	deadlines := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t), Timeout: 10 * time.Millisecond})
	defer deadlines.Close()
	told := make(chan Summary, 10)
	answered, written := make(chan struct{}), make(chan struct{})
	h := Pipeline{
		Trace:    Trace(TraceConfig{Done: func(s Summary) { s.Steps = append([]Step(nil), s.Steps...); told <- s }}),
		Deadline: deadlines.Middleware,
	}.Then(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/late" {
			return
		}
		x, _ := FromContext(r.Context())
		<-answered
		x.Write(func(j *Journal) {
			j.Decide("late")
			j.Step("late", "late")
			j.Identified("late")
		})
		close(written)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/late", nil))
	if s := <-told; s.Decision != "timeout" || s.Timeout != 10*time.Millisecond {
		t.Errorf("decision %q, timeout %v", s.Decision, s.Timeout)
	}
	close(answered)
	for range 5 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		if s := <-told; s.Decision != "" || s.Caller != "" || len(s.Steps) != 0 {
			t.Errorf("another request's %q, %q, %v", s.Decision, s.Caller, s.Steps)
		}
	}
	<-written
}
