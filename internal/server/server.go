// Package server turns a checked configuration into a running process.
//
// Begin with [New], then [Server.Run]. Here, and only here, the features meet: each small step below
// builds one noun and hands it to the next as a func or an interface.
//
// The surprise: the order of the end matters more than that of the start. Readiness goes first, then
// new connections, then streams, then requests, and the stores last of all (see lifecycle.go).
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/dashboard"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/telemetry"
	"github.com/gantryhq/gantry/users"
)

// Server is the door, ready to run.
type Server struct {
	cfg config.Config // as it started; what can change while it runs is in policy
	log *slog.Logger

	store     UserStore
	standing  *users.Doorkeeper
	silence   *clerk.Silence // nil without Clerk
	reads     userReads
	cache     health.KV
	dev       *devissuer.Issuer // nil outside development
	verifier  *identity.Verifier
	limits    ratelimit.Store
	proxy     *proxy.Proxy // nil without an upstream
	alerts    *alert.Engine
	messages  *alert.Dispatcher
	traffic   *traffic     // nil without an upstream
	fleet     *fleet.Fleet // nil without an upstream
	deadlines *guard.Deadlines
	health    *health.Health
	recorder  *telemetry.Recorder
	tracer    *telemetry.Tracer // nil when tracing is off
	sentry    *telemetry.Sentry // nil without a DSN
	meters    *meters
	dashboard *dashboard.Dashboard
	launch    *launchWatch            // nil without an upstream
	diskFree  atomic.Pointer[float64] // nil before the first look
	policy    atomic.Pointer[policy]
	// notReloaded is why the last reload was refused; nil when it was not.
	notReloaded atomic.Pointer[string]
	draining    atomic.Bool
	replaced    atomic.Bool
	busy        connections

	main, admin         *http.Server
	mainPort, adminPort net.Listener

	work    []func(context.Context) error // runs while the server runs
	closers []func() error                // the last is closed first
}

// New builds the server and binds those of its ports that it was not given; nothing is served before Run. What
// it opened is closed again when a step fails.
func New(ctx context.Context, cfg config.Config, ports Ports, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log, mainPort: ports.Door, adminPort: ports.Admin}
	steps := []func(context.Context) error{
		s.openUsers, s.openCache, s.openIdentity, s.openProxy, s.openHealth, s.openMeters, s.openTelemetry, s.openAlerts, s.openRollout, s.openDashboard, s.openDoor, s.bind,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// DevIssuer returns the issuer that signs tokens in development; its key is in the data directory.
func DevIssuer(cfg config.Config) (*devissuer.Issuer, error) {
	return devissuer.Load(filepath.Join(cfg.DataDir, "dev-issuer.pem"))
}

// Addr and AdminAddr are where the two ports are bound.
func (s *Server) Addr() string { return s.mainPort.Addr().String() }

// AdminAddr is the admin port's address.
func (s *Server) AdminAddr() string { return s.adminPort.Addr().String() }

// openIdentity makes the verifier. In development without an issuer Gantry is its own.
func (s *Server) openIdentity(context.Context) (err error) {
	issuers := s.cfg.Issuers
	if s.cfg.DevIssuer {
		if s.dev, err = DevIssuer(s.cfg); err != nil {
			return err
		}
		issuers = append(issuers, s.dev.Issuer())
	}
	if _, ok := clerkIssuer(s.cfg); ok {
		s.silence = clerk.NewSilence(0, time.Time{}, nil)
	}
	if s.verifier, err = identity.New(issuers, identity.Config{Logger: s.log}); err != nil {
		return err
	}
	s.work = append(s.work, s.verifier.Run)
	return nil
}

func (s *Server) openProxy(context.Context) (err error) {
	if s.cfg.Upstream == nil {
		return nil
	}
	cfg := proxy.Config{
		AllowLinkLocal: s.cfg.UpstreamAllowLinkLocal, HeaderTimeout: s.longestTimeout() * 5 / 6,
		SetHeaders: setIdentityHeaders, Protected: slices.Concat(guard.IdentityHeaders, staffHeaders), Client: clientOf, Logger: s.log,
	}
	if s.traffic, err = newTraffic(s.cfg.Upstream, s.cfg.UpstreamHealthPath, cfg, s.log); err != nil {
		return err
	}
	s.work = append(s.work, s.traffic.Run)
	s.closers = append(s.closers, s.traffic.close)
	cfg.Choose, cfg.Shield, cfg.Answer, cfg.Seen = s.chooseUpstream, s.traffic.shield, nameVersion, s.seenUpstream
	s.proxy, err = proxy.New(cfg)
	return err
}

// longestTimeout is the longest that any route gives a request. What stands behind the door is cut off
// by parts of it, so that a route's own timeout is never undercut by another setting.
func (s *Server) longestTimeout() time.Duration {
	longest := s.cfg.RequestTimeout
	for _, r := range s.cfg.Routes {
		longest = max(longest, r.Timeout)
	}
	return longest
}

// Close releases everything, what was opened last first. Run calls it at the end.
func (s *Server) Close() error {
	var faults []error
	for _, c := range slices.Backward(s.closers) {
		if err := c(); err != nil && !errors.Is(err, net.ErrClosed) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
