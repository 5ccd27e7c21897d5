package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The errors that a session's calls return. Whatever error a probe's Run returns makes it inconclusive.
var (
	// ErrBudget says that the run's budget of requests, bytes or time is spent.
	ErrBudget = errors.New("the audit's budget is spent")
	// ErrRateLimited says that the target kept answering 429 although the audit waited.
	ErrRateLimited = errors.New("the target's rate limit did not let the audit go on")
	// ErrControl says that the unchanged valid token was refused in between.
	ErrControl = errors.New("the control request with the unchanged valid token was not accepted")
)

const (
	defaultLimit   = 256 << 10
	defaultTimeout = 10 * time.Second
	historyBody    = 8 << 10
	historyLength  = 4000
	historyHeader  = 8 << 10
	maxHeaderBytes = 64 << 10
	patience429    = 3                // times a request is sent again after a 429
	longest429     = 65 * time.Second // a minute's window and a bit: what asks for more is not waited for
)

// wire owns the sockets of a run: it paces, counts and records what is sent.
type wire struct {
	target *Target
	client *http.Client // one connection pool for everybody
	fresh  *http.Client // a connection a request
	tls    *tls.Config
	pace   *pace
	budget Budget
	ends   time.Time
	hide   *redactor
	seed   uint64
	now    func() time.Time
	wait   func(time.Duration) // told when the target's limiter makes us wait

	requests atomic.Int64
	load     atomic.Int64
	bytes    atomic.Int64
	limited  atomic.Bool           // a load met the target's rate limit
	answered atomic.Bool           // once at least
	closed   atomic.Bool           // the target's limiter: patience with it ran out, and it has not let go since
	overrun  atomic.Pointer[error] // the first refusal of the budget

	mu      sync.Mutex
	history []*Exchange
	serial  map[string]int
	sent    map[string]int // by probe
	spent   []time.Time    // when requests with the valid token were sent
}

func newWire(t *Target, c Config) *wire {
	w := &wire{
		target: t, pace: newPace(c.Pace), budget: c.Budget, ends: c.Now().Add(c.Budget.Time), hide: newRedactor(t.secrets()),
		seed: c.Seed, now: c.Now, serial: map[string]int{}, sent: map[string]int{}, wait: func(time.Duration) {},
		tls: &tls.Config{RootCAs: t.CA, MinVersion: tls.VersionTLS12},
	}
	w.client = &http.Client{Transport: w.transport(false), CheckRedirect: noRedirect}
	w.fresh = &http.Client{Transport: w.transport(true), CheckRedirect: noRedirect}
	return w
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// transport without proxies, compression or retries worth the name: the audit must see what the target does.
func (w *wire) transport(fresh bool) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:        w.tls.Clone(),
		TLSHandshakeTimeout:    5 * time.Second,
		DisableCompression:     true,
		DisableKeepAlives:      fresh,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        20 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

func (w *wire) close() {
	w.client.CloseIdleConnections()
	w.fresh.CloseIdleConnections()
}

// spend takes one request from the budget.
func (w *wire) spend() error {
	var err error
	switch {
	case w.now().After(w.ends):
		err = w.late()
	case w.bytes.Load() > w.budget.Bytes:
		err = fmt.Errorf("%w: %d MiB were received", ErrBudget, w.budget.Bytes>>20)
	case w.requests.Add(1) > int64(w.budget.Requests):
		w.requests.Add(-1)
		err = fmt.Errorf("%w: %d requests were sent", ErrBudget, w.budget.Requests)
	default:
		return nil
	}
	w.overrun.CompareAndSwap(nil, &err)
	return err
}

// late is the error of a run whose time is over.
func (w *wire) late() error { return fmt.Errorf("%w: %s have passed", ErrBudget, w.budget.Time) }

// do sends r for a probe, waiting for the target's limiter if it must.
func (w *wire) do(ctx context.Context, probe string, r Request) (*Exchange, error) {
	for try := 0; ; try++ {
		if err := w.pace.wait(ctx); err != nil {
			return nil, err
		}
		if err := w.spend(); err != nil {
			return nil, err
		}
		x, err := w.once(ctx, probe, r)
		if x.Status != 0 && x.Status != http.StatusTooManyRequests {
			w.closed.Store(false)
		}
		if err != nil || x.Status != http.StatusTooManyRequests || r.Expect429 {
			return x, err
		}
		if try == patience429 || w.closed.Load() {
			w.closed.Store(true)
			return x, ErrRateLimited
		}
		if err := w.sitOut(ctx, x.Header); err != nil {
			return x, err
		}
	}
}

// sitOut waits as long as a 429 asks, if that is a minute and a bit at most.
func (w *wire) sitOut(ctx context.Context, h http.Header) error {
	d := RetryAfter(h, w.now())
	if d <= 0 {
		d = 5 * time.Second
	}
	if d > longest429 {
		w.closed.Store(true)
		return fmt.Errorf("%w: it asks for a wait of %s", ErrRateLimited, d.Round(time.Second))
	}
	w.wait(d)
	defer w.wait(0)
	return Sleep(ctx, d)
}

// RetryAfter reads the header of that name (RFC 9110 section 10.2.3): seconds or a date; 0 when absent or past.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(0, min(time.Duration(seconds), 86_400)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, min(at.Sub(now), 24*time.Hour))
	}
	return 0
}

