package guard

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// StatusClientGone is what the log says when the client left before it was answered. It is nginx's
// convention and is never sent.
const StatusClientGone = 499

// TraceConfig says where the one line per request goes.
type TraceConfig struct {
	// Logger receives one wide line per request. Nil discards.
	Logger *slog.Logger
	// Done, if set, is called with every finished exchange, for metrics and traces. It is in the request's
	// way, so it must not wait. What it is given it may keep only as copies.
	Done func(Summary)
	// Sample, if set, switches tracing on: each exchange has ids of its own, and Sample decides whether its
	// trace is recorded.
	Sample func(Head) bool
	// Scrub, if set, takes secrets out of paths before anybody is told of them.
	Scrub func(path string) string
}

// Summary is what is known of an exchange when it is over.
type Summary struct {
	*Exchange
	Status             int
	Written            int64
	Duration           time.Duration
	FirstByte          time.Duration // 0 when nothing was sent
	Decision, Caller   string
	Method, Host, Path string
	Notes              []slog.Attr
	// Timeout is the time the request was given, 0 for a stream.
	Timeout time.Duration
	Steps   []Step // in the order in which they ended
	Limits  []Limit
	Version string  // of the application that was chosen, "" where there is no choice
	Forward Forward // zero for what no upstream answered
	Panic   *Panic  // what the handler panicked with, or nil
	// Sampled says that the trace is to be recorded; Parent is the caller's span, and CallID the id of the
	// span of our call to the upstream. They are zero when tracing is off.
	Sampled bool
	Parent  Parent
	CallID  string
	// Phase is what the request was in the middle of when its time was up, and at its end otherwise.
	// Expired says that it was up.
	Phase   Phase
	Expired bool
	// Stream says that the answer had no natural end; its Duration says nothing about how fast it was.
	Stream bool
}

// Trace is the outermost stage: it sees every answer, refusals and panics too.
func Trace(cfg TraceConfig) Middleware {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	journals := &sync.Pool{New: func() any { return new(Journal) }}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, w, r := ensure(w, r)
			j := journals.Get().(*Journal)
			j.reset(x.Start)
			x.journal = j
			x.join(r.Header["Traceparent"], cfg.Sample)
			defer func() {
				cfg.tell(x.summary(r))
				journals.Put(j)
			}()
			next.ServeHTTP(w, r)
		})
	}
}

func (cfg *TraceConfig) tell(s Summary) {
	if cfg.Scrub != nil {
		s.Path = cfg.Scrub(s.Path)
	}
	s.log(cfg.Logger)
	if cfg.Done != nil {
		cfg.Done(s)
	}
}

func (x *Exchange) summary(r *http.Request) Summary {
	status, written, first := x.out.totals()
	s := Summary{
		Exchange: x, Status: status, Written: written, Duration: time.Since(x.Start),
		Method: r.Method, Host: r.Host, Path: r.URL.Path,
		Phase: x.expired, Expired: x.expired != 0, Stream: x.out.streaming.Load(),
	}
	if !s.Expired {
		s.Phase = x.phase()
	}
	if !first.IsZero() {
		s.FirstByte = first.Sub(x.Start)
	}
	if !x.scope.deadline.IsZero() {
		s.Timeout = x.scope.deadline.Sub(x.Start)
	}
	s.close()
	if x.scope.Err() == context.Canceled && (status == 0 || status >= 500) {
		s.Status, s.Decision = StatusClientGone, "client-gone"
	}
	if s.Status == 0 {
		s.Status = http.StatusOK // net/http sends 200 for a handler that wrote nothing
	}
	return s
}

// close takes the journal away from the exchange, and what it says.
func (s *Summary) close() {
	x := s.Exchange
	x.mu.Lock()
	defer x.mu.Unlock()
	j := x.journal
	s.Decision, s.Caller, s.Notes = j.decision, j.caller, j.notes
	for i := range j.nSteps {
		if step := &j.steps[i]; step.Name == StepHandler {
			step.End = s.Duration
		}
	}
	s.Steps, s.Limits, s.Version, s.Forward, s.Panic = j.steps[:j.nSteps], j.limits[:j.nLimits], j.version, j.forward, j.panic
	s.Parent, s.Sampled, s.CallID = j.trace.parent, j.trace.decide(x), j.trace.callID()
	x.journal = nil
}

// log writes the line. The query never appears: it carries secrets too often.
func (s *Summary) log(log *slog.Logger) {
	level := slog.LevelInfo
	if s.Status >= 500 {
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	// Not by log.LogAttrs: that walks the stack to say which line of source this is.
	line := slog.NewRecord(s.Start.Add(s.Duration), level, "request", 0)
	line.AddAttrs(
		slog.String("request_id", s.ID),
		slog.String("method", s.Method),
		slog.String("host", clip(s.Host, 128)),
		slog.String("path", clip(s.Path, 256)),
		slog.String("route", s.routeName()),
		slog.String("client", s.Client.String()),
		slog.String("caller", s.Caller),
		slog.Int("status", s.Status),
		slog.String("decision", s.Decision),
		slog.Int64("bytes", s.Written),
		slog.Float64("ms", milliseconds(s.Duration)),
		slog.Float64("first_byte_ms", milliseconds(s.FirstByte)),
	)
	if s.TraceID != "" {
		line.AddAttrs(slog.String("trace_id", s.TraceID))
	}
	if s.SpanID != "" {
		line.AddAttrs(slog.String("span_id", s.SpanID))
	}
	line.AddAttrs(s.Notes...)
	_ = log.Handler().Handle(ctx, line)
}

// parseParent reads a traceparent (W3C Trace Context section 3.2); anything malformed is no trace.
func parseParent(values []string) (none Parent) {
	const id, parent, flags, end = 3, 36, 53, 55 // where each begins
	if len(values) != 1 || len(values[0]) < end {
		return none
	}
	v := values[0]
	version := v[:2]
	switch {
	case !isHex(version), version == "ff", version == "00" && len(v) > end, len(v) > end && v[end] != '-':
		return none
	case v[id-1] != '-', v[parent-1] != '-', v[flags-1] != '-':
		return none
	case !isHex(v[id : parent-1]), !isHex(v[parent : flags-1]), !isHex(v[flags:end]):
		return none
	case isZero(v[id : parent-1]), isZero(v[parent : flags-1]):
		return none
	}
	return Parent{TraceID: v[id : parent-1], SpanID: v[parent : flags-1], Sampled: strings.IndexByte("13579bdf", v[end-1]) >= 0}
}

// isHex wants lower case, as the standard does.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func isZero(s string) bool { return strings.Trim(s, "0") == "" }

func (s *Summary) routeName() string {
	if s.Route == nil {
		return ""
	}
	return s.Route.Pattern
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
