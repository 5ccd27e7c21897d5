package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Limits of the live stream. A stream ends after streamLife so that its reader proves again that it may read.
const (
	maxReaders   = 32
	pulse        = time.Second // how often open pages get something new
	streamLife   = 10 * time.Minute
	heartbeat    = 10 * time.Second
	writeTimeout = 10 * time.Second
	retry        = 2 * time.Second
)

// hub wakes the readers of the live stream. There is no queue: a reader that is slow finds the newest snapshot when it
// comes back, and misses those between.
type hub struct {
	mu      sync.Mutex
	readers int
	tick    chan struct{} // closed when there is something new
	over    chan struct{} // closed when Run ends
}

func newHub() hub { return hub{tick: make(chan struct{}), over: make(chan struct{})} }

func (h *hub) join() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers >= maxReaders {
		return false
	}
	h.readers++
	return true
}

func (h *hub) leave() {
	h.mu.Lock()
	h.readers--
	h.mu.Unlock()
}

func (h *hub) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tick
}

func (h *hub) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.tick)
	h.tick = make(chan struct{})
}

func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readers == 0
}

// Run keeps open pages live until ctx ends, and ends their streams then. While nobody looks it does nothing.
func (d *Dashboard) Run(ctx context.Context) error {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	defer close(d.hub.over)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !d.hub.idle() {
				d.hub.wake()
			}
		}
	}
}

// events is the live stream (server-sent events, HTML standard section 9.2): first all sections, then those that change.
func (d *Dashboard) events(w http.ResponseWriter, r *http.Request) {
	if !d.hub.join() {
		problem.Write(w, r, problem.Overloaded.After(heartbeat))
		return
	}
	defer d.hub.leave()
	ctx, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := &stream{w: w, rc: http.NewResponseController(w)}
	out.send(fmt.Sprintf("retry: %d\n\n", retry.Milliseconds()))
	for token, seen := d.lock.formToken(r), uint64(0); ; {
		tick := d.hub.next()
		s, err := d.current()
		if err != nil {
			d.log.Error("dashboard", "error", err)
			return
		}
		if fresh, last := s.since(seen); len(fresh) > 0 {
			seen = last
			text, _ := json.Marshal(fresh) // strings only
			out.send("event: sections\ndata: " + strings.ReplaceAll(string(text), d.form, token) + "\n\n")
		}
		if !d.hub.wait(ctx, tick, out) {
			return
		}
	}
}

// wait returns true when there is something new, and false when the stream is over.
func (h *hub) wait(ctx context.Context, tick <-chan struct{}, out *stream) bool {
	for out.err == nil {
		select {
		case <-tick:
			return true
		case <-time.After(heartbeat):
			out.send("event: beat\ndata: 0\n\n")
		case <-ctx.Done():
			return false
		case <-h.over:
			return false
		}
	}
	return false
}

// since returns the sections that changed after snapshot number seen, and the number to ask with next.
func (s *snapshot) since(seen uint64) (fresh []section, last uint64) {
	last = seen
	for _, part := range s.sections {
		if part.changed > seen {
			fresh = append(fresh, part)
			last = max(last, part.changed)
		}
	}
	return fresh, last
}

// stream writes with a time limit of its own, longer streams than the server's write timeout, and remembers that it broke.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (s *stream) send(text string) {
	if s.err != nil {
		return
	}
	if s.err = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); s.err != nil {
		return
	}
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.rc.Flush()
	}
}
