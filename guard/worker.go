package guard

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A worker is a goroutine that runs handlers one after the other, because its stack has grown to
// what handlers need and a new goroutine's has not: growing it costs more than all the stages. It
// owns a timer that outlives requests. Nobody touches it as long as it fires before the deadline of
// the request at hand: it then looks again, so that a busy worker sets it once in a whole timeout.
//
// A worker whose handler was abandoned or panicked is not used again.
//
// For cooperative handlers it is the timer alone, without a goroutine, and the timer's own answers the client.
type worker struct {
	d     *Deadlines
	next  http.Handler
	r     *http.Request
	wake  chan struct{} // buffered: run what stands above; closed: end
	ended chan *Panic   // buffered: the handler has ended, or is abandoned

	answered bool // an abandoned handler's client, with 504

	current atomic.Pointer[Exchange] // nil between requests
	mu      sync.Mutex               // for setting the timer
	timer   *time.Timer
	fires   atomic.Int64 // when, in nanoseconds since d.epoch; 0 when the timer is not set
}

// What a handler's goroutine and its deadline contend for; see Exchange.run.
const (
	running int32 = iota
	finished
	abandoned
)

func newWorker(d *Deadlines) *worker {
	w := &worker{d: d, wake: make(chan struct{}, 1), ended: make(chan *Panic, 1)}
	w.timer = time.AfterFunc(time.Hour, w.check)
	w.timer.Stop()
	if !d.cfg.Cooperative {
		go w.loop()
	}
	return w
}

// begin sets the timer to x.
func (w *worker) begin(x *Exchange, next http.Handler, r *http.Request) {
	w.next, w.r = next, r
	x.out.worker = w
	w.current.Store(x)
	if x.out.streaming.Load() {
		w.d.follow(w)
	}
	w.watch(x)
}

// run has the worker's goroutine serve x, and says whether the handler ended in time. It panics as the handler does.
func (w *worker) run(x *Exchange) (inTime bool) {
	w.wake <- struct{}{}
	p := <-w.ended
	if x.run.Load() == abandoned {
		w.answered = w.d.leave(x, w, w.r)
		return false
	}
	w.over(x)
	if p != nil {
		w.timer.Stop()
		panic(p)
	}
	return true
}

// runHere is run on the caller's own goroutine: when time is over the timer's answers the client, and the handler
// is waited for.
func (w *worker) runHere(x *Exchange) (inTime bool) {
	clean := false
	defer func() {
		if inTime = x.run.CompareAndSwap(running, finished); inTime {
			w.over(x)
			if !clean { // and the panic goes on
				w.timer.Stop()
			}
			return
		}
		<-w.ended
		w.late(x, recover())
	}()
	w.next.ServeHTTP(&x.out, w.r)
	clean = true
	return
}

// over is the end of a handler that ended in time.
func (w *worker) over(x *Exchange) {
	if x.out.streaming.Load() {
		w.d.forget(w)
	}
}

func (w *worker) loop() {
	for range w.wake {
		if !w.serve(w.current.Load(), w.next, w.r) {
			return
		}
	}
}

// serve runs one handler and reports whether the worker may go on.
func (w *worker) serve(x *Exchange, next http.Handler, r *http.Request) (goOn bool) {
	clean := false
	defer func() {
		var p *Panic
		if !clean { // a panic, or runtime.Goexit
			p = &Panic{Value: recover(), Stack: debug.Stack()}
		}
		goOn = w.end(x, p)
	}()
	next.ServeHTTP(&x.out, r)
	clean = true
	return
}

func (w *worker) end(x *Exchange, p *Panic) bool {
	if x.run.CompareAndSwap(running, finished) {
		w.ended <- p
		return p == nil
	}
	var value any
	if p != nil {
		value = p.Value
	}
	w.late(x, value)
	return false
}

// late is the end of an abandoned handler. Its client has been answered, so that its panic is for the log alone.
func (w *worker) late(x *Exchange, p any) {
	w.d.abandoned.Add(-1)
	if p != nil && p != http.ErrAbortHandler {
		w.d.cfg.Logger.Error("abandoned handler panicked", "request_id", x.ID, "panic", fmt.Sprint(p))
	}
}

// watch sees to it that the timer fires no later than x's time is over.
func (w *worker) watch(x *Exchange) {
	at := int64(x.scope.deadline.Sub(w.d.epoch))
	if x.out.streaming.Load() {
		at = 0
	}
	if fires := w.fires.Load(); fires != 0 && fires <= at {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	left := w.d.limit(x) // again: a poke may have come between
	w.fires.Store(int64(time.Since(w.d.epoch) + left))
	w.timer.Reset(left)
}

// poke makes the timer look at once.
func (w *worker) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Reset(0)
}

// check is the timer's: it abandons the handler if its time is over, and else looks again later. It
// declares the timer unset before it looks, and run looks at the timer after it has set the request,
// so that one of the two always sees the other.
func (w *worker) check() {
	w.fires.Store(0)
	x := w.current.Load()
	switch {
	case x == nil || x.run.Load() != running:
	case w.d.limit(x) > 0:
		w.watch(x)
	default:
		w.abandon(x)
	}
}

func (w *worker) abandon(x *Exchange) {
	w.d.abandoned.Add(1)
	if !x.run.CompareAndSwap(running, abandoned) {
		w.d.abandoned.Add(-1)
		return
	}
	if w.d.cfg.Cooperative {
		w.answered = w.d.leave(x, w, w.r)
	}
	w.ended <- nil
}

// quit ends a worker that is idle.
func (w *worker) quit() {
	w.timer.Stop()
	close(w.wake)
}

// Idle workers are kept for the next requests, the last used first. Those that a whole reapEvery
// went by without are ended, so that a quiet server has none.
const (
	maxIdle   = 256
	reapEvery = time.Second
)

// workers are the idle ones.
type workers struct {
	mu     sync.Mutex
	idle   []*worker
	spare  int // the fewest that were idle since the last reaping
	reaper *time.Timer
	reaps  bool // the reaper is set
	closed bool
}

// take returns an idle worker, or nil.
func (p *workers) take() *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	w := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	p.spare = min(p.spare, n)
	return w
}

// put keeps w for later, or ends it.
func (p *workers) put(w *worker) {
	w.current.Store(nil)
	w.next, w.r = nil, nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) == maxIdle {
		w.quit()
		return
	}
	p.idle = append(p.idle, w)
	if !p.reaps {
		p.reaps, p.spare = true, 0
		p.rearm()
	}
}

func (p *workers) rearm() {
	if p.reaper == nil {
		p.reaper = time.AfterFunc(reapEvery, p.reap)
		return
	}
	p.reaper.Reset(reapEvery)
}

// reap ends the workers nobody needed, which are at the bottom of the pile.
func (p *workers) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.idle[:p.spare] {
		w.quit()
	}
	n := copy(p.idle, p.idle[p.spare:])
	clear(p.idle[n:])
	p.idle = p.idle[:n]
	p.spare = n
	if p.reaps = n > 0; p.reaps {
		p.rearm()
	}
}

// close ends the idle workers, and from now on every other one after its request.
func (p *workers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	for _, w := range p.idle {
		w.quit()
	}
	p.idle, p.spare = nil, 0
}
