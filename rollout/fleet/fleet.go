package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantryhq/gantry/rollout"
)

// Traffic is the side of the door, usually a rollout.Splitter.
type Traffic interface {
	// Set puts a launch in force if it is newer than the one before, and reports whether it was.
	Set(l rollout.Launch) bool
	// Observe is what this instance has seen in the epoch of the launch in force.
	Observe() rollout.Observation
	// Trip sends everyone on this instance to stable until Set brings a decision.
	Trip(reason string)
	// Tripped is the reason of a trip, and empty without one.
	Tripped() string
}

// Config of a Fleet. The zero value of each field is its default.
type Config struct {
	// Name of this instance, for people; default the host's name and the process id.
	Name string
	// Base is the upstream in the configuration: what is stable before the first launch. The result
	// of a launch replaces it until the configuration names another than it did at that launch.
	Base string
	// Requests, if not nil, counts the requests to any version since the start, for the warning that they
	// will not do.
	Requests func() int64
	// Seen, if not nil, is told of each record as soon as it is in force here, but of none from before the start.
	// mine says that this instance wrote it. It must not wait.
	Seen func(r rollout.Record, mine bool)
	// Fault, if not nil, is told whenever [Fleet.Fault] changes. It must not wait.
	Fault func(error)
	// Tick is the pace: each instance publishes and looks after the journal once a tick, and the judge looks
	// every five. Default 1 s, which all that is said of time here assumes.
	Tick   time.Duration
	Logger *slog.Logger
}

// In ticks: how often the judge looks, and how long a lease lasts without being renewed.
const (
	lookTicks  = 5
	leaseTicks = 5
)

// callTicks bounds every call to the store.
const callTicks = 2

// Fleet is one instance among those that share a store.
type Fleet struct {
	store   Store
	traffic Traffic
	cfg     Config
	id      string // of this process
	log     *slog.Logger
	wake    chan struct{} // holds one call to read the journal now

	turn sync.Mutex // whoever reads or writes the journal has it

	mu    sync.Mutex
	state state
	rate  rate
}

// state is what the goroutines of a Fleet tell each other.
type state struct {
	journal
	read    bool      // the journal has been read once
	now     time.Time // by the store's clock, when it was
	at      time.Time // by ours
	away    error     // why the store did not answer when asked last
	judge   string    // who has the lease
	wrote   string    // Record.Sum of the line that was written here last
	looked  time.Time // by the store's clock: the latest look here
	told    time.Time // by ours: the latest share
	pressed bool      // look at once, whoever the judge is
	owed    *order    // an abort that could not be written
	fault   string    // as told last
}

// New returns the instance, with the traffic as the journal has it. A store that does not answer is no
// error: everyone stays on stable until it does.
func New(ctx context.Context, store Store, traffic Traffic, cfg Config) *Fleet {
	if cfg.Tick <= 0 {
		cfg.Tick = time.Second
	}
	if cfg.Name == "" {
		host, _ := os.Hostname() // without one the number must do
		cfg.Name = fmt.Sprintf("%s/%d", host, os.Getpid())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{store: store, traffic: traffic, cfg: cfg, id: rand.Text(), log: cfg.Logger, wake: make(chan struct{}, 1)}
	f.turn.Lock()
	defer f.turn.Unlock()
	_ = f.catchUp(ctx) // told as a fault
	return f
}

// Run follows the journal, publishes, and judges when it is this instance's turn, until ctx ends; then it
// says goodbye to the others.
func (f *Fleet) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.watch(ctx) })
	group.Go(func() error { return f.guard(ctx) })
	group.Go(func() error { return f.keepUp(ctx) })
	err := group.Wait()
	f.leave(context.WithoutCancel(ctx))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// watch has the journal read whenever the store says that there is something new, and tries again when it
// has lost the store.
func (f *Fleet) watch(ctx context.Context) error {
	for {
		if err := f.store.Watch(ctx, f.poke); err != nil && ctx.Err() == nil {
			f.log.Debug("rollout: the store is not watched", "error", err)
		}
		if !pause(ctx, f.cfg.Tick) {
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (f *Fleet) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// guard acts on a candidate that is plainly down, twice a tick. It waits for nothing, least of all the store.
func (f *Fleet) guard(ctx context.Context) error {
	for pause(ctx, f.cfg.Tick/2) {
		f.check()
	}
	return ctx.Err()
}

func (f *Fleet) check() {
	l, o := f.view().launch, f.traffic.Observe()
	if l.Phase.Over() || o.Epoch != l.Epoch || f.traffic.Tripped() != "" {
		return
	}
	reason, tripped := l.Plan.Tripped(o)
	if !tripped {
		return
	}
	f.traffic.Trip(reason)
	f.log.Error("rollout: this instance is back on stable", "launch", l.ID, "reason", reason)
	f.change(func(s *state) { s.pressed = true })
	f.poke()
}

// keepUp does once a tick all that needs the store, and reads the journal between whenever something is
// new.
func (f *Fleet) keepUp(ctx context.Context) error {
	tick := time.NewTicker(f.cfg.Tick)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			f.sample()
			err = f.beat(ctx)
		case <-f.wake:
			if err = f.follow(ctx); err == nil && f.view().pressed {
				err = f.beat(ctx)
			}
		}
		if err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
			f.log.Debug("rollout", "error", err)
		}
	}
}

