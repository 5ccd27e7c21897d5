package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
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
	// FallLocal keeps limits in this process: limit divided by Instances. The default.
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
	// Store keeps the counts; nil means a Memory of this process.
	Store Store
	// OnStoreFailure says what happens when Store fails. Instances is how many processes share it.
	OnStoreFailure Failure
	Instances      int
	// Seen hears of every decision made for an HTTP request.
	Seen func(*http.Request, Decision)
	// Logger hears of store failures. Nil discards.
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
	// Route and RouteRate, when set, replace the caller's own rate on this route: the caller then
	// has a log of its own for it, and the other one is not charged.
	Route     string
	RouteRate Rate
	// Rejected says that the caller showed a token that is not valid. Only the address is charged:
	// forged tokens must use up their sender's budget, and nobody else's.
	Rejected bool
}

// Limiter is the policy: a verified user is charged to the user's log and everybody's; a stranger to
// the address's, the strangers' share, and everybody's. All of it happens or none.
type Limiter struct {
	cfg       Config
	anonymous Rate // the share of Global
	local     *Memory
	charges   sync.Pool
}

// New returns a limiter.
func New(cfg Config) (*Limiter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	local, err := NewMemory(MemoryConfig{})
	if err != nil {
		return nil, err
	}
	if cfg.Store == nil {
		cfg.Store = local
	}
	l := &Limiter{cfg: cfg, local: local, anonymous: cfg.Global.times(cfg.AnonymousShare, 100)}
	l.charges.New = func() any { return new([MaxCharges]Charge) }
	return l, nil
}

// Allow decides about a request and records it if it is admitted.
func (l *Limiter) Allow(ctx context.Context, c Caller) (Decision, error) {
	buf := l.charges.Get().(*[MaxCharges]Charge)
	defer l.charges.Put(buf)
	return l.decide(ctx, l.charge(buf[:0], c), Store.Take)
}

// Peek says whether an address still has budget of its own, and records nothing. Strangers' shared
// budgets are not looked at: using those up must not keep out a user whose token is not known yet.
func (l *Limiter) Peek(ctx context.Context, addr netip.Addr) (Decision, error) {
	buf := l.charges.Get().(*[MaxCharges]Charge)
	defer l.charges.Put(buf)
	return l.decide(ctx, l.charge(buf[:0], Caller{Addr: addr, Rejected: true}), Store.Peek)
}

// charge lists what a caller's request counts against.
func (l *Limiter) charge(list []Charge, c Caller) []Charge {
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
	if c.User == "" {
		list = append(list, Charge{Policy: PolicyAnonymous, Rate: l.anonymous, Hidden: true})
	}
	return append(list, Charge{Policy: PolicyGlobal, Rate: l.cfg.Global, Hidden: true})
}

type method func(Store, context.Context, []Charge) (Decision, error)

func (l *Limiter) decide(ctx context.Context, charges []Charge, ask method) (Decision, error) {
	d, err := ask(l.cfg.Store, ctx, charges)
	if err == nil || errors.Is(err, ErrCharges) {
		if err == nil && d.Allowed && l.cfg.Store != Store(l.local) {
			l.local.observe(charges) // an outage must not grant a fresh budget
		}
		return d, err
	}
	l.cfg.Logger.Warn("rate limit store fails", "error", err, "mode", int(l.cfg.OnStoreFailure))
	switch l.cfg.OnStoreFailure {
	case Allow:
		return Decision{Allowed: true, Mode: Open}, nil
	case Refuse:
		return Decision{}, err
	}
	for i := range charges {
		charges[i].Rate = charges[i].Rate.times(1, l.cfg.Instances)
	}
	d, err = ask(l.local, ctx, charges)
	d.Mode = Local
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
