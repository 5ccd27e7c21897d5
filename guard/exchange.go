package guard

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Exchange is one request and its response, as the stages see it. It is allocated once a request
// and carries the context, the response writer and the facts for the log line.
//
// The exported fields are set before the handler runs and are read-only from then on. What later
// stages learn goes in through [Exchange.Write], which may be called from the
// handler's goroutine even after the client was answered.
type Exchange struct {
	// ID is the request id, echoed in X-Request-Id.
	ID string
	// TraceID is that of the caller's trace (W3C Trace Context). Without one it is a new one when tracing is
	// on, and empty when it is off; so is SpanID, the id of the exchange's own span.
	TraceID, SpanID string
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

	scope    scope
	request  http.Request // with scope as its context; a copy in place saves an allocation
	out      response
	body     *body        // nil without one
	run      atomic.Int32 // what has become of the handler: running, finished or abandoned
	idHeader [1]string    // the value of X-Request-Id
	entered  atomic.Int32 // the Phase that began last
	expired  Phase        // the one in which its time was up; 0 for none

	mu      sync.Mutex
	journal *Journal // nil without a Trace stage, and when the request is over
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
	x := newExchange(w, r)
	return x, &x.out, &x.request
}

func newExchange(w http.ResponseWriter, r *http.Request) *Exchange {
	x := &Exchange{Start: time.Now(), ID: newID()}
	x.scope.exchange, x.scope.parent = x, r.Context()
	x.request = *r.WithContext(&x.scope)
	x.out.w, x.out.pace = w, &defaultPace
	return x
}

var defaultPace = Pace{}.withDefaults()

// newID returns 128 random bits in base32. They make a request findable and keep no secret, so they
// need not come from the kernel one by one.
func newID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	const half = 13
	var id [2 * half]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range half {
		id[i], id[half+i] = letters[a%32], letters[b%32]
		a, b = a/32, b/32
	}
	return string(id[:])
}

// Status returns the status sent to the client so far, 0 before any.
func (x *Exchange) Status() int { return x.out.sentStatus() }
