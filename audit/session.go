package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit/jws"
)

// Session is what a probe sees of the run: the target, the calibration, and the only way to send anything. The
// engine owns the sockets; a probe opens none of its own.
type Session struct {
	probe  Probe
	target *Target
	cfg    Config
	wire   *wire
	shared *shared
}

// shared is what the probes of one run tell each other.
type shared struct {
	calibration *Calibration

	mu       sync.Mutex
	findings map[string]Finding
	took     map[string]time.Duration // by probe
	signer   *Signer
	facts    map[string]any
	health   []Sample
	data     []Sample
	seen     []Finding // by vantage points
	callback *Callback
	harness  *Harness
	sink     *Sink

	controlsMu sync.Mutex
	controls   map[string][]*Exchange
}

// Sample is one look at a path under stress: was it well?
type Sample struct {
	At     time.Time
	Status int // 0 when no answer came
	Took   time.Duration
}

// Well says whether the answer was neither an error of the server nor missing.
func (s Sample) Well() bool { return s.Status > 0 && s.Status < 500 }

// Target under audit. A probe must not change it.
func (s *Session) Target() *Target { return s.target }

// Policy the target is held to.
func (s *Session) Policy() Policy { return s.cfg.Policy }

// Allows says whether the operator allowed a mode, for the probes that go deeper when they may.
func (s *Session) Allows(m Mode) bool { return s.cfg.allows(m) }

// Now of the run's clock.
func (s *Session) Now() time.Time { return s.cfg.Now() }

// Calibration of the credentials.
func (s *Session) Calibration() *Calibration { return s.shared.calibration }

// Rand is random in a way that the same seed and probe repeat.
func (s *Session) Rand() *rand.Rand {
	sum := sha256.Sum256([]byte(s.probe.ID))
	return rand.New(rand.NewPCG(s.cfg.Seed, uint64(sum[0])<<8|uint64(sum[1])))
}

// Nonce is a name that no target has, the n-th of this probe.
func (s *Session) Nonce(n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d|%s|%d|nonce", s.cfg.Seed, s.probe.ID, n))
	return "gantry-" + hex.EncodeToString(sum[:6])
}

// Do sends a request at the polite pace. What goes wrong on the wire is in the exchange; an error means that the
// probe cannot go on (budget, rate limit, end of the run) and should be returned.
func (s *Session) Do(ctx context.Context, r Request) (*Exchange, error) {
	return s.wire.do(ctx, s.probe.ID, r)
}

// Unpaced sends a request at once, outside the pace: for load, bursts and samples. It counts against the load budget,
// and is kept out of the history.
func (s *Session) Unpaced(ctx context.Context, r Request) (*Exchange, error) {
	if s.wire.load.Add(1) > int64(s.cfg.Budget.Load) {
		return nil, fmt.Errorf("%w: %d requests of load were sent", ErrBudget, s.cfg.Budget.Load)
	}
	x := s.wire.begin(s.probe.ID, r)
	s.wire.exchange(ctx, x)
	return x, ctx.Err()
}

// Get is Do with the valid token on a path.
func (s *Session) Get(ctx context.Context, path string) (*Exchange, error) {
	return s.Do(ctx, Request{Path: path, Token: s.target.Token, Label: "valid credential"})
}

// Accepted is the oracle of [Calibration.Accepted].
func (s *Session) Accepted(x *Exchange) bool { return s.shared.calibration.Accepted(x) }

// Control sends the unchanged valid token once more; [ErrControl] when it is not accepted any longer.
func (s *Session) Control(ctx context.Context) error {
	c := s.shared.calibration
	if c == nil || !c.Tells {
		return nil
	}
	x, err := s.Do(ctx, Request{Path: c.Path, Token: s.target.Token, Label: "control: valid credential"})
	if err != nil {
		return err
	}
	if !c.Accepted(x) {
		return fmt.Errorf("%w (%s)", ErrControl, x.answer())
	}
	return nil
}

// Repeats sends r once more after a control, and says whether the answer is again such as the first.
func (s *Session) Repeats(ctx context.Context, r Request, such func(*Exchange) bool) (bool, error) {
	if err := s.Control(ctx); err != nil {
		return false, err
	}
	x, err := s.Do(ctx, r)
	if err != nil {
		return false, err
	}
	return such(x), nil
}

// Healthy says whether the target still answers a cheap request within d.
func (s *Session) Healthy(ctx context.Context, d time.Duration) (bool, error) {
	x, err := s.Do(ctx, Request{Path: s.HealthPath(), Timeout: d, Label: "is it still there?", Fresh: true})
	if err != nil {
		return false, err
	}
	return x.Status > 0 && x.Status < 500, nil
}

// HealthPath is the declared one, or the one that HLT-01 found, or the base.
func (s *Session) HealthPath() string {
	if s.target.HealthPath != "" {
		return s.target.HealthPath
	}
	found, _ := s.Fact("health-path").(string)
	return found
}

// FastPath is a cheap GET: the declared one, else the calibrated path.
func (s *Session) FastPath() string {
	if s.target.FastPath != "" {
		return s.target.FastPath
	}
	if c := s.Calibration(); c != nil {
		return c.Path
	}
	return ""
}

// History is every exchange so far, of all probes, oldest first, with at most 8 KiB of each body.
func (s *Session) History() []*Exchange {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	return slices.Clone(s.wire.history)
}

// Finding of a probe that ran before.
func (s *Session) Finding(id string) (Finding, bool) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	f, ok := s.shared.findings[id]
	return f, ok
}

// Remember leaves a fact for later probes; Fact reads it, nil when there is none.
func (s *Session) Remember(name string, fact any) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.shared.facts[name] = fact
}

// Fact that an earlier probe left.
func (s *Session) Fact(name string) any {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return s.shared.facts[name]
}

// Hide keeps a secret that was found out of the report.
func (s *Session) Hide(secret string) { s.wire.hide.hide(secret) }

// Spent is how many requests with the valid token were sent in the last d: they count against its limit.
func (s *Session) Spent(d time.Duration) int {
	since := s.wire.now().Add(-d)
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	n := 0
	for _, at := range s.wire.spent {
		if at.After(since) {
			n++
		}
	}
	return n
}

// Sampled adds a look at a data path (health false) or a health path to the timeline that HLT-03 judges.
func (s *Session) Sampled(health bool, sample Sample) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	list := &s.shared.data
	if health {
		list = &s.shared.health
	}
	if len(*list) < 200_000 {
		*list = append(*list, sample)
	}
}

// Timeline of health and data samples, each oldest first.
func (s *Session) Timeline() (health, data []Sample) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return slices.Clone(s.shared.health), slices.Clone(s.shared.data)
}

// Declared gives the reason why something about a probe is intended, or empty.
func (s *Session) Declared() string { return s.target.Declared[s.probe.ID] }

// Token of the target, taken apart; [jws.ErrOpaque] when it is not a JSON web token.
func (s *Session) Token() (jws.Token, error) {
	if s.target.Token == "" {
		return jws.Token{}, errors.New("no token was given")
	}
	return jws.Parse(s.target.Token)
}

// Header is a short way to write one header.
func Header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}
