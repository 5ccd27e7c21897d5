package fleet

import (
	"cmp"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// journal is what the lines read so far amount to. It is a value: read returns the journal after more
// of them.
type journal struct {
	place  Place
	launch rollout.Launch
	base   string    // Line.Base of the first line of the launch
	before string    // what was stable before the launch, empty if unknown
	former time.Time // when the launch before this one was started
	// latest is the latest record that could be read, and verdict the one of the latest look of this epoch.
	latest  rollout.Record
	verdict *rollout.Verdict
	corrupt error // why the launch cannot be believed
	aside   bool  // it was corrupt, and an operator has put it aside
}

// read returns the journal after a page, the records that were in it, and whether to read on.
func (j journal) read(p Page, base string) (next journal, records []rollout.Record, more bool) {
	asked := j.place
	for _, l := range p.Lines {
		if r, ok := j.add(l); ok {
			records = append(records, r)
		}
	}
	switch {
	case len(p.Lines) == PageSize:
		return j, records, true
	case p.Newest.Launch > j.place.Launch:
		return journal{place: Place{Launch: p.Newest.Launch}, before: j.stable(base), former: j.startedAt()}, records, true
	case p.Newest.Launch < asked.Launch || p.Newest.Launch == asked.Launch && p.Newest.Revision < asked.Revision:
		j.corrupt = fmt.Errorf("%w: it ends at %v, and was read up to %v", rollout.ErrJournal, p.Newest, asked)
		j.place, j.aside = p.Newest, false
	}
	return j, records, false
}

// add reads one line. Behind a line that is corrupt only one thing can be believed, see [journal.putAside].
func (j *journal) add(l Line) (rollout.Record, bool) {
	j.place = l.Place
	r, err := rollout.DecodeRecord([]byte(l.Text))
	if j.corrupt != nil || j.aside {
		if err == nil && r.Sum == "" && r.Action == rollout.ActRollBack {
			j.corrupt, j.aside, j.latest, j.verdict = nil, true, r, nil
			j.launch.Phase = rollout.RolledBack
			return r, true
		}
		return rollout.Record{}, false
	}
	next, epoch := j.launch, j.launch.Epoch
	if err == nil {
		next, err = j.launch.Apply(r)
	}
	if err == nil && l.Revision != r.Revision {
		err = fmt.Errorf("%w: revision %d stands in the place of %d", rollout.ErrJournal, r.Revision, l.Revision)
	}
	if err != nil {
		j.corrupt = fmt.Errorf("launch %d, line %d: %w", l.Launch, l.Revision, err)
		return rollout.Record{}, false
	}
	if r.Revision == 1 {
		j.base = l.Base
	}
	if j.launch, j.latest = next, r; r.Verdict != nil || next.Epoch != epoch {
		j.verdict = r.Verdict
	}
	return r, true
}

// over is whether nothing is under way.
func (j journal) over() bool { return j.corrupt != nil || j.aside || j.launch.Phase.Over() }

// inForce is the launch for the traffic of an instance whose configuration names base as its upstream.
func (j journal) inForce(base string) rollout.Launch {
	l := j.launch
	switch {
	case j.corrupt != nil || j.aside:
		l.ID = cmp.Or(l.ID, fmt.Sprintf("launch %d", j.place.Launch))
		l.StableURL = j.stable(base)
		l.CandidateURL = cmp.Or(l.CandidateURL, l.StableURL)
		l.Phase, l.Weight, l.Revision = rollout.RolledBack, 0, max(l.Revision, j.place.Revision)+1
		l.Epoch++
		l.StartedAt = j.startedAt()
	case l.Phase.Over() && j.base != base:
		return rollout.Launch{}
	}
	return l
}

// startedAt is when the launch was started; if that cannot be read, it was after the one before.
func (j journal) startedAt() time.Time {
	if j.launch.StartedAt.IsZero() && j.place.Launch > 0 {
		return j.former.Add(time.Nanosecond)
	}
	return j.launch.StartedAt
}

// stable is the upstream that a launch would leave from. What the last launch has come to holds as long as
// the configuration still says what it said then; once it says something else it is right.
func (j journal) stable(base string) string {
	l := j.launch
	switch {
	case j.corrupt != nil || j.aside:
		return cmp.Or(l.StableURL, j.before, base)
	case l.Phase == rollout.None:
		return cmp.Or(j.before, base)
	case j.base != base:
		return base
	case l.Phase == rollout.Completed:
		return l.CandidateURL
	}
	return l.StableURL
}

// behind is the line for a record, behind the newest. A first record opens the next launch.
func (j journal) behind(r rollout.Record, base string) Line {
	if r.Opening != nil {
		return Line{Place{j.place.Launch + 1, 1}, base, string(r.Encode())}
	}
	return Line{Place{j.place.Launch, j.place.Revision + 1}, j.base, string(r.Encode())}
}

// putAside is the record of an operator who has seen that the journal of a launch is corrupt. It hangs in
// no chain: where all others have a checksum it has none.
func (j journal) putAside(actor, reason string, now time.Time) rollout.Record {
	return rollout.Record{
		Format: rollout.Format, Launch: j.launch.ID, Revision: j.place.Revision + 1, At: now.UTC(), Actor: actor,
		Action: rollout.ActRollBack, Reason: reason, Phase: rollout.RolledBack,
	}
}
