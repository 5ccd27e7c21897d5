// Package proxy forwards requests to an upstream, hardened: what the client may not say does not
// pass, what the upstream may not say does not come back, and a failing upstream is given time.
//
// Begin with [New]; a *Proxy is an http.Handler.
//
// The surprise: a client's Idempotency-Key never makes the transport send a POST twice. net/http
// would; here only safe methods are repeated, once and within a budget, and only when a kept
// connection proves closed.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Config of a Proxy. The zero value of each optional field means its default.
type Config struct {
	// Upstream is where requests go when Choose is nil. Only scheme and host count.
	Upstream *url.URL
	// Choose picks the upstream of a request among those made by NewUpstream; nil is answered 404. mark
	// comes back in each Outcome of the request.
	Choose func(*http.Request) (up *Upstream, mark uint64)
	// Shield is asked, once a request, for an upstream to answer instead of the chosen one: when a GET or
	// HEAD without a body got no answer from it, or 502, 503 or 504, and the client has seen nothing yet;
	// and when its breaker refuses a request of any kind. Nil leaves the client the failure.
	Shield func(*http.Request, Outcome) *Upstream
	// Answer may add to the headers that go to the client, before those of the upstream are added, and take
	// away from the latter; they are nil when the answer is the proxy's own.
	Answer func(r *http.Request, o Outcome, client, upstream http.Header)
	// SetHeaders adds what the upstream may rely on, after hop-by-hop headers are gone, so that
	// a client's "Connection: X-User-Id" cannot remove it.
	SetHeaders func(r *http.Request, out http.Header)
	// Protected header names never pass from the client, in any spelling.
	Protected []string
	// Client tells the caller's address, whether the peer is a trusted proxy, and whether the
	// client's own connection is encrypted. Nil means the peer, untrusted.
	Client func(*http.Request) (addr netip.Addr, trusted, secure bool)
	// AllowLinkLocal lets an upstream resolve to a link-local address, where clouds keep their
	// metadata services.
	AllowLinkLocal bool
	// DialTimeout (2 s), HeaderTimeout (25 s): to connect, and to the upstream's first header.
	DialTimeout, HeaderTimeout time.Duration
	// MaxIdle connections kept to an upstream; default 256.
	MaxIdle int
	// RetryIdempotent lets PUT and DELETE without a body be repeated as GET, HEAD and OPTIONS are:
	// once, when a kept connection proves closed, and for at most a tenth of all requests.
	RetryIdempotent bool
	// Seen hears of every attempt when its answer begins or when it fails, and again, with
	// ReasonTruncated, when the answer's body breaks off.
	Seen func(*http.Request, Outcome)
	// Logger hears of failures. Nil discards.
	Logger *slog.Logger
}

// Outcome is what became of a forwarded request.
type Outcome struct {
	Upstream  string
	Mark      uint64 // from Config.Choose
	Status    int    // the upstream's; 0 when there was none
	Reason    Reason // why there was none
	Started   time.Time
	FirstByte time.Duration
	// Wait is the part of FirstByte, or of the time to the failure, in which the proxy waited for no one
	// but the upstream: it begins when the client's body was there.
	Wait        time.Duration
	Retried     bool // it was sent twice
	Unreachable bool // there was not even a connection
	Hidden      bool // the client sees what another upstream answers instead
	Shielded    bool // this is that other upstream
	Err         error
}

// Limits of what an upstream may answer.
const (
	maxHeaderBytes = 32 << 10
	maxFields      = 100
)

// Proxy forwards requests.
type Proxy struct {
	cfg       Config
	single    *Upstream
	reverse   *httputil.ReverseProxy
	protected map[string]bool
	buffers   sync.Pool
}

