package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// DeadlineConfig bounds how long a request may take.
type DeadlineConfig struct {
	// Timeout is from the request's headers to the end of the response. Default 30 s. A route
	// may set its own.
	Timeout time.Duration
	// StreamIdle and StreamLifetime apply instead to server-sent events, gRPC and upgraded
	// connections, recognised by their answer. Defaults 60 s and 1 h.
	StreamIdle, StreamLifetime time.Duration
	// MaxAbandoned is how many handlers may still be running after their 504 before new requests
	// are answered 503. Default 100.
	MaxAbandoned int
	// Logger hears of handlers that panic after they were abandoned. Nil discards.
	Logger *slog.Logger
}

// TimeoutHeader carries the time left for a request, in milliseconds, to the upstream; from trusted
// proxies it shortens the deadline. No standard exists; the name follows Envoy's pattern.
const TimeoutHeader = "X-Request-Timeout-Ms"

// Deadlines is the Deadline stage.
type Deadlines struct {
	cfg       DeadlineConfig
	abandoned atomic.Int64
	streams   chan struct{} // closed when streams must end
	cutOnce   sync.Once
}

// NewDeadlines returns the stage; put its Middleware in [Pipeline].Deadline.
func NewDeadlines(cfg DeadlineConfig) *Deadlines {
	setDefault(&cfg.Timeout, 30*time.Second)
	setDefault(&cfg.StreamIdle, 60*time.Second)
	setDefault(&cfg.StreamLifetime, time.Hour)
	if cfg.MaxAbandoned <= 0 {
		cfg.MaxAbandoned = 100
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Deadlines{cfg: cfg, streams: make(chan struct{})}
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Abandoned is how many handlers are still running after their client was answered 504.
func (d *Deadlines) Abandoned() int { return int(d.abandoned.Load()) }

// CutStreams ends every stream and upgraded connection, now and from now on: net/http's Shutdown
// waits for the first kind for ever and forgets the second.
func (d *Deadlines) CutStreams() { d.cutOnce.Do(func() { close(d.streams) }) }

// Middleware runs next under the deadline.
func (d *Deadlines) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, w, r := ensure(w, r)
		if d.abandoned.Load() >= int64(d.cfg.MaxAbandoned) {
			x.Decide("overloaded")
			problem.Write(w, r, problem.Overloaded.After(time.Second))
			return
		}
		d.start(x, r)
		run := handlerRuns.Get().(*handlerRun)
		go run.serve(d, x, next, r)
		d.await(x, r, run)
	})
}

// start fixes the deadline before anybody else can see the context.
func (d *Deadlines) start(x *Exchange, r *http.Request) {
	x.out.split()
	if x.Route != nil && x.Route.Stream {
		x.out.touch()
		x.out.streaming.Store(true)
		return
	}
	timeout := d.cfg.Timeout
	if x.Route != nil && x.Route.Timeout > 0 {
		timeout = x.Route.Timeout
	}
	x.scope.deadline = x.Start.Add(shorten(timeout, x.Trusted, r.Header))
}

// shorten applies a trusted caller's own deadline. It never lengthens, and anything but a plain
// positive number of milliseconds is ignored.
func shorten(timeout time.Duration, trusted bool, h http.Header) time.Duration {
	if !trusted {
		return timeout
	}
	values := h[TimeoutHeader]
	if len(values) != 1 || len(values[0]) > 9 {
		return timeout
	}
	ms, err := strconv.ParseUint(values[0], 10, 32)
	if err != nil || ms == 0 {
		return timeout
	}
	return min(timeout, time.Duration(ms)*time.Millisecond)
}

// Remaining returns the time left for the request, and false when it has no deadline.
func Remaining(ctx context.Context) (time.Duration, bool) {
	at, ok := ctx.Deadline()
	return time.Until(at), ok
}

