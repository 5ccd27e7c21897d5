package rollout

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// begun is a launch that was started at noon with a limit of 1 % on errors.
func begun(t testing.TB, p Plan) Launch {
	t.Helper()
	if p.MaxErrors == 0 {
		p.MaxErrors = 0.01
	}
	l, _, err := Start(Request{
		ID: "launch-1", Salt: make([]byte, 16), StableURL: "http://127.0.0.1:1", CandidateURL: "http://127.0.0.1:2",
		Plan: p, Actor: "ops", Reason: "release 2",
	}, noon)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// seen is n requests of 100 callers, some of which failed, each of another caller as long as there are.
func seen(n, failed int64) Side {
	s := Side{Counts: Counts{Requests: n, Failed: Tally{}, Slow: Tally{}}}
	for i := range BasisPoints(100) {
		s.Callers = s.Callers.or(one(i))
	}
	for i := range failed {
		s.Failed[BasisPoints(i%100)]++
	}
	return s
}

func one(caller BasisPoints) Callers {
	c := make(Callers, caller/8+1)
	c[caller/8] = 1 << (caller % 8)
	return c
}

// at is a look at an observation of the present epoch, so long after noon.
func at(l Launch, after time.Duration, stable, candidate Side) (Launch, Record) {
	return Next(l, Observation{Stable: stable, Candidate: candidate, Epoch: l.Epoch}, noon.Add(after))
}

func wantPhase(t testing.TB, l Launch, phase Phase, weight BasisPoints) {
	t.Helper()
	if l.Phase != phase || l.Weight != weight {
		t.Fatalf("launch is %s at %v (%s), want %s at %v", l.Phase, l.Weight, l.Reason, phase, weight)
	}
}

func TestACandidateOverTheLimitIsRolledBack(t *testing.T) {
	l := begun(t, Plan{})
	l, r := at(l, 10*time.Second, seen(1350, 2), seen(150, 6))
	wantPhase(t, l, Running, 1000)
	if got := r.Verdict.Evidence; got != Doubtful {
		t.Errorf("evidence = %q, want %q", got, Doubtful)
	}
	l, r = at(l, 15*time.Second, seen(1350, 2), seen(150, 7))
	wantPhase(t, l, RolledBack, 0)
	if want := "errors: 7 of 150 (4.67 %), limit 1 %, p = 0.00085"; r.Reason != want {
		t.Errorf("reason = %q, want %q", r.Reason, want)
	}
}

func TestASlowCandidateIsRolledBack(t *testing.T) {
	candidate := seen(200, 0)
	candidate.Slow = seen(0, 40).Failed
	l, r := at(begun(t, Plan{}), time.Minute, seen(1800, 0), candidate)
	wantPhase(t, l, RolledBack, 0)
	if !strings.HasPrefix(r.Reason, "slow: 40 of 200 (20 %), limit 5 %") {
		t.Errorf("reason = %q, want it to tell of slow answers", r.Reason)
	}
}

func TestNineteenRequestsAreTooFewForATest(t *testing.T) {
	l, _ := at(begun(t, Plan{}), time.Minute, seen(200, 0), seen(19, 19))
	wantPhase(t, l, Running, 1000)
	l, _ = at(l, time.Minute, seen(200, 0), seen(20, 19))
	wantPhase(t, l, RolledBack, 0)
}

func TestOneBrokenClientDoesNotUndoARelease(t *testing.T) {
	for _, others := range []int64{0, 1, 2} {
		l := begun(t, Plan{})
		candidate := seen(2000, others)
		candidate.Failed[99] += 1500
		candidate.Streak = Streak{Failures: runCap}
		l, r := at(l, time.Minute, seen(20_000, 20), candidate)
		wantPhase(t, l, Running, 1000)
		if got := r.Verdict.Candidate.Errors; got.N != 2000-1500+got.Counted-others || got.Failed != 1500+others {
			t.Errorf("beside %d others: %+v, want what is beyond the cap to be no request", others, got)
		}
	}
}

func TestOneBrokenClientAndOneBadRequestAreNoFailingRelease(t *testing.T) {
	// 4 of 23 have a tail of 0.00007, of which the broken client makes the better part.
	candidate := seen(40, 1)
	candidate.Failed[50] = 20
	l, r := at(begun(t, Plan{}), time.Minute, seen(400, 0), candidate)
	wantPhase(t, l, Running, 1000)
	if e := r.Verdict.Candidate.Errors; e.P > 0.001 || e.Rest != 1 {
		t.Errorf("errors = %+v, want a tail below 0.001 and 1 failure left without the broken client", e)
	}
}

func TestAReleaseThatFailsLateForItsFewCallersIsRolledBack(t *testing.T) {
	for callers, each := range map[BasisPoints]int64{2: 1100, 3: 700, 5: 300} {
		// hours without trouble, and then this
		candidate := Side{Counts: Counts{Requests: 100_000, Failed: Tally{}}}
		for i := range callers {
			candidate.Callers, candidate.Failed[i] = candidate.Callers.or(one(i)), each
		}
		l, r := at(begun(t, Plan{}), time.Hour, seen(900_000, 20), candidate)
		if l.Phase != RolledBack {
			t.Errorf("%d callers: launch is %s (%+v), want it rolled back", callers, l.Phase, r.Verdict.Candidate.Errors)
		}
	}
}

func TestHardTripsNeedNoTest(t *testing.T) {
	fine := seen(900, 0)
	for name, c := range map[string]struct {
		candidate, stable Side
		want              Phase
	}{
		"five failures in a row":    {Side{Counts: Counts{Requests: 5, Streak: Streak{Failures: 5}}}, fine, RolledBack},
		"four":                      {Side{Counts: Counts{Requests: 5, Streak: Streak{Failures: 4}}}, fine, Running},
		"five not reached":          {Side{Counts: Counts{Requests: 5, Streak: Streak{Failures: 2, Unreachable: 5}}}, fine, RolledBack},
		"three probes":              {Side{FailedProbes: 3}, fine, RolledBack},
		"two probes":                {Side{FailedProbes: 2}, fine, Running},
		"both failed in a row":      {Side{Counts: Counts{Streak: Streak{Failures: 9}}}, Side{Counts: Counts{Streak: Streak{Failures: 3}}}, HeldShared},
		"both fail probes":          {Side{FailedProbes: 3}, Side{FailedProbes: 2}, HeldShared},
		"neither is reached":        {Side{Counts: Counts{Streak: Streak{Unreachable: 5}}}, Side{Counts: Counts{Streak: Streak{Unreachable: 4}}}, HeldShared},
		"stable fails, no probe":    {Side{FailedProbes: 3}, seen(900, 90), RolledBack},
		"stable has gone as well":   {Side{FailedProbes: 3}, Side{FailedProbes: 3}, HeldShared},
		"stable has gone, it fails": {Side{Counts: Counts{Requests: 9, Streak: Streak{Failures: 9}}}, Side{FailedProbes: 3}, HeldShared},
	} {
		t.Run(name, func(t *testing.T) {
			l, r := at(begun(t, Plan{}), 5*time.Second, c.stable, c.candidate)
			if l.Phase != c.want {
				t.Errorf("launch is %s (%s), want %s", l.Phase, r.Reason, c.want)
			}
			_, tripped := l.Plan.Tripped(Observation{Stable: c.stable, Candidate: c.candidate})
			if want := c.want == RolledBack; tripped != want {
				t.Errorf("tripped = %t, want %t", tripped, want)
			}
		})
	}
}

func TestTroubleOfBothHoldsAndEndsByItself(t *testing.T) {
	l, r := at(begun(t, Plan{}), 3*time.Minute, seen(5400, 300), seen(600, 33))
	wantPhase(t, l, HeldShared, 1000)
	if l.Epoch != 2 || r.Action != ActHold {
		t.Errorf("epoch = %d by %s, want the counts to begin anew by the hold", l.Epoch, r.Action)
	}
	l, _ = at(l, 4*time.Minute-time.Second, seen(1800, 100), seen(200, 10))
	wantPhase(t, l, HeldShared, 1000)
	l, _ = at(l, 4*time.Minute, seen(1800, 100), seen(200, 10))
	wantPhase(t, l, HeldShared, 1000)
	if l.Epoch != 3 {
		t.Errorf("epoch = %d, want new counts after a minute of trouble", l.Epoch)
	}
	l, _ = at(l, 5*time.Minute-time.Second, seen(1800, 0), seen(200, 0))
	wantPhase(t, l, HeldShared, 1000)
	l, _ = at(l, 5*time.Minute, seen(1800, 0), seen(200, 0))
	wantPhase(t, l, Running, 1000)
	if want := noon.Add(5 * time.Minute); !l.StepAt.Equal(want) {
		t.Errorf("step began at %v, want %v", l.StepAt, want)
	}
}

func TestAfterTroubleOfBothTheOneThatStaysDownIsRolledBack(t *testing.T) {
	l, _ := at(begun(t, Plan{}), time.Minute, seen(1800, 100), seen(200, 11))
	wantPhase(t, l, HeldShared, 1000)
	// nothing is known of stable yet
	l, _ = at(l, 65*time.Second, seen(19, 0), seen(20, 20))
	wantPhase(t, l, HeldShared, 1000)
	l, _ = at(l, 70*time.Second, seen(200, 0), seen(20, 20))
	wantPhase(t, l, RolledBack, 0)
}

func TestAStableThatAlwaysFailsIsNoExcuseForAWorseCandidate(t *testing.T) {
	l, _ := at(begun(t, Plan{}), time.Minute, seen(9000, 270), seen(1000, 32))
	wantPhase(t, l, HeldShared, 1000)
	l, _ = at(begun(t, Plan{}), time.Minute, seen(9000, 270), seen(1000, 300))
	wantPhase(t, l, RolledBack, 0)
}

func TestWithinTheLimitButWorseThanStableAsks(t *testing.T) {
	l := begun(t, Plan{MaxErrors: 0.02})
	l, _ = at(l, 4*time.Minute, seen(90_000, 90), seen(10_000, 100))
	wantPhase(t, l, Running, 1000) // it is not the time to promote yet
	l, r := at(l, 5*time.Minute, seen(90_000, 90), seen(10_000, 100))
	wantPhase(t, l, HeldWorse, 1000)
	if want := "errors: within the limit, but 1 % against 0.1 % of stable"; r.Reason != want {
		t.Errorf("reason = %q, want %q", r.Reason, want)
	}
	again, _ := at(l, time.Hour, seen(90_000, 90), seen(10_000, 100))
	wantPhase(t, again, HeldWorse, 1000)
	bad, _ := at(l, time.Hour, seen(90_000, 90), seen(10_000, 400))
	wantPhase(t, bad, RolledBack, 0)

	l, _, err := l.Resume("ops", "known and accepted", noon.Add(6*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	l, _ = at(l, 11*time.Minute, seen(90_000, 90), seen(10_000, 100))
	wantPhase(t, l, Running, 5000)
	if l.Step != 1 {
		t.Errorf("step = %d, want 1", l.Step)
	}
}

func TestPromotionTakesTimeAndProof(t *testing.T) {
	l := begun(t, Plan{})
	step := func(after time.Duration, n int64, want Phase, weight BasisPoints) {
		t.Helper()
		l, _ = at(l, after, seen(5000, 5), seen(n, 0))
		wantPhase(t, l, want, weight)
	}
	step(5*time.Minute-1, 299, Running, 1000)
	step(5*time.Minute, 298, Running, 1000)
	step(6*time.Minute, 299, Running, 5000)
	step(15*time.Minute, 299, Running, 5000)
	step(16*time.Minute, 299, Watching, All)
	step(30*time.Minute, 299, Watching, All)
	step(31*time.Minute, 299, Completed, All)
	if l.Epoch != 3 {
		t.Errorf("epoch = %d, want one for each step", l.Epoch)
	}
}

func TestWhatIsSeenOfTheCandidateHasAWord(t *testing.T) {
	for _, c := range []struct {
		n, failed int64
		want      Evidence
		needed    int64
	}{
		{0, 0, NoTraffic, 299},
		{19, 0, NoTraffic, 280},
		{20, 0, Consistent, 279},
		{298, 0, Consistent, 1},
		{299, 0, Proven, 0},
		{299, 1, Consistent, 174},
		{100, 4, Doubtful, 813},
		{100, 7, Failing, 1212},
	} {
		_, r := at(begun(t, Plan{}), time.Second, seen(1000, 0), seen(c.n, c.failed))
		if got := r.Verdict; got.Evidence != c.want || got.Needed != c.needed {
			t.Errorf("%d of %d failed: %s, %d needed, want %s, %d", c.failed, c.n, got.Evidence, got.Needed, c.want, c.needed)
		}
	}
}

func TestInstancesThatAreMissingStopPromotionOnly(t *testing.T) {
	l := begun(t, Plan{})
	o := Observation{Stable: seen(5000, 0), Candidate: seen(5000, 0), Epoch: l.Epoch, Missing: 1}
	same, r := Next(l, o, noon.Add(10*time.Minute))
	wantPhase(t, same, Running, 1000)
	if want := "proven, instances missing: 1"; r.Reason != want {
		t.Errorf("reason = %q, want %q", r.Reason, want)
	}
	o.Candidate = seen(5000, 500)
	gone, _ := Next(l, o, noon.Add(10*time.Minute))
	wantPhase(t, gone, RolledBack, 0)
}

func TestCountsOfAnotherEpochAreNotLookedAt(t *testing.T) {
	l := begun(t, Plan{})
	l, r := Next(l, Observation{Stable: seen(5000, 0), Candidate: seen(5000, 5000), Epoch: l.Epoch - 1}, noon.Add(time.Hour))
	wantPhase(t, l, Inconclusive, 1000)
	if r.Verdict.Evidence != NoTraffic {
		t.Errorf("evidence = %q, want none", r.Verdict.Evidence)
	}
}

func TestWithoutEvidenceTheLaunchIsInconclusive(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		n      int64
		want   Phase
		weight BasisPoints
	}{
		{Wait, 0, Inconclusive, 1000},
		{Wait, 100, Inconclusive, 1000},
		{PromoteIfConsistent, 0, Inconclusive, 1000},
		{PromoteIfConsistent, 100, Running, 5000},
		{GiveUp, 0, RolledBack, 0},
		{GiveUp, 100, RolledBack, 0},
	} {
		l := begun(t, Plan{OnInconclusive: c.policy})
		l, _ = at(l, 15*time.Minute-1, seen(900, 0), seen(c.n, 0))
		wantPhase(t, l, Running, 1000)
		l, _ = at(l, 15*time.Minute, seen(900, 0), seen(c.n, 0))
		wantPhase(t, l, c.want, c.weight)
	}
}

func TestEvidenceThatComesLateEndsInconclusive(t *testing.T) {
	l, _ := at(begun(t, Plan{}), time.Hour, seen(900, 0), seen(100, 0))
	wantPhase(t, l, Inconclusive, 1000)
	l, _ = at(l, 2*time.Hour, seen(900, 0), seen(299, 0))
	wantPhase(t, l, Running, 5000)
}

func TestAtTheEndOfTheLaunchThereIsNothingToRecord(t *testing.T) {
	l, _ := at(begun(t, Plan{}), time.Minute, seen(900, 0), seen(100, 50))
	same, r := at(l, time.Hour, seen(900, 0), seen(100, 50))
	if same.Revision != l.Revision || r.Revision != 0 {
		t.Errorf("a look at what is over made revision %d and record %d, want %d and 0", same.Revision, r.Revision, l.Revision)
	}
}

func TestWhileItIsWatchedACandidateIsStillRolledBack(t *testing.T) {
	l := begun(t, Plan{Steps: []Step{{Weight: All}}})
	wantPhase(t, l, Watching, All)
	l, _ = at(l, 3*time.Minute, Side{}, seen(9000, 9))
	wantPhase(t, l, Watching, All)
	l, _ = at(l, 4*time.Minute, Side{}, seen(12_000, 300))
	wantPhase(t, l, RolledBack, 0)
}

func TestWithoutStableTheLaunchHaltsUntilOneIsWell(t *testing.T) {
	slow := seen(100, 0)
	slow.Slow = seen(0, 50).Failed
	held, r := at(begun(t, Plan{}), time.Minute, Side{FailedProbes: 7}, slow)
	wantPhase(t, held, HeldAlone, 1000)
	if !strings.HasSuffix(r.Reason, "and stable is gone as well") {
		t.Errorf("reason = %q, want it to tell of stable", r.Reason)
	}
	back, _ := at(held, 2*time.Minute, seen(0, 0), slow)
	wantPhase(t, back, RolledBack, 0)
	well, _ := at(held, 2*time.Minute, Side{FailedProbes: 19}, seen(100, 0))
	wantPhase(t, well, Running, 1000)
}

func TestAStableVersionThatAnswersIsNotGoneWhateverItsProbes(t *testing.T) {
	stable := func(n int64) Side {
		s := seen(n, 0)
		s.FailedProbes = 100
		return s
	}
	for name, bad := range map[string]Side{
		"fails":       seen(100, 40),
		"not reached": {Counts: Counts{Requests: 100, Failed: seen(100, 100).Failed, Streak: Streak{Failures: 5, Unreachable: 100}}},
	} {
		l, _ := at(begun(t, Plan{}), time.Minute, stable(900), bad)
		if !l.Phase.Held() {
			t.Fatalf("%s: launch is %s, want it held until stable is seen to answer", name, l.Phase)
		}
		l, _ = at(l, 65*time.Second, stable(19), bad)
		if !l.Phase.Held() {
			t.Fatalf("%s: launch is %s after 19 answers of stable, want it held", name, l.Phase)
		}
		l, _ = at(l, 70*time.Second, stable(200), bad)
		wantPhase(t, l, RolledBack, 0)
	}
}

func TestAPausedLaunchIsStillJudgedAndNeverPromoted(t *testing.T) {
	l, _, err := begun(t, Plan{}).Pause("ops", "lunch", noon)
	if err != nil {
		t.Fatal(err)
	}
	l, _ = at(l, 24*time.Hour, seen(90_000, 0), seen(10_000, 0))
	wantPhase(t, l, Paused, 1000)
	if l.Reason != "lunch" {
		t.Errorf("reason = %q, want that of the pause", l.Reason)
	}
	l, _ = at(l, 25*time.Hour, seen(900, 500), seen(100, 50)) // both
	wantPhase(t, l, Paused, 1000)
	l, _ = at(l, 26*time.Hour, seen(900, 0), seen(100, 50))
	wantPhase(t, l, RolledBack, 0)
}

// severity orders what a look can lead to, from the best for the candidate to the worst.
func severity(before, after Launch) int {
	switch {
	case after.Phase == RolledBack:
		return 3
	case after.Phase.Held() && after.Phase != Inconclusive:
		return 2
	case after.Weight > before.Weight || after.Phase == Completed:
		return 0
	}
	return 1
}

func TestAnotherFailureNeverHelpsTheCandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Launch{ID: "l", Plan: Plan{MaxErrors: 0.01, MinCallers: rapid.IntRange(1, 3).Draw(t, "min callers")}.withDefaults()}
		l = l.enter(rapid.IntRange(0, 2).Draw(t, "step"), noon)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		stable, candidate := randomSide(t, random, "stable"), randomSide(t, random, "candidate")
		after := noon.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "minutes")) * time.Minute)
		decide := func(s Side) decision {
			return judge(l, Observation{Stable: stable, Candidate: s, Epoch: l.Epoch}, after)
		}
		before := decide(candidate)
		worse := candidate
		worse.Failed = candidate.Failed.add(Tally{BasisPoints(random.IntN(20)): 1 + random.Int64N(5)})
		worse.Requests = max(worse.Requests, worse.Failed.Sum())
		if got := decide(worse); severity(l, got.next) < severity(l, before.next) {
			t.Fatalf("%v -> %v by %v leads from %s to %s", candidate.Failed, worse.Failed, got.verdict, before.next.Phase, got.next.Phase)
		}
	})
}

// randomSide is up to some thousand requests of 20 callers, few or many of which failed.
func randomSide(t *rapid.T, random *rand.Rand, name string) Side {
	s := seen(rapid.Int64Range(0, 5000).Draw(t, name+" requests"), 0)
	share := rapid.Float64Range(0, 0.05).Draw(t, name+" share")
	for range int64(share * float64(s.Requests)) {
		s.Failed[BasisPoints(random.ExpFloat64()*4)%20]++
	}
	s.FailedProbes = rapid.IntRange(0, 3).Draw(t, name+" probes")
	s.Streak.Failures = rapid.IntRange(0, 5).Draw(t, name+" streak")
	return s
}
