package alert

import "time"

// record is an alert and what decides its next step. It is what the state file keeps.
type record struct {
	Alert
	// Calm is since when the condition of a firing alert has not held; zero while it does.
	Calm time.Time `json:"calm,omitzero"`
	// Seen is when the rule was last evaluated.
	Seen time.Time `json:"seen,omitzero"`
	// Told is when the receivers were last told that it fires; zero before the first time of an incident.
	Told time.Time `json:"told,omitzero"`
	// Again says that a silence ended, so that a firing alert is told anew.
	Again bool `json:"again,omitempty"`
}

func newRecord(r Rule, now time.Time) *record {
	return &record{Alert: Alert{Rule: r, State: Inactive, Since: now}}
}

// observe takes the next reading into account, and returns the incident that ended by it if anybody was told of it.
//
// Time without data is time that nothing is known of: it neither brings a pending alert nearer to firing nor a firing
// one nearer to its end.
func (r *record) observe(reading Reading, ok bool, now time.Time, settle time.Duration) (ended *Alert) {
	r.notBefore(now)
	gap := time.Duration(0)
	if !r.Seen.IsZero() {
		gap = now.Sub(r.Seen)
	}
	r.Seen, r.NoData = now, !ok
	if !r.SilencedUntil.IsZero() && !r.silenced(now) {
		r.lift()
	}
	switch {
	case ok:
		r.Reading = reading
		return r.turn(r.Rule.Condition.Holds(reading.Value), now, settle)
	case r.State == Pending:
		r.Since = r.Since.Add(gap)
	case !r.Calm.IsZero():
		r.Calm = r.Calm.Add(gap)
	}
	return nil
}

// turn moves between the states.
func (r *record) turn(holds bool, now time.Time, settle time.Duration) (ended *Alert) {
	switch {
	case r.State == Firing && holds:
		r.Calm = time.Time{}
	case r.State == Firing && r.Calm.IsZero():
		r.Calm = now
	case r.State == Firing && now.Sub(r.Calm) >= settle:
		ended = r.resolve(now)
	case r.State == Pending && !holds:
		r.State, r.Since = Inactive, now
	case r.State == Inactive && holds:
		r.State, r.Since = Pending, now
	}
	if r.State == Pending && now.Sub(r.Since) >= r.Rule.For {
		r.State, r.Since, r.Fired = Firing, now, now
	}
	return ended
}

func (r *record) resolve(now time.Time) (ended *Alert) {
	if !r.Told.IsZero() {
		a := r.Alert
		ended = &a
	}
	r.State, r.Since = Inactive, now
	r.Incident, r.AcknowledgedBy, r.Told, r.Calm, r.Again = "", "", time.Time{}, time.Time{}, false
	return ended
}

// lift ends a silence.
func (r *record) lift() {
	r.Again = r.Again || r.State == Firing && !r.SilencedUntil.IsZero()
	r.SilencedUntil, r.SilencedBy = time.Time{}, ""
}

// notBefore mends times that a clock which was set back left in the future.
func (r *record) notBefore(now time.Time) {
	for _, t := range []*time.Time{&r.Since, &r.Calm, &r.Seen, &r.Told} {
		if t.After(now) {
			*t = now
		}
	}
}

func (r *record) silenced(now time.Time) bool { return r.SilencedUntil.After(now) }

// due says that the receivers are to be told now that the alert fires.
func (r *record) due(now time.Time, repeat time.Duration) bool {
	switch {
	case r.State != Firing || r.silenced(now):
		return false
	case r.Told.IsZero():
		return true
	case r.AcknowledgedBy != "":
		return false
	}
	return r.Again || r.Rule.Severity == Critical && now.Sub(r.Told) >= repeat
}
