package users

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Doorkeeper knows who may not come in, and whose plan is not the token's, without asking anybody: it
// follows the store's [Feed]. What any instance changes, every Doorkeeper knows within an interval and
// the time of two statements. While the store is away it keeps what it knows.
//
// Load it before serving, then Run it.
type Doorkeeper struct {
	feed      Feed
	cfg       DoorConfig
	users     *shards[Subject, entry]
	sessions  *shards[session, entry]
	since     Position // of standings, less the overlap
	revoked   Position
	round     atomic.Int64 // counts the full loads
	heard     atomic.Int64 // when the feed last answered, in nanoseconds since start
	started   time.Time
	overflown atomic.Bool
}

// session names a session; ids are unique per issuer only.
type session struct{ issuer, id string }

// entry is what is known of a user or a session.
type entry struct {
	status  Status
	plan    string
	version int64     // of the user: an older one never replaces a newer
	until   time.Time // of a session's revocation
	round   int64     // the full load that it was last told in
}

// DoorConfig of a Doorkeeper; the zero value is the default.
type DoorConfig struct {
	// Interval between two looks at the feed; default 1 s.
	Interval time.Duration
	// Overlap is how far each look goes back before the newest change seen, for transactions do
	// not commit in the order of their times; default 60 s. It must be above the longest transaction.
	Overlap time.Duration
	// Reload is how often everything is read anew; default 5 min.
	Reload time.Duration
	// Max bounds the users and the sessions that are known; default 1,000,000 together. What is
	// beyond is not known, and an error is logged.
	Max int
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger; nil discards.
	Logger *slog.Logger
}

func (c DoorConfig) withDefaults() DoorConfig {
	c.Interval = or(c.Interval, time.Second)
	c.Overlap = or(c.Overlap, time.Minute)
	c.Reload = or(c.Reload, 5*time.Minute)
	c.Max = or(c.Max, 1_000_000)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func or[T int | time.Duration](value, fallback T) T {
	if value <= 0 {
		return fallback
	}
	return value
}

// NewDoorkeeper returns one that knows nothing yet.
func NewDoorkeeper(feed Feed, cfg DoorConfig) *Doorkeeper {
	cfg = cfg.withDefaults()
	room := new(atomic.Int64)
	room.Store(int64(cfg.Max))
	return &Doorkeeper{
		feed: feed, cfg: cfg, started: cfg.Now(),
		users:    newShards[Subject, entry](room, func(s Subject) string { return s.Subject }),
		sessions: newShards[session, entry](room, func(s session) string { return s.id }),
	}
}

// Verdict on a caller.
type Verdict struct {
	// Status is Active for everybody of whom nothing else is known.
	Status Status
	// Plan is the user's own, "" for the token's.
	Plan string
	// Revoked says that the session has been ended.
	Revoked bool
}

// Standing returns what is known of a caller; sessionID may be "". It takes at most two
// look-ups in maps.
func (d *Doorkeeper) Standing(issuer, subject, sessionID string) Verdict {
	v := Verdict{Status: Active}
	if e, ok := d.users.get(Subject{issuer, subject}); ok {
		v.Status, v.Plan = e.status, e.plan
	}
	if sessionID != "" {
		// Until is not looked at: no token of the session is valid after it, and reading a clock
		// takes longer than all the rest.
		_, v.Revoked = d.sessions.get(session{issuer, sessionID})
	}
	return v
}

// Tell lets the Doorkeeper know of a user's standing. An older one never replaces a newer.
func (d *Doorkeeper) Tell(s Standing) {
	round := d.round.Load()
	d.full(d.users.update(s.Subject, func(old entry, known bool) entry {
		if known && old.version > s.Version {
			old.round = max(round, old.round)
			return old
		}
		return entry{status: s.Status, plan: s.Plan, version: s.Version, round: max(round, old.round)}
	}))
}

// TellRevoked lets it know of a revoked session; of two ends the later one counts.
func (d *Doorkeeper) TellRevoked(r Revocation) {
	if !d.cfg.Now().Before(r.Until) {
		return
	}
	round := d.round.Load()
	d.full(d.sessions.update(session{r.Issuer, r.SessionID}, func(old entry, _ bool) entry {
		e := entry{until: r.Until, round: max(round, old.round)}
		if old.until.After(e.until) {
			e.until = old.until
		}
		return e
	}))
}

// full logs, once per full load, that there was no room.
func (d *Doorkeeper) full(stored bool) {
	if !stored && !d.overflown.Swap(true) {
		d.cfg.Logger.Error("the doorkeeper is full: not every suspension is known here", "max", d.cfg.Max)
	}
}

// Age is how long ago the feed last answered; since the start, if it never has.
func (d *Doorkeeper) Age() time.Duration {
	return d.cfg.Now().Sub(d.started) - time.Duration(d.heard.Load())
}

// Known is how many users and sessions are known, at most DoorConfig.Max.
func (d *Doorkeeper) Known() int { return d.users.len() + d.sessions.len() }

// Run follows the feed until ctx ends, and then returns nil. The store being away is logged and
// tried again; it is for Age to tell.
func (d *Doorkeeper) Run(ctx context.Context) error {
	look := time.NewTicker(d.cfg.Interval)
	defer look.Stop()
	reload := time.NewTicker(d.cfg.Reload)
	defer reload.Stop()
	away := false
	for {
		err := error(nil)
		select {
		case <-ctx.Done():
			return nil
		case <-reload.C:
			err = d.Load(ctx)
		case <-look.C:
			err = d.look(ctx)
		}
		if failed := err != nil && ctx.Err() == nil; failed != away {
			away = failed
			d.cfg.Logger.Warn("the doorkeeper's feed", "away", away, "error", err)
		}
	}
}
