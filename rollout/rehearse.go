package rollout

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Traffic is what a rehearsal plays. The zero value of a field but Rate is its default.
type Traffic struct {
	Rate   float64 `json:"rate"`   // requests a second to both versions
	Errors float64 `json:"errors"` // the share that fails on stable, and on a release as good
	Slow   float64 `json:"slow"`   // the share that is slow on both
	// Callers send the requests, all of them as many. Default 500.
	Callers int `json:"callers"`
	// Burst is how much denser the requests come than the mean when they come at all, by turns of one
	// look. Default 1: evenly by chance.
	Burst float64 `json:"burst"`
	// Cluster is how many requests in a row a failure strikes. Default 1: failures know nothing of each
	// other, which is what the tests take for granted.
	Cluster int `json:"cluster"`
	// Retries a second are sent by one more client, which is always with the candidate and always fails.
	Retries float64 `json:"retries"`
	// Look is the time between two looks of the judge. Default 5 s.
	Look time.Duration `json:"look"`

	regular bool // the requests come at even distances
}

func (t Traffic) withDefaults() Traffic {
	fill(&t.Callers, 500)
	fill(&t.Burst, 1)
	fill(&t.Cluster, 1)
	fill(&t.Look, 5*time.Second)
	return t
}

// Validate returns every fault at once, each with the name of its field.
func (t Traffic) Validate() error {
	t = t.withDefaults()
	var faults []error
	share := func(name string, f float64) {
		if !(f >= 0 && f < 1) {
			faults = append(faults, fmt.Errorf("%s: %v is not from 0 to below 1", name, f))
		}
	}
	if !(t.Rate > 0 && t.Rate <= 1e5) {
		faults = append(faults, fmt.Errorf("rate: %v is not above 0 and at most 100000 a second", t.Rate))
	}
	share("errors", t.Errors)
	share("slow", t.Slow)
	if t.Callers < 1 || t.Callers > 1e6 {
		faults = append(faults, fmt.Errorf("callers: %d is not from 1 to a million", t.Callers))
	}
	if !(t.Burst >= 1 && t.Burst <= 1000) {
		faults = append(faults, fmt.Errorf("burst: %v is not from 1 to 1000", t.Burst))
	}
	if t.Cluster < 1 || t.Cluster > 1000 {
		faults = append(faults, fmt.Errorf("cluster: %d is not from 1 to 1000", t.Cluster))
	}
	if !(t.Retries >= 0 && t.Retries <= 1e5) {
		faults = append(faults, fmt.Errorf("retries: %v is not from 0 to 100000 a second", t.Retries))
	}
	if t.Look < 100*time.Millisecond || t.Look > time.Hour {
		faults = append(faults, fmt.Errorf("look: %v is not from 100ms to an hour", t.Look))
	}
	return errors.Join(faults...)
}

// Rehearsal is how a plan would go, by chance.
type Rehearsal struct {
	Plan    Plan    `json:"plan"`
	Traffic Traffic `json:"traffic"`
	Runs    int     `json:"runs"` // of a good release, and of each bad one
	// What became of a release that fails as rarely as stable: shares of the runs, together 1.
	Completed    float64 `json:"completed"`
	Aborted      float64 `json:"aborted"`      // without cause
	Held         float64 `json:"held"`         // as worse than stable, or because stable fails as well
	Inconclusive float64 `json:"inconclusive"` // a step took three times its minimum time
	Finish       Spread  `json:"finish"`       // from start to the end of the watch
	Catches      []Catch `json:"catches"`
	Proofs       []Proof `json:"proofs"` // one a step
}

// Catch is how a release that fails more often would be caught.
type Catch struct {
	Errors float64 `json:"errors"` // the share that fails
	Caught float64 `json:"caught"` // the share of the runs in which it was rolled back
	Held   float64 `json:"held"`   // in which it was held for a person
	Time   Spread  `json:"time"`   // until it was rolled back
	// Failures is how many requests failed on the candidate until then, on average.
	Failures float64 `json:"failures"`
}

// Spread is a time that differs from run to run.
type Spread struct {
	Median time.Duration `json:"median"`
	P95    time.Duration `json:"p95"`
}

// Proof is how long it takes at a step to prove the limits.
type Proof struct {
	Weight   BasisPoints   `json:"weight"`
	Rate     float64       `json:"rate"`     // requests a second to the candidate
	Requests int64         `json:"requests"` // without a failure that prove the limits
	Time     time.Duration `json:"time"`     // until they have come
	Patience time.Duration `json:"patience"` // after which the step is [Inconclusive]
}

// Possible is whether the evidence can come in time.
func (p Proof) Possible() bool { return p.Time <= p.Patience }

// Provable is the lowest limit that can be proven in time, if nothing fails: 95 % sure is 0.05 = (1 - limit)^n.
func (p Proof) Provable() float64 {
	return -math.Expm1(math.Log(doubt) / max(1, p.Rate*p.Patience.Seconds()))
}

