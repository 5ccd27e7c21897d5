package users

import (
	"context"
	"time"
)

// feedPage bounds what one statement of the feed brings.
const feedPage = 1000

// lookTimeout bounds one look, so that a store that hangs is noticed. A full load has ten times that.
const lookTimeout = 5 * time.Second

// Load reads the whole feed, and then forgets what was in none of it: sessions that have expired, and
// users who are as any other again. What was known before stays known meanwhile. It must not run
// beside Run.
func (d *Doorkeeper) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*lookTimeout)
	defer cancel()
	round := d.round.Add(1)
	d.overflown.Store(false)
	since, revoked, err := d.follow(ctx, Position{}, Position{})
	if err != nil {
		return err
	}
	now := d.cfg.Now()
	d.users.prune(func(e entry) bool { return e.round < round || e.status == Active && e.plan == "" })
	d.sessions.prune(func(e entry) bool { return e.round < round || !now.Before(e.until) })
	d.since, d.revoked = since, revoked
	return nil
}

// look reads what has changed lately.
func (d *Doorkeeper) look(ctx context.Context) error {
	if d.round.Load() == 0 {
		return d.Load(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	since, revoked, err := d.follow(ctx, d.back(d.since), d.back(d.revoked))
	if err != nil {
		return err
	}
	// Never earlier: the newest change may have moved away.
	d.since, d.revoked = later(since, d.since), later(revoked, d.revoked)
	return nil
}

// back is the place from which what was committed late is seen too.
func (d *Doorkeeper) back(p Position) Position {
	if p.At.IsZero() {
		return Position{}
	}
	return Position{At: p.At.Add(-d.cfg.Overlap)}
}

// follow reads both halves of the feed from a place on, and returns where it came to.
func (d *Doorkeeper) follow(ctx context.Context, since, revoked Position) (Position, Position, error) {
	for more := true; more; {
		page, err := d.feed.Standings(ctx, since, feedPage)
		if err != nil {
			return since, revoked, err
		}
		for _, s := range page {
			d.Tell(s)
			since = Position{At: s.ChangedAt, ID: s.UserID}
		}
		more = len(page) == feedPage
	}
	for more := true; more; {
		page, err := d.feed.Revocations(ctx, revoked, feedPage)
		if err != nil {
			return since, revoked, err
		}
		for _, r := range page {
			d.TellRevoked(r)
			revoked = Position{At: r.At, ID: r.SessionID}
		}
		more = len(page) == feedPage
	}
	d.heard.Store(int64(d.cfg.Now().Sub(d.started)))
	return since, revoked, nil
}

func later(a, b Position) Position {
	if b.At.After(a.At) {
		return b
	}
	return a
}
