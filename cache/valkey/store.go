package valkey

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/gantryhq/gantry/cache"
)

// Store is a [cache.Far] in Valkey. It also has Set, Get and Del, for the health check.
type Store struct {
	cfg     Config
	options valkeygo.ClientOption
	id      string // of this instance's lease
	heard   heard
	breaker breaker
	terms   atomic.Pointer[terms] // nil: not to be used; set under mu

	mu         sync.Mutex
	client     valkeygo.Client // nil until the first connection
	cause      error           // why there is no client
	free       time.Time       // from when the lease has lapsed for certain
	server     int64           // the server's clock in ms, when it was last heard
	at         time.Time       // when that was
	unanswered bool            // the last renewal that may prolong the lease
	doubts     uint64          // counts what closed the window
	changed    chan struct{}   // closed, and made anew, when terms change

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

var _ cache.Far = (*Store)(nil)

// ParseURL reads redis://, rediss://, valkey:// and unix:// addresses; see valkey-go's ParseURL. An error
// does not repeat the address, which may have a password in it.
func ParseURL(address string) (valkeygo.ClientOption, error) {
	options, err := valkeygo.ParseURL(address)
	if err != nil {
		return options, errors.New("valkey: the address is not of the form redis://user:password@host:port/database")
	}
	return options, nil
}

// New returns a Store that connects, and joins the other instances, in the background: until then, as in any
// outage, loaders ask their source. Of options it decides itself about multiplexing, retries, tracking and
// timeouts. Close ends it, the end of ctx does not.
func New(ctx context.Context, options valkeygo.ClientOption, cfg Config) (*Store, error) {
	faults := []error{cfg.Validate()}
	if len(options.InitAddress) == 0 {
		faults = append(faults, errors.New("InitAddress: must name a server"))
	}
	if options.AlwaysRESP2 {
		faults = append(faults, errors.New("AlwaysRESP2: invalidation needs RESP3"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Store{
		cfg: cfg, id: rand.Text()[:generation], cancel: cancel,
		free:    time.Now().Add(cfg.Lease + cfg.late() + slack),
		changed: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	s.options = s.own(options)
	go s.run(ctx)
	return s, nil
}

// Close gives the lease back, so that the others go on without a pause, and ends the connection. Close it
// after the last write.
func (s *Store) Close(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Look implements [cache.Far].
func (s *Store) Look(ctx context.Context, key string, hold time.Duration) (cache.Ticket, cache.Kept, error) {
	t := s.open()
	if t == nil {
		return cache.Ticket{}, cache.Kept{}, cache.ErrAway
	}
	ticket := cache.Ticket{Key: s.key(t, key), Epoch: t.epoch}
	ticket.Heard = s.heard.of(ticket.Key)
	var text string
	var life int64
	err := s.do(ctx, func(ctx context.Context) error {
		args := []string{rand.Text()[:generation], milliseconds(hold)}
		reply, err := look.Exec(ctx, t.client, []string{ticket.Key}, args).ToArray()
		if err != nil {
			return err
		}
		text, life, err = kept(reply)
		return err
	})
	if err != nil || !s.holds(t.epoch) {
		return cache.Ticket{}, cache.Kept{}, errors.Join(cache.ErrAway, err)
	}
	ticket.Generation = text[:generation]
	if len(text) == generation {
		return ticket, cache.Kept{}, nil
	}
	return ticket, cache.Kept{Value: []byte(text[generation:]), Life: time.Duration(life) * time.Millisecond}, nil
}

// kept reads the reply of look.
func kept(reply []valkeygo.ValkeyMessage) (text string, life int64, err error) {
	if len(reply) != 2 {
		return "", 0, fmt.Errorf("valkey: look returned %d values", len(reply))
	}
	text, err = reply[0].ToString()
	if err != nil {
		return "", 0, err
	}
	if len(text) < generation {
		return "", 0, errors.New("valkey: the key holds something else")
	}
	life, err = reply[1].AsInt64()
	return text, life, err
}

// Keep implements [cache.Far].
func (s *Store) Keep(ctx context.Context, ticket cache.Ticket, value []byte, ttl time.Duration) error {
	t := s.open()
	if t == nil || t.epoch != ticket.Epoch || len(value) > s.cfg.MaxValue {
		return cache.ErrAway
	}
	return s.do(ctx, func(ctx context.Context) error {
		args := []string{ticket.Generation, valkeygo.BinaryString(value), milliseconds(ttl)}
		return keep.Exec(ctx, t.client, []string{ticket.Key}, args).Error()
	})
}

// Proven implements [cache.Far]. That the window is open after the answer has come proves that it was when the
// server gave it.
func (s *Store) Proven(ctx context.Context, ticket cache.Ticket) bool {
	t := s.open()
	if t == nil || t.epoch != ticket.Epoch {
		return false
	}
	var got string
	err := s.do(ctx, func(ctx context.Context) (err error) {
		command := t.client.B().Getrange().Key(ticket.Key).Start(0).End(generation - 1).Build()
		got, err = t.client.Do(ctx, command).ToString()
		return err
	})
	return err == nil && got == ticket.Generation && s.holds(t.epoch)
}

// Current implements [cache.Far].
func (s *Store) Current(ticket cache.Ticket) bool {
	return s.holds(ticket.Epoch) && s.heard.of(ticket.Key) == ticket.Heard
}

// Forget implements [cache.Far].
func (s *Store) Forget(ctx context.Context, keys ...string) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Lease+s.cfg.grace()+time.Second)
	defer cancel()
	for {
		t, changed, wait := s.stand()
		if wait <= 0 {
			if t == nil || s.del(ctx, t, keys) {
				return
			}
			wait = slack / 2
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			s.lapse()
			return
		}
		timer.Stop()
	}
}

func (s *Store) del(ctx context.Context, t *terms, keys []string) bool {
	commands := make(valkeygo.Commands, len(keys))
	for i, key := range keys {
		commands[i] = t.client.B().Del().Key(s.key(t, key)).Build()
	}
	err := s.do(ctx, func(ctx context.Context) error {
		for _, reply := range t.client.DoMulti(ctx, commands...) {
			if err := reply.Error(); err != nil {
				return err
			}
		}
		return nil
	})
	for _, key := range keys {
		s.heard.end(s.key(t, key)) // the server does not tell us of what we did
	}
	return err == nil && s.valid(t.epoch)
}

// do limits an operation, and counts it for the breaker unless the caller went away.
func (s *Store) do(ctx context.Context, operation func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := operation(within)
	if err != nil && ctx.Err() == nil && s.breaker.failed(time.Now()) {
		s.doubt()
	}
	return err
}

func (s *Store) key(t *terms, key string) string { return s.cfg.Prefix + "v:" + t.epoch + ":" + key }

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10)
}
