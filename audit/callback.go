package audit

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Callback is a listener of the audit's own. A target that can be made to call it has a hole (JWT-11, VAL-06); the
// path, unique to a lure, proves which request made it call.
type Callback struct {
	URL    string
	server *http.Server

	mu      sync.Mutex
	hits    map[string][]Hit
	all     int // hits kept
	bodies  int // bytes kept
	answers map[string]http.HandlerFunc
	changed chan struct{}
}

// Hit is a call by the target.
type Hit struct {
	At     time.Time
	From   netip.AddrPort
	Method string
	Path   string // after the lure's name
	Body   []byte // at most 64 KiB
}

// What the target can make the audit keep.
const (
	maxHits    = 100  // of one lure
	maxAllHits = 1000 // of all names, which the target may make up
	maxBody    = 64 << 10
	maxBodies  = 4 << 20 // of all hits together
)

// Callback of the run, started at the first call.
func (s *Session) Callback(ctx context.Context) (*Callback, error) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if s.shared.callback != nil {
		return s.shared.callback, nil
	}
	c, err := newCallback(ctx, s.cfg.Callback)
	if err != nil {
		return nil, err
	}
	s.shared.callback = c
	return c, nil
}

// Listen opens another listener, at an address that the operator named. The caller closes it.
func (s *Session) Listen(ctx context.Context, addr string) (*Callback, error) {
	return newCallback(ctx, addr)
}

// Close ends a listener that [Session.Listen] opened.
func (c *Callback) Close() { c.close() }

// Any waits until anything was called, at most d, and returns the first hit.
func (c *Callback) Any(ctx context.Context, d time.Duration) (Hit, bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		for _, hits := range c.hits {
			c.mu.Unlock()
			return hits[0], true
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return Hit{}, false
		case <-ctx.Done():
			return Hit{}, false
		}
	}
}

func newCallback(ctx context.Context, addr string) (*Callback, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--callback %s: %w", addr, err)
	}
	c := &Callback{
		URL: "http://" + ln.Addr().String(), hits: map[string][]Hit{}, answers: map[string]http.HandlerFunc{},
		changed: make(chan struct{}),
	}
	c.server = &http.Server{
		Handler: c, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	go c.server.Serve(newFew(ln))
	return c, nil
}

func (c *Callback) close() { c.server.Close() }

// Host is host:port of the listener.
func (c *Callback) Host() string { return strings.TrimPrefix(c.URL, "http://") }

// Lure gives the URL of a lure. answer may be nil: 200 with an empty body.
func (c *Callback) Lure(name string, answer http.HandlerFunc) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer != nil {
		c.answers[name] = answer
	}
	return c.URL + "/" + name
}

// Hits of a lure so far.
func (c *Callback) Hits(name string) []Hit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Hit(nil), c.hits[name]...)
}

// Wait until the lure was hit, at most d.
func (c *Callback) Wait(ctx context.Context, name string, d time.Duration) []Hit {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		c.mu.Lock()
		hits, changed := append([]Hit(nil), c.hits[name]...), c.changed
		c.mu.Unlock()
		if len(hits) > 0 {
			return hits
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// ServeHTTP notes the hit and answers as the lure says.
func (c *Callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxBody))
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	c.mu.Lock()
	if len(c.hits[name]) < maxHits && c.all < maxAllHits {
		body = body[:min(len(body), maxBodies-c.bodies)]
		c.all, c.bodies = c.all+1, c.bodies+len(body)
		c.hits[name] = append(c.hits[name], Hit{time.Now(), from, r.Method, "/" + rest, body})
		close(c.changed)
		c.changed = make(chan struct{})
	}
	answer := c.answers[name]
	c.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}