// Proofs is what can be proven with a rate of requests a second to both versions, step by step.
func (p Plan) Proofs(rate float64) []Proof {
	p = p.withDefaults()
	l := Launch{Plan: p}
	all := make([]Proof, len(p.Steps))
	for i, s := range p.Steps {
		l.Step = i
		proof := Proof{
			Weight: s.Weight, Rate: rate * float64(s.Weight) / float64(All), Patience: l.patience(),
			Requests: max(CleanRequests(0, 0, p.MaxErrors), CleanRequests(0, 0, p.MaxSlow), p.MinRequests),
		}
		seconds := float64(proof.Requests) / proof.Rate
		proof.Time = time.Duration(min(seconds, math.MaxInt64/2e9) * 1e9).Round(time.Second)
		all[i] = proof
	}
	return all
}

// Rehearse plays a plan many times: a release as good as stable, and one each that fails 1, 5 and 20 % of
// the requests. The same seed gives the same result. runs is 1 to 100,000.
func Rehearse(p Plan, t Traffic, runs int, seed uint64) (Rehearsal, error) {
	if err := errors.Join(p.Validate(), t.Validate()); err != nil {
		return Rehearsal{}, err
	}
	if runs < 1 || runs > 100_000 {
		return Rehearsal{}, fmt.Errorf("runs: %d is not from 1 to 100000", runs)
	}
	p, t = p.withDefaults(), t.withDefaults()
	r := Rehearsal{Plan: p, Traffic: t, Runs: runs, Proofs: p.Proofs(t.Rate)}
	good := play(p, t, t.Errors, runs, seed)
	r.Completed, r.Finish = good.share(Completed), good.spread(Completed)
	r.Aborted, r.Held, r.Inconclusive = good.share(RolledBack), good.share(HeldWorse, HeldShared), good.share(Inconclusive)
	for _, bad := range []float64{0.01, 0.05, 0.20} {
		runs := play(p, t, bad, runs, seed)
		r.Catches = append(r.Catches, Catch{
			Errors: bad, Caught: runs.share(RolledBack), Held: runs.share(HeldWorse, HeldShared), Time: runs.spread(RolledBack),
			Failures: runs.failures(),
		})
	}
	return r, nil
}

// ending is how one run ended.
type ending struct {
	phase    Phase
	after    time.Duration
	failures int64 // of the candidate
}

type endings []ending

func (all endings) share(phases ...Phase) float64 {
	n := 0
	for _, e := range all {
		if slices.Contains(phases, e.phase) {
			n++
		}
	}
	return float64(n) / float64(len(all))
}

func (all endings) spread(p Phase) Spread {
	var times []time.Duration
	for _, e := range all {
		if e.phase == p {
			times = append(times, e.after)
		}
	}
	if len(times) == 0 {
		return Spread{}
	}
	slices.Sort(times)
	return Spread{times[len(times)/2], times[min(len(times)*95/100, len(times)-1)]}
}

func (all endings) failures() float64 {
	sum := int64(0)
	for _, e := range all {
		sum += e.failures
	}
	return float64(sum) / float64(len(all))
}

// play is how many launches of a release that fails so often end. Both must be complete.
func play(p Plan, t Traffic, failing float64, runs int, seed uint64) endings {
	all := make(endings, runs)
	for i := range all {
		s := newStage(p, t, failing, rand.New(rand.NewPCG(seed, uint64(i))))
		all[i] = s.run()
	}
	return all
}

// stage is one rehearsed launch. It draws the failures and not the requests between them, which is the
// same by chance and takes no longer with more traffic.
type stage struct {
	traffic  Traffic
	failing  float64       // of the candidate
	horizon  time.Duration // when the curtain falls at the latest
	random   *rand.Rand
	buckets  []BasisPoints // of the callers, rising
	launch   Launch
	sides    [2]stageSide
	failures int64 // of the candidate, in all steps
}

type stageSide struct {
	Side
	run          run
	failed, slow int64
}

func newStage(p Plan, t Traffic, failing float64, random *rand.Rand) *stage {
	s := &stage{traffic: t, failing: failing, horizon: math.MaxInt64, random: random}
	s.buckets = make([]BasisPoints, t.Callers)
	for i := range s.buckets {
		s.buckets[i] = BasisPoints(random.Int32N(int32(All)))
	}
	slices.Sort(s.buckets)
	s.launch = Launch{Plan: p}.enter(0, time.Time{})
	return s
}

// run plays until the launch is over, or waits for a person. One that is held as worse is still judged,
// so it goes on as long as a step may take.
func (s *stage) run() ending {
	s.forget()
	until := time.Duration(math.MaxInt64)
	for now := time.Duration(0); ; {
		now += s.traffic.Look
		s.requests()
		if at := (time.Time{}).Add(now); !s.quiet(at) {
			s.look(at)
		}
		switch s.launch.Phase {
		case Completed, RolledBack, Inconclusive, HeldShared: // nobody mends stable in a rehearsal
			until = now
		case HeldWorse:
			until = min(until, now+s.launch.patience())
		}
		if now >= min(until, s.horizon) {
			return ending{s.launch.Phase, now, s.failures}
		}
	}
}