// await waits for the handler or its deadline, whichever comes first.
func (d *Deadlines) await(x *Exchange, r *http.Request, run *handlerRun) {
	timer := timers.Get().(*time.Timer)
	timer.Reset(d.limit(x))
	defer func() { timer.Stop(); timers.Put(timer) }()
	streams := d.streams
	for {
		select {
		case p := <-run.done:
			run.release(p)
			return
		case <-streams:
			if x.out.streaming.Load() {
				d.leave(x, r, run, "stream:drained")
				return
			}
			streams = nil // not a stream: it has its own deadline
		case <-timer.C:
			if left := d.limit(x); left > 0 {
				timer.Reset(left)
				continue
			}
			d.leave(x, r, run, "timeout")
			return
		}
	}
}

// limit is how long the request may go on from now.
func (d *Deadlines) limit(x *Exchange) time.Duration {
	if !x.out.streaming.Load() {
		return max(0, time.Until(x.scope.deadline))
	}
	x.scope.expired.lift()
	idle := time.Unix(0, x.out.lastWrite.Load()).Add(d.cfg.StreamIdle)
	life := x.Start.Add(d.cfg.StreamLifetime)
	return max(0, min(time.Until(idle), time.Until(life)))
}

// leave answers 504, or aborts an answer that has begun so that no client takes it for whole
// (RFC 9112 section 8), and lets the handler run out on its own. The answer comes before the
// cancellation: a handler that reacts to that must not finish its half answer cleanly.
func (d *Deadlines) leave(x *Exchange, r *http.Request, run *handlerRun, reason string) {
	if !run.state.CompareAndSwap(running, abandoned) {
		run.finish() // it came in at the last moment
		return
	}
	d.abandoned.Add(1)
	x.Decide(reason)
	x.scope.expired.pass()
	x.body.release()
	answered := x.out.refuse(r, problem.Timeout, false)
	x.cancel(context.DeadlineExceeded)
	if !answered {
		x.out.cut()
		panic(http.ErrAbortHandler)
	}
}

// handlerRun is one handler in its own goroutine.
type handlerRun struct {
	done  chan *Panic // buffered
	state atomic.Int32
}

const (
	running int32 = iota
	finished
	abandoned
)

// Panic is a handler's panic, carried from its goroutine to the Recover stage with its stack.
type Panic struct {
	Value any
	Stack []byte
}

// Error makes the panic printable for loggers; it never reaches a client.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

func (h *handlerRun) serve(d *Deadlines, x *Exchange, next http.Handler, r *http.Request) {
	clean := false
	defer func() {
		var p *Panic
		if !clean {
			p = &Panic{Value: recover(), Stack: debug.Stack()}
		}
		h.end(d, x, p)
	}()
	next.ServeHTTP(&x.out, r)
	clean = true
}

func (h *handlerRun) end(d *Deadlines, x *Exchange, p *Panic) {
	if h.state.CompareAndSwap(running, finished) {
		h.done <- p
		return
	}
	d.abandoned.Add(-1)
	if p != nil && p.Value != http.ErrAbortHandler {
		d.cfg.Logger.Error("abandoned handler panicked", "request_id", x.ID, "panic", fmt.Sprint(p.Value))
	}
}

// finish takes the end of a run that is over.
func (h *handlerRun) finish() { h.release(<-h.done) }

// release gives a run that has ended back for the next request, and goes on with its panic.
func (h *handlerRun) release(p *Panic) {
	h.state.Store(running)
	handlerRuns.Put(h)
	if p != nil {
		panic(p)
	}
}

var handlerRuns = sync.Pool{New: func() any { return &handlerRun{done: make(chan *Panic, 1)} }}

var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// expiry is the state of a scope's deadline: ahead, lifted (the answer became a stream) or passed.
type expiry struct{ v atomic.Int32 }

func (e *expiry) lift()        { e.v.CompareAndSwap(0, 1) }
func (e *expiry) pass()        { e.v.Store(2) }
func (e *expiry) lifted() bool { return e.v.Load() == 1 }
func (e *expiry) passed() bool { return e.v.Load() == 2 }
