package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Sampler decides at the beginning of a trace whether it is recorded. The zero value records none.
type Sampler struct {
	// ParentBased follows the caller's decision where there is one.
	ParentBased bool
	// Ratio of the others that is recorded, 0 to 1.
	Ratio float64
}

// Sample decides. random are the last 64 bits of the trace id, by which all samplers of a ratio decide
// alike (OpenTelemetry specification, TraceIdRatioBased).
func (s Sampler) Sample(random uint64, hasParent, parentSampled bool) bool {
	if s.ParentBased && hasParent {
		return parentSampled
	}
	return s.Ratio >= 1 || random>>1 < uint64(s.Ratio*(1<<63))
}

// Tracer sends traces of requests to a collector: those that were sampled, and those that failed.
//
// It is told of requests that are over, by [Tracer.Record], and makes spans of them in a goroutine of its
// own, with the ids and times the request had: while a request runs there is no span at all.
type Tracer struct {
	queue
	cfg      TraceConfig
	exporter sdk.SpanExporter
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	spans    *spans
	failing  bool
}

// TraceConfig of a Tracer. The zero value of each optional field means its default.
type TraceConfig struct {
	Export Export
	// Resource attributes describe this process.
	Resource map[string]string
	// Queue is how many requests may wait; default 2048. Batch is how many spans are sent at once; default
	// 512. Delay is how long spans wait for others; default 5 s. They are OpenTelemetry's own defaults.
	Queue, Batch int
	Delay        time.Duration
	// Lost hears of requests that are dropped, for a counter such as [Metrics.Lost]. Nil for nobody.
	Lost func(kind, cause string, n int)
	// Logger hears when the collector cannot be reached, and when it can again. Nil discards.
	Logger *slog.Logger
}

// NewTracer returns a tracer; it sends nothing before [Tracer.Run]. It does not wait for the collector.
func NewTracer(ctx context.Context, cfg TraceConfig) (*Tracer, error) {
	setDefault(&cfg.Queue, 2048)
	setDefault(&cfg.Batch, 512)
	setDefault(&cfg.Delay, 5*time.Second)
	setDefault(&cfg.Export.Timeout, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	about, err := resourceOf(ctx, cfg.Resource)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	otel.SetLogger(logr.Discard()) // the exporters read the environment too, and would log what they cannot parse: a key, perhaps
	exporter, err := newExporter(ctx, cfg.Export)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	t := &Tracer{queue: newQueue("span", cfg.Queue, cfg.Lost), cfg: cfg, exporter: exporter, spans: new(spans)}
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // what comes here has been decided about
		sdk.WithIDGenerator(givenIDs{}), sdk.WithSpanProcessor(t.spans), sdk.WithResource(about),
	)
	t.tracer = t.provider.Tracer("github.com/gantryhq/gantry", trace.WithSchemaURL(semconv.SchemaURL))
	return t, nil
}

func setDefault[T int | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}

// Record takes a request whose trace is wanted, and forgets the others. It never waits, and keeps a copy.
func (t *Tracer) Record(r *Request) {
	if r.Sampled || r.Failed() {
		t.put(r.clone())
	}
}

// Run sends until ctx ends, and then for two seconds at most what is left.
func (t *Tracer) Run(ctx context.Context) error {
	late, cancel := withGrace(ctx)
	defer cancel()
	tick := time.NewTicker(t.cfg.Delay)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case r := <-t.in:
			t.add(late, r)
		case <-tick.C:
			t.export(late)
		case <-ctx.Done():
		}
	}
	for len(t.in) > 0 && late.Err() == nil {
		t.add(late, <-t.in)
	}
	t.export(late)
	t.discard()
	_ = t.provider.Shutdown(late)
	_ = t.exporter.Shutdown(late) // that the collector is away at the end is no failure of ours
	return nil
}

func (t *Tracer) add(ctx context.Context, r *Request) {
	t.build(r)
	if len(t.spans.ended) >= t.cfg.Batch {
		t.export(ctx)
	}
}

// export sends what was built, and waits for the answer no longer than Timeout.
func (t *Tracer) export(ctx context.Context) {
	batch, requests := t.spans.take()
	if len(batch) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, t.cfg.Export.Timeout)
	defer cancel()
	err := t.exporter.ExportSpans(limited, batch)
	if err == nil {
		if t.failing {
			t.cfg.Logger.Info("traces are delivered again")
		}
		t.failing = false
		return
	}
	cause := causeOf(err)
	if ctx.Err() != nil {
		cause = causeShutdown
	}
	t.drop(cause, requests)
	if !t.failing {
		t.cfg.Logger.Warn("traces are not delivered; what cannot wait is dropped and counted", "cause", cause, "error", clip(err.Error(), 300))
	}
	t.failing = true
}

// spans is the SDK's last station: what has ended waits here for the next export. Only Run's goroutine
// comes by.
type spans struct {
	ended    []sdk.ReadOnlySpan
	requests int
}

// OnStart implements sdk.SpanProcessor.
func (*spans) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd keeps a span.
func (s *spans) OnEnd(span sdk.ReadOnlySpan) {
	s.ended = append(s.ended, span)
	if span.SpanKind() == trace.SpanKindServer {
		s.requests++
	}
}