// Sleep waits for d, or until ctx ends: then it is its error.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once sends r and reads the answer. A transport error is part of the exchange; only the context's end is an error.
func (w *wire) once(ctx context.Context, probe string, r Request) (*Exchange, error) {
	x := w.begin(probe, r)
	w.exchange(ctx, x)
	for hops := 0; r.Follow && hops < 5 && w.follow(x); hops++ {
		w.exchange(ctx, x)
	}
	w.record(x)
	return x, ctx.Err()
}

func (w *wire) begin(probe string, r Request) *Exchange {
	set(&r.Method, http.MethodGet)
	set(&r.Limit, defaultLimit)
	set(&r.Timeout, defaultTimeout)
	x := &Exchange{Probe: probe, Request: r, URL: w.target.Origin() + w.target.URL.EscapedPath() + r.Path}
	x.ID = w.identify(probe, r)
	return x
}

// identify gives an exchange a short name that another run with the same seed gives it again.
func (w *wire) identify(probe string, r Request) string {
	key := fmt.Sprintf("%d|%s|%s|%s|%s", w.seed, probe, r.Method, r.Path, r.Label)
	w.mu.Lock()
	w.serial[key]++
	w.sent[probe]++
	n := w.serial[key]
	w.mu.Unlock()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s|%d", key, n))
	return hex.EncodeToString(sum[:4])
}

// sentBy counts a probe's requests.
func (w *wire) sentBy(probe string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[probe]
}

func (w *wire) exchange(ctx context.Context, x *Exchange) {
	ctx, cancel := context.WithTimeout(ctx, x.Request.Timeout)
	defer cancel()
	start := time.Now()
	x.At = w.now()
	x.Err, x.Status, x.Header, x.Body, x.Cut = nil, 0, nil, nil, false
	defer func() { x.Took = time.Since(start) }()
	var first time.Time
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { first = time.Now() }})
	req, err := w.build(ctx, x)
	if err != nil {
		x.Err = err
		return
	}
	client := w.client
	if x.Request.Fresh {
		client = w.fresh
	}
	res, err := client.Do(req)
	if err != nil {
		x.Err = brief(err)
		return
	}
	defer res.Body.Close()
	if !first.IsZero() {
		x.TTFB = first.Sub(start)
	}
	w.answered.Store(true)
	x.Status, x.Header, x.Protocol = res.StatusCode, res.Header, res.Proto
	if res.StatusCode == http.StatusSwitchingProtocols {
		x.Cut, x.Err = true, errSwitched // nobody asked; reading on would not heed the context
		return
	}
	x.Body, x.Cut, x.Err = readBody(res.Body, x.Request.Limit)
	w.bytes.Add(int64(len(x.Body) + headerSize(x.Header)))
}

func headerSize(h http.Header) int {
	n := 0
	for key, values := range h {
		for _, v := range values {
			n += len(key) + len(v) + len(": \r\n")
		}
	}
	return n
}

func readBody(r io.Reader, limit int64) (body []byte, more bool, err error) {
	body, err = io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(body)) > limit {
		return body[:limit], true, nil
	}
	if err != nil {
		return body, true, fmt.Errorf("the answer broke off: %w", brief(err))
	}
	return body, false, nil
}

