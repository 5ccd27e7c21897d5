package fleet_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/rollout/sqlite"
	users "github.com/gantryhq/gantry/users/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	old, candidate = "http://old:1", "http://new:1"
	tick           = 40 * time.Millisecond
)

// store is a real one that can be cut off and whose file can be reached behind its back.
type store struct {
	*sqlite.Store
	db   *sql.DB
	path string

	mu  sync.Mutex
	err error // what every call gets
}

func openStore(t *testing.T, path string) *store {
	t.Helper()
	file, err := users.Open(t.Context(), users.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Migrate(t.Context(), users.Schema{Files: sqlite.Migrations, Table: sqlite.Versions, Newest: sqlite.Schema}); err != nil {
		t.Fatal(err)
	}
	write, read := file.Pools()
	return &store{Store: sqlite.New(write, read), db: write, path: path}
}

func newStore(t *testing.T) *store { return openStore(t, filepath.Join(t.TempDir(), "gantry.db")) }

// cut has every call fail until it is called with nil.
func (s *store) cut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *store) away() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *store) Read(ctx context.Context, after fleet.Place) (fleet.Page, error) {
	if err := s.away(); err != nil {
		return fleet.Page{}, err
	}
	return s.Store.Read(ctx, after)
}

func (s *store) Append(ctx context.Context, after fleet.Place, l fleet.Line) error {
	if err := s.away(); err != nil {
		return err
	}
	return s.Store.Append(ctx, after, l)
}

func (s *store) Hold(ctx context.Context, holder string, length time.Duration) (string, error) {
	if err := s.away(); err != nil {
		return "", err
	}
	return s.Store.Hold(ctx, holder, length)
}

func (s *store) Publish(ctx context.Context, instance, body string) error {
	if err := s.away(); err != nil {
		return err
	}
	return s.Store.Publish(ctx, instance, body)
}

// exec does something to the file that no store would.
func (s *store) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := s.db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// instance is one Fleet with its traffic.
type instance struct {
	*fleet.Fleet
	store   *store
	traffic *rollout.Splitter
	stop    func()

	mu     sync.Mutex
	seen   []rollout.Record
	mine   int
	faults []error
}

// launch starts an instance on a store of its own connections; it stops with the test, or by stop.
func (s *store) instance(t *testing.T, cfg fleet.Config) *instance {
	t.Helper()
	i := &instance{store: openStore(t, s.path), traffic: new(rollout.Splitter)}
	if cfg.Tick == 0 {
		cfg.Tick = tick
	}
	if cfg.Base == "" {
		cfg.Base = old
	}
	cfg.Seen = func(r rollout.Record, mine bool) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.seen = append(i.seen, r)
		if mine {
			i.mine++
		}
	}
	cfg.Fault = func(err error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.faults = append(i.faults, err)
	}
	i.Fleet = fleet.New(t.Context(), i.store, i.traffic, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- i.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(i.stop)
	return i
}

// request is what came of n requests to a version, each of another caller.
func (i *instance) request(v rollout.Version, n int, o rollout.Outcome) {
	for c := range n {
		m := i.traffic.Choose(fmt.Sprint("user", c)).Mark
		i.traffic.Done(m.On(v), time.Millisecond, o)
	}
}

// weight is the share that this instance sends to the candidate.
func (i *instance) weight() rollout.BasisPoints {
	if i.traffic.Tripped() != "" {
		return 0
	}
	return i.traffic.Launch().Weight
}

func (i *instance) records() []rollout.Record {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.seen)
}

// until polls for what other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("waited %v for %s", time.Since(began), what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

func untilWeight(t *testing.T, want rollout.BasisPoints, instances ...*instance) {
	t.Helper()
	for n, i := range instances {
		until(t, fmt.Sprintf("instance %d to be at %v", n, want), func() bool { return i.weight() == want })
	}
}

// quick is a plan that is proven by 30 clean requests a step.
func quick(step time.Duration) rollout.Plan {
	return rollout.Plan{
		Steps:     []rollout.Step{{Weight: 1000, MinTime: step}, {Weight: 5000, MinTime: step}, {Weight: rollout.All}},
		MaxErrors: 0.2, MaxSlow: 0.2, Watch: step,
	}
}

