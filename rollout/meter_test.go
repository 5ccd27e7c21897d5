package rollout

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAMeterCountsByVersionAndCaller(t *testing.T) {
	m := NewMeter(7)
	m.Count(Stable, 17, Outcome{})
	m.Count(Candidate, 9999, Outcome{Failed: true})
	m.Count(Candidate, 9999, Outcome{Failed: true, Slow: true})
	m.Count(Candidate, 0, Outcome{Slow: true})
	m.Count(Candidate, 8, Outcome{Unreachable: true})
	want := Counts{
		Requests: 4, Failed: Tally{9999: 2, 8: 1}, Slow: Tally{9999: 1, 0: 1},
		Callers: one(0).or(one(8)).or(one(9999)), Streak: Streak{Failures: 2, Unreachable: 1},
	}
	if diff := cmp.Diff(want, m.Counts(Candidate)); diff != "" {
		t.Error(diff)
	}
	if got := m.Counts(Stable); got.Requests != 1 || got.Failed != nil || got.Callers.Len() != 1 {
		t.Errorf("stable = %+v, want one request of one caller", got)
	}
	if m.Epoch() != 7 {
		t.Errorf("epoch = %d, want 7", m.Epoch())
	}
}

func TestOneClientMakesNoStreak(t *testing.T) {
	type step struct {
		caller BasisPoints
		o      Outcome
	}
	failed, fine, refused := Outcome{Failed: true}, Outcome{}, Outcome{Failed: true, Unreachable: true}
	for name, c := range map[string]struct {
		steps []step
		want  Streak
	}{
		"one client, over and over": {[]step{{1, failed}, {1, failed}, {1, failed}, {1, failed}, {1, failed}}, Streak{Failures: 2}},
		"and another":               {[]step{{1, failed}, {1, failed}, {1, failed}, {2, failed}, {1, failed}}, Streak{Failures: 3}},
		"three clients":             {[]step{{1, failed}, {2, failed}, {1, failed}, {3, failed}, {2, failed}}, Streak{Failures: 5}},
		"a fine answer between":     {[]step{{1, failed}, {2, failed}, {9, fine}, {3, failed}}, Streak{Failures: 2}},
		"the longest of two":        {[]step{{1, failed}, {2, failed}, {3, failed}, {9, fine}, {4, failed}}, Streak{Failures: 3}},
		"refused, of one client":    {[]step{{1, refused}, {1, refused}, {1, refused}}, Streak{Failures: 2, Unreachable: 3}},
		"refused, but for a 500":    {[]step{{1, refused}, {2, failed}, {3, refused}}, Streak{Failures: 3, Unreachable: 1}},
		"more than are remembered":  {[]step{{1, failed}, {2, failed}, {3, failed}, {4, failed}, {5, failed}, {6, failed}, {7, failed}, {8, failed}, {9, failed}, {10, failed}}, Streak{Failures: 10}},
	} {
		m := NewMeter(1)
		for _, s := range c.steps {
			m.Count(Candidate, s.caller, s.o)
		}
		if got := m.Counts(Candidate).Streak; got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAMeterCountsEveryRequestOfManyGoroutines(t *testing.T) {
	m := NewMeter(1)
	var all sync.WaitGroup
	for worker := range BasisPoints(8) {
		all.Go(func() {
			for i := range BasisPoints(1000) {
				m.Count(Candidate, i, Outcome{Failed: i%2 == 0, Slow: i == worker})
				if i%100 == 0 {
					if c := m.Counts(Candidate); c.Failed.Sum() > c.Requests {
						t.Errorf("%d of %d failed", c.Failed.Sum(), c.Requests)
					}
				}
			}
		})
	}
	all.Wait()
	c := m.Counts(Candidate)
	if c.Requests != 8000 || c.Failed.Sum() != 4000 || c.Slow.Sum() != 8 || c.Callers.Len() != 1000 {
		t.Errorf("%d requests of %d callers, %d failed, %d slow, want 8000 of 1000, 4000, 8", c.Requests, c.Callers.Len(), c.Failed.Sum(), c.Slow.Sum())
	}
}

// The sum of what instances counted, sent as JSON, is what one instance would have counted.
func TestCountsOfInstancesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		single := NewMeter(1)
		meters := []*Meter{NewMeter(1), NewMeter(1), NewMeter(1)}
		for range rapid.IntRange(0, 200).Draw(t, "requests") {
			caller := BasisPoints(rapid.Int32Range(0, int32(All)-1).Draw(t, "caller"))
			o := Outcome{Failed: rapid.Bool().Draw(t, "failed"), Slow: rapid.Bool().Draw(t, "slow")}
			single.Count(Candidate, caller, o)
			rapid.SampledFrom(meters).Draw(t, "instance").Count(Candidate, caller, o)
		}
		var sum Counts
		for _, m := range meters {
			sent, err := json.Marshal(m.Counts(Candidate))
			if err != nil {
				t.Fatal(err)
			}
			var received Counts
			if err := json.Unmarshal(sent, &received); err != nil {
				t.Fatal(err)
			}
			sum = sum.Add(received)
		}
		want := single.Counts(Candidate)
		sum.Streak, want.Streak = Streak{}, Streak{} // of one instance each
		if diff := cmp.Diff(want, sum); diff != "" {
			t.Fatal(diff)
		}
	})
}
