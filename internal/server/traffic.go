package server

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/rollout"
)

// traffic is the upstreams of this instance: the one that UPSTREAM_URL names, and the two of a launch for
// as long as it goes on. Each has connections, a breaker and budgets of its own.
type traffic struct {
	rollout.Splitter
	cfg        proxy.Config // of every upstream
	healthPath string
	log        *slog.Logger
	configured string // origin of UPSTREAM_URL

	forwarded atomic.Int64 // attempts, to any version

	mu   sync.Mutex // for changing ways
	ways atomic.Pointer[ways]

	every, within time.Duration // of health probes
	begun         chan struct{} // wakes the prober when a launch begins
}

// ways is where requests can go.
type ways struct {
	home   backend // without a launch
	launch string  // the id of the one that goes on, "" without
	sides  [2]backend
}

type backend struct {
	*proxy.Upstream
	origin string
}

func newTraffic(target *url.URL, healthPath string, cfg proxy.Config, log *slog.Logger) (*traffic, error) {
	t := &traffic{
		cfg: cfg, healthPath: healthPath, log: log, configured: origin(target),
		every: 5 * time.Second, within: 2 * time.Second, begun: make(chan struct{}, 1),
	}
	home, err := t.open(target.String(), new(ways))
	if err != nil {
		return nil, err
	}
	t.ways.Store(&ways{home: home})
	return t, nil
}

// origin is what tells upstreams apart: of their address only scheme and host count.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// open is the upstream of an address: the one that is there already, or a new one.
func (t *traffic) open(address string, known *ways) (backend, error) {
	u, err := url.Parse(address)
	if err != nil {
		return backend{}, err
	}
	for _, b := range known.all() {
		if b.Upstream != nil && b.origin == origin(u) {
			return b, nil
		}
	}
	up, err := proxy.NewUpstream(u, t.cfg)
	return backend{up, origin(u)}, err
}

func (w *ways) all() [3]backend { return [3]backend{w.home, w.sides[0], w.sides[1]} }

func (w *ways) uses(up *proxy.Upstream) bool {
	return w.home.Upstream == up || w.sides[0].Upstream == up || w.sides[1].Upstream == up
}

// Set is the splitter's, and sees to it that there is where to go. A launch that is over leaves requests with
// the version it ended on, whatever UPSTREAM_URL says.
func (t *traffic) Set(l rollout.Launch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !l.Supersedes(t.Launch()) {
		return false
	}
	before := t.ways.Load()
	next, err := t.waysOf(l, before)
	if err != nil {
		t.log.Error("a launch has no upstreams to go to, and everyone stays where they are", "launch", l.ID, "error", err)
		return false
	}
	t.ways.Store(next) // first: a request whose launch has no ways goes home
	t.Splitter.Set(l)
	for _, b := range before.all() {
		if b.Upstream != nil && !next.uses(b.Upstream) {
			b.Close()
		}
	}
	if next.launch != before.launch {
		select {
		case t.begun <- struct{}{}:
		default:
		}
	}
	return true
}

func (t *traffic) waysOf(l rollout.Launch, now *ways) (*ways, error) {
	stable, errStable := t.open(l.StableURL, now)
	candidate, errCandidate := t.open(l.CandidateURL, now)
	if err := errors.Join(errStable, errCandidate); err != nil {
		return nil, err
	}
	sides := [2]backend{stable, candidate}
	if !l.Phase.Over() {
		return &ways{home: now.home, launch: l.ID, sides: sides}, nil
	}
	home := sides[rollout.Choose(l.Weight, 0)]
	if home.origin != t.configured {
		t.log.Warn("a launch has replaced the version that UPSTREAM_URL names; set it to the new one", "launch", l.ID, "in_force", home.origin, "configured", t.configured)
	}
	return &ways{home: home}, nil
}

// serving is the upstream that most requests go to.
func (t *traffic) serving() *proxy.Upstream {
	w := t.ways.Load()
	if w.launch == "" {
		return w.home.Upstream
	}
	return w.sides[rollout.Choose(t.Weight(), rollout.All/2)].Upstream
}

// each visits the upstreams in use by their versions; without a launch there is only stable.
func (t *traffic) each(visit func(rollout.Version, *proxy.Upstream)) {
	w := t.ways.Load()
	if w.launch == "" {
		visit(rollout.Stable, w.home.Upstream)
		return
	}
	for v, side := range w.sides {
		visit(rollout.Version(v), side.Upstream)
	}
}

// count tells the launch what came of an attempt, by rule 1 of a launch: what the client, the door or a
// stranger did is not the upstream's.
func (t *traffic) count(o proxy.Outcome) {
	t.forwarded.Add(1)
	m := markOf(o)
	switch o.Reason {
	case proxy.ReasonClientGone, proxy.ReasonBadBody:
	case proxy.ReasonTruncated:
		if o.Status < 500 { // otherwise it is a failure already
			t.Broke(m)
		}
	default:
		failed := o.Reason != "" || o.Status >= 500
		t.Done(m, o.Wait, rollout.Outcome{Failed: failed, Unreachable: o.Unreachable})
	}
}

// markOf is the mark of the version that answered, or failed.
func markOf(o proxy.Outcome) rollout.Mark {
	if o.Shielded {
		return rollout.Mark(o.Mark).On(rollout.Stable)
	}
	return rollout.Mark(o.Mark)
}

// close drops idle connections.
func (t *traffic) close() error {
	for _, b := range t.ways.Load().all() {
		if b.Upstream != nil {
			b.Close()
		}
	}
	return nil
}

// Run probes the health of both versions while a launch goes on, whether they have traffic or not.
func (t *traffic) Run(ctx context.Context) error {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-t.begun:
		}
		t.probe(ctx)
	}
}

func (t *traffic) probe(ctx context.Context) {
	w := t.ways.Load()
	if w.launch == "" {
		return
	}
	limit, cancel := context.WithTimeout(ctx, t.within)
	defer cancel()
	var probes sync.WaitGroup
	for v, side := range w.sides {
		probes.Go(func() {
			if err := side.Ping(limit, t.healthPath); ctx.Err() == nil {
				t.Probed(w.launch, rollout.Version(v), err)
			}
		})
	}
	probes.Wait()
}