// quiet is that a look could lead to nothing: it is too early to promote, and the failures are not even
// above the limits. Most looks are.
func (s *stage) quiet(now time.Time) bool {
	c, p := &s.sides[Candidate], &s.launch.Plan
	return now.Sub(s.launch.StepAt) < s.launch.MinTime() && c.Streak.Failures < p.MaxStreak &&
		float64(c.failed) <= p.MaxErrors*float64(c.Requests) && float64(c.slow) <= p.MaxSlow*float64(c.Requests)
}

func (s *stage) look(now time.Time) {
	in := s.callers()
	s.sides[Stable].Callers = heardOf(len(s.buckets)-in, s.sides[Stable].Requests)
	s.sides[Candidate].Callers = heardOf(in, s.sides[Candidate].Requests)
	epoch := s.launch.Epoch
	s.launch = judge(s.launch, Observation{Stable: s.sides[Stable].Side, Candidate: s.sides[Candidate].Side, Epoch: epoch}, now).next
	if s.launch.Epoch != epoch {
		s.forget()
	}
}

// heardOf is a set as large as are the callers that n requests come from on average; which they are
// does not matter.
func heardOf(callers int, n int64) Callers {
	heard := int(math.Round(-math.Expm1(-float64(n)/float64(max(callers, 1))) * float64(callers)))
	heard = min(heard, int(All))
	set := make(Callers, (heard+7)/8)
	for i := range set {
		set[i] = 0xff >> max(8*(i+1)-heard, 0)
	}
	return set
}

// callers is how many of them are with the candidate.
func (s *stage) callers() int {
	in, _ := slices.BinarySearch(s.buckets, s.launch.Weight)
	return in
}

func (s *stage) forget() {
	for v := range s.sides {
		s.sides[v] = stageSide{Side: Side{Counts: Counts{Failed: Tally{}, Slow: Tally{}}}}
	}
}

// requests plays the time between two looks.
func (s *stage) requests() {
	rate := s.traffic.Rate * s.traffic.Look.Seconds()
	if s.traffic.Burst > 1 {
		if s.random.Float64() < 1/s.traffic.Burst {
			rate *= s.traffic.Burst
		} else {
			rate = 0
		}
	}
	in := s.callers()
	share := float64(in) / float64(len(s.buckets))
	before := s.sides[Candidate].failed
	if share < 1 {
		s.side(&s.sides[Stable], s.buckets[in:], rate*(1-share), 0, s.traffic.Errors)
	}
	s.side(&s.sides[Candidate], s.buckets[:in], rate*share, s.traffic.Retries*s.traffic.Look.Seconds(), s.failing)
	s.failures += s.sides[Candidate].failed - before
}

// side plays the requests to one version: as many as rate of the callers, and retries, which all fail.
func (s *stage) side(v *stageSide, callers []BasisPoints, rate, retries, failing float64) {
	n := s.poisson(rate + retries)
	if n == 0 {
		return
	}
	v.Requests += n
	anyone := func() BasisPoints { return callers[s.random.IntN(len(callers))] }
	broken := retries / (retries + rate*failing)
	all := (retries + rate*failing) / (retries + rate)
	spared := s.strike(n, s.traffic.Cluster, all/float64(s.traffic.Cluster), func(after int64) {
		if after > 0 {
			v.run.end()
		}
		caller := BasisPoints(0)
		if !(s.random.Float64() < broken) {
			caller = anyone()
		}
		v.failed++
		v.Failed[caller]++
		v.run.extend(caller, false)
	})
	if spared > 0 {
		v.run.end()
	}
	v.Streak = v.run.longest
	s.strike(n, 1, s.traffic.Slow, func(int64) {
		v.slow++
		v.Slow[anyone()]++
	})
}

// strike calls hit for those of n requests that a chance strikes, cluster at a time, with the number spared
// since the one before. It returns how many were spared after the last.
func (s *stage) strike(n int64, cluster int, chance float64, hit func(after int64)) (spared int64) {
	for {
		gap := int64(0)
		if chance < 1 {
			gap = int64(min(math.Log(1-s.random.Float64())/math.Log1p(-chance), 1e15))
		}
		if gap >= n {
			return n
		}
		n -= gap
		for range min(int64(cluster), n) {
			hit(gap)
			n, gap = n-1, 0
		}
	}
}

// poisson draws a number of requests. From a hundred it takes the normal distribution with the same
// variance, which is then within the thickness of a line.
func (s *stage) poisson(mean float64) int64 {
	if s.traffic.regular {
		return int64(mean)
	}
	if mean > 100 {
		return int64(max(0, math.Round(mean+math.Sqrt(mean)*s.random.NormFloat64())))
	}
	n, product := int64(0), s.random.Float64()
	for limit := math.Exp(-mean); product > limit; n++ {
		product *= s.random.Float64()
	}
	return n
}
