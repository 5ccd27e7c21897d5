package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
)

// policy is all that a reload replaces, in one piece: a request sees the old one or the new one, and
// goes on with the one it began with. What holds connections, counts or keys of issuers stays.
type policy struct {
	cfg     config.Config
	limiter *ratelimit.Limiter
	names   *pseudonyms
	cert    *tls.Certificate // nil without TLS
	users   *users.Service
	// uncounted are the patterns of routes that say nothing about a candidate.
	uncounted map[string]bool
	// signedIn, if not nil, is told of every verified caller.
	signedIn func()
	door     http.Handler
	// loaded is when the settings were taken over; waiting are those that wait for a restart.
	loaded  time.Time
	waiting []string
}

// openDoor builds the first policy and the two ports' servers, which ask for the current one.
func (s *Server) openDoor(context.Context) error {
	if len(s.cfg.SecretKeys) == 0 {
		s.cfg.SecretKeys = []config.Secret{config.NewSecret(rand.Text() + rand.Text() + rand.Text())}
	}
	s.openDeadlines()
	p, err := s.newPolicy(s.cfg)
	if err != nil {
		return err
	}
	s.policy.Store(p)
	s.work = append(s.work, p.users.Run, p.limiter.Run)
	door := s.meters.underWay(func(w http.ResponseWriter, r *http.Request) { s.policy.Load().door.ServeHTTP(w, r) })
	s.main = s.listener(s.health.Middleware(s.whileDraining(door)))
	s.main.ConnState = s.busy.follow
	s.admin = s.listener(asAdmin(s.health.Middleware(s.adminRoutes())))
	if p.cert != nil {
		s.main.TLSConfig = s.tlsConfig()
	}
	return nil
}

// newPolicy builds everything that depends on reloadable settings, and changes nothing.
func (s *Server) newPolicy(cfg config.Config) (p *policy, err error) {
	p = &policy{cfg: cfg, names: newPseudonyms(cfg.SecretKeys[0]), loaded: time.Now()}
	if p.cert, err = certificate(cfg.TLS); err != nil {
		return nil, err
	}
	if p.limiter, err = s.newLimiter(cfg); err != nil {
		return nil, err
	}
	p.users = s.newUsers(cfg)
	p.uncounted = uncounted(cfg.Routes)
	if s.silence != nil && len(cfg.ClerkWebhookSecrets) > 0 {
		p.signedIn = s.silence.SignedIn
	}
	p.door, err = s.newDoor(p)
	return p, err
}

// newLimiter is a policy over the store of counts, which a reload does not reset.
func (s *Server) newLimiter(cfg config.Config) (*ratelimit.Limiter, error) {
	l := cfg.Limits
	policy := ratelimit.Config{
		PerUser: l.PerUser, Anonymous: l.Anonymous, Global: l.Global,
		AnonymousShare: l.AnonymousShare, Plans: l.Plans, Logger: s.log,
		Store: s.limits, OnStoreFailure: failures[l.OnStoreFailure], Instances: cfg.Instances, Seen: s.seenLimit,
	}
	if before := s.policy.Load(); before != nil {
		return before.limiter.With(policy)
	}
	return ratelimit.New(policy)
}

// failures are the values of RATE_LIMIT_ON_STORE_FAILURE.
var failures = map[string]ratelimit.Failure{"local": ratelimit.FallLocal, "refuse": ratelimit.Refuse, "allow": ratelimit.Allow}

func (s *Server) newUsers(cfg config.Config) *users.Service {
	return users.NewService(watchedStore{s.store}, users.Config{
		CursorKeys: derive(cfg.SecretKeys, "gantry cursors"), Reads: s.reads, Door: s.standing, Logger: s.log,
		KnowsPlan: func(name string) bool { _, known := cfg.Limits.Plans[name]; return known },
	})
}

func (s *Server) usersHandler(p *policy) (http.Handler, error) {
	return users.NewHandler(p.users, users.HandlerConfig{
		Caller: claimsOf, Logger: s.log,
		Admin: func(ctx context.Context) bool {
			caller, ok := identity.FromContext(ctx)
			return ok && slices.Contains(p.cfg.AdminSubjects, caller.Subject)
		},
	})
}

// Reload puts the reloadable part of cfg in force, all of it or, with an error, nothing. It returns the
// names of changed settings that need a restart.
func (s *Server) Reload(cfg config.Config) (restart []string, err error) {
	if len(cfg.SecretKeys) == 0 {
		cfg.SecretKeys = s.cfg.SecretKeys
	}
	next := s.cfg
	next.Reloadable = cfg.Reloadable
	p, err := s.newPolicy(next)
	if err != nil {
		return nil, err
	}
	if err := s.alerts.SetRules(cfg.AlertRules); err != nil {
		return nil, err
	}
	p.waiting = differences(reflect.ValueOf(next), reflect.ValueOf(cfg))
	s.policy.Store(p)
	s.notReloaded.Store(nil)
	return p.waiting, nil
}

// NotReloaded says why a configuration was refused before it came to [Server.Reload], or by it.
func (s *Server) NotReloaded(why string) { s.notReloaded.Store(&why) }

// differences names the fields in which two configurations differ.
func differences(a, b reflect.Value) (names []string) {
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, a.Type().Field(i).Name)
		}
	}
	return names
}

// certificate loads the pair named by the configuration, nil when there is none.
func certificate(cfg config.TLS) (*tls.Certificate, error) {
	if cfg.CertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE: %w", err)
	}
	return &pair, nil
}

// tlsConfig gives each handshake the certificate of the moment.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.policy.Load().cert, nil },
		MinVersion:     tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}
}