// New returns a proxy, or every fault of the configuration.
func New(cfg Config) (*Proxy, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{cfg: cfg, protected: make(map[string]bool)}
	for _, name := range cfg.Protected {
		p.protected[spelling(name)] = true
	}
	if cfg.Choose == nil {
		up, err := NewUpstream(cfg.Upstream, cfg)
		if err != nil {
			return nil, err
		}
		p.single = up
		p.cfg.Choose = func(*http.Request) (*Upstream, uint64) { return up, 0 }
	}
	p.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      roundTripper{p},
		BufferPool:     (*bufferPool)(&p.buffers),
		ModifyResponse: p.answered,
		ErrorHandler:   p.fail,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// Upstream returns the single upstream, nil when Choose was given.
func (p *Proxy) Upstream() *Upstream { return p.single }

// attempt is what the parts of one forwarding share.
type attempt struct {
	w           http.ResponseWriter
	up          *Upstream
	mark        uint64
	pass        pass
	upgrade     string // the protocol the client asked for, "" for none
	started     time.Time
	in          *http.Request
	body        *clientBody // nil without a body
	interim     interim
	retried     bool
	unreachable bool
	shielded    bool // up is the one that Shield named
}

// clientBody remembers whether it was the client that failed: a malformed or broken upload says
// nothing about the upstream, and must not open its breaker.
type clientBody struct {
	io.ReadCloser
	failed  atomic.Bool
	ended   atomic.Int64 // when, in nanoseconds since 1970; 0 before
	trailer func()
}

// Read notes every error, and the end; with that the trailers are there.
func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.ended.Store(time.Now().UnixNano())
		if b.trailer != nil {
			b.trailer()
		}
	case err != nil:
		b.failed.Store(true)
	}
	return n, err
}

func (a *attempt) clientFailed() bool { return a.body != nil && a.body.failed.Load() }

// waited is how long the upstream has had for the whole request.
func (a *attempt) waited(now time.Time) time.Duration {
	if a.body != nil {
		if at := a.body.ended.Load(); at > a.started.UnixNano() {
			return now.Sub(time.Unix(0, at))
		}
	}
	return now.Sub(a.started)
}

type attemptKey struct{}

// ServeHTTP forwards r.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &attempt{w: w, upgrade: upgradeOf(r.Header), started: time.Now(), in: r, interim: interim{w: w, in: r}}
	a.up, a.mark = p.cfg.Choose(r)
	switch {
	case a.up == nil:
		problem.Write(w, r, problem.NotFound)
		return
	case !isFramed(r):
		problem.Write(w, r, problem.BadRequest)
		return
	case a.upgrade != "websocket":
		a.upgrade = "" // h2c and the rest are not offered to the upstream; the request stays plain
		r.Header.Del("Upgrade")
	}
	if wait, ok := p.enter(a); !ok {
		p.answer(a, Outcome{Reason: ReasonBreaker}, nil)
		problem.Write(w, r, problem.BreakerOpen.After(wait))
		return
	}
	r = r.WithContext(a.context())
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &clientBody{ReadCloser: r.Body}
		r.Body = a.body
	}
	p.reverse.ServeHTTP(w, r)
}

// enter asks the breaker of the upstream for leave, and where it refuses the one of the shield's.
func (p *Proxy) enter(a *attempt) (wait time.Duration, ok bool) {
	if wait, ok = a.enter(a.up); ok || p.cfg.Shield == nil {
		return wait, ok
	}
	spare := p.cfg.Shield(a.in, a.outcome(Outcome{Reason: ReasonBreaker}))
	if spare == nil {
		return wait, false
	}
	a.shielded = true
	return a.enter(spare)
}

func (a *attempt) enter(up *Upstream) (wait time.Duration, ok bool) {
	a.up = up
	if a.pass, wait, ok = up.breaker.allow(time.Now()); ok {
		up.budget.earn()
	}
	return wait, ok
}

// isFramed checks what net/http leaves to the handler in HTTP/2: a Content-Length that is no number,
// and one on a request that ends with its headers (RFC 9113 section 8.1.1).
func isFramed(r *http.Request) bool {
	said, found := r.Header["Content-Length"]
	if r.ProtoMajor != 2 || !found {
		return true
	}
	n, err := strconv.ParseUint(said[0], 10, 63)
	return len(said) == 1 && err == nil && int64(n) == r.ContentLength
}

