package guard

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// response is the writer that stages and handlers see. It counts, it keeps the handler's headers
// apart from the server's until they are sent, and it can be closed: from then on every write fails
// with http.ErrHandlerTimeout, and neither the connection nor its next request is touched.
//
// It has no Unwrap on purpose: an abandoned handler must not reach the connection behind it.
type response struct {
	w  http.ResponseWriter
	rc *http.ResponseController

	worker *worker // runs the handler; nil without a deadline
	pace   *Pace

	mu       sync.Mutex
	apart    bool        // the handler's headers are kept from the server's, see split
	header   http.Header // the handler's; made when it first asks
	staged   fields      // what stages have set before that
	id       []string    // the request id's header
	kept     fields      // what refusals have, too
	status   int
	written  int64
	first    time.Time
	closed   bool
	hijacked bool
	conn     net.Conn // set when hijacked

	streaming atomic.Bool
	lastWrite atomic.Int64 // UnixNano of the last activity of a stream
	extended  time.Time    // until when the write deadline has been pushed
}

// control returns the server's controller, made on first need.
func (o *response) control() *http.ResponseController {
	if o.rc == nil {
		o.rc = http.NewResponseController(o.w)
	}
	return o.rc
}

// split keeps the handler's headers apart from here on, so that a 504 written meanwhile neither races
// with them nor carries half of them.
func (o *response) split() {
	o.apart, o.id = true, o.w.Header()[problem.RequestIDHeader]
}

// Header returns the map of the response that is being prepared.
func (o *response) Header() http.Header {
	if !o.apart {
		return o.w.Header()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.own()
}

// own returns the handler's map. Many handlers never ask, and a map that is filled only to be copied
// is what a fast path cannot pay.
func (o *response) own() http.Header {
	if o.header == nil {
		o.header = make(http.Header)
		if o.id != nil {
			o.header[problem.RequestIDHeader] = o.id
		}
		o.staged.set(o.header)
	}
	return o.header
}

// fields are headers of one value each, values[i] that of names[i].
type fields struct{ names, values []string }

func (f fields) set(h http.Header) {
	for i, name := range f.names {
		h[name] = f.values[i : i+1 : i+1]
	}
}

// SetHeaders sets names[i], in canonical form, to values[i]; the response keeps both slices. Stages
// outside this package find it by its shape (interface{ SetHeaders(names, values []string) }) and fall
// back to Header: before the handler has asked for its map none is needed.
func (o *response) SetHeaders(names, values []string) {
	f := fields{names, values}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.apart:
		f.set(o.w.Header())
	case o.header == nil && o.staged.names == nil:
		o.staged = f
	default:
		f.set(o.own())
	}
}

// Keep sets names[i] to values[i], like SetHeaders, for an answer that the door gives in the handler's place: one
// whose time is up, or that panicked.
func (x *Exchange) Keep(names, values []string) {
	x.out.mu.Lock()
	defer x.out.mu.Unlock()
	x.out.kept = fields{names, values}
}

// WriteHeader sends an informational or the final status.
func (o *response) WriteHeader(status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.hijacked || o.status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		o.inform(status)
		return
	}
	o.commit(status)
}

// inform sends a 1xx with the handler's headers only.
func (o *response) inform(status int) {
	real := o.w.Header()
	kept := maps.Clone(real)
	if o.apart {
		clear(real)
		maps.Copy(real, o.own())
	}
	o.w.WriteHeader(status)
	clear(real)
	maps.Copy(real, kept)
}

func (o *response) commit(status int) {
	o.status = status
	o.first = time.Now()
	if isStream(status, o.merge()) {
		o.stream()
	}
	o.w.WriteHeader(status)
}

// merge puts the handler's headers into the server's.
func (o *response) merge() http.Header {
	h := o.w.Header()
	if o.header == nil {
		o.staged.set(h)
		return h
	}
	maps.Copy(h, o.header)
	if o.id != nil {
		h[problem.RequestIDHeader] = o.id // an upstream's own id does not replace ours
	}
	return h
}

// finish is the end of a handler: one that wrote nothing has an answer too, of headers alone.
func (o *response) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
	case o.status == 0:
		o.merge()
	default:
		o.trail()
	}
}

// trail passes on the trailers, which a handler sets after its headers were sent: what it announced, and
// what says so by its name (see [http.TrailerPrefix]).
func (o *response) trail() {
	h := o.w.Header()
	announced := h["Trailer"]
	for name, values := range o.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || lists(announced, name) {
			h[name] = values
		}
	}
}