func (w *wire) build(ctx context.Context, x *Exchange) (*http.Request, error) {
	var body io.Reader
	if x.Request.Body != nil {
		body = bytes.NewReader(x.Request.Body)
	}
	req, err := http.NewRequestWithContext(ctx, x.Request.Method, w.target.Origin(), body)
	if err != nil {
		return nil, err
	}
	if x.elsewhere != nil {
		req.URL, req.Host = x.elsewhere, x.elsewhere.Host
	} else if err := rawURL(req.URL, w.target.URL.EscapedPath()+x.Request.Path); err != nil {
		return nil, err
	}
	req.Header = x.Request.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "gantry-audit (+https://github.com/gantryhq/gantry)")
	}
	if x.Request.Token != "" {
		req.Header.Set("Authorization", "Bearer "+x.Request.Token)
		if x.Request.Token == w.target.Token {
			w.mu.Lock()
			w.spent = append(w.spent, x.At)
			w.mu.Unlock()
		}
	}
	return req, nil
}

// rawURL makes the request line carry path and query as written, where net/url can: dots, doubled slashes and
// odd escapes are the point of a probe.
func rawURL(u *url.URL, pathAndQuery string) error {
	path, query, _ := strings.Cut(pathAndQuery, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return fmt.Errorf("path %q: %w", path, err)
	}
	u.Path, u.RawPath, u.RawQuery = decoded, path, query
	return nil
}

// follow points x at a redirect on the same origin, and reports whether there was one.
func (w *wire) follow(x *Exchange) bool {
	if x.Status < 301 || x.Status > 308 || x.Status == 304 {
		return false
	}
	base, err := url.Parse(x.URL)
	if err != nil {
		return false
	}
	next, err := base.Parse(x.Header.Get("Location"))
	if err != nil || next.Scheme+"://"+next.Host != w.target.Origin() {
		return false
	}
	path, inside := strings.CutPrefix(next.RequestURI(), w.target.URL.EscapedPath())
	if !inside || w.spend() != nil {
		return false
	}
	x.Request.Path, x.URL = path, next.String()
	return true
}

// record keeps a trimmed copy for the passive probes, as long as there is room.
func (w *wire) record(x *Exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.history) >= historyLength {
		return
	}
	kept := *x
	kept.shape = nil // of the whole body: it may be larger than what is kept
	kept.Body = bytes.Clone(x.Body[:min(len(x.Body), historyBody)])
	kept.Request.Body = bytes.Clone(x.Request.Body[:min(len(x.Request.Body), evidenceBody)])
	if headerSize(x.Header) > historyHeader {
		kept.Header = trimmed(x.Header, historyHeader)
	}
	w.history = append(w.history, &kept)
}

// trimmed copies the lines of a header that fit into n bytes, in the order of their names. The copy does not keep the
// rest of the header alive.
func trimmed(h http.Header, n int) http.Header {
	out := http.Header{}
	for _, key := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[key] {
			if size := len(key) + len(v) + len(": \r\n"); size <= n {
				n -= size
				key := strings.Clone(key)
				out[key] = append(out[key], strings.Clone(v))
			}
		}
	}
	return out
}

// brief takes the URL out of a client's error: it is in the exchange already.
func brief(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return errTimeout
	}
	return quoting{err}
}

// quoting is an error whose text may quote what the target sent, made fit to print. net/http quotes most of it, but not a
// malformed header line.
type quoting struct{ error }

func (q quoting) Error() string { return clean(q.error.Error()) }
func (q quoting) Unwrap() error { return q.error }

var (
	errTimeout  = error(timeoutError{})
	errSwitched = errors.New("the target switched to another protocol, unasked")
)

// timeoutError is a net.Error of our own words.
type timeoutError struct{}

func (timeoutError) Error() string   { return "no answer in time" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// TimedOut says whether the exchange ended because the time given was over.
func (x *Exchange) TimedOut() bool { return errors.Is(x.Err, errTimeout) }

// pace lets requests through evenly, so many a second.
type pace struct {
	mu    sync.Mutex
	every time.Duration
	next  time.Time
}

func newPace(perSecond float64) *pace {
	return &pace{every: time.Duration(float64(time.Second) / perSecond)}
}

func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	at := p.next
	if at.Before(now) {
		at = now
	}
	p.next = at.Add(p.every)
	p.mu.Unlock()
	if d := at.Sub(now); d > 0 {
		return Sleep(ctx, d)
	}
	return ctx.Err()
}
