package health

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Health knows how the process is. All methods may be called at any time from any goroutine.
type Health struct {
	cfg           Config
	epoch         time.Time // where the monotonic time of the records begins
	health, ready endpoint
	running       atomic.Bool

	mu      sync.Mutex // guards the two below and the order of publishing
	records []record
	phase   phase

	latest atomic.Pointer[snapshot]
}

// New returns a Health that is starting: /health/live is 200, the others are 503 until [Health.Run]
// has seen every check and [Health.Open] was called.
func New(cfg Config) (*Health, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	h := &Health{
		cfg:     cfg,
		epoch:   time.Now(),
		records: make([]record, len(cfg.Checks)),
		health:  endpoint{impact: func(c Check) Impact { return c.Health }, maxAge: cfg.StaleAfter},
		ready: endpoint{
			impact: func(c Check) Impact { return c.Ready },
			// as long as FailAfter runs that hang would take to be counted
			maxAge: time.Duration(cfg.FailAfter)*cfg.Interval + cfg.Timeout,
			steady: true,
		},
	}
	h.publish()
	return h, nil
}

// ErrRunning is returned by Run when it is running already.
var ErrRunning = errors.New("health checks are running already")

// Run runs every check at once and then once an interval, until ctx ends. It waits for the checks
// that are running then, up to Config.Timeout; one that ignores its context is left behind. The
// results turn stale soon after, so ctx should outlive the draining of the server.
func (h *Health) Run(ctx context.Context) error {
	if !h.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer h.running.Store(false)
	var all sync.WaitGroup
	for i := range h.cfg.Checks {
		all.Go(func() { h.watch(ctx, i) })
	}
	<-ctx.Done()
	all.Wait()
	return nil
}

// watch runs check i until ctx ends. Starts are never closer together than the interval, so a slow
// or late run is not caught up on.
func (h *Health) watch(ctx context.Context, i int) {
	r := &runner{check: h.cfg.Checks[i], timeout: h.cfg.Timeout, log: h.cfg.Logger, wall: h.cfg.Now}
	for {
		start := time.Now()
		res := r.attempt(ctx)
		if ctx.Err() != nil {
			return // an interrupted run says nothing
		}
		h.record(ctx, i, res, start.Sub(h.epoch))
		select {
		case <-ctx.Done():
			return
		case <-time.After(h.cfg.Interval - time.Since(start)):
		}
	}
}

func (h *Health) record(ctx context.Context, i int, res Result, looked time.Duration) {
	h.mu.Lock()
	before := h.records[i]
	h.records[i] = before.next(res, looked, rule{h.cfg.FailAfter, h.cfg.PassAfter})
	h.publish()
	h.mu.Unlock()
	if !before.seen || before.last.Status != res.Status {
		h.tell(ctx, h.cfg.Checks[i], res)
	}
}

// tell logs a change of status.
func (h *Health) tell(ctx context.Context, c Check, res Result) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("check", c.key()), slog.String("status", res.Status.String()),
		slog.Duration("latency", res.Latency),
	}
	if res.Status != Pass {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("reason", res.Reason), slog.Any("error", res.Err))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "health check changed", attrs...)
}