// context is the client's, with the attempt in it.
func (a *attempt) context() context.Context {
	return context.WithValue(a.in.Context(), attemptKey{}, a)
}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// upgradeOf returns the single protocol of an upgrade (RFC 9110 section 7.8), lower case.
func upgradeOf(h http.Header) string {
	values := h["Upgrade"]
	if len(values) == 0 || !hasToken(h["Connection"], "upgrade") {
		return ""
	}
	if len(values) != 1 {
		return "?"
	}
	return strings.ToLower(strings.TrimSpace(values[0]))
}

func hasToken(values []string, token string) bool {
	for _, list := range values {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// rewrite turns the client's request into the upstream's. ReverseProxy has removed hop-by-hop and
// forwarding headers by now.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	a := attemptOf(pr.In.Context())
	out := pr.Out
	out.URL.Scheme, out.URL.Host = a.up.url.Scheme, a.up.url.Host
	out.URL.RawQuery = pr.In.URL.RawQuery // as it came; ReverseProxy would drop parts with semicolons
	out.Host = a.up.url.Host
	for name := range out.Header {
		if plain := spelling(name); p.protected[plain] || neverForwarded[plain] || strings.HasPrefix(plain, "x-forwarded-") || strings.HasPrefix(plain, "http2-") {
			delete(out.Header, name)
		}
	}
	if a.body == nil {
		out.Header.Del("Expect") // only a body can be waited for, RFC 9110 section 10.1.1
	}
	a.trailers(pr)
	p.forwarded(pr)
	if p.cfg.SetHeaders != nil {
		p.cfg.SetHeaders(pr.In, out.Header)
	}
}

// trailers lets the announced ones pass that are allowed. ReverseProxy has copied their names, and
// would never fill them in.
func (a *attempt) trailers(pr *httputil.ProxyRequest) {
	out := pr.Out.Trailer
	for name := range out {
		if forbiddenTrailers[name] || !isToken(name) {
			delete(out, name)
		}
	}
	if len(out) == 0 || a.body == nil {
		pr.Out.Trailer = nil
		return
	}
	a.body.trailer = func() {
		for name := range out {
			out[name] = pr.In.Trailer[name]
		}
	}
}

// isToken says whether s can be a field's name (RFC 9110 section 5.6.2). net/http lets a client announce
// any trailer, and then refuses to send the request on.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// neverForwarded are names that upstreams take for the word of a proxy: addresses and targets.
var neverForwarded = map[string]bool{
	"forwarded": true, "x-real-ip": true, "x-client-ip": true, "true-client-ip": true, "cf-connecting-ip": true,
	"fastly-client-ip": true, "x-cluster-client-ip": true, "x-original-url": true, "x-rewrite-url": true, "x-original-host": true,
}

// spelling is how two forms of a header name are compared: CGI and WSGI read X_User_Id, and some
// X.User.Id, as X-User-Id.
func spelling(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		default:
			return '-'
		}
	}, strings.TrimSpace(name))
}

var errUpstreamHeaders = errors.New("upstream answer is not acceptable")

// acceptable refuses answers the client must not see.
func (a *attempt) acceptable(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols && (a.upgrade == "" || upgradeOf(res.Header) != a.upgrade) {
		return fmt.Errorf("%w: it switched protocols unasked", errUpstreamHeaders)
	}
	if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols || res.StatusCode > 599 {
		return fmt.Errorf("%w: status %d", errUpstreamHeaders, res.StatusCode)
	}
	if n := fields(res.Header); n > maxFields {
		return fmt.Errorf("%w: %d header fields", errUpstreamHeaders, n)
	}
	return nil
}

// answered hears of the answer that the client will see.
func (p *Proxy) answered(res *http.Response) error {
	a := attemptOf(res.Request.Context())
	withhold(res.Header)
	now := time.Now()
	a.pass = a.up.breaker.record(a.pass, now, isGood(res.StatusCode))
	p.answer(a, Outcome{Status: res.StatusCode, FirstByte: now.Sub(a.started)}, res.Header)
	return nil
}

// isGood says that a status does not speak of an upstream that fails.
func isGood(status int) bool { return status < 502 || status > 504 }

// withhold removes what would lead clients round the door, to an address that the upstream names
// (RFC 7838).
func withhold(h http.Header) {
	delete(h, "Alt-Svc")
	delete(h, "Alternate-Protocol")
}