func begin(t *testing.T, i *instance, p rollout.Plan) rollout.Record {
	t.Helper()
	r, err := i.Start(t.Context(), candidate, p, "tester", "a test")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAGoodReleaseReachesEveryInstanceByTheSumOfTheirCounts(t *testing.T) {
	s := newStore(t)
	all := []*instance{s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})}
	begin(t, all[0], quick(2*tick))
	// Ten requests on each instance prove nothing, thirty on all of them do.
	for _, weight := range []rollout.BasisPoints{1000, 5000, rollout.All} {
		untilWeight(t, weight, all...)
		for _, i := range all {
			i.request(rollout.Candidate, 10, rollout.Outcome{})
		}
	}
	for _, i := range all {
		until(t, "the launch to be complete", func() bool { return i.traffic.Launch().Phase == rollout.Completed })
		if got := i.Stable(); got != candidate {
			t.Errorf("Stable after the launch = %q, want %q", got, candidate)
		}
	}
	first := all[0].records()
	for n, i := range all[1:] {
		until(t, "all records to be seen", func() bool { return len(i.records()) == len(first) })
		for k, r := range i.records() {
			if r.Sum != first[k].Sum {
				t.Fatalf("instance %d saw another record %d", n+1, k)
			}
		}
	}
	wrote := 0
	for _, i := range all {
		wrote += i.mine
	}
	if wrote != len(first) {
		t.Errorf("%d records have a writer among the instances, want all %d", wrote, len(first))
	}
}