func (f *Fleet) sample() {
	if f.cfg.Requests == nil {
		return
	}
	count := f.cfg.Requests()
	f.change(func(*state) { f.rate.sample(time.Now(), count) })
}

// beat is one round: read, pay what is owed, publish, and judge if it is our turn. The first call that
// fails ends it, so that a store that is away costs one wait and not four.
func (f *Fleet) beat(ctx context.Context) error {
	if err := f.follow(ctx); err != nil {
		return err
	}
	if err := f.pay(ctx); err != nil {
		return err
	}
	s := f.view()
	if s.over() && time.Since(s.told) < idleTicks*f.cfg.Tick {
		return nil
	}
	if err := f.publish(ctx, false); err != nil || s.over() {
		f.change(func(s *state) { s.pressed = s.pressed && err != nil })
		return err
	}
	holder, err := f.hold(ctx, leaseTicks*f.cfg.Tick)
	if err != nil {
		return err
	}
	if s.pressed || holder == f.id && f.clock().Sub(s.looked) >= lookTicks*f.cfg.Tick-f.cfg.Tick/2 {
		return f.look(ctx)
	}
	return nil
}

func (f *Fleet) hold(ctx context.Context, length time.Duration) (holder string, err error) {
	err = f.call(ctx, func(ctx context.Context) (err error) {
		holder, err = f.store.Hold(ctx, f.id, length)
		return err
	})
	if err == nil {
		f.change(func(s *state) { s.judge = holder })
	}
	return holder, err
}

func (f *Fleet) publish(ctx context.Context, left bool) error {
	s := f.view()
	mine := share{Name: f.cfg.Name, Tripped: f.traffic.Tripped(), Left: left}
	f.change(func(*state) { mine.Rate = f.rate.perSecond() })
	if !s.over() {
		mine.Launch, mine.Seen = s.place.Launch, f.traffic.Observe()
	}
	body, err := json.Marshal(mine)
	if err != nil {
		return err
	}
	err = f.call(ctx, func(ctx context.Context) error { return f.store.Publish(ctx, f.id, string(body)) })
	if err == nil {
		f.change(func(s *state) { s.told = time.Now() })
	}
	return err
}

// look is one look of the judge at the sum of all instances.
func (f *Fleet) look(ctx context.Context) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	began := time.Now()
	shares, err := f.shares(ctx)
	if err != nil {
		return err
	}
	s, now := f.view(), f.clock()
	if s.over() {
		return nil
	}
	_, r := rollout.Next(s.launch, observe(s.journal, shares, f.cfg.Tick), now)
	f.change(func(s *state) { s.looked, s.pressed = now, false })
	if !s.worthWriting(r, f.cfg.Tick) || time.Since(began) > leaseTicks*f.cfg.Tick {
		return nil // or somebody else is the judge by now, and has seen more
	}
	if err := f.write(ctx, s.journal, r); err != nil {
		return err
	}
	return f.catchUp(ctx)
}

// Looks at which nothing changes are all written while people watch, for half an hour of an epoch, and then
// once a minute: a launch that is paused over a holiday leaves no millions of lines.
const (
	closelyTicks = 1800
	rarelyTicks  = 60
)

func (j journal) worthWriting(r rollout.Record, tick time.Duration) bool {
	if r.Revision == 0 {
		return false
	}
	old := j.verdict
	return r.Action != rollout.ActLook || old == nil || r.Verdict == nil || r.Verdict.Evidence != old.Evidence ||
		r.At.Sub(j.launch.EpochAt) < closelyTicks*tick || r.At.Sub(j.latest.At) >= rarelyTicks*tick
}

func (f *Fleet) shares(ctx context.Context) (shares []share, err error) {
	err = f.call(ctx, func(ctx context.Context) error {
		notices, err := f.store.Published(ctx)
		if err != nil {
			return err
		}
		shares, err = readShares(notices)
		return err
	})
	return shares, err
}

// leave says goodbye, so that nobody waits for this instance and the judge's place is free at once.
func (f *Fleet) leave(ctx context.Context) {
	if f.publish(ctx, true) != nil {
		return
	}
	if f.view().judge == f.id {
		_, _ = f.hold(ctx, 0) // else it ends by itself
	}
}
