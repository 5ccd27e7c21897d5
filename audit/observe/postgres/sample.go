package postgres

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// mostListed bounds the sessions of one sample, mostSeen those that are remembered, and mostKinds the kinds of
	// idle sessions and of waits.
	mostListed = 2000
	mostSeen   = 20000
	mostKinds  = 200
)

// session is a line of pg_stat_activity.
type session struct {
	pid         int
	start       time.Time
	here        bool // in the audited database
	application string
	state       string
	changed     time.Time
	query       string
	blockers    []int
	now         time.Time
}

type identity struct {
	pid   int
	start time.Time
}

// sampler keeps what the samples of one window have shown. The first is taken when the window begins.
type sampler struct {
	began   time.Time // the server's clock
	samples int

	seen            map[identity]bool // true: opened in the window
	left, active    int
	peakHere, peak  int
	idle            map[string]*IdleInTransaction
	waits           map[[2]string]*LockWait
	waiting         map[int]time.Time // by pid, since when it was seen to wait
	maintainedBy    int               // samples with an autovacuum worker in the database
	full, truncated bool
}

func newSampler() *sampler {
	return &sampler{
		seen: map[identity]bool{}, idle: map[string]*IdleInTransaction{},
		waits: map[[2]string]*LockWait{}, waiting: map[int]time.Time{},
	}
}

// sample lists the sessions. Who blocks whom is asked for those that wait only, since it stops the server's locks for a moment.
func (o *Observer) sample(ctx context.Context, s *sampler) error {
	if o.conn == nil {
		return ErrClosed
	}
	var all []session
	maintained := false
	err := o.rows(ctx, `SELECT pid, coalesce(backend_start, 'epoch'), coalesce(datname = current_database(), false),
		coalesce(application_name, ''), coalesce(state, ''), coalesce(state_change, 'epoch'),
		CASE WHEN state <> 'idle' THEN left(query, 1000) ELSE '' END,
		CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) END, clock_timestamp(), coalesce(backend_type, 'client backend')
		FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name <> '`+applicationName+`' AND datid <> 0
		AND coalesce(backend_type, 'client backend') IN ('client backend', 'autovacuum worker') ORDER BY pid LIMIT $1`,
		[]any{mostListed}, func(rows pgx.Rows) error {
			var l session
			var kind string
			err := rows.Scan(&l.pid, &l.start, &l.here, &l.application, &l.state, &l.changed, &l.query, &l.blockers, &l.now, &kind)
			if kind == "client backend" {
				all = append(all, l)
			} else {
				maintained = maintained || l.here
			}
			return err
		})
	if err != nil {
		return err
	}
	if maintained {
		s.maintainedBy++
	}
	s.add(all)
	return nil
}

func (s *sampler) add(all []session) {
	s.samples++
	s.truncated = s.truncated || len(all) >= mostListed
	s.peak = max(s.peak, len(all))
	byPID := make(map[int]session, len(all))
	here := 0
	s.left, s.active = 0, 0
	waiting := map[int]time.Time{}
	for _, kind := range s.idle {
		kind.Left = false
	}
	for _, l := range all {
		byPID[l.pid] = l
	}
	for _, l := range all {
		if l.here {
			here++
			if s.samples > 1 && l.changed.After(s.began) {
				s.active++
			}
			s.meet(l)
			s.rest(l)
			s.wait(l, byPID, waiting)
		}
	}
	s.peakHere, s.waiting = max(s.peakHere, here), waiting
}

func (s *sampler) meet(l session) {
	who := identity{l.pid, l.start}
	opened, met := s.seen[who]
	if !met && len(s.seen) == mostSeen {
		s.full = true
		return
	}
	if !met {
		opened = s.samples > 1
		s.seen[who] = opened
	}
	if opened {
		s.left++
	}
}

func (s *sampler) rest(l session) {
	if !strings.HasPrefix(l.state, "idle in transaction") {
		return
	}
	last := Normalise(l.query)
	before := s.samples == 1 || l.changed.Before(s.began)
	key := fmt.Sprint(before, "\x00", l.application, "\x00", last)
	kind := s.idle[key]
	if kind == nil {
		if len(s.idle) == mostKinds {
			s.full = true
			return
		}
		kind = &IdleInTransaction{Application: l.application, Last: last, Before: before}
		s.idle[key] = kind
	}
	kind.Longest = max(kind.Longest, l.now.Sub(l.changed))
	kind.Left = true
}

func (s *sampler) wait(l session, byPID map[int]session, waiting map[int]time.Time) {
	if len(l.blockers) == 0 {
		return
	}
	since, known := s.waiting[l.pid]
	if !known {
		since = l.now
	}
	waiting[l.pid] = since
	key := [2]string{Normalise(l.query), Normalise(byPID[l.blockers[0]].query)}
	w := s.waits[key]
	if w == nil {
		if len(s.waits) == mostKinds {
			s.full = true
			return
		}
		w = &LockWait{Waiting: key[0], Blocking: key[1]}
		s.waits[key] = w
	}
	w.Longest = max(w.Longest, l.now.Sub(since))
}

// report puts what was seen into obs.
func (s *sampler) report(obs *Observation) {
	for _, opened := range s.seen {
		if opened {
			obs.SessionsSeen++
		}
	}
	obs.SessionsActive = s.active
	obs.SessionsLeft, obs.PeakSessions, obs.PeakConnections = s.left, s.peakHere, s.peak
	obs.Idle = longest(maps.Values(s.idle), mostIdle, func(i IdleInTransaction) time.Duration { return i.Longest })
	obs.Waits = longest(maps.Values(s.waits), mostWaits, func(w LockWait) time.Duration { return w.Longest })
	if s.full || s.truncated {
		obs.Doubts = append(obs.Doubts, "there were too many sessions to remember all; those seen are lower bounds")
	}
	if s.maintainedBy > 0 {
		obs.Doubts = append(obs.Doubts, "autovacuum was at work in the window: some scans and transactions that wrote may be its own")
	}
}

func longest[T any](all iter.Seq[*T], most int, by func(T) time.Duration) []T {
	var list []T
	for t := range all {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(by(b), by(a)) })
	return list[:min(len(list), most)]
}
