package guard

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
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
	// Cooperative says that handlers end soon after their context does. They then run on the request's own
	// goroutine, which saves two switches a request; without it each runs on another, and one that ignores its context
	// can be left behind. Either way the client has its 504 in time, but a handler that goes on although it promised not to
	// holds its connection, and over HTTP/2 the end of its stream, and is logged when it ends.
	Cooperative bool
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
	epoch     time.Time // what workers count from
	abandoned atomic.Int64
	workers   workers

	mu      sync.Mutex
	streams map[*worker]bool      // those at work on one
	conns   map[*watchedConn]bool // hijacked, perhaps by handlers that have returned
	cut     atomic.Bool           // streams must end
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
	return &Deadlines{cfg: cfg, epoch: time.Now(), streams: make(map[*worker]bool), conns: make(map[*watchedConn]bool)}
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
func (d *Deadlines) CutStreams() {
	d.mu.Lock()
	d.cut.Store(true)
	for w := range d.streams {
		w.poke()
	}
	conns := slices.Collect(maps.Keys(d.conns))
	d.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// adopt takes note of a hijacked connection; the server has forgotten it.
func (d *Deadlines) adopt(c *watchedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[c] = true
	if d.cut.Load() {
		_ = c.Conn.Close()
	}
}

func (d *Deadlines) drop(c *watchedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// Close ends the goroutines that wait for requests; those at work end after theirs. Requests are
// still served, without the benefit of goroutines that were used before.
func (d *Deadlines) Close() { d.workers.close() }

// Middleware runs next under the deadline.
func (d *Deadlines) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, w, r := ensure(w, r)
		if d.abandoned.Load() >= int64(d.cfg.MaxAbandoned) {
			x.stop(StepDeadline, "overloaded")
			problem.Write(w, r, problem.Overloaded.After(time.Second))
			return
		}
		d.start(x, r)
		d.serve(x, next, r)
	})
}

// serve runs next with a worker until it ends or its time is over.
func (d *Deadlines) serve(x *Exchange, next http.Handler, r *http.Request) {
	w := d.workers.take()
	if w == nil {
		w = newWorker(d)
	}
	w.begin(x, next, r)
	inTime := false
	if d.cfg.Cooperative {
		inTime = w.runHere(x)
	} else {
		inTime = w.run(x)
	}
	switch {
	case inTime:
		x.out.finish()
		d.workers.put(w)
	case !w.answered:
		panic(http.ErrAbortHandler)
	}
}

// follow counts w's request among the streams, whose limits are others.
func (d *Deadlines) follow(w *worker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams[w] = true
	w.poke()
}

func (d *Deadlines) forget(w *worker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, w)
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

// limit is how long the request may go on from now.
func (d *Deadlines) limit(x *Exchange) time.Duration {
	if !x.out.streaming.Load() {
		return max(0, time.Until(x.scope.deadline))
	}
	if d.cut.Load() {
		return 0
	}
	x.scope.expired.lift()
	idle := time.Unix(0, x.out.lastWrite.Load()).Add(d.cfg.StreamIdle)
	life := x.Start.Add(d.cfg.StreamLifetime)
	return max(0, min(time.Until(idle), time.Until(life)))
}

// leave answers 504, or cuts an answer that has begun so that no client takes it for whole
// (RFC 9112 section 8), and lets the handler run out on its own. It reports whether the client was answered. The
// answer comes before the cancellation: a handler that reacts to that must not finish its half answer cleanly.
func (d *Deadlines) leave(x *Exchange, w *worker, r *http.Request) (answered bool) {
	reason := "timeout"
	if x.out.streaming.Load() && d.cut.Load() {
		reason = "stream:drained"
	}
	x.Write(func(j *Journal) {
		j.Decide(reason)
		j.sealed = true
	})
	x.expired = x.phase()
	x.scope.expired.pass()
	answered = x.out.refuse(r, problem.Timeout, false)
	x.release(r) // not before: what a handler makes of a read that fails must not be the answer
	switch {
	case !answered:
		x.expired = Answering
	case d.cfg.Cooperative:
		x.out.push()
	}
	if x.out.streaming.Load() {
		x.expired = 0 // a stream ends some time
		d.forget(w)   // only now: a closed response begins no stream
	}
	x.scope.expire()
	if !answered {
		x.out.cut()
	}
	return answered
}

// Panic is a handler's panic, carried from its goroutine to the Recover stage with its stack.
type Panic struct {
	Value any
	Stack []byte
}

// Error makes the panic printable for loggers; it never reaches a client.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }
