package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// The policies of a Limiter, as clients and logs see them.
const (
	PolicyUser      = "user"
	PolicyAddress   = "address"
	PolicyRoute     = "route"
	PolicyAnonymous = "anonymous"
	PolicyGlobal    = "global"
)

// Failure says what to do while a shared store fails.
type Failure int

const (
	// FallLocal keeps limits in this process, each divided by the number of instances. The default.
	FallLocal Failure = iota
	// Refuse answers 503.
	Refuse
	// Allow lets everything pass.
	Allow
)

// Config of a Limiter. The zero value of each field means its default.
type Config struct {
	// PerUser is what a verified user may do; default 100/min.
	PerUser Rate
	// Anonymous is what an address may do without a valid token; default 100/min.
	Anonymous Rate
	// Global is what everybody together may do; default 10000/min.
	Global Rate
	// AnonymousShare is how much of Global callers without a token may use, in percent, so that
	// strangers cannot lock users out; default 50.
	AnonymousShare int
	// Plans replaces PerUser for callers whose verified plan is named here.
	Plans map[string]Rate
	// IPv6Prefix is the part of an IPv6 address that counts as one caller; default 64 bits.
	IPv6Prefix int
	// Store keeps the counts; nil means a Memory of this process. It must answer or fail within a
	// time of its own: a Limiter waits for it.
	Store Store
	// OnStoreFailure says what happens while Store fails; default FallLocal.
	OnStoreFailure Failure
	// Instances is how many processes share Store, until [Limiter.Run] has counted them; default 1.
	Instances int
	// Seen hears of every decision made for an HTTP request, also of one that nobody could make: it is not
	// Allowed, and its Mode is Closed.
	Seen func(*http.Request, Decision)
	// Logger hears when Store begins to fail and when it is back. Nil discards.
	Logger *slog.Logger
}

// Validate returns every fault of c.
func (c Config) Validate() error {
	c = c.withDefaults()
	faults := []error{named("PerUser", c.PerUser.Validate()), named("Anonymous", c.Anonymous.Validate()), named("Global", c.Global.Validate())}
	for plan, rate := range c.Plans {
		faults = append(faults, named("Plans["+plan+"]", rate.Validate()))
	}
	if c.AnonymousShare < 1 || c.AnonymousShare > 100 {
		faults = append(faults, errors.New("AnonymousShare: is not between 1 and 100 percent"))
	}
	if c.IPv6Prefix < 1 || c.IPv6Prefix > 128 {
		faults = append(faults, errors.New("IPv6Prefix: is not between 1 and 128 bits"))
	}
	if c.OnStoreFailure < FallLocal || c.OnStoreFailure > Allow {
		faults = append(faults, errors.New("OnStoreFailure: is none of FallLocal, Refuse, Allow"))
	}
	return errors.Join(faults...)
}

