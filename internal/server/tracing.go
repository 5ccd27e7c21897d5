package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/telemetry"
	"github.com/gantryhq/gantry/users"
)

// openTelemetry makes what is told of requests that are over. None of it is ever waited for.
func (s *Server) openTelemetry(ctx context.Context) (err error) {
	s.recorder = telemetry.NewRecorder(telemetry.RecorderConfig{})
	if t := s.cfg.Traces; t.Endpoint != nil {
		s.tracer, err = telemetry.NewTracer(ctx, telemetry.TraceConfig{
			Export: exportOf(t), Resource: t.Resource, Queue: t.Queue, Batch: t.Batch, Delay: t.Delay, Lost: s.meters.Lost, Logger: s.log,
		})
		if err != nil {
			return err
		}
		s.work = append(s.work, s.tracer.Run)
	}
	if dsn := s.cfg.SentryDSN; !dsn.IsZero() {
		s.sentry, err = telemetry.NewSentry(telemetry.SentryConfig{
			DSN: dsn.Reveal(), Release: s.cfg.Version, Environment: string(s.cfg.Environment), Lost: s.meters.Lost, Logger: s.log,
		})
		if err != nil {
			return err
		}
		s.work = append(s.work, s.sentry.Run)
	}
	return nil
}

func exportOf(t config.Traces) telemetry.Export {
	e := telemetry.Export{Endpoint: t.Endpoint, Protocol: t.Protocol, Headers: make(map[string]string), Gzip: t.Gzip, Timeout: t.Timeout}
	for name, value := range t.Headers {
		e.Headers[name] = value.Reveal()
	}
	if t.CA != nil {
		e.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		e.TLS.RootCAs.AppendCertsFromPEM(t.CA)
	}
	return e
}

// traceConfig is the Trace stage's. What it logs needs no redaction: the path is scrubbed, and the rest is
// the door's own.
func (s *Server) traceConfig() guard.TraceConfig {
	cfg := guard.TraceConfig{Logger: telemetry.Unredacted(s.log), Scrub: telemetry.Scrub, Done: s.finished}
	if t := s.cfg.Traces; s.tracer != nil {
		sampler := telemetry.Sampler{ParentBased: t.ParentBased, Ratio: t.Ratio}
		cfg.Sample = func(h guard.Head) bool { return sampler.Sample(h.Random, h.HasParent, h.Sampled) }
	}
	return cfg
}

// finished tells of a request that is over.
func (s *Server) finished(g guard.Summary) {
	s.meters.answered(g)
	o := telemetry.Outcome{Status: g.Status, Decision: g.Decision, Duration: telemetry.Millis(g.Duration), Panicked: g.Panic != nil}
	s.recorder.Record(o, func(r *telemetry.Request) { fill(r, &g) })
	if !g.Sampled && !o.Failed() {
		return
	}
	r := telemetry.Request{Outcome: o}
	fill(&r, &g)
	if s.tracer != nil {
		s.tracer.Record(&r)
	}
	if s.sentry != nil {
		s.sentry.Record(&r)
	}
}

// fill says of a request what its outcome does not.
func fill(r *telemetry.Request, g *guard.Summary) {
	r.ID, r.Start, r.Method, r.Host, r.Path = g.ID, g.Start, g.Method, g.Host, g.Path
	r.Client, r.Caller, r.Written = g.Client, g.Caller, g.Written
	r.FirstByte, r.Timeout = telemetry.Millis(g.FirstByte), telemetry.Millis(g.Timeout)
	r.TraceID, r.SpanID, r.ParentID, r.CallID, r.Sampled = g.TraceID, g.SpanID, g.Parent.SpanID, g.CallID, g.Sampled
	r.Upstream = telemetry.Upstream{Name: g.Forward.Upstream, Version: g.Version, Status: g.Forward.Status, Retried: g.Forward.Retried}
	if g.Route != nil {
		r.Route = g.Route.Pattern
	}
	if g.Panic != nil {
		r.Panic, r.Stack = g.Panic.Error(), g.Panic.Stack
	}
	for _, step := range g.Steps {
		r.Steps.Add(telemetry.Step{Name: step.Name, Outcome: step.Outcome, Start: telemetry.Millis(step.Start), End: telemetry.Millis(step.End)})
	}
	for _, l := range g.Limits {
		r.Limits.Add(telemetry.Limit{
			Policy: l.Policy, Limit: l.Limit, Used: l.Used, Violated: l.Violated,
			Window: telemetry.Millis(l.Window), Reset: telemetry.Millis(l.Reset),
		})
	}
}

// setTrace makes our call to the upstream the parent of what it does. With tracing off the caller's own
// trace goes on as it came.
func setTrace(x *guard.Exchange, out http.Header) {
	header, continued := x.Traceparent()
	if header == "" {
		return
	}
	out.Set("Traceparent", header)
	if !continued {
		out.Del("Tracestate") // it belongs to a trace that is not this one (W3C Trace Context section 3.3.1)
	}
}

// watchedStore notes what requests ask the database, and how long that takes.
type watchedStore struct{ UserStore }

// Find implements users.Store.
func (w watchedStore) Find(ctx context.Context, issuer, subject string) (u users.User, err error) {
	defer asked(ctx, "find", time.Now(), &err)
	return w.UserStore.Find(ctx, issuer, subject)
}

// FindHandle implements users.Store.
func (w watchedStore) FindHandle(ctx context.Context, handle string) (u users.User, err error) {
	defer asked(ctx, "find", time.Now(), &err)
	return w.UserStore.FindHandle(ctx, handle)
}

// List implements users.Store.
func (w watchedStore) List(ctx context.Context, q users.Query) (list []users.Listed, err error) {
	defer asked(ctx, "list", time.Now(), &err)
	return w.UserStore.List(ctx, q)
}

// Events implements users.Store.
func (w watchedStore) Events(ctx context.Context, userID string, after int64, n int) (list []users.Event, err error) {
	defer asked(ctx, "events", time.Now(), &err)
	return w.UserStore.Events(ctx, userID, after, n)
}

// RevokedSessions implements users.Store.
func (w watchedStore) RevokedSessions(ctx context.Context, issuer, subject string, n int) (list []users.Revocation, err error) {
	defer asked(ctx, "revocations", time.Now(), &err)
	return w.UserStore.RevokedSessions(ctx, issuer, subject, n)
}

// Tx implements users.Store.
func (w watchedStore) Tx(ctx context.Context, f func(users.Tx) error) (err error) {
	defer asked(ctx, "transaction", time.Now(), &err)
	return w.UserStore.Tx(ctx, f)
}

func asked(ctx context.Context, what string, began time.Time, err *error) {
	x, ok := guard.FromContext(ctx)
	if !ok {
		return // nobody's request: a job of the door's own
	}
	switch {
	case *err == nil, errors.Is(*err, users.ErrNotFound):
	case errors.Is(*err, users.ErrExhausted):
		what += ": no connection came free"
	case errors.Is(*err, users.ErrUnavailable):
		what += ": database unavailable"
	default:
		what += ": refused"
	}
	x.Write(func(j *guard.Journal) { j.Call(guard.StepStore, what, began) })
}
