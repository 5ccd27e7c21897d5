package guard

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/gantryhq/gantry/problem"
)

// ShapeConfig says what a request may look like.
type ShapeConfig struct {
	// AllowedHosts, in Django's spelling; others are answered 421. Empty means localhost,
	// 127.0.0.1 and [::1].
	AllowedHosts []string
	// TrustedProxies are the peers whose X-Forwarded-For, X-Forwarded-Proto, X-Request-Id and
	// X-Request-Timeout-Ms count. Default none.
	TrustedProxies []netip.Prefix
	// CORSOrigins may read answers from a browser ("https://app.example.com"). Empty leaves
	// CORS to the handler.
	CORSOrigins []string
	// Routes gives per-path settings. Nil means one default route.
	Routes *Routes
	// MaxBody is the largest request body in bytes. Default 10 MiB.
	MaxBody int64
	// MaxURL is the longest request target in bytes, query included. Default 8 KiB, which
	// RFC 9110 section 4.1 asks everybody to accept.
	MaxURL int
	// Pace is how fast clients must be.
	Pace Pace
	// Protected are header names that only Gantry may set; they are removed from requests in
	// every spelling. Default [IdentityHeaders].
	Protected []string
	// Logger hears once of forwarding headers that come from an untrusted peer. Nil discards.
	Logger *slog.Logger
}

// IdentityHeaders carry the caller's identity to the upstream. From a client they never pass.
var IdentityHeaders = []string{"X-User-Id", "X-Session-Id", "X-Org-Id", "X-Auth-Claims"}

// Shape refuses what is malformed or ambiguous, and removes what only Gantry may say.
func Shape(cfg ShapeConfig) Middleware {
	if len(cfg.AllowedHosts) == 0 {
		cfg.AllowedHosts = []string{"localhost", "127.0.0.1", "[::1]"}
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 10 << 20
	}
	if cfg.MaxURL <= 0 {
		cfg.MaxURL = 8 << 10
	}
	cfg.Pace = cfg.Pace.withDefaults()
	if cfg.Protected == nil {
		cfg.Protected = IdentityHeaders
	}
	if cfg.Routes == nil {
		cfg.Routes = &Routes{other: Route{Pattern: "/", Index: -1}}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &shaper{cfg: cfg, hosts: newHosts(cfg.AllowedHosts)}
	s.fromTrusted = newNames(cfg.Protected)
	s.fromStranger = newNames(append(cfg.Protected[:len(cfg.Protected):len(cfg.Protected)], problem.RequestIDHeader, TimeoutHeader))
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, w, r := ensure(w, r)
			if d := s.shape(x, w, r); d != nil {
				x.stop(StepShape, d.Code)
				problem.Write(w, r, *d)
				return
			}
			if s.cors(x, w, r) {
				x.Write(func(j *Journal) { j.Step(StepShape, "passed") })
				next.ServeHTTP(w, r)
			}
		})
	}
}

type shaper struct {
	cfg    ShapeConfig
	hosts  hosts
	warned sync.Once
	// What is removed from requests.
	fromTrusted, fromStranger names
}

// names is a set of header names that tells most others by their first byte.
type names struct {
	first [256]bool
	all   map[string]bool
}

func newNames(list []string) names {
	n := names{all: make(map[string]bool)}
	for _, name := range list {
		if name = http.CanonicalHeaderKey(name); name != "" {
			n.first[name[0]], n.all[name] = true, true
		}
	}
	return n
}

func (n *names) has(name string) bool { return name != "" && n.first[name[0]] && n.all[name] }

// shape runs the checks in the order of their cost, and prepares the exchange. It returns the refusal of
// the first that fails.
func (s *shaper) shape(x *Exchange, w http.ResponseWriter, r *http.Request) *problem.Details {
	x.Client, x.Trusted = ClientAddr(r.RemoteAddr, r.Header["X-Forwarded-For"], s.cfg.TrustedProxies)
	x.Secure = r.TLS != nil || x.Trusted && r.Header.Get("X-Forwarded-Proto") == "https"
	x.out.pace = &s.cfg.Pace
	s.name(x, r)
	s.answerHeaders(x, w.Header(), r.Header)
	x.Route = &s.cfg.Routes.other
	CloseUnlessFramed(w, r)
	if len(r.RequestURI) > s.cfg.MaxURL {
		closeAfter(w)
		return &problem.TooLongURL
	}
	if d := s.method(w, r); d != nil {
		return d
	}
	if d := s.host(w, r); d != nil {
		return d
	}
	if d := s.path(x, w, r); d != nil {
		return d
	}
	s.strip(x, r.Header)
	return s.body(x, w, r)
}

// name takes over a trusted proxy's request id.
func (s *shaper) name(x *Exchange, r *http.Request) {
	if !x.Trusted {
		s.warnForwarded(r)
		return
	}
	if id := r.Header.Get(problem.RequestIDHeader); isRequestID(id) {
		x.ID = id
	}
}

// warnForwarded points out, once, that a proxy in front is not in TRUSTED_PROXIES: every client then
// shares that proxy's rate limit.
func (s *shaper) warnForwarded(r *http.Request) {
	if _, found := r.Header["X-Forwarded-For"]; found {
		s.warned.Do(func() {
			s.cfg.Logger.Warn("X-Forwarded-For from an untrusted peer is ignored; if that peer is your proxy, add it to TRUSTED_PROXIES", "peer", r.RemoteAddr)
		})
	}
}

func isRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		if !isUnreserved(c) && strings.IndexByte("+/=:", c) < 0 {
			return false
		}
	}
	return true
}

