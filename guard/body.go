package guard

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Pace is how fast a client must send a body and take an answer. Zero fields are the defaults.
type Pace struct {
	// A request body must bring at least BodyRate bytes a second once BodyGrace is over, or the
	// client is answered 408 and cut off: slow bodies hold a worker for nothing. Defaults 1 KiB
	// and 5 s.
	BodyRate  int64
	BodyGrace time.Duration
	// Stall is how long a client may take no byte of a long answer or a stream before its
	// connection is cut. Short answers have the server's own WriteTimeout. Default 30 s.
	Stall time.Duration
}

func (p Pace) withDefaults() Pace {
	if p.BodyRate <= 0 {
		p.BodyRate = 1 << 10
	}
	setDefault(&p.BodyGrace, 5*time.Second)
	setDefault(&p.Stall, 30*time.Second)
	return p
}

// ErrSlowBody is what a handler reads when the client sends its body too slowly. The client has
// been answered 408 by then.
var ErrSlowBody = errors.New("guard: request body arrives too slowly")

// body bounds a request body in size and pace, and answers the client itself when a bound is
// broken, because a handler in the middle of a read seldom can.
type body struct {
	io.ReadCloser
	x       *Exchange
	r       *http.Request
	limit   int64
	paced   bool
	read    int64
	started time.Time
	until   time.Time // the read deadline that is set
	failed  error
	reading atomic.Bool
	whole   atomic.Bool // it was read to its end
}

// bound puts the limits on r's body. limit is in bytes; 0 or less is no limit.
func (x *Exchange) bound(r *http.Request, limit int64) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	paced := !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") && !x.Route.Stream
	x.body = &body{ReadCloser: r.Body, x: x, r: r, limit: limit, paced: paced}
	r.Body = x.body
}

// Read reads within the bounds.
func (b *body) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if b.limit > 0 && int64(len(p)) > b.limit-b.read+1 {
		p = p[:b.limit-b.read+1] // one more than allowed tells "exactly full" from "too long"
	}
	b.pace()
	n, err := b.take(p)
	b.read += int64(n)
	if b.limit > 0 && b.read > b.limit {
		return 0, b.fail(problem.TooLarge, &http.MaxBytesError{Limit: b.limit})
	}
	switch {
	case err == io.EOF:
		b.whole.Store(true)
		b.settle()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, b.fail(problem.RequestTimeout, ErrSlowBody)
	}
	return n, err
}

// take reads unless the request's time is over: release looks at reading after that, so that one of the two sees the other.
func (b *body) take(p []byte) (int, error) {
	b.reading.Store(true)
	defer b.reading.Store(false)
	if b.x.run.Load() == abandoned {
		return 0, http.ErrHandlerTimeout
	}
	return b.ReadCloser.Read(p)
}

// pace moves the read deadline ahead as bytes arrive; it is set again only when it comes near.
func (b *body) pace() {
	if !b.paced {
		return
	}
	now := time.Now()
	if b.started.IsZero() {
		b.started = now
	}
	pace := b.x.out.pace
	allowed := b.started.Add(pace.BodyGrace + time.Duration(b.read/pace.BodyRate)*time.Second)
	if b.until.IsZero() || b.until.Sub(now) < pace.BodyGrace/2 && allowed.After(b.until) {
		b.until = allowed
		_ = b.x.out.SetReadDeadline(allowed)
	}
}

// settle lifts the read deadline: the server goes on reading to notice when the client leaves.
func (b *body) settle() {
	if !b.until.IsZero() {
		b.until = time.Time{}
		_ = b.x.out.SetReadDeadline(time.Time{})
	}
}

func (b *body) fail(d problem.Details, err error) error {
	b.failed = err
	if b.x.run.Load() == abandoned {
		return err // the client is being told 504, and must not be cut off from that
	}
	b.x.Decide(d.Code)
	b.x.out.refuse(b.r, d, true)
	return err
}

// release ends all reading of the request: of a handler that is stuck in it, and of the server, which would read what
// remains of a body before it answers and before it closes the connection.
func (x *Exchange) release(r *http.Request) {
	unread := r.Body != nil && r.Body != http.NoBody
	if x.body != nil {
		unread = !x.body.whole.Load()
	}
	if unread {
		_ = http.NewResponseController(x.out.w).SetReadDeadline(time.Now())
	}
}
