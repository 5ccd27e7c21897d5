package server

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/dashboard"
	"github.com/gantryhq/gantry/problem"
	"github.com/gantryhq/gantry/ratelimit"
)

// builtin are the routes that Gantry serves itself and that need no token.
var builtin = []config.Route{
	{Pattern: "GET /v1/openapi.json", Auth: identity.None},
	{Pattern: "GET /v1/docs", Auth: identity.None},
	{Pattern: "GET /v1/users/me", Auth: identity.Required},
	{Pattern: "GET /v1/users/{handle}", Auth: identity.Optional}, // a public profile
	{Pattern: webhookPath, Auth: identity.None, MaxBody: clerk.MaxWebhookBody},
}

// usersPath is what the users service answers below.
const usersPath = "/v1/users/"

func (s *Server) openDeadlines() {
	s.deadlines = guard.NewDeadlines(guard.DeadlineConfig{Timeout: s.cfg.RequestTimeout, Cooperative: true, Logger: s.log})
	s.closers = append(s.closers, func() error { s.deadlines.Close(); return nil })
}

// newDoor puts the pipeline around the application.
func (s *Server) newDoor(p *policy) (http.Handler, error) {
	app, err := s.application(p)
	if err != nil {
		return nil, err
	}
	routes := append(builtin[:len(builtin):len(builtin)], p.cfg.Routes...)
	compiled, err := compileRoutes(routes)
	if err != nil {
		return nil, err
	}
	return s.pipeline(p, routes, compiled).Then(app), nil
}

func (s *Server) pipeline(p *policy, routes []config.Route, compiled *guard.Routes) guard.Pipeline {
	caller := s.callerOf(routes)
	return guard.Pipeline{
		Trace:   guard.Trace(s.traceConfig()),
		Recover: guard.Recover(s.log),
		Shape: guard.Shape(guard.ShapeConfig{
			AllowedHosts: p.cfg.AllowedHosts, TrustedProxies: p.cfg.TrustedProxies,
			CORSOrigins: p.cfg.CORSOrigins, Routes: compiled, MaxBody: p.cfg.MaxBody, MaxURL: p.cfg.MaxURL,
			Logger: s.log,
		}),
		Deadline: s.deadlines.Middleware,
		Identify: s.verifier.Middleware(identity.Door{
			Mode:         modeOf(routes),
			BeforeVerify: func(w http.ResponseWriter, r *http.Request) bool { return p.limiter.Look(w, r, clientAddr(r)) },
			BeforeRefuse: func(w http.ResponseWriter, r *http.Request) bool { return p.beforeRefuse(w, r, s.rejected(r)) },
			Bar:          s.bar,
			Secure:       isSecure,
			Arrived:      arrived,
			Seen: func(r *http.Request, o identity.Outcome) {
				s.meters.identified(r, o)
				p.seenIdentity(r, o)
			},
		}),
		Quota: p.limiter.Middleware(caller),
	}
}

func compileRoutes(routes []config.Route) (*guard.Routes, error) {
	list := make([]guard.Route, len(routes))
	for i, r := range routes {
		list[i] = guard.Route{Pattern: r.Pattern, Timeout: r.Timeout, Stream: r.Stream, MaxBody: r.MaxBody, Loose: r.Loose}
	}
	return guard.NewRoutes(list)
}

// modeOf reads what a route asks of its callers; without an entry of its own a path is closed.
func modeOf(routes []config.Route) func(*http.Request) identity.Mode {
	return func(r *http.Request) identity.Mode {
		if i := routeIndex(r); i >= 0 {
			return routes[i].Auth
		}
		return identity.Required
	}
}

func routeIndex(r *http.Request) int {
	if x, ok := guard.FromContext(r.Context()); ok {
		return indexOf(x)
	}
	return -1
}

func indexOf(x *guard.Exchange) int {
	if x.Route == nil {
		return -1
	}
	return x.Route.Index
}