// Values that never change are shared between responses: a header map takes the slice as it is.
var (
	nosniff  = []string{"nosniff"}
	deny     = []string{"DENY"}
	referrer = []string{"strict-origin-when-cross-origin"}
	private  = []string{"private"}
	hsts     = []string{"max-age=31536000; includeSubDomains"} // RFC 6797 section 6.1
)

// answerHeaders are on every answer; a handler that sets one itself wins. What is made for a caller who
// showed a credential is no shared cache's to keep: RFC 9111 section 3.5 says so of Authorization alone.
func (s *shaper) answerHeaders(x *Exchange, h, request http.Header) {
	x.idHeader[0] = x.ID
	h["X-Request-Id"] = x.idHeader[:]
	h["X-Content-Type-Options"] = nosniff
	h["X-Frame-Options"] = deny
	h["Referrer-Policy"] = referrer
	if request["Authorization"] != nil || request["Cookie"] != nil {
		h["Cache-Control"] = private
	}
	if x.Secure {
		h["Strict-Transport-Security"] = hsts
	}
}

var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodOptions,
}

// method refuses TRACE and CONNECT (RFC 9110 section 9.3) and what is no method of HTTP's: a lower
// case "get" is one to some upstreams.
func (s *shaper) method(w http.ResponseWriter, r *http.Request) *problem.Details {
	switch {
	case slices.Contains(methods, r.Method):
		return nil
	case r.Method == http.MethodTrace, r.Method == http.MethodConnect:
		w.Header().Set("Allow", strings.Join(methods, ", "))
		closeAfter(w)
		return &problem.MethodNotAllowed
	default:
		closeAfter(w)
		return &problem.NotImplemented
	}
}

// host checks the authority, of the request target too when it has one (RFC 9112 section 3.2.2):
// net/http has put that into r.Host.
func (s *shaper) host(w http.ResponseWriter, r *http.Request) *problem.Details {
	if s.hosts.usual[r.Host] {
		return nil
	}
	name, ok := hostname(r.Host)
	if !ok {
		closeAfter(w)
		return &problem.BadHost
	}
	if !s.hosts.allow(name) {
		closeAfter(w)
		return &problem.Misdirected
	}
	return nil
}

// path puts the canonical path into r.URL and finds the route by it.
func (s *shaper) path(x *Exchange, w http.ResponseWriter, r *http.Request) *problem.Details {
	raw := rawPath(r)
	clean, fault := canonicalPath(raw)
	if fault == pathBad || !setPath(r.URL, clean) {
		closeAfter(w)
		return &problem.BadPath
	}
	x.Route = s.cfg.Routes.Match(r)
	if fault == pathLoose && !x.Route.Loose {
		closeAfter(w)
		return &problem.BadPath
	}
	return nil
}

// rawPath is the path as it was sent, before net/http decoded it.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	if path := r.URL.EscapedPath(); path != "" {
		return path
	}
	return "/" // absolute form without a path
}

func setPath(u *url.URL, clean string) bool {
	if u.Path == clean && u.RawPath == "" {
		return true
	}
	decoded, err := url.PathUnescape(clean)
	if err != nil {
		return false
	}
	u.Path, u.RawPath = decoded, ""
	if u.EscapedPath() != clean {
		u.RawPath = clean
	}
	return true
}

// strip removes headers that only Gantry may set, and every name with an underscore: CGI and WSGI
// upstreams read X_User_Id as X-User-Id. net/http has brought all other spellings of a name into
// one (HTTP field names are case-insensitive, and a name with a space is refused).
func (s *shaper) strip(x *Exchange, h http.Header) {
	ours := &s.fromStranger
	if x.Trusted {
		ours = &s.fromTrusted
	}
	for name := range h {
		if strings.IndexByte(name, '_') >= 0 || ours.has(name) {
			delete(h, name)
		}
	}
}

// body refuses an announced body that is too large before any of it is read, so that a client which
// waits for 100 Continue never sends it (RFC 9110 section 10.1.1), and bounds what was not announced.
func (s *shaper) body(x *Exchange, w http.ResponseWriter, r *http.Request) *problem.Details {
	limit := s.cfg.MaxBody
	if x.Route.MaxBody > 0 {
		limit = x.Route.MaxBody
	}
	if r.ContentLength > limit {
		closeAfter(w)
		return &problem.TooLarge
	}
	x.bound(r, limit)
	return nil
}

// CloseUnlessFramed has the connection closed after the answer to a request whose end a proxy in front may
// have seen somewhere else: one that came with Transfer-Encoding. RFC 9112 section 6.1 demands it when
// Content-Length came too, which net/http hides. Shape does it; what answers beside a [Pipeline] must call it.
func CloseUnlessFramed(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		closeAfter(w)
	}
}

func closeAfter(w http.ResponseWriter) { w.Header().Set("Connection", "close") }

// cors answers preflights of allowed origins and marks what they may read (Fetch standard,
// section 3.2). It reports whether the request goes on.
func (s *shaper) cors(x *Exchange, w http.ResponseWriter, r *http.Request) bool {
	if len(s.cfg.CORSOrigins) == 0 {
		return true
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if origin != "" && slices.Contains(s.cfg.CORSOrigins, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, ETag")
		if preflight {
			h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-Id")
			h.Set("Access-Control-Max-Age", "600")
		}
	}
	if preflight {
		x.stop(StepShape, "cors:preflight")
		w.WriteHeader(http.StatusNoContent)
		return false
	}
	return true
}
