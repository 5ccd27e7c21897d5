package guard

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// StatusClientGone is what the log says when the client left before it was answered. It is nginx's
// convention and is never sent.
const StatusClientGone = 499

// TraceConfig says where the one line per request goes.
type TraceConfig struct {
	// Logger receives one wide line per request. Nil discards.
	Logger *slog.Logger
	// Done, if set, is called with every finished exchange, for metrics.
	Done func(Summary)
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
}

// Trace is the outermost stage: it sees every answer, refusals and panics too.
func Trace(cfg TraceConfig) Middleware {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, w, r := ensure(w, r)
			defer func() {
				s := x.summary(r)
				s.log(cfg.Logger)
				if cfg.Done != nil {
					cfg.Done(s)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}

func (x *Exchange) summary(r *http.Request) Summary {
	status, written, first := x.out.totals()
	s := Summary{
		Exchange: x, Status: status, Written: written, Duration: time.Since(x.Start),
		Method: r.Method, Host: r.Host, Path: r.URL.Path,
	}
	if !first.IsZero() {
		s.FirstByte = first.Sub(x.Start)
	}
	x.mu.Lock()
	s.Decision, s.Caller, s.Notes = x.decision, x.caller, x.notes
	x.mu.Unlock()
	if x.scope.Err() == context.Canceled && (status == 0 || status >= 500) {
		s.Status, s.Decision = StatusClientGone, "client-gone"
	}
	if s.Status == 0 {
		s.Status = http.StatusOK // net/http sends 200 for a handler that wrote nothing
	}
	return s
}

// log writes the line. The query never appears: it carries secrets too often.
func (s Summary) log(log *slog.Logger) {
	level := slog.LevelInfo
	if s.Status >= 500 {
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12+maxNotes)
	attrs = append(attrs,
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
	log.LogAttrs(ctx, level, "request", append(attrs, s.Notes...)...)
}

func (s Summary) routeName() string {
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
