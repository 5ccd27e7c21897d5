package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Config holds what all issuers share. The zero value is the sensible default.
type Config struct {
	// Leeway is how far clocks may differ; 0 means 5 s, at most 60 s.
	Leeway time.Duration
	// MaxStale is how long keys keep verifying when their issuer cannot be reached; 0 means 24 h.
	MaxStale time.Duration
	// CacheEntries is how many verified tokens are remembered; 0 means 16,384,
	// fewer than 32 (or negative) means none.
	CacheEntries int
	// CacheBytes bounds the memory of the remembered tokens; 0 means 32 MiB, at least 256 KiB.
	CacheBytes int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Transport fetches keys; nil means one without proxy, with a connect timeout of 2 s. Redirects
	// are never followed and every fetch ends after 5 s, whatever the transport.
	Transport http.RoundTripper
	// Logger receives failed fetches and skipped keys; nil discards them.
	Logger *slog.Logger
}

const (
	defaultLeeway  = 5 * time.Second
	maxLeeway      = time.Minute
	defaultStale   = 24 * time.Hour
	defaultEntries = 16 << 10
	defaultBytes   = 32 << 20
	minBytes       = cacheShards * maxToken
	sweepEvery     = time.Minute
)

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		faults = append(faults, errors.New("Leeway must be between 0 and 60s"))
	}
	if c.MaxStale < 0 {
		faults = append(faults, errors.New("MaxStale must not be negative"))
	}
	if c.CacheBytes < 0 || (c.CacheBytes > 0 && c.CacheBytes < minBytes) {
		faults = append(faults, fmt.Errorf("CacheBytes must be 0 or at least %d", minBytes))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if c.MaxStale == 0 {
		c.MaxStale = defaultStale
	}
	if c.CacheEntries == 0 {
		c.CacheEntries = defaultEntries
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultBytes
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Verifier decides whose token it is. It is safe for use by many goroutines.
type Verifier struct {
	cfg     Config
	sources []*source // in the order of the issuers
	byName  map[string]*source
	cache   *cache
}

// New returns a Verifier for the issuers, of which there must be one at least. It fetches nothing:
// that begins with [Verifier.Run], or with the first token. Every fault of the arguments is
// reported at once.
func New(issuers []Issuer, cfg Config) (*Verifier, error) {
	if err := validate(issuers, cfg); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	v := &Verifier{
		cfg: cfg, byName: make(map[string]*source, len(issuers)),
		cache: newCache(cfg.CacheEntries, cfg.CacheBytes),
	}
	client := harden(cfg.Transport)
	for _, issuer := range issuers {
		s, err := newSource(issuer, cfg, client)
		if err != nil {
			return nil, err
		}
		v.sources = append(v.sources, s)
		v.byName[issuer.URL] = s
	}
	return v, nil
}

func validate(issuers []Issuer, cfg Config) error {
	faults := []error{cfg.Validate()}
	if len(issuers) == 0 {
		faults = append(faults, errors.New("issuers must not be empty"))
	}
	seen := make(map[string]bool)
	for n, issuer := range issuers {
		if err := issuer.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("issuers[%d]: %w", n, err))
		}
		if seen[issuer.URL] {
			faults = append(faults, fmt.Errorf("issuers[%d]: URL is there twice", n))
		}
		seen[issuer.URL] = true
	}
	return errors.Join(faults...)
}

// Run fetches every issuer's keys at once, refreshes them in the background until ctx ends, and
// then waits for what is under way. It always returns nil: an issuer that cannot be reached is
// logged, seen in [Verifier.Status] and asked again. Call it once.
func (v *Verifier) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, s := range v.sources {
		running.Go(func() { s.run(ctx) })
	}
	running.Go(func() { v.sweep(ctx) })
	running.Wait()
	return nil
}

// sweep frees the memory of dead tokens once a minute.
func (v *Verifier) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			v.cache.sweep(v.cfg.Now())
		}
	}
}

// Refresh fetches every issuer's keys now, one after another, and returns what went wrong.
func (v *Verifier) Refresh(ctx context.Context) error {
	var faults []error
	for _, s := range v.sources {
		if err := s.refresh(ctx); err != nil {
			faults = append(faults, fmt.Errorf("keys of %s: %w", s.issuer.URL, err))
		}
	}
	return errors.Join(faults...)
}

// Status tells how each issuer's keys are, in the order of New's issuers.
func (v *Verifier) Status() []IssuerStatus {
	list := make([]IssuerStatus, len(v.sources))
	for n, s := range v.sources {
		list[n] = s.status()
	}
	return list
}

// Cached returns the principal of a token that was verified before and would still be. It does no
// cryptography, asks nobody and allocates nothing.
func (v *Verifier) Cached(token string) (*Principal, bool) {
	return v.cache.get(token, v.cfg.Now())
}

// Verify checks a compact token and returns who it stands for. The error is a [*Refusal] (401) or
// an [*Unavailable] (503). It waits at most a second, and only for keys not seen before.
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	e, why := openEnvelope(token)
	if why != Accepted {
		return nil, &Refusal{why}
	}
	c, why := readClaims(e.payload)
	if why != Accepted {
		return nil, &Refusal{why}
	}
	// The issuer is chosen by configuration: iss can only name one that is already there.
	s := v.byName[c.issuer]
	if s == nil {
		return nil, &Refusal{UnknownIssuer}
	}
	// Claims are checked before the signature, because refusing needs no proof: a stale token then
	// costs neither a signature check nor a fetch. Accepting needs both.
	if why := s.issuer.check(e, c, v.cfg.Now(), v.cfg.Leeway); why != Accepted {
		return nil, &Refusal{why}
	}
	k, err := s.key(ctx, e.kid)
	if err != nil {
		return nil, err
	}
	if why := e.verify(k); why != Accepted {
		return nil, &Refusal{why}
	}
	p, ok := s.issuer.principal(c, e.payload)
	if !ok {
		return nil, &Refusal{BadClaims}
	}
	v.cache.put(token, p, k, s, c.starts().Add(-v.cfg.Leeway), c.expires.Add(v.cfg.Leeway))
	return p, nil
}

// verify checks the signature with k, whose algorithm must be the one that the header names
// (RFC 8725 section 3.1).
func (e *envelope) verify(k *key) Reason {
	switch {
	case e.alg != k.alg:
		return BadAlgorithm
	case !k.verify(e.signed, e.signature):
		return BadSignature
	default:
		return Accepted
	}
}
