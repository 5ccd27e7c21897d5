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
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/gantryhq/gantry/cache"
	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
)

// Server is the door, ready to run.
type Server struct {
	cfg config.Config
	log *slog.Logger

	store     *sqlite.Store
	cache     *cache.Memory
	dev       *devissuer.Issuer // nil outside development
	verifier  *identity.Verifier
	limiter   *ratelimit.Limiter
	proxy     *proxy.Proxy // nil without an upstream
	deadlines *guard.Deadlines
	health    *health.Health
	names     *pseudonyms
	draining  atomic.Bool
	busy      connections

	main, admin         *http.Server
	mainPort, adminPort net.Listener
}

// New builds the server and binds its ports; nothing is served before Run. What it opened is closed
// again when a step fails.
func New(ctx context.Context, cfg config.Config, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log}
	steps := []func(context.Context) error{
		s.openData, s.openIdentity, s.openLimiter, s.openProxy, s.openHealth, s.openDoor, s.bind,
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

func (s *Server) openData(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: s.cfg.Database.Path})
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.store = store
	s.cache, err = cache.NewMemory(cache.MemoryConfig{})
	return err
}

// openIdentity makes the verifier. In development without an issuer Gantry is its own.
func (s *Server) openIdentity(context.Context) (err error) {
	issuers := s.cfg.Issuers
	if s.cfg.DevIssuer {
		if s.dev, err = DevIssuer(s.cfg); err != nil {
			return err
		}
		issuers = append(issuers, s.dev.Issuer())
	}
	s.names = newPseudonyms(s.cfg.SecretKey.Reveal())
	s.verifier, err = identity.New(issuers, identity.Config{Logger: s.log})
	return err
}

func (s *Server) openLimiter(context.Context) (err error) {
	l := s.cfg.Limits
	s.limiter, err = ratelimit.New(ratelimit.Config{
		PerUser: l.PerUser, Anonymous: l.Anonymous, Global: l.Global,
		AnonymousShare: l.AnonymousShare, Plans: l.Plans, Logger: s.log,
		Seen: seenLimit,
	})
	return err
}

func (s *Server) openProxy(context.Context) (err error) {
	if s.cfg.Upstream == nil {
		return nil
	}
	s.proxy, err = proxy.New(proxy.Config{
		Upstream: s.cfg.Upstream, AllowLinkLocal: s.cfg.UpstreamAllowLinkLocal,
		SetHeaders: setIdentityHeaders, Protected: guard.IdentityHeaders,
		Client: clientOf, Seen: seenUpstream, Logger: s.log,
	})
	return err
}

func (s *Server) usersHandler() (http.Handler, error) {
	return users.NewHandler(users.NewService(s.store, users.Config{}), users.HandlerConfig{
		Caller: claimsOf, Logger: s.log,
	})
}

// bind takes the ports, so that a port in use is an error at once and with its name.
func (s *Server) bind(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if s.mainPort, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	if s.adminPort, err = lc.Listen(ctx, "tcp", s.cfg.AdminListen); err != nil {
		return fmt.Errorf("ADMIN_LISTEN: %w", err)
	}
	return nil
}

// Close releases everything. Run calls it at the end.
func (s *Server) Close() error {
	var faults []error
	for _, c := range []io.Closer{closerOf(s.mainPort), closerOf(s.adminPort), storeCloser{s.store}} {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

type portCloser struct{ net.Listener }

func closerOf(l net.Listener) io.Closer { return portCloser{l} }

// Close closes a port that was opened.
func (p portCloser) Close() error {
	if p.Listener == nil {
		return nil
	}
	return p.Listener.Close()
}

type storeCloser struct{ store *sqlite.Store }

// Close closes a store that was opened.
func (c storeCloser) Close() error {
	if c.store == nil {
		return nil
	}
	return c.store.Close()
}
