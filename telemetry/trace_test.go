package telemetry

import (
	"encoding/hex"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/gantryhq/gantry/internal/testenv"
)

// open returns a tracer that sends to a collector in short intervals.
func open(t *testing.T, protocol, address string, change func(*TraceConfig)) *Tracer {
	t.Helper()
	endpoint, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if protocol == OverHTTP {
		endpoint.Path = "/v1/traces"
	}
	cfg := TraceConfig{
		Export:   Export{Endpoint: endpoint, Protocol: protocol, Headers: map[string]string{"api-key": "key-of-the-vendor"}, Timeout: 300 * time.Millisecond},
		Resource: map[string]string{"service.name": "gantry"}, Delay: 5 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	tracer, err := NewTracer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func protocols(c *testenv.Collector) map[string]string {
	return map[string]string{OverHTTP: c.HTTP, OverGRPC: c.GRPC}
}

// byName are the spans of a trace.
func byName(spans []*trace.Span) map[string]*trace.Span {
	found := make(map[string]*trace.Span)
	for _, s := range spans {
		found[s.GetName()] = s
	}
	return found
}

func TestARequestsSpansHaveItsIDsAndTimes(t *testing.T) {
	for _, protocol := range []string{OverHTTP, OverGRPC} {
		c := testenv.NewCollector(t)
		tracer := open(t, protocol, protocols(c)[protocol], nil)
		stop := running(t, tracer.Run)
		tracer.Record(request("A", 200))
		c.Until(func() bool { return len(c.Spans()) == 6 })
		stop()
		spans := byName(c.Spans())
		root, call := spans["GET /v1/things/{id}"], spans["upstream"]
		if hex.EncodeToString(root.GetTraceId()) != "4bf92f3577b34da6a3ce929d0e0e4736" || hex.EncodeToString(root.GetSpanId()) != "00f067aa0ba902b7" ||
			hex.EncodeToString(root.GetParentSpanId()) != "1111111111111111" || root.GetKind() != trace.Span_SPAN_KIND_SERVER {
			t.Errorf("%s: root = %v", protocol, root)
		}
		if hex.EncodeToString(call.GetSpanId()) != "2222222222222222" || hex.EncodeToString(call.GetParentSpanId()) != "00f067aa0ba902b7" || call.GetKind() != trace.Span_SPAN_KIND_CLIENT {
			t.Errorf("%s: call = %v", protocol, call)
		}
		if from, to := time.Unix(0, int64(call.GetStartTimeUnixNano())).Sub(start), time.Unix(0, int64(call.GetEndTimeUnixNano())).Sub(start); from != 7*time.Millisecond || to != 40*time.Millisecond {
			t.Errorf("%s: the call lasts from %v to %v, want 7ms to 40ms", protocol, from, to)
		}
		want := map[string]string{
			"http.request.method": "GET", "http.route": "/v1/things/{id}", "url.path": "/v1/things/7", "http.response.status_code": "200",
			"server.address": "api.example.org", "server.port": "8443", "client.address": "192.0.2.7", "enduser.pseudo.id": "u_2c80f694c664",
			"gantry.request_id": "A", "gantry.decision": "",
		}
		if diff := cmp.Diff(want, testenv.Attributes(root.GetAttributes())); diff != "" {
			t.Errorf("%s: attributes (-want +got):\n%s", protocol, diff)
		}
		if c.Resource()["service.name"] != "gantry" || !strings.Contains(c.Received(), "key-of-the-vendor") {
			t.Errorf("%s: resource %v, or the header is missing", protocol, c.Resource())
		}
	}
}

func TestFailuresAreExportedWhateverTheSamplerSaid(t *testing.T) {
	c := testenv.NewCollector(t)
	tracer := open(t, OverHTTP, c.HTTP, nil)
	stop := running(t, tracer.Run)
	for id, status := range map[string]int{"fine": 200, "refused": 429, "failed": 502} {
		r := request(id, status)
		r.Sampled = false
		tracer.Record(r)
	}
	panicked := request("panicked", 200)
	panicked.Sampled, panicked.Panicked, panicked.Panic, panicked.Decision = false, true, "boom", "panic"
	tracer.Record(panicked)
	c.Until(func() bool { return len(c.Spans()) == 12 })
	stop()
	for _, s := range c.Spans() {
		attrs := testenv.Attributes(s.GetAttributes())
		switch id := attrs["gantry.request_id"]; {
		case id == "":
		case id != "failed" && id != "panicked":
			t.Errorf("%s was exported", id)
		case s.GetStatus().GetCode() != trace.Status_STATUS_CODE_ERROR || attrs["error.type"] == "":
			t.Errorf("%s: status %v, error.type %q", id, s.GetStatus(), attrs["error.type"])
		}
	}
}

// TestWhatCannotBeSentIsCounted breaks the collector in every way: nobody waits, everything is counted,
// and the end comes in time.
func TestWhatCannotBeSentIsCounted(t *testing.T) {
	const n = 200
	for _, protocol := range []string{OverHTTP, OverGRPC} {
		for fault, want := range map[testenv.ReceiverFault]string{
			testenv.ReceiverHangs: causeTimeout, testenv.ReceiverBusy: causeThrottled, testenv.ReceiverFails: causeRejected, -1: causeUnreachable,
		} {
			c := testenv.NewCollector(t)
			c.Break(fault)
			if fault < 0 {
				c.Vanish()
			}
			log, said := listen()
			tracer := open(t, protocol, protocols(c)[protocol], func(cfg *TraceConfig) { cfg.Queue, cfg.Logger = 8, log })
			tracer.Record(request("first", 200))
			stop := running(t, tracer.Run)
			if line := <-said; !strings.Contains(line, want) {
				t.Errorf("%s, %v: the log says %q, want %s", protocol, fault, line, want)
			}
			for range n {
				tracer.Record(request("more", 200))
			}
			if took := stop(); took > grace+time.Second {
				t.Errorf("%s, %v: the end took %v", protocol, fault, took)
			}
			if total(tracer.Dropped()) != n+1 || len(c.Spans()) != 0 {
				t.Errorf("%s, %v: %v dropped, want %d in all", protocol, fault, dropped(tracer.Dropped()), n+1)
			}
		}
	}
}

func TestACollectorThatComesBackGetsTraces(t *testing.T) {
	c := testenv.NewCollector(t)
	c.Break(testenv.ReceiverFails)
	tracer := open(t, OverHTTP, c.HTTP, nil)
	stop := running(t, tracer.Run)
	tracer.Record(request("lost", 200))
	c.Until(func() bool { return c.Calls() == 1 })
	c.Break(testenv.ReceiverHealthy)
	tracer.Record(request("kept", 200))
	c.Until(func() bool { return len(c.Spans()) == 6 })
	stop()
	if got := dropped(tracer.Dropped()); got[causeRejected] != 1 {
		t.Errorf("dropped %v, want one rejected", got)
	}
}

func TestWhatWaitsAtTheEndIsSent(t *testing.T) {
	c := testenv.NewCollector(t)
	tracer := open(t, OverHTTP, c.HTTP, func(cfg *TraceConfig) { cfg.Delay = time.Hour })
	stop := running(t, tracer.Run)
	for range 100 {
		tracer.Record(request("A", 200))
	}
	stop()
	if got := len(c.Spans()); got != 600 {
		t.Errorf("%d spans arrived, want 600; dropped %v", got, dropped(tracer.Dropped()))
	}
}

// TestSamplersAgreeWithTheSDKs holds ours beside OpenTelemetry's, by whose decisions other services of the
// same trace go.
func TestSamplersAgreeWithTheSDKs(t *testing.T) {
	for _, ratio := range []float64{0, 0.01, 0.5, 0.999, 1} {
		theirs := sdk.TraceIDRatioBased(ratio)
		for i := range 1000 {
			random := uint64(i) * (math.MaxUint64 / 1000)
			var id oteltrace.TraceID
			id[0] = 1
			for b := range 8 {
				id[15-b] = byte(random >> (8 * b))
			}
			want := theirs.ShouldSample(sdk.SamplingParameters{ParentContext: t.Context(), TraceID: id}).Decision == sdk.RecordAndSample
			if got := (Sampler{Ratio: ratio}).Sample(random, false, false); got != want {
				t.Fatalf("ratio %v, %x: %v, want %v", ratio, random, got, want)
			}
		}
	}
	follows := Sampler{ParentBased: true}
	if !follows.Sample(0, true, true) || follows.Sample(0, true, false) || (Sampler{}).Sample(0, true, true) {
		t.Error("the parent's decision counts for a parent-based sampler, and for no other")
	}
}

func TestRecordingNeverWaitsAndAllocatesNothingForOthers(t *testing.T) {
	c := testenv.NewCollector(t)
	tracer := open(t, OverHTTP, c.HTTP, nil)
	r := request("A", 200)
	r.Sampled = false
	if n := testing.AllocsPerRun(100, func() { tracer.Record(r) }); n != 0 {
		t.Errorf("%v allocations for a request whose trace is not wanted", n)
	}
	for range 3000 { // nobody takes from the queue
		tracer.Record(request("B", 200))
	}
	if got := dropped(tracer.Dropped()); got[causeFull] != 3000-2048 {
		t.Errorf("dropped %v, want %d for want of room", got, 3000-2048)
	}
	running(t, tracer.Run)()
}

func TestDialAsksTheCollector(t *testing.T) {
	c := testenv.NewCollector(t)
	for protocol, address := range protocols(c) {
		endpoint, _ := url.Parse(address + map[string]string{OverHTTP: "/v1/traces"}[protocol])
		e := Export{Endpoint: endpoint, Protocol: protocol, Headers: map[string]string{"api-key": "k"}}
		c.Break(testenv.ReceiverHealthy)
		if err := Dial(t.Context(), e); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		c.Break(testenv.ReceiverFails)
		if Dial(t.Context(), e) == nil {
			t.Errorf("%s: a collector that fails is called good", protocol)
		}
	}
}