// Shutdown implements sdk.SpanProcessor.
func (*spans) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (*spans) ForceFlush(context.Context) error { return nil }

func (s *spans) take() (batch []sdk.ReadOnlySpan, requests int) {
	batch, requests = s.ended, s.requests
	s.ended, s.requests = nil, 0
	return batch, requests
}

// givenIDs has the SDK use the ids that the request had; what has none gets a new one.
type givenIDs struct{}

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

func withIDs(ctx context.Context, traceID, spanID string) context.Context {
	var given ids
	given.trace, _ = trace.TraceIDFromHex(traceID)
	given.span, _ = trace.SpanIDFromHex(spanID)
	return context.WithValue(ctx, idsKey{}, given)
}

// NewIDs implements sdk.IDGenerator.
func (g givenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	given, _ := ctx.Value(idsKey{}).(ids)
	return given.trace, g.NewSpanID(ctx, given.trace)
}

// NewSpanID implements sdk.IDGenerator.
func (givenIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if given, _ := ctx.Value(idsKey{}).(ids); given.span.IsValid() {
		return given.span
	}
	return newSpanID()
}

// build makes the spans of a request.
func (t *Tracer) build(r *Request) {
	ctx := withIDs(context.Background(), r.TraceID, r.SpanID)
	if parent, err := trace.SpanIDFromHex(r.ParentID); err == nil {
		id, _ := trace.TraceIDFromHex(r.TraceID)
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: parent, Remote: true}))
	}
	ctx, root := t.tracer.Start(ctx, r.name(), trace.WithTimestamp(r.Start), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(r.attributes()...))
	for _, s := range r.Steps.All() {
		t.child(ctx, r, s)
	}
	if r.Failed() {
		root.SetStatus(codes.Error, r.Decision)
	}
	root.End(trace.WithTimestamp(r.at(r.Duration)))
}

func (r *Request) at(after Millis) time.Time { return r.Start.Add(time.Duration(after)) }

func (t *Tracer) child(ctx context.Context, r *Request, s Step) {
	kind, attrs, end := trace.SpanKindInternal, []attribute.KeyValue{attribute.String("gantry.outcome", s.Outcome)}, s.End
	id := ""
	switch s.Name {
	case stepUpstream:
		// The upstream's work goes on while its answer is copied, to the end of the request.
		kind, id, end = trace.SpanKindClient, r.CallID, r.Duration
		attrs = append(attrs, r.forwarded()...)
	case stepStore:
		kind = trace.SpanKindClient
	}
	_, span := t.tracer.Start(withIDs(ctx, "", id), s.Name, trace.WithTimestamp(r.at(s.Start)), trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	if s.Name == stepUpstream {
		if r.Upstream.Status != 0 {
			span.AddEvent("first byte", trace.WithTimestamp(r.at(s.End)))
		}
		if r.Upstream.Status == 0 || r.Upstream.Status >= 500 {
			span.SetStatus(codes.Error, s.Outcome)
		}
	}
	span.End(trace.WithTimestamp(r.at(end)))
}

// attributes are those of an HTTP server's span in the semantic conventions, and ours.
func (r *Request) attributes() []attribute.KeyValue {
	host, port := splitHost(r.Host)
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(method(r.Method)), semconv.URLPath(r.Path), semconv.HTTPResponseStatusCode(r.Status),
		semconv.ServerAddress(host), semconv.ClientAddress(r.Client.String()),
		attribute.String("gantry.request_id", r.ID), attribute.String("gantry.decision", r.Decision),
	}
	if r.Route != "" {
		attrs = append(attrs, semconv.HTTPRoute(r.path()))
	}
	if port != 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	if r.Caller != "" {
		attrs = append(attrs, semconv.EnduserPseudoID(r.Caller))
	}
	if r.Failed() {
		attrs = append(attrs, semconv.ErrorTypeKey.String(r.errorType()))
	}
	for _, l := range r.Limits.All() {
		if l.Violated {
			attrs = append(attrs, attribute.String("gantry.limit", fmt.Sprintf("%s %d/%v", l.Policy, l.Limit, time.Duration(l.Window))))
		}
	}
	return attrs
}

func (r *Request) errorType() string {
	if r.Decision != "" {
		return r.Decision
	}
	return strconv.Itoa(r.Status)
}

// forwarded are the attributes of the call to the upstream.
func (r *Request) forwarded() []attribute.KeyValue {
	host, port := splitHost(r.Upstream.Name)
	attrs := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method(r.Method)), semconv.ServerAddress(host)}
	if port != 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	if r.Upstream.Status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(r.Upstream.Status))
	}
	if r.Upstream.Version != "" {
		attrs = append(attrs, attribute.String("gantry.version", r.Upstream.Version))
	}
	if r.Upstream.Retried {
		attrs = append(attrs, semconv.HTTPRequestResendCount(1))
	}
	if r.Upstream.Status >= 500 {
		attrs = append(attrs, semconv.ErrorTypeKey.String(http.StatusText(r.Upstream.Status)))
	}
	return attrs
}

func splitHost(hostport string) (host string, port int) {
	host, text, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}
