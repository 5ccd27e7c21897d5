// Package proxy forwards requests to an upstream, hardened: what the client may not say does not
// pass, what the upstream may not say does not come back, and a failing upstream is given time.
//
// Begin with [New]; a *Proxy is an http.Handler.
//
// The surprise: a client's Idempotency-Key never makes the transport send a POST twice. net/http
// would; here only safe methods are repeated, and only when a kept connection proves closed.
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
	// Choose picks the upstream of a request among those made by NewUpstream.
	Choose func(*http.Request) *Upstream
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
	// Seen hears of every attempt that is over.
	Seen func(*http.Request, Outcome)
	// Logger hears of failures. Nil discards.
	Logger *slog.Logger
}

// Outcome is what became of a forwarded request.
type Outcome struct {
	Upstream  string
	Status    int    // the upstream's; 0 when there was none
	Reason    Reason // why there was none
	FirstByte time.Duration
	Err       error
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
		p.cfg.Choose = func(*http.Request) *Upstream { return up }
	}
	p.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      roundTripper{p},
		BufferPool:     (*bufferPool)(&p.buffers),
		ModifyResponse: p.inspect,
		ErrorHandler:   p.fail,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// Upstream returns the single upstream, nil when Choose was given.
func (p *Proxy) Upstream() *Upstream { return p.single }

// attempt is what the parts of one forwarding share.
type attempt struct {
	up      *Upstream
	upgrade string // the protocol the client asked for, "" for none
	started time.Time
	in      *http.Request
	body    *clientBody // nil without a body
}

// clientBody remembers whether it was the client that failed: a malformed or broken upload says
// nothing about the upstream, and must not open its breaker.
type clientBody struct {
	io.ReadCloser
	failed atomic.Bool
}

// Read notes every error but the end.
func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed.Store(true)
	}
	return n, err
}

func (a *attempt) clientFailed() bool { return a.body != nil && a.body.failed.Load() }

type attemptKey struct{}

// ServeHTTP forwards r.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &attempt{up: p.cfg.Choose(r), upgrade: upgradeOf(r.Header), started: time.Now(), in: r}
	if a.up == nil {
		problem.Write(w, r, problem.NotFound)
		return
	}
	if a.upgrade != "" && a.upgrade != "websocket" {
		a.upgrade = "" // h2c and the rest are not offered to the upstream; the request stays plain
	}
	wait, ok := a.up.breaker.allow(time.Now())
	if !ok {
		p.seen(a, Outcome{Reason: ReasonBreaker})
		problem.Write(w, r, problem.BreakerOpen.After(wait))
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), attemptKey{}, a))
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &clientBody{ReadCloser: r.Body}
		r.Body = a.body
	}
	p.reverse.ServeHTTP(w, r)
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
	if a.upgrade == "" {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	p.forwarded(pr)
	if p.cfg.SetHeaders != nil {
		p.cfg.SetHeaders(pr.In, out.Header)
	}
}

// forwarded rebuilds X-Forwarded-*: what a client says of itself counts only through a trusted peer.
func (p *Proxy) forwarded(pr *httputil.ProxyRequest) {
	peer, _ := netip.ParseAddrPort(pr.In.RemoteAddr)
	addr, trusted, secure := peer.Addr(), false, pr.In.TLS != nil
	if p.cfg.Client != nil {
		addr, trusted, secure = p.cfg.Client(pr.In)
	}
	h := pr.Out.Header
	chain := addr.String()
	if trusted {
		if prior := pr.In.Header["X-Forwarded-For"]; len(prior) > 0 {
			chain = strings.Join(prior, ", ") + ", " + peer.Addr().String()
		}
	}
	h.Set("X-Forwarded-For", chain)
	h.Set("X-Forwarded-Host", pr.In.Host)
	h.Set("X-Forwarded-Proto", map[bool]string{true: "https", false: "http"}[secure])
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

// inspect refuses answers the client must not see.
func (p *Proxy) inspect(res *http.Response) error {
	a := attemptOf(res.Request.Context())
	if res.StatusCode == http.StatusSwitchingProtocols && (a.upgrade == "" || upgradeOf(res.Header) != a.upgrade) {
		return fmt.Errorf("%w: it switched protocols unasked", errUpstreamHeaders)
	}
	if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols || res.StatusCode > 599 {
		return fmt.Errorf("%w: status %d", errUpstreamHeaders, res.StatusCode)
	}
	fields := 0
	for _, values := range res.Header {
		fields += len(values)
	}
	if fields > maxFields {
		return fmt.Errorf("%w: %d header fields", errUpstreamHeaders, fields)
	}
	a.up.breaker.record(time.Now(), res.StatusCode < 502 || res.StatusCode > 504)
	p.seen(a, Outcome{Status: res.StatusCode, FirstByte: time.Since(a.started)})
	return nil
}

// fail answers when the upstream did not.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	a := attemptOf(r.Context())
	reason := reasonOf(r.Context(), err)
	if reason != ReasonDeadline && a.clientFailed() {
		reason = ReasonBadBody
	}
	if reason == ReasonClientGone || a.clientFailed() {
		a.up.breaker.forget()
	} else {
		a.up.breaker.record(time.Now(), false)
		p.cfg.Logger.Warn("upstream failed", "upstream", a.up.url.Host, "reason", string(reason), "error", err)
	}
	p.seen(a, Outcome{Reason: reason, Err: err})
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

func (p *Proxy) seen(a *attempt, o Outcome) {
	o.Upstream = a.up.url.Host
	if p.cfg.Seen != nil {
		p.cfg.Seen(a.in, o)
	}
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
