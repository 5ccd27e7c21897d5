package valkey

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"
)

// own completes the options. One connection to each server keeps commands, and what the server tells about keys that
// changed, in one order; a command is never repeated behind our back; and each new connection, which may lead
// to another server, closes the window until the lease has been renewed over it.
func (s *Store) own(o valkeygo.ClientOption) valkeygo.ClientOption {
	o.PipelineMultiplex = -1
	o.DisableRetry = true
	o.DisableCache = false
	o.ClientTrackingOptions = []string{"BCAST", "PREFIX", s.cfg.Prefix + "v:", "NOLOOP"}
	o.OnInvalidations = s.told
	o.Dialer.Timeout = 4 * s.cfg.Timeout
	o.Dialer.KeepAlive = s.cfg.Lease
	o.ConnWriteTimeout = s.cfg.Lease
	dial := o.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	o.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		s.lost()
		return dial(ctx, address, d, t)
	}
	return o
}

func dialTCP(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
}

// told hears of keys that changed, and with nil that all may have, or that the connection is lost.
func (s *Store) told(keys []valkeygo.ValkeyMessage) {
	if keys != nil {
		for _, key := range keys {
			if name, err := key.ToString(); err == nil {
				s.heard.end(name)
			}
		}
		return
	}
	s.lost()
}

// lost ends all that is current, and has the lease renewed.
func (s *Store) lost() {
	s.heard.endAll()
	s.doubt()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// connect returns the client, and makes it at the first success. From then on it connects anew by itself.
func (s *Store) connect() (valkeygo.Client, error) {
	if client, _ := s.connected(); client != nil {
		return client, nil
	}
	client, err := valkeygo.NewClient(s.options)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.cause = client, err
	if err != nil {
		s.client = nil
	}
	return s.client, err
}

func (s *Store) connected() (valkeygo.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, s.cause
}

// Set stores value under key for ttl. It and its kin are for the health check, and need no lease.
func (s *Store) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.plain(ctx, func(ctx context.Context, c valkeygo.Client) error {
		return c.Do(ctx, c.B().Set().Key(s.plainKey(key)).Value(valkeygo.BinaryString(value)).Px(ttl).Build()).Error()
	})
}

// Get returns what Set stored under key, and whether anything is there.
func (s *Store) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	err = s.plain(ctx, func(ctx context.Context, c valkeygo.Client) error {
		value, err = c.Do(ctx, c.B().Get().Key(s.plainKey(key)).Build()).AsBytes()
		if valkeygo.IsValkeyNil(err) {
			return nil
		}
		found = err == nil
		return err
	})
	return value, found, err
}

// Del removes what Set stored under key.
func (s *Store) Del(ctx context.Context, key string) error {
	return s.plain(ctx, func(ctx context.Context, c valkeygo.Client) error {
		return c.Do(ctx, c.B().Del().Key(s.plainKey(key)).Build()).Error()
	})
}

func (s *Store) plainKey(key string) string { return s.cfg.Prefix + "kv:" + key }

func (s *Store) plain(ctx context.Context, operation func(context.Context, valkeygo.Client) error) error {
	client, cause := s.connected()
	if client == nil {
		return fmt.Errorf("valkey: not connected: %w", cause)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return operation(ctx, client)
}