func TestOfTenDoorsThatStartALaunchOneDoes(t *testing.T) {
	s := newStore(t)
	doors := make([]*instance, 10)
	for n := range doors {
		doors[n] = s.instance(t, fleet.Config{Tick: time.Second}) // ten make a crowd of one file
	}
	for round := range 3 {
		results := make(chan error, len(doors))
		for _, d := range doors {
			go func() {
				_, err := d.Start(t.Context(), candidate, quick(time.Hour), "tester", "")
				results <- err
			}()
		}
		won := 0
		for range doors {
			switch err := <-results; {
			case err == nil:
				won++
			case !errors.Is(err, fleet.ErrPending):
				t.Errorf("Start = %v, want nil or ErrPending", err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d launches were started, want 1", round, won)
		}
		untilWeight(t, 1000, doors...)
		if _, err := doors[round].Abort(t.Context(), "tester", "again"); err != nil {
			t.Fatal(err)
		}
		untilWeight(t, 0, doors...)
	}
}

func TestTheJudgeIsReplacedAndNobodyWaitsForTheDead(t *testing.T) {
	s := newStore(t)
	const pace = 3 * tick
	one, other := s.instance(t, fleet.Config{Name: "one", Tick: pace}), s.instance(t, fleet.Config{Name: "other", Tick: pace})
	begin(t, one, quick(2*pace))
	var judge string
	until(t, "a judge", func() bool { judge = one.Status(t.Context()).Judge; return judge != "" })
	dead, heir := one, other
	if judge == "other" {
		dead, heir = other, one
	}
	dead.request(rollout.Candidate, 10, rollout.Outcome{})
	until(t, "the counts of the first", func() bool { return heir.Status(t.Context()).Candidate.Requests == 10 })
	dead.store.cut(errors.New("killed"))
	until(t, "the other to judge", func() bool {
		st := heir.Status(t.Context())
		return st.Judge == st.Here && st.Missing == 1
	})
	heir.request(rollout.Candidate, 10, rollout.Outcome{})
	until(t, "the counts of both", func() bool { return heir.Status(t.Context()).Candidate.Requests == 20 })
	if st := heir.Status(t.Context()); st.Missing != 1 || heir.weight() != 1000 {
		t.Errorf("with %d instances missing the weight is %v, want 1 and 10 %%", st.Missing, heir.weight())
	}
	untilWeight(t, 5000, heir) // when the dead one is no longer waited for
	if w := dead.weight(); w != 1000 {
		t.Errorf("the one that is cut off is at %v, want its weight frozen at 10 %%", w)
	}
	dead.store.cut(nil)
	untilWeight(t, 5000, dead)
}

func TestNobodyWaitsForAnInstanceThatEndedInOrder(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	other.request(rollout.Candidate, 7, rollout.Outcome{})
	other.stop()
	until(t, "it to be gone", func() bool { return len(one.Status(t.Context()).Instances) == 1 })
	st := one.Status(t.Context())
	if st.Missing != 0 || st.Candidate.Requests != 7 {
		t.Errorf("%d instances are missing and %d requests counted, want none and all 7", st.Missing, st.Candidate.Requests)
	}
	until(t, "the other to judge", func() bool { st := one.Status(t.Context()); return st.Judge == st.Here })
}

func TestACandidateThatSomeInstanceReachesIsNotDown(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	for range 3 {
		other.traffic.Probed(other.traffic.Launch().ID, rollout.Candidate, errors.New("no route"))
	}
	untilWeight(t, 0, other)
	until(t, "it to be told", func() bool {
		return slices.ContainsFunc(one.Status(t.Context()).Instances, func(i fleet.Instance) bool { return i.Tripped != "" })
	})
	looks := len(one.records())
	until(t, "two more looks", func() bool { return len(one.records()) >= looks+2 })
	if w := one.weight(); w != 1000 {
		t.Errorf("the instance that reaches the candidate is at %v, want 10 %%", w)
	}
}

func TestAHardTripActsAtOnceAndIsRecordedForAll(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	other.request(rollout.Candidate, 6, rollout.Outcome{Failed: true, Unreachable: true})
	untilWeight(t, 0, other, one)
	for _, i := range []*instance{one, other} {
		until(t, "the roll back in the journal", func() bool { return i.traffic.Launch().Phase == rollout.RolledBack })
	}
	if st := other.Status(t.Context()); st.Tripped != "" || st.Launch.Phase != rollout.RolledBack {
		t.Errorf("Status = %v, tripped %q; want rolled back and nothing of its own", st.Launch.Phase, st.Tripped)
	}
}

func TestAHardTripNeedsNoStoreAndIsRecordedWhenItIsBack(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	one.store.cut(errors.New("no route to the store"))
	one.request(rollout.Candidate, 6, rollout.Outcome{Failed: true, Unreachable: true})
	untilWeight(t, 0, one)
	until(t, "the fault to be told", func() bool { return one.Fault() != nil })
	if w := other.weight(); w != 1000 {
		t.Errorf("the other instance is at %v, want 10 %%: it has heard of nothing", w)
	}
	if st := one.Status(t.Context()); st.Tripped == "" {
		t.Error("the status does not say that the instance has tripped")
	}
	one.store.cut(nil)
	untilWeight(t, 0, other)
	until(t, "the fault to be over", func() bool { return one.Fault() == nil })
	if r := last(other.records()); r.Action != rollout.ActRollBack || r.Actor != rollout.Judge {
		t.Errorf("the journal says %s by %s, want a roll back by the judge", r.Action, r.Actor)
	}
}

func last(records []rollout.Record) rollout.Record { return records[len(records)-1] }

func TestAnAbortWithoutTheStoreIsOwed(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	one.store.cut(errors.New("no route to the store"))
	if _, err := one.Abort(t.Context(), "ada", "it burns"); !errors.Is(err, fleet.ErrAway) {
		t.Errorf("Abort without the store = %v, want ErrAway", err)
	}
	if w := one.weight(); w != 0 {
		t.Errorf("the instance that was asked is at %v, want stable at once", w)
	}
	one.store.cut(nil)
	untilWeight(t, 0, other)
	if r := last(other.records()); r.Actor != "ada" || r.Reason != "it burns" {
		t.Errorf("the journal says %q by %q", r.Reason, r.Actor)
	}
}

func TestACrashResumesAtTheRecordedWeight(t *testing.T) {
	s := newStore(t)
	one := s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	for _, want := range []rollout.BasisPoints{1000, 5000, rollout.All} {
		one.stop()
		one = s.instance(t, fleet.Config{})
		if got := one.weight(); got != want {
			t.Fatalf("an instance that starts is at %v, want %v", got, want)
		}
		if seen := one.records(); len(seen) != 0 {
			t.Errorf("%d records from before the start were told", len(seen))
		}
		if _, err := one.Promote(t.Context(), "tester", ""); err != nil {
			t.Fatal(err)
		}
	}
	one.stop()
	if one = s.instance(t, fleet.Config{}); one.traffic.Launch().Phase != rollout.Completed || one.weight() != rollout.All {
		t.Errorf("after the end an instance starts %s at %v", one.traffic.Launch().Phase, one.weight())
	}
}

func TestAnUnreadableJournalSendsEveryoneToStable(t *testing.T) {
	for name, damage := range map[string]string{
		"a line is no record":    "UPDATE rollout_journal SET line = 'x' WHERE revision = 2",
		"a line was changed":     "UPDATE rollout_journal SET line = replace(line, '5000', '9000') WHERE revision = 2",
		"a line is missing":      "DELETE FROM rollout_journal WHERE revision = 2",
		"the first is no record": "UPDATE rollout_journal SET line = '{}' WHERE revision = 1",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			one := s.instance(t, fleet.Config{})
			begin(t, one, quick(time.Hour))
			if _, err := one.Promote(t.Context(), "tester", ""); err != nil {
				t.Fatal(err)
			}
			if _, err := one.Pause(t.Context(), "tester", ""); err != nil {
				t.Fatal(err)
			}
			one.stop()
			s.exec(t, damage)
			one = s.instance(t, fleet.Config{})
			if w, fault := one.weight(), one.Fault(); w != 0 || !errors.Is(fault, rollout.ErrJournal) || len(one.faults) != 1 {
				t.Errorf("with a damaged journal the weight is %v, the fault %v, told %d times", w, fault, len(one.faults))
			}
			if st := one.Status(t.Context()); !st.Corrupt || st.StableURL != old {
				t.Errorf("Status: corrupt %v, stable %q", st.Corrupt, st.StableURL)
			}
			if _, err := one.Promote(t.Context(), "tester", ""); !errors.Is(err, rollout.ErrJournal) {
				t.Errorf("Promote = %v, want ErrJournal", err)
			}
			if _, err := one.Abort(t.Context(), "tester", "seen it"); err != nil || one.Fault() != nil {
				t.Errorf("Abort = %v, and the fault is then %v", err, one.Fault())
			}
			again := s.instance(t, fleet.Config{})
			if again.Fault() != nil || again.weight() != 0 {
				t.Errorf("after the abort an instance starts with %v at %v", again.Fault(), again.weight())
			}
			begin(t, again, quick(time.Hour))
			untilWeight(t, 1000, one, again)
		})
	}
}

func TestAJournalThatEndsBeforeWhatWasReadIsNotBelieved(t *testing.T) {
	s := newStore(t)
	one := s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	if _, err := one.Promote(t.Context(), "tester", ""); err != nil {
		t.Fatal(err)
	}
	s.exec(t, "DELETE FROM rollout_journal WHERE revision > 1") // a backup was restored
	until(t, "the fault", func() bool { return errors.Is(one.Fault(), rollout.ErrJournal) })
	untilWeight(t, 0, one)
}

func TestALaunchMayBeginOverAnUnreadableJournal(t *testing.T) {
	s := newStore(t)
	one, other := s.instance(t, fleet.Config{}), s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	s.exec(t, "INSERT INTO rollout_journal SELECT launch, max(revision)+1, base, 'x' FROM rollout_journal")
	untilWeight(t, 0, one, other)
	begin(t, other, quick(time.Hour))
	untilWeight(t, 1000, one, other)
	if one.Fault() != nil {
		t.Errorf("Fault = %v after a new launch", one.Fault())
	}
}

func TestAResultHoldsUntilTheConfigurationNamesAnotherUpstream(t *testing.T) {
	s := newStore(t)
	one := s.instance(t, fleet.Config{})
	for n, to := range []string{"http://v2:1", "http://v3:1"} {
		if _, err := one.Start(t.Context(), to, quick(time.Hour), "tester", ""); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := one.Promote(t.Context(), "tester", ""); err != nil {
				t.Fatal(err)
			}
		}
		one.stop()
		one = s.instance(t, fleet.Config{})
		if got := one.Stable(); got != to {
			t.Errorf("after launch %d stable is %q, want %q", n+1, got, to)
		}
	}
	moved := s.instance(t, fleet.Config{Base: "http://v2:1"})
	if got := moved.Stable(); got != "http://v2:1" || moved.traffic.Launch().ID != "" {
		t.Errorf("once the configuration names another upstream stable is %q, and launch %q in force", got, moved.traffic.Launch().ID)
	}
}

func TestAPlanIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	s := newStore(t)
	one := s.instance(t, fleet.Config{})
	for name, try := range map[string]struct {
		to   string
		plan rollout.Plan
	}{
		"steps that do not rise": {candidate, rollout.Plan{Steps: []rollout.Step{{Weight: 5000}, {Weight: 1000}, {Weight: rollout.All}}}},
		"a limit below zero":     {candidate, rollout.Plan{MaxErrors: -1}},
		"the stable upstream":    {old, rollout.Plan{}},
		"another scheme":         {"https://new:1", rollout.Plan{}},
		"no address":             {"", rollout.Plan{}},
	} {
		if _, err := one.Start(t.Context(), try.to, try.plan, "tester", ""); err == nil {
			t.Errorf("%s: Start succeeded", name)
		}
	}
	if past, err := one.History(t.Context(), 10); err != nil || len(past) != 0 {
		t.Errorf("History = %v, %v; want nothing", past, err)
	}
	begin(t, one, quick(time.Hour))
	if _, err := one.Start(t.Context(), "http://third:1", quick(time.Hour), "tester", ""); !errors.Is(err, fleet.ErrPending) {
		t.Errorf("a second Start = %v, want ErrPending", err)
	}
}

func TestTheHistoryNamesWhatEachLaunchCameTo(t *testing.T) {
	s := newStore(t)
	one := s.instance(t, fleet.Config{})
	begin(t, one, quick(time.Hour))
	if _, err := one.Abort(t.Context(), "ada", "no"); err != nil {
		t.Fatal(err)
	}
	begin(t, one, quick(time.Hour))
	past, err := one.History(t.Context(), 10)
	if err != nil || len(past) != 2 {
		t.Fatalf("History = %v, %v; want two", past, err)
	}
	if p := past[0]; p.Number != 2 || p.Phase != rollout.Running || !p.EndedAt.IsZero() || p.Candidate != candidate {
		t.Errorf("the newest is %+v", p)
	}
	if p := past[1]; p.Number != 1 || p.Phase != rollout.RolledBack || p.EndedAt.IsZero() || p.Reason != "no" || p.Actor != "ada" {
		t.Errorf("the oldest is %+v", p)
	}
	records, err := one.Journal(t.Context(), 1, 0)
	if _, bad := rollout.Replay(records); err != nil || bad != nil || last(records).Action != rollout.ActRollBack {
		t.Errorf("the journal of launch 1: %d records, %v, %v", len(records), err, bad)
	}
}

func TestTooLittleTrafficIsSaidBeforehand(t *testing.T) {
	plan := rollout.DefaultPlan()
	if w := (fleet.Status{Rate: 1000}).Enough(plan); len(w) != 0 {
		t.Errorf("1000 requests a second are not enough: %q", w)
	}
	w := fleet.Status{Rate: 20}.Enough(plan)
	want := "at 10 %: it takes 2995 clean requests to prove the limits, which at 2/s is 24m58s; the step is inconclusive after 15m0s, in which a limit of 0.17 % could be proven"
	if len(w) != 1 || w[0] != want {
		t.Errorf("Enough at 20/s = %q, want %q", w, want)
	}
	if w := (fleet.Status{}).Enough(plan); len(w) != 3 {
		t.Errorf("without traffic there are %d warnings, want one for each step", len(w))
	}
}