// broke hears that an answer broke off. The client sees that, because ReverseProxy aborts its copy.
func (p *Proxy) broke(a *attempt, status int, err error) {
	if a.in.Context().Err() != nil || a.clientFailed() {
		return // the client left, or its time was up
	}
	if isGood(status) {
		a.up.breaker.spoil(a.pass, time.Now())
	}
	p.cfg.Logger.Warn("upstream broke off its answer", "upstream", a.up.url.Host, "error", err)
	p.seen(a.in, a.outcome(Outcome{Status: status, Reason: ReasonTruncated, Err: err}))
}

// fail answers when the upstream did not.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	a := attemptOf(r.Context())
	reason := p.failed(a, err)
	p.answer(a, Outcome{Reason: reason, Err: err}, nil)
	switch reason {
	case ReasonBadBody:
		w.Header().Set("Connection", "close")
		problem.Write(w, r, problem.BadRequest)
	case ReasonConnectTimeout, ReasonHeaderTimeout, ReasonDeadline:
		problem.Write(w, r, problem.Timeout)
	default:
		problem.Write(w, r, problem.BadGateway)
	}
}

// failed finds out why the upstream did not answer, and tells the breaker.
func (p *Proxy) failed(a *attempt, err error) Reason {
	reason := reasonOf(a.in.Context(), err)
	if reason != ReasonDeadline && a.clientFailed() {
		reason = ReasonBadBody
	}
	if reason == ReasonClientGone || a.clientFailed() {
		a.up.breaker.forget(a.pass)
	} else {
		a.up.breaker.record(a.pass, time.Now(), false)
		p.cfg.Logger.Warn("upstream failed", "upstream", a.up.url.Host, "reason", string(reason), "error", err)
	}
	return reason
}

// answer reports the outcome that the client will see.
func (p *Proxy) answer(a *attempt, o Outcome, upstream http.Header) {
	o = a.outcome(o)
	if p.cfg.Answer != nil {
		p.cfg.Answer(a.in, o, a.w.Header(), upstream)
	}
	p.seen(a.in, o)
}

func (p *Proxy) seen(r *http.Request, o Outcome) {
	if p.cfg.Seen != nil {
		p.cfg.Seen(r, o)
	}
}

// outcome is o with what the attempt knows.
func (a *attempt) outcome(o Outcome) Outcome {
	o.Upstream, o.Mark, o.Retried, o.Unreachable, o.Shielded = a.up.url.Host, a.mark, a.retried, a.unreachable, a.shielded
	o.Started, o.Wait = a.started, a.waited(time.Now())
	return o
}

// bufferPool lends copy buffers to ReverseProxy.
type bufferPool sync.Pool

// Get lends a buffer.
func (b *bufferPool) Get() []byte { return *(*sync.Pool)(b).Get().(*[]byte) }

// Put takes it back.
func (b *bufferPool) Put(p []byte) { (*sync.Pool)(b).Put(&p) }

// Reason says why an upstream did not answer.
type Reason string

// The reasons, as they appear in logs and metrics.
const (
	ReasonClientGone     Reason = "client-gone"
	ReasonBadBody        Reason = "client-body"
	ReasonDeadline       Reason = "deadline"
	ReasonRefused        Reason = "connect-refused"
	ReasonConnectTimeout Reason = "connect-timeout"
	ReasonForbidden      Reason = "address-forbidden"
	ReasonHeaderTimeout  Reason = "header-timeout"
	ReasonBadAnswer      Reason = "bad-answer"
	ReasonBroken         Reason = "connection-broken"
	ReasonTruncated      Reason = "truncated"
	ReasonBreaker        Reason = "breaker-open"
)

func reasonOf(ctx context.Context, err error) Reason {
	var op *net.OpError
	var timeout net.Error
	dialing := errors.As(err, &op) && op.Op == "dial"
	slow := errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ReasonDeadline
	case ctx.Err() != nil:
		return ReasonClientGone
	case errors.Is(err, errAddress):
		return ReasonForbidden
	case dialing && slow:
		return ReasonConnectTimeout
	case dialing:
		return ReasonRefused
	case slow:
		return ReasonHeaderTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &op):
		return ReasonBroken
	default:
		return ReasonBadAnswer
	}
}
