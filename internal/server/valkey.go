package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"time"

	driver "github.com/valkey-io/valkey-go"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/ratelimit/valkey"
)

// valkeyOption is the configured server in the driver's terms.
func valkeyOption(cfg config.Store) (driver.ClientOption, error) {
	option := driver.ClientOption{
		InitAddress: cfg.Addrs, Username: cfg.Username, Password: cfg.Password.Reveal(), SelectDB: cfg.DB, ClientName: "gantry",
	}
	if !cfg.TLS {
		return option, nil
	}
	host, _, err := net.SplitHostPort(cfg.Addrs[0])
	if err != nil {
		return option, err
	}
	option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if cfg.CA != nil {
		option.TLSConfig.RootCAs = x509.NewCertPool()
		option.TLSConfig.RootCAs.AppendCertsFromPEM(cfg.CA)
	}
	return option, nil
}

// errNotReached says that Valkey has not answered since the start.
var errNotReached = errors.New("valkey has not been reached yet")

// sharedLimits is the limiter's store, from the moment Valkey is first reached: the driver wants an answer
// before it makes a client. Until then it fails as a store that is away does, and each beat tries.
type sharedLimits struct {
	option driver.ClientOption
	store  atomic.Pointer[reached]
}

type reached struct {
	client driver.Client
	*valkey.Store
}

var _ ratelimit.SharedStore = (*sharedLimits)(nil)

// Take implements ratelimit.Store.
func (s *sharedLimits) Take(ctx context.Context, charges []ratelimit.Charge) (ratelimit.Decision, error) {
	if r := s.store.Load(); r != nil {
		return r.Take(ctx, charges)
	}
	return ratelimit.Decision{}, errNotReached
}

// Peek implements ratelimit.Store.
func (s *sharedLimits) Peek(ctx context.Context, charges []ratelimit.Charge) (ratelimit.Decision, error) {
	if r := s.store.Load(); r != nil {
		return r.Peek(ctx, charges)
	}
	return ratelimit.Decision{}, errNotReached
}

// Beat implements ratelimit.SharedStore. It is called by one goroutine.
func (s *sharedLimits) Beat(ctx context.Context) (int, error) {
	if s.store.Load() == nil {
		if err := s.reach(); err != nil {
			return 0, err
		}
	}
	return s.store.Load().Beat(ctx)
}

func (s *sharedLimits) reach() error {
	client, err := driver.NewClient(valkey.Tuned(s.option))
	if err != nil {
		return err
	}
	store, err := valkey.New(client, valkey.Config{})
	if err != nil {
		client.Close()
		return err
	}
	s.store.Store(&reached{client, store})
	return nil
}

func (s *sharedLimits) close() error {
	if r := s.store.Load(); r != nil {
		r.client.Close()
	}
	return nil
}

// dialValkey is what check --live does: one decision's round trip, and whether the server keeps what it is
// given.
func dialValkey(ctx context.Context, cfg config.Store) error {
	option, err := valkeyOption(cfg)
	if err != nil {
		return err
	}
	limits := &sharedLimits{option: option}
	defer limits.close() //nolint:errcheck // it returns nil
	if err := limits.reach(); err != nil {
		return err
	}
	charge := ratelimit.Charge{Policy: "check", Rate: ratelimit.Rate{Limit: 1, Window: time.Second}}
	if _, err := limits.Peek(ctx, []ratelimit.Charge{charge}); err != nil {
		return err
	}
	return limits.store.Load().Check(ctx)
}
