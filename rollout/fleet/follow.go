package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// view is a copy of the state.
func (f *Fleet) view() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

func (f *Fleet) change(do func(*state)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(&f.state)
}

// clock is the store's time, counted on from when it was last heard.
func (f *Fleet) clock() time.Time {
	s := f.view()
	return s.now.Add(time.Since(s.at))
}

// call bounds a call to the store, and notes whether it answered.
func (f *Fleet) call(ctx context.Context, do func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, max(callTicks*f.cfg.Tick, time.Second))
	defer cancel()
	err := do(short)
	if ctx.Err() != nil {
		return err // our end, and nothing to say of the store
	}
	away := err
	if errors.Is(err, ErrConflict) {
		away = nil
	}
	f.change(func(s *state) { s.away = away })
	f.tellFault()
	return err
}

// follow puts in force what is new in the journal.
func (f *Fleet) follow(ctx context.Context) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	return f.catchUp(ctx)
}

// catchUp is follow for who has the turn.
func (f *Fleet) catchUp(ctx context.Context) error {
	for more := true; more; {
		s := f.view()
		var page Page
		err := f.call(ctx, func(ctx context.Context) (err error) {
			page, err = f.store.Read(ctx, s.place)
			return err
		})
		if err != nil {
			return err
		}
		var next journal
		var records []rollout.Record
		if next, records, more = s.journal.read(page, f.cfg.Base); more && s.place == (Place{}) {
			next.before = f.formerStable(ctx, next.place.Launch)
		}
		f.obey(next, records, page.Now, !more)
	}
	return nil
}

// obey puts a journal in force that was read up to its end. The turn is held.
func (f *Fleet) obey(next journal, records []rollout.Record, now time.Time, end bool) {
	var heard bool
	var wrote string
	f.change(func(s *state) {
		s.journal, s.now, s.at = next, now, time.Now()
		heard, wrote = s.read, s.wrote
		s.read = s.read || end
	})
	if end {
		f.traffic.Set(next.inForce(f.cfg.Base))
		f.tellFault()
	}
	for _, r := range records {
		if heard {
			f.tell(r, wrote != "" && r.Sum == wrote)
		}
	}
}

func (f *Fleet) tell(r rollout.Record, mine bool) {
	if r.Action != rollout.ActLook {
		f.log.Info("rollout: "+string(r.Action), "launch", r.Launch, "phase", r.Phase, "weight", r.Weight.String(), "actor", r.Actor, "reason", r.Reason)
	}
	if f.cfg.Seen != nil {
		f.cfg.Seen(r, mine)
	}
}

// formerStable is what was stable before a launch, as far as the ends of the one before say.
func (f *Fleet) formerStable(ctx context.Context, launch int64) string {
	var ends []Line
	err := f.call(ctx, func(ctx context.Context) (err error) {
		ends, err = f.store.Ends(ctx, 2)
		return err
	})
	var former journal
	for _, l := range ends {
		r, bad := rollout.DecodeRecord([]byte(l.Text))
		if err != nil || bad != nil || l.Launch >= launch {
			continue
		}
		if former.base = l.Base; r.Opening != nil {
			former.launch.StableURL, former.launch.CandidateURL = r.Opening.StableURL, r.Opening.CandidateURL
		}
		former.launch.Phase = r.Phase
	}
	return former.stable(f.cfg.Base)
}

// write appends a record to a journal. The turn is held.
func (f *Fleet) write(ctx context.Context, j journal, r rollout.Record) error {
	f.change(func(s *state) { s.wrote = r.Sum })
	return f.call(ctx, func(ctx context.Context) error {
		return f.store.Append(ctx, j.place, j.behind(r, f.cfg.Base))
	})
}

// Fault is what a person should know of: the journal cannot be read and everyone is on stable, or the store
// is away and the weights are frozen; nil if all is well.
func (f *Fleet) Fault() error {
	s := f.view()
	switch {
	case s.corrupt != nil:
		return fmt.Errorf("everyone is on stable: %w", s.corrupt)
	case s.away != nil && !s.read:
		return fmt.Errorf("the journal was never read, everyone is on stable: %w", s.away)
	case s.away != nil && time.Since(s.at) > freshTicks*f.cfg.Tick:
		return fmt.Errorf("the store is away, the weights are frozen: %w", s.away)
	}
	return nil
}

// tellFault tells of a fault once when it comes, and once when it goes.
func (f *Fleet) tellFault() {
	fault, text := f.Fault(), ""
	if fault != nil {
		text = fault.Error()
	}
	changed := false
	f.change(func(s *state) { changed, s.fault = s.fault != text, text })
	switch {
	case !changed:
		return
	case fault != nil:
		f.log.Error("rollout: "+text, "unreadable", errors.Is(fault, rollout.ErrJournal))
	default:
		f.log.Info("rollout: the journal is followed again")
	}
	if f.cfg.Fault != nil {
		f.cfg.Fault(fault)
	}
}
