package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/problem"
	"github.com/gantryhq/gantry/ratelimit"
)

// builtin are the routes that Gantry serves itself and that need no token.
var builtin = []config.Route{
	{Pattern: "GET /v1/openapi.json", Auth: identity.None},
}

// openDoor puts the pipeline around the application, and health in front of it.
func (s *Server) openDoor(context.Context) error {
	app, err := s.application()
	if err != nil {
		return err
	}
	routes := append(builtin[:len(builtin):len(builtin)], s.cfg.Routes...)
	compiled, err := compileRoutes(routes)
	if err != nil {
		return err
	}
	s.deadlines = guard.NewDeadlines(guard.DeadlineConfig{Timeout: s.cfg.RequestTimeout, Logger: s.log})
	door := s.pipeline(routes, compiled).Then(app)
	s.main = s.listener(s.health.Middleware(s.whileDraining(door)), routes)
	s.main.ConnState = s.busy.follow
	s.admin = s.listener(asAdmin(s.health.Middleware(s.adminRoutes())), nil)
	return nil
}

func (s *Server) pipeline(routes []config.Route, compiled *guard.Routes) guard.Pipeline {
	caller := callerOf(routes, len(s.cfg.Issuers) > 1)
	return guard.Pipeline{
		Trace:   guard.Trace(guard.TraceConfig{Logger: s.log}),
		Recover: guard.Recover(s.log),
		Shape: guard.Shape(guard.ShapeConfig{
			AllowedHosts: s.cfg.AllowedHosts, TrustedProxies: s.cfg.TrustedProxies,
			CORSOrigins: s.cfg.CORSOrigins, Routes: compiled, MaxBody: s.cfg.MaxBody, Logger: s.log,
		}),
		Deadline: s.deadlines.Middleware,
		Identify: s.verifier.Middleware(identity.Door{
			Mode:         modeOf(routes),
			BeforeVerify: func(w http.ResponseWriter, r *http.Request) bool { return s.limiter.Look(w, r, clientAddr(r)) },
			BeforeRefuse: func(w http.ResponseWriter, r *http.Request) bool { return s.limiter.Admit(w, r, rejected(r)) },
			Secure:       isSecure,
			Seen:         s.seenIdentity,
		}),
		Quota: s.limiter.Middleware(caller),
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
	if x, ok := guard.FromContext(r.Context()); ok && x.Route != nil {
		return x.Route.Index
	}
	return -1
}

// callerOf says whom a request is charged to: the verified user, else the client's address.
func callerOf(routes []config.Route, manyIssuers bool) func(*http.Request) ratelimit.Caller {
	return func(r *http.Request) ratelimit.Caller {
		c := ratelimit.Caller{Addr: clientAddr(r)}
		if i := routeIndex(r); i >= 0 && routes[i].Limit.Limit > 0 {
			c.Route, c.RouteRate = routes[i].Pattern, routes[i].Limit
		}
		if p, ok := identity.FromContext(r.Context()); ok {
			c.User, c.Plan = p.Subject, p.Plan
			if manyIssuers {
				c.User = p.Issuer + " " + p.Subject
			}
		}
		return c
	}
}

// rejected charges a caller without a valid token to the address alone.
func rejected(r *http.Request) ratelimit.Caller {
	return ratelimit.Caller{Addr: clientAddr(r), Rejected: true}
}

// application is what stands behind the guard: the users service, and the upstream for the rest.
func (s *Server) application() (http.Handler, error) {
	service, err := s.usersHandler()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/users/me", service)
	mux.Handle("/v1/users/me/{$}", service)
	mux.Handle("/v1/openapi.json", service)
	mux.Handle("/", s.rest())
	return mux, nil
}

func (s *Server) rest() http.Handler {
	if s.proxy != nil {
		return s.proxy
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { problem.Write(w, r, problem.NotFound) })
}

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
)

func (s *Server) listener(h http.Handler, routes []config.Route) *http.Server {
	longest := s.cfg.RequestTimeout
	for _, r := range routes {
		longest = max(longest, r.Timeout)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		WriteTimeout:      longest + writeMargin,
		MaxHeaderBytes:    headerBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// certificate loads the pair named by the configuration, nil when there is none.
func (s *Server) certificate() (*tls.Config, error) {
	if s.cfg.TLS.CertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(s.cfg.TLS.CertFile, s.cfg.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// adminRoutes are on the admin port only.
func (s *Server) adminRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return s.needAdminToken(mux)
}

// needAdminToken guards the admin port when a token is set; without one the port is loopback only,
// which the configuration has checked.
func (s *Server) needAdminToken(next http.Handler) http.Handler {
	if s.cfg.AdminToken.IsZero() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.hasAdminToken(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="gantry admin"`)
			problem.Write(w, r, problem.Unauthenticated)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) hasAdminToken(r *http.Request) bool {
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return found && s.cfg.AdminToken.Matches(token)
}

type adminKey struct{}

// mayKnow says who sees why a health check fails: the admin port, and holders of ADMIN_TOKEN.
func (s *Server) mayKnow(r *http.Request) bool {
	if _, admin := r.Context().Value(adminKey{}).(bool); admin && s.cfg.AdminToken.IsZero() {
		return true
	}
	return s.hasAdminToken(r)
}
