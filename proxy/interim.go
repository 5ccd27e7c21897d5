package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
)

// maxInterim is how many informational answers a request may have.
const maxInterim = 16

// sending is one request on its way to the upstream.
type sending struct {
	connected atomic.Bool
	reused    atomic.Bool // the connection had served before
	answered  atomic.Bool // a byte came back
}

func (s *sending) trace(i *interim) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn:              func(c httptrace.GotConnInfo) { s.connected.Store(true); s.reused.Store(c.Reused) },
		GotFirstResponseByte: func() { s.answered.Store(true) },
		Got1xxResponse:       i.got,
	}
}

// interim passes informational answers on to the client. 103 is all that there is to pass: 100 is
// between the transport and the upstream, and makes it read the client's body, upon which our server
// says 100 itself; 101 is a final answer; others have no use.
type interim struct {
	in *http.Request

	mu    sync.Mutex
	w     http.ResponseWriter // nil once the final answer is there
	count int
	spoke bool // the client has seen one
}

// got hears of each from the transport's goroutine; an error ends the request.
func (i *interim) got(code int, h textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.count++
	switch {
	case i.w == nil:
		return nil
	case i.count > maxInterim:
		return fmt.Errorf("%w: more than %d informational answers", errUpstreamHeaders, maxInterim)
	case fields(http.Header(h)) > maxFields:
		return fmt.Errorf("%w: %d header fields", errUpstreamHeaders, fields(http.Header(h)))
	case code == http.StatusEarlyHints && i.in.ProtoAtLeast(1, 1): // HTTP/1.0 has none, RFC 9110 section 15.2
		i.relay(code, http.Header(h))
	}
	return nil
}

// relay sends the upstream's headers and no others: those of the final answer come with that.
func (i *interim) relay(code int, from http.Header) {
	i.spoke = true
	h := i.w.Header()
	kept := maps.Clone(h)
	clear(h)
	maps.Copy(h, from)
	for _, name := range hopByHop {
		delete(h, name)
	}
	withhold(h)
	i.w.WriteHeader(code)
	clear(h)
	maps.Copy(h, kept)
}

var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Content-Length",
}

func (i *interim) silent() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.spoke
}

// end waits for a relay that is under way; none begins after it.
func (i *interim) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.w = nil
}

func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}
