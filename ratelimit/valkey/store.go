package valkey

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gantryhq/gantry/ratelimit"
	driver "github.com/valkey-io/valkey-go"
)

var (
	//go:embed take.lua
	takeText string
	//go:embed beat.lua
	beatText string
)

// The defaults of [Config].
const (
	DefaultPrefix  = "gantry:rl"
	DefaultTimeout = 50 * time.Millisecond
)

const (
	// beatLife is how many seconds an instance counts after its last word. A few lost words must
	// not make the others believe that they are fewer than they are.
	beatLife = 15
	// beatTimeout is long enough to connect, over TLS too: no request waits for a word.
	beatTimeout = time.Second
)

// Config of a Store. The zero value of each field means its default.
type Config struct {
	// Prefix begins every key, in braces: {gantry:rl}. Instances with one prefix share limits.
	Prefix string
	// Timeout bounds each decision; default 50ms. The context's own deadline and cancellation play no
	// part: a client that hangs up must not turn its request into a failure of the store.
	Timeout time.Duration
}

// Validate returns every fault of c.
func (c Config) Validate() error {
	var faults []error
	for _, r := range c.Prefix {
		if r <= ' ' || r > '~' || r == '{' || r == '}' {
			faults = append(faults, errors.New("Prefix: holds a brace, a space or a character beyond ASCII"))
			break
		}
	}
	if len(c.Prefix) > 64 {
		faults = append(faults, errors.New("Prefix: is longer than 64 bytes"))
	}
	if c.Timeout < 0 {
		faults = append(faults, errors.New("Timeout: is negative"))
	}
	return errors.Join(faults...)
}

// Tuned returns option for a client that a [Store] may use: a connection that the server has left
// silent for a second is given up, so that a stalled server is noticed, and there is one connection
// for a server, so that commands of all goroutines travel together.
func Tuned(option driver.ClientOption) driver.ClientOption {
	option.PipelineMultiplex = -1
	option.ConnWriteTimeout = time.Second
	option.Dialer.Timeout = time.Second
	option.DisableCache = true
	return option
}

// Store is a [ratelimit.Store] that instances share. Methods may be called from any goroutine.
type Store struct {
	client     driver.Client
	prefix     string // with its braces and a colon
	timeout    time.Duration
	instance   string
	take, beat *driver.Lua
	turns      *turns
}

// New returns a store on client, which stays the caller's to close. It sends nothing yet.
func New(client driver.Client, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if client == nil {
		return nil, errors.New("valkey: there is no client")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Store{
		client: client, prefix: "{" + cfg.Prefix + "}:", timeout: cfg.Timeout, instance: rand.Text(),
		take: driver.NewLuaScript(takeText), beat: driver.NewLuaScriptRetryable(beatText),
		turns: newTurns(),
	}, nil
}

// Take implements [ratelimit.Store]. An error other than [ratelimit.ErrCharges] means that the
// server did not say; it may have recorded the charges all the same.
func (s *Store) Take(ctx context.Context, charges []ratelimit.Charge) (ratelimit.Decision, error) {
	return s.decide(ctx, s.timeout, charges, true)
}

// Peek implements [ratelimit.Store].
func (s *Store) Peek(ctx context.Context, charges []ratelimit.Charge) (ratelimit.Decision, error) {
	return s.decide(ctx, s.timeout, charges, false)
}

// Beat says that this instance is alive, and returns how many are. It writes, so it also tells
// whether the server would record an admission. For up to a second, or ctx's end, it connects again and retries,
// which a decision never does: a word twice is a word, an admission twice is two.
func (s *Store) Beat(ctx context.Context) (instances int, err error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	n, err := s.beat.Exec(ctx, s.client, []string{s.prefix + "instances"}, []string{s.instance, strconv.Itoa(beatLife)}).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("valkey: count instances: %w", err)
	}
	s.turns.settle()
	return int(n), nil
}

func (s *Store) decide(ctx context.Context, within time.Duration, charges []ratelimit.Charge, record bool) (ratelimit.Decision, error) {
	keys, args, err := s.words(charges, record)
	if err != nil {
		return ratelimit.Decision{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	place, err := s.turns.begin(ctx)
	if err != nil {
		return ratelimit.Decision{}, fmt.Errorf("valkey: wait for a turn: %w", err)
	}
	reply, err := s.take.Exec(ctx, s.client, keys, args).AsIntSlice()
	s.turns.end(place, err)
	if err != nil {
		return ratelimit.Decision{}, fmt.Errorf("valkey: decide: %w", err)
	}
	if len(reply) != 1+2*len(charges) {
		return ratelimit.Decision{}, fmt.Errorf("valkey: decide: a reply of %d numbers for %d charges", len(reply), len(charges))
	}
	return decision(charges, reply, record), nil
}

// words puts charges into the words of take.lua.
func (s *Store) words(charges []ratelimit.Charge, record bool) (keys, args []string, err error) {
	if err := ratelimit.CheckCharges(charges); err != nil {
		return nil, nil, err
	}
	keys, args = make([]string, len(charges)), make([]string, 1, 1+2*len(charges))
	args[0] = "0"
	if record {
		args[0] = "1"
	}
	for i := range charges {
		c := &charges[i]
		keys[i] = s.key(c)
		args = append(args, strconv.Itoa(c.Rate.Limit), strconv.FormatInt(c.Rate.Window.Microseconds(), 10))
	}
	return keys, args, nil
}

// key names a log: the policy's first letters, for whoever looks at the server, and 128 bits of a
// hash of all of policy and key.
func (s *Store) key(c *ratelimit.Charge) string {
	var room [256]byte
	b := strconv.AppendInt(room[:0], int64(len(c.Policy)), 10)
	b = append(append(append(b, ' '), c.Policy...), c.Key...)
	sum := sha256.Sum256(b)
	b = append(append(room[:0], s.prefix...), c.Policy[:min(len(c.Policy), 16)]...)
	b = base64.RawURLEncoding.AppendEncode(append(b, ':'), sum[:16])
	return string(b)
}

// decision reads the reply of take.lua.
func decision(charges []ratelimit.Charge, reply []int64, record bool) ratelimit.Decision {
	var quotas [ratelimit.MaxCharges]ratelimit.Quota
	var wait time.Duration
	allowed := reply[0] == 1
	for i, c := range charges {
		live, age := int(reply[1+2*i]), time.Duration(reply[2+2*i])*time.Microsecond
		if allowed && record {
			live++ // the one just recorded; where it is the first its age is 0
		}
		q := &quotas[i]
		*q = ratelimit.Quota{Policy: c.Policy, Rate: c.Rate, Hidden: c.Hidden, Remaining: max(0, c.Rate.Limit-live)}
		if live > 0 {
			q.Reset = c.Rate.Window - age
		}
		if q.Violated = !allowed && live >= c.Rate.Limit; q.Violated {
			wait = max(wait, q.Reset)
		}
	}
	return ratelimit.NewDecision(allowed, wait, quotas[:len(charges)]...)
}
