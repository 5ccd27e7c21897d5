package postgres

import (
	"context"
	"sync"
	"time"
)

const (
	// sampleEvery is how often the list of sessions is read. What is shorter may be missed.
	sampleEvery = 20 * time.Millisecond
	// unchangedFor is how long the counters must stay the same: longer than a session that is at work keeps them.
	unchangedFor = 1200 * time.Millisecond
	// idleHolds is how long an idle session keeps its counters, PGSTAT_IDLE_INTERVAL of Postgres 15 and later, and
	// the server's delay in doing it.
	idleHolds = 10*time.Second + 300*time.Millisecond
	// settleAtMost bounds the wait of End: idleHolds, and unchangedFor after it.
	settleAtMost = 12 * time.Second
	settleEvery  = 300 * time.Millisecond
	// quietAtMost bounds the wait of a window that BeginAtOnce began for transactions that end after their request was answered.
	quietAtMost = time.Second
)

// Window is the time between Begin and End, in which the requests are sent. Its methods may be called from any
// goroutine.
type Window struct {
	o       *Observer
	atOnce  bool
	settled bool // when it began
	began   time.Time
	before  reading

	sessions *sampler // the goroutine's until done is closed
	stop     chan struct{}
	done     chan struct{}
	once     sync.Once
}

// Begin waits until the counters have settled, 12 s at most and not at all where no session has worked for 10 s, reads
// them, and starts to watch the sessions, every 20 ms until End, Close, or ctx is done. It connects anew when the
// connection was lost. ErrBusy while another window is open.
func (o *Observer) Begin(ctx context.Context) (*Window, error) {
	return o.begin(ctx, false)
}

// BeginAtOnce begins a window that waits neither here nor at its End, for statements, sessions and transactions that wrote:
// they are complete at once. The other figures are not looked at, and Known.Counters is false.
func (o *Observer) BeginAtOnce(ctx context.Context) (*Window, error) {
	return o.begin(ctx, true)
}

func (o *Observer) begin(ctx context.Context, atOnce bool) (*Window, error) {
	w := &Window{o: o, atOnce: atOnce, sessions: newSampler(), stop: make(chan struct{}), done: make(chan struct{})}
	if err := o.claim(ctx, w); err != nil {
		return nil, err
	}
	err := w.wait(ctx)
	if err == nil {
		err = w.first(ctx)
	}
	if err != nil {
		close(w.done)
		w.release()
		return nil, err
	}
	go w.watch(ctx)
	return w, nil
}

// claim makes w the window that is open, with a connection.
func (o *Observer) claim(ctx context.Context, w *Window) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ErrClosed
	case o.window != nil:
		return ErrBusy
	}
	if o.conn == nil || o.conn.IsClosed() {
		if err := o.connect(ctx); err != nil {
			return err
		}
	}
	o.window = w
	return nil
}

func (w *Window) first(ctx context.Context) (err error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if err := w.mine(); err != nil {
		return err
	}
	if err := w.o.sample(ctx, w.sessions); err != nil {
		return w.o.fault("list the sessions", err)
	}
	if w.before, err = w.o.read(ctx); err != nil {
		return w.o.fault("read the counters", err)
	}
	w.sessions.began, w.began = w.before.at, time.Now()
	return nil
}

// watch samples until it is told to stop. A sample that fails is skipped; without a connection there are no more.
func (w *Window) watch(ctx context.Context) {
	defer close(w.done)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.o.mu.Lock()
		err := w.o.sample(context.WithoutCancel(ctx), w.sessions) // a context that ends would end the connection
		lost := err != nil && (w.o.conn == nil || w.o.conn.IsClosed())
		w.o.mu.Unlock()
		if lost {
			return
		}
	}
}

func (w *Window) halt() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

// End says what happened since Begin, after the counters have settled again: 12 s at most, see the package's
// comment. Call it when all requests have been answered; it gives transactions that go on after their answer up to a second
// even if the window began at once. The window is over also when there is an error, such as a lost connection or
// counters that were reset meanwhile.
func (w *Window) End(ctx context.Context) (Observation, error) {
	duration := time.Since(w.began)
	w.halt()
	defer w.release()
	began := w.settled
	if err := w.wait(ctx); err != nil {
		return Observation{}, err
	}
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if err := w.mine(); err != nil {
		return Observation{}, err
	}
	obs, err := w.compare(ctx)
	if err != nil {
		return Observation{}, err
	}
	obs.Duration = duration
	obs.Settled = began && w.settled && obs.Known.Counters
	w.sessions.report(&obs)
	obs.finish()
	return obs, nil
}

func (w *Window) compare(ctx context.Context) (Observation, error) {
	if err := w.o.sample(ctx, w.sessions); err != nil {
		return Observation{}, w.o.fault("list the sessions", err)
	}
	after, err := w.o.read(ctx)
	if err != nil {
		return Observation{}, w.o.fault("read the counters", err)
	}
	return w.o.compare(ctx, w.before, after, w.atOnce)
}

// mine reports whether the window is still the one that is open, with a connection.
func (w *Window) mine() error {
	if w.o.window != w || w.o.conn == nil {
		return ErrClosed
	}
	return nil
}

func (w *Window) release() {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if w.o.window == w {
		w.o.window = nil
	}
}

// wait waits as long as the window's figures need.
func (w *Window) wait(ctx context.Context) (err error) {
	if w.atOnce {
		return w.quiet(ctx)
	}
	w.settled, err = w.settle(ctx)
	return err
}

// settle waits until nothing changes and no session can be holding anything back. In the beginning it suffices that none
// has worked lately, where that can be seen.
func (w *Window) settle(ctx context.Context) (bool, error) {
	deadline := time.Now().Add(settleAtMost)
	var last tally
	var since time.Time
	for {
		now, held, err := w.look(ctx)
		if err != nil {
			return false, err
		}
		if now != last || since.IsZero() {
			last, since = now, time.Now()
		}
		enough := unchangedFor
		if w.began.IsZero() && held.known && held.working == 0 {
			enough = 0
		}
		if time.Since(since) >= enough && held.idle == 0 {
			return held.known && held.working == 0, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := pause(ctx, settleEvery); err != nil {
			return false, err
		}
	}
}

// quiet waits until no transaction of the window is under way, twice in a row.
func (w *Window) quiet(ctx context.Context) error {
	if w.began.IsZero() {
		return nil
	}
	deadline := time.Now().Add(quietAtMost)
	for calm := 0; calm < 2 && time.Now().Before(deadline); {
		_, held, err := w.look(ctx)
		if err != nil {
			return err
		}
		calm++
		if held.working > 0 {
			calm = 0
		}
		if err := pause(ctx, sampleEvery); err != nil {
			return err
		}
	}
	return nil
}

func (w *Window) look(ctx context.Context) (tally, holders, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if err := w.mine(); err != nil {
		return tally{}, holders{}, err
	}
	now, err := w.o.tally(ctx)
	if err != nil {
		return tally{}, holders{}, w.o.fault("read the counters", err)
	}
	held, err := w.o.holders(ctx, w.before.at)
	if err != nil {
		return tally{}, holders{}, w.o.fault("list the sessions", err)
	}
	return now, held, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
