package rollout

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestABadRequestIsRefusedWithEveryFault(t *testing.T) {
	_, _, err := Start(Request{
		Salt: []byte("short"), StableURL: "http://a", CandidateURL: "http://a",
		Plan: Plan{Steps: []Step{{Weight: 5000}, {Weight: 1000, MinTime: -1}}, MaxErrors: 2, OnInconclusive: "hope"},
	}, noon)
	if err == nil {
		t.Fatal("started")
	}
	for _, want := range []string{
		"id: is empty", "salt: 5 bytes", "candidate: http://a is the stable version",
		"steps[1]: 10 % is not above the 50 % before it", "steps[1].min_time", "steps: the last is 10 %, it must be 100 %",
		"max_errors: 2", `on_inconclusive: "hope"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("faults lack %q:\n%v", want, err)
		}
	}
}

func TestACandidateOfAnotherSchemeIsRefused(t *testing.T) {
	for candidate, want := range map[string]string{
		"https://b": `candidate: scheme "https" differs from "http" of stable`, "": "is no URL", "http://b\x00": "is no URL",
	} {
		r := Request{ID: "l", Salt: make([]byte, 16), StableURL: "http://a", CandidateURL: candidate}
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("candidate %q: %v, want %q", candidate, err, want)
		}
	}
	if err := (Request{ID: "l", Salt: make([]byte, 16), StableURL: "v1", CandidateURL: "v2"}).Validate(); err != nil {
		t.Errorf("two handlers of one process: %v", err)
	}
}

func TestALimitOfZeroIsTheDefaultAndBelowItRefused(t *testing.T) {
	if got := DefaultPlan(); got.MaxErrors != 0.001 || got.Validate() != nil {
		t.Errorf("default plan = %+v (%v)", got, got.Validate())
	}
	for _, p := range []Plan{{MaxErrors: -0.1}, {MaxSlow: -1}, {SlowAfter: -1}, {Alpha: 0.5}, {MaxStreak: 1}, {MinRequests: -1}, {MinCallers: -1}, {CallerCap: -1}, {MaxProbes: -1}, {Watch: -1}, {Steps: make([]Step, 200)}} {
		if err := p.Validate(); err == nil {
			t.Errorf("%+v is taken for a plan", p)
		}
	}
}

func TestAbortWorksWhereverTheCandidateHasTraffic(t *testing.T) {
	for _, phase := range []Phase{Running, Paused, HeldShared, HeldWorse, HeldAlone, Inconclusive, Watching} {
		l := begun(t, Plan{})
		l.Phase = phase
		l, r, err := l.Abort("ops", "enough", noon)
		if err != nil {
			t.Fatalf("%s: %v", phase, err)
		}
		wantPhase(t, l, RolledBack, 0)
		if r.Action != ActRollBack || r.Actor != "ops" || r.Reason != "enough" || r.Weight != 0 {
			t.Errorf("%s: record = %+v", phase, r)
		}
	}
	for _, phase := range []Phase{None, Completed, RolledBack} {
		if _, _, err := (Launch{Phase: phase}).Abort("ops", "", noon); !errors.Is(err, ErrPhase) {
			t.Errorf("%q: %v, want ErrPhase", phase, err)
		}
	}
}

// model is a launch as one would tell it to a colleague: where it is, and which commands make sense there.
type model struct {
	step, steps    int
	over, rolled   bool
	paused, halted bool // by an operator, by the judge
}

func (m model) weight(p Plan) BasisPoints {
	if m.rolled {
		return 0
	}
	return p.Steps[m.step].Weight
}

func (m *model) promote() {
	m.paused, m.halted = false, false
	if m.step++; m.step == m.steps {
		m.step, m.over = m.steps-1, true
	}
}

func TestALaunchDoesWhatANaiveModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := Plan{
			MaxErrors: 0.01, Watch: time.Minute, Steps: []Step{{1000, time.Minute}, {2500, 0}, {5000, time.Minute}, {All, 0}},
			OnInconclusive: rapid.SampledFrom([]Policy{Wait, PromoteIfConsistent, GiveUp}).Draw(t, "policy"),
		}
		now := noon
		l, first, err := Start(Request{ID: "l", Salt: make([]byte, 16), StableURL: "v1", CandidateURL: "v2", Plan: plan}, now)
		if err != nil {
			t.Fatal(err)
		}
		plan, records := l.Plan, []Record{first}
		m := model{steps: len(plan.Steps)}
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))

		command := func(do func(string, string, time.Time) (Launch, Record, error), legal func() bool, apply func()) func(*rapid.T) {
			return func(t *rapid.T) {
				next, r, err := do("ops", "because", now)
				if ok := legal(); ok != (err == nil) || !ok && !errors.Is(err, ErrPhase) {
					t.Fatalf("in %s: %v, want it to work: %t", l.Phase, err, ok)
				}
				if err == nil {
					l, records = next, append(records, r)
					apply()
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"pause": func(t *rapid.T) {
				command(l.Pause, func() bool { return !m.over && !m.paused }, func() { m.paused, m.halted = true, false })(t)
			},
			"resume": func(t *rapid.T) {
				command(l.Resume, func() bool { return !m.over && (m.paused || m.halted) }, func() { m.paused, m.halted = false, false })(t)
			},
			"promote": func(t *rapid.T) {
				command(l.Promote, func() bool { return !m.over }, m.promote)(t)
			},
			"abort": func(t *rapid.T) {
				if random.IntN(3) > 0 {
					t.Skip("else no launch gets far")
				}
				command(l.Abort, func() bool { return !m.over }, func() { m.over, m.rolled = true, true })(t)
			},
			"look": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 240).Draw(t, "seconds")) * time.Second)
				o := Observation{Stable: randomSide(t, random, "stable"), Candidate: randomSide(t, random, "candidate"), Epoch: l.Epoch - uint64(random.IntN(2))}
				o.Candidate.FailedProbes, o.Candidate.Streak.Failures = 0, 0
				next, r := Next(l, o, now)
				if m.over {
					if r.Revision != 0 || next.Revision != l.Revision {
						t.Fatalf("what is over was changed by %+v", r)
					}
					return
				}
				switch r.Action {
				case ActPromote:
					if m.paused || l.Phase.Held() && l.Phase != Inconclusive {
						t.Fatalf("promoted while %s", l.Phase)
					}
					m.promote()
				case ActRollBack:
					m.over, m.rolled = true, true
				case ActHold:
					if m.paused {
						t.Fatal("held while an operator has paused it")
					}
					m.halted = true
				case ActResume:
					if !m.halted {
						t.Fatal("resumed what was not held")
					}
					m.halted = false
				}
				l, records = next, append(records, r)
			},
			"": func(t *rapid.T) {
				if l.Weight != m.weight(plan) || l.Step != m.step || l.Phase.Over() != m.over || (l.Phase == Paused) != (m.paused && !m.over) {
					t.Fatalf("launch is %s at step %d, %v; the model %+v", l.Phase, l.Step, l.Weight, m)
				}
				if l.Phase.Held() != (m.halted && !m.over) {
					t.Fatalf("launch is %s; the model %+v", l.Phase, m)
				}
				if int(l.Revision) != len(records) {
					t.Fatalf("revision is %d after %d records", l.Revision, len(records))
				}
				again, err := Replay(records)
				if diff := cmp.Diff(l, again); err != nil || diff != "" {
					t.Fatalf("replayed: %v\n%s", err, diff)
				}
			},
		})
	})
}

func TestALaunchSurvivesJSON(t *testing.T) {
	l, _ := at(begun(t, Plan{}), 6*time.Minute, seen(900, 0), seen(300, 0))
	encoded, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var again Launch
	if err := json.Unmarshal(encoded, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, again); diff != "" {
		t.Error(diff)
	}
}