func named(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.PerUser = c.PerUser.orElse(Rate{Limit: 100, Window: time.Minute})
	c.Anonymous = c.Anonymous.orElse(Rate{Limit: 100, Window: time.Minute})
	c.Global = c.Global.orElse(Rate{Limit: 10_000, Window: time.Minute})
	if c.AnonymousShare == 0 {
		c.AnonymousShare = 50
	}
	if c.IPv6Prefix == 0 {
		c.IPv6Prefix = 64
	}
	if c.Instances < 1 {
		c.Instances = 1
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Caller is whom a request is charged to.
type Caller struct {
	// User is the verified subject; empty for a caller without a valid token. Never a header's
	// or an unverified claim's word.
	User string
	// Plan is the verified plan, which may have a rate of its own.
	Plan string
	// Addr is the client's address.
	Addr netip.Addr
	// Arrived is when the request came, from which the answer's X-RateLimit-Reset counts. The zero
	// time means now: whoever has read the clock for the request saves reading it again.
	Arrived time.Time
	// Route and RouteRate, when set, replace the caller's own rate on this route: the caller then
	// has a log of its own for it, and the other one is not charged.
	Route     string
	RouteRate Rate
	// Rejected says that the caller is turned away. Only its own log is charged: of somebody whose token
	// is not valid the address, since forged tokens must use up their sender's budget and nobody
	// else's, and of a user who must not come in the user's.
	Rejected bool
	// Apart says that only the route's own rate counts, which must be set: for callers whom others must
	// not be able to lock out, such as a service that reports events.
	Apart bool
}

// Limiter is the policy: a verified user is charged to the user's log and everybody's; a stranger to
// the address's, the strangers' share, and everybody's. All of it happens or none.
type Limiter struct {
	cfg       Config
	anonymous Rate // the share of Global
	local     *Memory
	health    *health
}

// New returns a limiter.
func New(cfg Config) (*Limiter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	local, ok := cfg.Store.(*Memory)
	if !ok {
		var err error
		if local, err = NewMemory(MemoryConfig{}); err != nil {
			return nil, err
		}
	}
	if cfg.Store == nil {
		cfg.Store = local
	}
	return newLimiter(cfg, local, new(health)), nil
}

// With returns a limiter of another policy over what l has counted and knows of its store, which
// stays: Store in cfg is not used. Only one of the two needs [Limiter.Run].
func (l *Limiter) With(cfg Config) (*Limiter, error) {
	cfg.Store = l.cfg.Store
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return newLimiter(cfg.withDefaults(), l.local, l.health), nil
}

func newLimiter(cfg Config, local *Memory, health *health) *Limiter {
	return &Limiter{cfg: cfg, local: local, health: health, anonymous: cfg.Global.times(cfg.AnonymousShare, 100)}
}

// Allow decides about a request and records it if it is admitted.
func (l *Limiter) Allow(ctx context.Context, c Caller) (d Decision, err error) {
	err = l.decide(ctx, &c, true, &d)
	return d, err
}

// Peek says whether an address still has budget of its own, and records nothing. Strangers' shared
// budgets are not looked at: using those up must not keep out a user whose token is not known yet.
func (l *Limiter) Peek(ctx context.Context, addr netip.Addr) (d Decision, err error) {
	err = l.decide(ctx, &Caller{Addr: addr, Rejected: true}, false, &d)
	return d, err
}

// charge lists what a caller's request counts against.
func (l *Limiter) charge(list []Charge, c *Caller) []Charge {
	own := Charge{Policy: PolicyUser, Key: c.User, Rate: l.cfg.PerUser}
	if c.User == "" {
		own = Charge{Policy: PolicyAddress, Key: AddrKey(c.Addr, l.cfg.IPv6Prefix), Rate: l.cfg.Anonymous}
	} else if rate, found := l.cfg.Plans[c.Plan]; found {
		own.Rate = rate
	}
	if c.Rejected {
		return append(list, own)
	}
	if c.Route != "" && !c.RouteRate.IsZero() {
		own = Charge{Policy: PolicyRoute, Key: own.Policy + " " + own.Key + " " + c.Route, Rate: c.RouteRate}
	}
	list = append(list, own)
	if c.Apart {
		return list
	}
	if c.User == "" {
		list = append(list, Charge{Policy: PolicyAnonymous, Rate: l.anonymous, Hidden: true})
	}
	return append(list, Charge{Policy: PolicyGlobal, Rate: l.cfg.Global, Hidden: true})
}

// decide fills in d, which is too large to be handed up from one to the next.
func (l *Limiter) decide(ctx context.Context, c *Caller, record bool, d *Decision) (err error) {
	var buf [MaxCharges]Charge // on the stack, as long as no other store sees it
	charges := l.charge(buf[:0], c)
	if l.cfg.Store == Store(l.local) {
		return l.local.decide(charges, record, d)
	}
	*d, err = l.ask(ctx, slices.Clone(charges), record)
	return err
}

// ask has the configured store decide, or whoever stands in for it.
func (l *Limiter) ask(ctx context.Context, charges []Charge, record bool) (Decision, error) {
	if !l.health.mayAsk() {
		return l.alone(charges, record, l.health.lastError())
	}
	ask := l.cfg.Store.Peek
	if record {
		ask = l.cfg.Store.Take
	}
	d, err := ask(ctx, charges)
	switch {
	case errors.Is(err, ErrCharges):
		return d, err
	case err != nil:
		l.storeFailed(err, false)
		return l.alone(charges, record, err)
	}
	l.storeAnswered()
	if d.Allowed && record {
		l.local.observe(charges) // an outage must not grant a fresh budget
	}
	return d, nil
}

// alone decides without the store, which failed with cause. In this process's own log the limit is
// divided by the instances, at least 1. The log knows what this process admitted before, so of a
// user's N in a window at most N more are admitted by all instances together, over the switch.
func (l *Limiter) alone(charges []Charge, record bool, cause error) (Decision, error) {
	switch l.cfg.OnStoreFailure {
	case Allow:
		return Decision{Allowed: true, Mode: Open}, nil
	case Refuse:
		return Decision{Mode: Closed}, fmt.Errorf("rate limit store: %w", cause)
	}
	instances := l.instances()
	for i := range charges {
		charges[i].Rate = charges[i].Rate.times(1, instances)
	}
	d := Decision{Mode: Local}
	err := l.local.decide(charges, record, &d)
	return d, err
}

// AddrKey is the part of an address that counts as one caller: all of an IPv4 address, the prefix of
// an IPv6 one, since a subscriber is handed at least a /64.
func AddrKey(addr netip.Addr, v6prefix int) string {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || !addr.IsValid() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, v6prefix).Masked().String()
}
