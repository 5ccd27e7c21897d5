package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// flight is one load and those who wait for it. It belongs to nobody's request: it goes on when
// the caller who began it goes away, and ends by its own timeout.
type flight[V any] struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when value and err are settled
	over   bool          // settled; guarded by the loader's mu
	value  V
	err    error
}

// join returns the flight to wait for, and begins one where there is none.
func (l *Loader[K, V]) join(ctx context.Context, key K) (*flight[V], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.flights[key]; ok {
		return f, nil
	}
	// A flight may have landed since the caller looked.
	if e, ok := l.entries.GetIfPresent(key); ok && l.clock.elapsed() < e.fresh {
		return landed(e), nil
	}
	return l.begin(ctx, key)
}

func landed[V any](e *entry[V]) *flight[V] {
	f := &flight[V]{done: make(chan struct{}), value: e.value, err: e.err}
	close(f.done)
	return f
}

// refresh begins a flight nobody waits for, unless there is one. If it fails, the old value stays.
func (l *Loader[K, V]) refresh(ctx context.Context, key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.flights[key]; !ok {
		_, _ = l.begin(ctx, key) // when busy or closed, the old value has to do
	}
}

// begin starts the load of key. The caller holds mu.
func (l *Loader[K, V]) begin(ctx context.Context, key K) (*flight[V], error) {
	switch {
	case l.closed:
		return nil, ErrClosed
	case len(l.running) >= l.cfg.MaxLoads:
		return nil, ErrBusy
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f := &flight[V]{cancel: cancel, done: make(chan struct{})}
	l.flights[key] = f
	l.running[f] = struct{}{}
	l.loads.Add(1)
	go l.fly(ctx, key, f)
	return f, nil
}

// fly runs the load. Should it ignore the end of its context, those who wait are let go on time, and
// its late answer is dropped.
func (l *Loader[K, V]) fly(ctx context.Context, key K, f *flight[V]) {
	defer l.leave(f)
	defer f.cancel(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.Timeout, ErrTimeout)
	defer cancel()
	abandon := context.AfterFunc(ctx, func() { l.settle(key, f, *new(V), context.Cause(ctx)) })
	defer abandon()
	l.call(ctx, key, f)
}

// call settles the flight by what the load returns, also when it panics or ends its goroutine.
func (l *Loader[K, V]) call(ctx context.Context, key K, f *flight[V]) {
	var value V
	err := errors.New("cache: the load ended its goroutine")
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("cache: the load panicked: %v", v)
			l.cfg.Logger.Error("cache load panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		l.settle(key, f, value, err)
	}()
	value, err = l.load(ctx, key)
}

// settle gives the outcome to those who wait, and keeps it if it is an answer and nothing has
// invalidated the key since the flight began: then the flight is still the one to join.
func (l *Loader[K, V]) settle(key K, f *flight[V], value V, err error) {
	e := answer(l.cfg, value, err, l.clock.elapsed())
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.over {
		return
	}
	f.over, f.value, f.err = true, value, err
	if e == nil {
		l.failures.Add(1)
	}
	if l.flights[key] == f {
		delete(l.flights, key)
		if e != nil {
			l.entries.Set(key, e)
		}
	}
	close(f.done)
}

func (l *Loader[K, V]) leave(f *flight[V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, f)
	l.closeIfIdle()
}