// lists says whether name is an element of a header whose lines are lists.
func lists(lines []string, name string) bool {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(element), name) {
				return true
			}
		}
	}
	return false
}

// isStream recognises answers that have no natural end: server-sent events, gRPC, upgrades.
func isStream(status int, h http.Header) bool {
	if status == http.StatusSwitchingProtocols {
		return true
	}
	kind := h.Get("Content-Type")
	return strings.HasPrefix(kind, "text/event-stream") || strings.HasPrefix(kind, "application/grpc")
}

// stream makes the limits of streams count from here on.
func (o *response) stream() {
	o.touch()
	o.streaming.Store(true)
	if o.worker != nil {
		o.worker.d.follow(o.worker)
	}
}

func (o *response) touch() { o.lastWrite.Store(time.Now().UnixNano()) }

// Write sends body bytes, and status 200 first where none was set.
func (o *response) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, http.ErrHandlerTimeout
	}
	if o.status == 0 {
		o.commit(http.StatusOK)
	}
	o.extend()
	n, err := o.w.Write(p)
	o.written += int64(n)
	if o.streaming.Load() {
		o.touch()
	}
	return n, err
}

// shortAnswer is how much the server's own WriteTimeout covers; longer answers and streams push it
// ahead, a piece at a time.
const shortAnswer = 64 << 10

func (o *response) extend() {
	if o.written < shortAnswer && !o.streaming.Load() {
		return
	}
	now := time.Now()
	if o.extended.Sub(now) < o.pace.Stall/2 {
		o.extended = now.Add(o.pace.Stall)
		_ = o.control().SetWriteDeadline(o.extended)
	}
}

// Flush implements http.Flusher.
func (o *response) Flush() { _ = o.FlushError() }

// FlushError sends what is buffered, for http.ResponseController.
func (o *response) FlushError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return http.ErrHandlerTimeout
	}
	if o.status == 0 {
		o.commit(http.StatusOK)
	}
	o.extend()
	return o.control().Flush()
}

// Hijack hands the connection to the handler; Gantry's total deadline no longer applies to it, the
// idle and lifetime limits of streams do.
func (o *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, nil, http.ErrHandlerTimeout
	}
	conn, rw, err := o.control().Hijack()
	if err != nil {
		return nil, nil, err
	}
	o.hijacked = true
	if o.status == 0 {
		o.status, o.first = http.StatusSwitchingProtocols, time.Now()
	}
	o.stream()
	watched := watch(conn, rw, o)
	o.conn = watched
	return watched, bufio.NewReadWriter(bufio.NewReader(watched), bufio.NewWriter(watched)), nil
}

// SetReadDeadline, SetWriteDeadline and EnableFullDuplex serve http.ResponseController.
func (o *response) SetReadDeadline(t time.Time) error {
	return o.whileOpen(func() error { return o.control().SetReadDeadline(t) })
}

// SetWriteDeadline sets the deadline for writing the response.
func (o *response) SetWriteDeadline(t time.Time) error {
	return o.whileOpen(func() error { return o.control().SetWriteDeadline(t) })
}

// EnableFullDuplex lets the handler read while it writes (HTTP/1).
func (o *response) EnableFullDuplex() error {
	return o.whileOpen(func() error { return o.control().EnableFullDuplex() })
}

func (o *response) whileOpen(f func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return http.ErrHandlerTimeout
	}
	return f()
}

// refuse answers with d if nothing was answered yet, closes the response, and reports whether the
// client got d. A write that is stuck on a slow client is cut loose first. With closing, the
// connection is not used again.
func (o *response) refuse(r *http.Request, d problem.Details, closing bool) bool {
	if !o.mu.TryLock() {
		_ = http.NewResponseController(o.w).SetWriteDeadline(time.Now())
		o.mu.Lock()
	}
	defer o.mu.Unlock()
	if o.closed || o.status != 0 {
		o.closed = true
		return false
	}
	o.closed = true
	o.status, o.first = d.Status, time.Now()
	if closing {
		o.w.Header().Set("Connection", "close")
	}
	o.kept.set(o.w.Header())
	problem.Write(o.w, r, d)
	return true
}

// push sends what refuse wrote, when the handler that the server waits for may still take its time.
func (o *response) push() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.control().Flush()
}

func (o *response) sentStatus() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status
}

// totals returns what the log line needs.
func (o *response) totals() (status int, written int64, first time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status, o.written, o.first
}

// cut closes a hijacked connection, which the server has forgotten.
func (o *response) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.conn != nil {
		_ = o.conn.Close()
	}
}