// callerOf says whom a request is charged to: the verified user, else the client's address. A user's own
// plan wins over the token's.
func (s *Server) callerOf(routes []config.Route) func(*http.Request) ratelimit.Caller {
	return func(r *http.Request) ratelimit.Caller {
		var c ratelimit.Caller
		if x, ok := guard.FromContext(r.Context()); ok {
			c.Addr, c.Arrived = x.Client, x.Start
			i := indexOf(x)
			switch {
			case i >= 0 && routes[i].Pattern == webhookPath:
				c.Route, c.RouteRate, c.Apart = webhookPath, webhookRate, true
				return c
			case i >= 0 && routes[i].Limit.Limit > 0:
				c.Route, c.RouteRate = routes[i].Pattern, routes[i].Limit
			}
		}
		if p, ok := identity.FromContext(r.Context()); ok {
			c.User, c.Plan = s.userKey(p), s.planOf(p)
		}
		return c
	}
}

// rejected charges a caller without a valid token to the address alone, and one who is known and must not
// come in to the user's own log alone: others at that address have not earned it.
func (s *Server) rejected(r *http.Request) ratelimit.Caller {
	c := ratelimit.Caller{Addr: clientAddr(r), Rejected: true}
	if p, ok := identity.FromContext(r.Context()); ok {
		c.User, c.Plan = s.userKey(p), s.planOf(p)
	}
	return c
}

// planOf is the user's own plan, or else the token's. A plan is the user's and no session's, so none is
// looked up.
func (s *Server) planOf(p *identity.Principal) string {
	return cmp.Or(s.standing.Standing(p.Issuer, p.Subject, "").Plan, p.Plan)
}

// userKey names a user's log. With one issuer its subjects are enough.
func (s *Server) userKey(p *identity.Principal) string {
	if len(s.cfg.Issuers) > 1 {
		return p.Issuer + " " + p.Subject
	}
	return p.Subject
}

// application is what stands behind the guard: the users service, and the upstream for the rest.
func (s *Server) application(p *policy) (http.Handler, error) {
	service, err := s.usersHandler(p)
	if err != nil {
		return nil, err
	}
	hook, err := s.webhook(p)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, pattern := range []string{"/v1/users", usersPath, "/v1/openapi.json", "/v1/docs"} {
		mux.Handle(pattern, service)
	}
	mux.Handle(webhookPath, hook)
	mux.Handle("/", s.rest())
	return mux, nil
}

func (s *Server) rest() http.Handler {
	if s.proxy != nil {
		return s.proxy
	}
	return http.HandlerFunc(notFound)
}

func notFound(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, problem.NotFound) }

// whileDraining asks clients to let go of their connections while the port is still open, so that
// none is in use when it closes.
func (s *Server) whileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// The ladder of limits of one connection: a load balancer's idle time (75 s) is above ours, ours is
// above the request's, and the headers must come in five seconds.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 65 * time.Second
	headerBytes   = 32 << 10
	writeMargin   = 30 * time.Second
	maxStreams    = 100
	unreadBody    = 5 * time.Second
)

// leaveBodies bounds how long the server waits, after the answer, for the rest of a body that nobody
// read: net/http would wait without end for a client that was refused and stays silent.
func leaveBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard.CloseUnlessFramed(w, r) // for what answers before the pipeline
		next.ServeHTTP(w, r)
		if r.ProtoMajor == 1 && r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadBody)) // the server sets its own for the next request
		}
	})
}

func (s *Server) listener(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           leaveBodies(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      s.longestTimeout() + writeMargin,
		MaxHeaderBytes:    headerBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// adminRoutes are on the admin port only.
func (s *Server) adminRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.meters.Handler())
	for path, api := range map[string]http.Handler{"/api/alerts": AlertsAPI(s.alerts), "/api/rollout": s.rolloutAPI()} {
		mux.Handle(path, api)
		mux.Handle(path+"/", api)
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /api/requests", s.listRequests)
	mux.HandleFunc("GET /api/requests/{id}", s.showRequest)
	s.dashboard.Routes(mux)
	return s.dashboard.Protect(mux)
}

func (s *Server) hasAdminToken(r *http.Request) bool {
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return found && s.adminToken().Matches(token)
}

func (s *Server) adminToken() config.Secret { return s.policy.Load().cfg.AdminToken }

type adminKey struct{}

// mayKnow says who sees why a health check fails: the admin port under a name of this machine, and holders of
// ADMIN_TOKEN.
func (s *Server) mayKnow(r *http.Request) bool {
	if _, admin := r.Context().Value(adminKey{}).(bool); admin && s.adminToken().IsZero() && dashboard.IsOwnName(r.Host) {
		return true
	}
	return s.hasAdminToken(r)
}
