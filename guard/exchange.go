package guard

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Exchange is one request and its response, as the stages see it. It is allocated once a request
// and carries the context, the response writer and the facts for the log line.
//
// The exported fields are set before the handler runs and are read-only from then on. What later
// stages learn goes in through [Exchange.Note] and [Exchange.Decide], which may be called from the
// handler's goroutine even after the client was answered.
type Exchange struct {
	// ID is the request id, echoed in X-Request-Id.
	ID string
	// Start is when the request's headers had been read.
	Start time.Time
	// Client is the caller's address: the peer's, or what trusted proxies say (see [ClientAddr]).
	Client netip.Addr
	// Trusted says that the peer is one of the trusted proxies.
	Trusted bool
	// Secure says that the client's own connection is encrypted.
	Secure bool
	// Route is the matched route, never nil behind Shape.
	Route *Route

	scope  scope
	cancel context.CancelCauseFunc
	out    response
	body   body

	mu       sync.Mutex
	decision string
	caller   string
	notes    []slog.Attr
}

type exchangeKey struct{}

// FromContext returns the exchange of the request that ctx belongs to.
func FromContext(ctx context.Context) (*Exchange, bool) {
	x, ok := ctx.Value(exchangeKey{}).(*Exchange)
	return x, ok
}

// ensure returns the exchange of r, or a new one for a stage used without a Pipeline.
func ensure(w http.ResponseWriter, r *http.Request) (*Exchange, http.ResponseWriter, *http.Request) {
	if x, ok := FromContext(r.Context()); ok {
		return x, w, r
	}
	x, ctx := newExchange(w, r)
	return x, &x.out, r.WithContext(ctx)
}

func newExchange(w http.ResponseWriter, r *http.Request) (*Exchange, context.Context) {
	x := &Exchange{Start: time.Now(), ID: rand.Text()}
	x.scope.exchange = x
	x.scope.Context, x.cancel = context.WithCancelCause(r.Context())
	x.out.w = w
	return x, &x.scope
}

// Decide records the answer's reason for the log line, for example "quota:user". The last one wins.
func (x *Exchange) Decide(reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.decision = reason
}

// Identified records who called, by pseudonym, for the log line.
func (x *Exchange) Identified(pseudonym string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.caller = pseudonym
}

// Note adds attributes to the log line. At most 16 are kept.
func (x *Exchange) Note(attrs ...slog.Attr) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.notes)+len(attrs) <= maxNotes {
		x.notes = append(x.notes, attrs...)
	}
}

const maxNotes = 16

// Status returns the status sent to the client so far, 0 before any.
func (x *Exchange) Status() int { return x.out.sentStatus() }

// scope is the request's context: cancelled with the client's connection or by the deadline. It
// shows the deadline without a second timer, and takes a few values in place, because a
// context.WithValue and a copied request for each stage is what a fast path cannot pay.
type scope struct {
	context.Context // a cancelCtx, so that derived contexts attach to it without a goroutine
	exchange        *Exchange
	deadline        time.Time
	expired         expiry
	values          [2]struct{ key, value any }
}

// Deadline is the time at which the client is answered 504.
func (s *scope) Deadline() (time.Time, bool) {
	if !s.deadline.IsZero() && !s.expired.lifted() {
		return s.deadline, true
	}
	return s.Context.Deadline()
}

// Err tells a deadline from a client that went away.
func (s *scope) Err() error {
	err := s.Context.Err()
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
	return s.Context.Value(key)
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
