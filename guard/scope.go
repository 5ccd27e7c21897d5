package guard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// scope is the request's context: cancelled with the client's connection or by the deadline. It
// shows the deadline without a second timer, and takes a few values in place, because a
// context.WithValue and a copied request for each stage is what a fast path cannot pay.
type scope struct {
	parent   context.Context
	exchange *Exchange
	deadline time.Time
	expired  expiry
	values   [2]struct{ key, value any }

	mu    sync.Mutex                 // for making own
	own   atomic.Pointer[ownContext] // made when somebody first wants to wait for the end
	ended atomic.Bool
}

// ownContext is a cancelCtx, so that derived contexts attach to the scope without a goroutine.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

// wait returns the context that ends when the scope does.
func (s *scope) wait() *ownContext {
	if own := s.own.Load(); own != nil {
		return own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.own.Load(); own != nil {
		return own
	}
	own := &ownContext{}
	own.Context, own.cancel = context.WithCancelCause(s.parent)
	s.own.Store(own)
	if s.ended.Load() { // end looks the other way round, so that one of the two sees the other
		own.cancel(context.Canceled)
	}
	return own
}

// known is the context that knows most of what has happened.
func (s *scope) known() context.Context {
	if own := s.own.Load(); own != nil {
		return own
	}
	return s.parent
}

// end cancels the context when the request is over.
func (s *scope) end() {
	s.ended.Store(true)
	if own := s.own.Load(); own != nil {
		own.cancel(context.Canceled)
	}
}

// expire cancels the context at the deadline.
func (s *scope) expire() { s.wait().cancel(context.DeadlineExceeded) }

// Done is closed when the request is over, whatever the reason.
func (s *scope) Done() <-chan struct{} { return s.wait().Done() }

// Deadline is the time at which the client is answered 504.
func (s *scope) Deadline() (time.Time, bool) {
	if !s.deadline.IsZero() && !s.expired.lifted() {
		return s.deadline, true
	}
	return s.parent.Deadline()
}

// Err tells a deadline from a client that went away.
func (s *scope) Err() error {
	err := s.known().Err()
	if err == nil && s.ended.Load() {
		return context.Canceled
	}
	if err != nil && s.expired.passed() {
		return context.DeadlineExceeded
	}
	return err
}

func (s *scope) Value(key any) any {
	if key == (exchangeKey{}) {
		return s.exchange
	}
	for i := range s.values {
		if s.values[i].key != nil && s.values[i].key == key {
			return s.values[i].value
		}
	}
	return s.known().Value(key)
}

// SetValue stores a value in place and reports whether there was room. Stages outside this package
// find it by its shape (interface{ SetValue(key, value any) bool }) and fall back to
// context.WithValue. It must be called before the context is shared with other goroutines.
func (s *scope) SetValue(key, value any) bool {
	for i := range s.values {
		if s.values[i].key == nil || s.values[i].key == key {
			s.values[i].key, s.values[i].value = key, value
			return true
		}
	}
	return false
}

// expiry is the state of a scope's deadline: ahead, lifted (the answer became a stream) or passed.
type expiry struct{ v atomic.Int32 }

func (e *expiry) lift()        { e.v.CompareAndSwap(0, 1) }
func (e *expiry) pass()        { e.v.Store(2) }
func (e *expiry) lifted() bool { return e.v.Load() == 1 }
func (e *expiry) passed() bool { return e.v.Load() == 2 }
