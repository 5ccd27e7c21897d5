package rollout

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the tables of docs/launch.md")

// document compares a table with the one in docs/launch.md, or writes it there.
func document(t *testing.T, name string, rows [][]string) {
	t.Helper()
	var table strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&table, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&table, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	const file = "../docs/launch.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "<!-- table "+name+" -->\n")
	old, after, ended := strings.Cut(rest, "<!-- end -->")
	switch {
	case !found || !ended:
		t.Errorf("%s has no table %s", file, name)
	case old == table.String():
	case *update:
		text := before + "<!-- table " + name + " -->\n" + table.String() + "<!-- end -->" + after
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("table %s of %s is not current (go test ./rollout -update); got\n%swant\n%s", name, file, table.String(), old)
	}
}

// tenMinutes is a plan that sends everything to the candidate, so that a rate is one of the candidate.
func tenMinutes(limit float64) Plan {
	return Plan{Steps: []Step{{Weight: All}}, Watch: 10 * time.Minute, MaxErrors: limit, MaxSlow: 1}.withDefaults()
}

// rehearsed is how launches of ten minutes end.
func rehearsed(limit float64, tr Traffic, failing float64, runs int) endings {
	all := make(endings, runs)
	for i := range all {
		s := newStage(tenMinutes(limit), tr.withDefaults(), failing, rand.New(rand.NewPCG(1, uint64(i))))
		s.horizon = 10 * time.Minute
		all[i] = s.run()
	}
	return all
}

// threshold is the share of launches that the usual rule aborts: more failures in the last minute than the
// limit allows, looked at every 10 s. from100 is that of the same rule with 100 requests in the minute at least.
func threshold(limit float64, tr Traffic, failing float64, runs int) (plain, from100 float64) {
	for i := range runs {
		s := newStage(tenMinutes(limit), tr.withDefaults(), failing, rand.New(rand.NewPCG(1, uint64(i))))
		s.forget()
		var n, failed [61]int64 // up to each look
		over, overFrom100 := 0.0, 0.0
		for look := 1; look <= 60; look++ {
			s.requests()
			n[look], failed[look] = s.sides[Candidate].Requests, s.failures
			if look < 6 {
				continue // no minute has passed
			}
			requests, failures := n[look]-n[look-6], failed[look]-failed[look-6]
			if float64(failures) > limit*float64(requests) {
				over = 1
				if requests >= 100 {
					overFrom100 = 1
				}
			}
		}
		plain, from100 = plain+over/float64(runs), from100+overFrom100/float64(runs)
	}
	return plain, from100
}

func TestAGoodReleaseIsNotAborted(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"limit", "fails", "requests/s", "last minute above the limit", "the same, from 100 requests", "Gantry"}}
	for _, c := range []struct{ limit, failing, rate, plain, from100 float64 }{
		{0.01, 0.002, 0.5, 0.46, 0},
		{0.01, 0.002, 2, 0.31, 0.31},
		{0.01, 0.002, 10, 0.007, 0.007},
		{0.001, 0.0005, 2, 0.45, 0.45},
		{0.001, 0.0005, 10, 0.95, 0.95},
	} {
		const runs = 1000
		tr := Traffic{Rate: c.rate, Look: 10 * time.Second, regular: true}
		plain, from100 := threshold(c.limit, tr, c.failing, runs)
		got := rehearsed(c.limit, tr, c.failing, runs).share(RolledBack)
		if got > 0.005 {
			t.Errorf("%+v: %v are aborted, want at most 0.5 %%", c, got)
		}
		if math.Abs(plain-c.plain) > 0.05 || math.Abs(from100-c.from100) > 0.05 {
			t.Errorf("%+v: the plain rules abort %v and %v, want within 5 points", c, plain, from100)
		}
		rows = append(rows, []string{percent(c.limit), percent(c.failing), fmt.Sprint(c.rate), percent(plain), percent(from100), percent(got)})
	}
	document(t, "good", rows)
}

func TestABadReleaseIsCaughtInTime(t *testing.T) {
	t.Parallel()
	type cell struct{ rate, caught, median, p95 float64 } // seconds
	rows := [][]string{{"limit", "fails", "2 requests/s", "10 requests/s", "50 requests/s"}}
	for _, c := range []struct {
		limit, failing float64
		cells          []cell
	}{
		{0.01, 0.02, []cell{{2, 0.56, 0, 0}, {10, 1, 110, 310}, {50, 1, 30, 65}}},
		{0.01, 0.05, []cell{{2, 1, 55, 155}, {10, 1, 15, 35}, {50, 1, 5, 10}}},
		{0.01, 0.2, []cell{{2, 1, 10, 20}, {10, 1, 5, 5}, {50, 1, 5, 5}}},
		{0.001, 0.002, []cell{{}, {10, 0.18, 0, 0}, {50, 0.97, 200, 495}}},
		{0.001, 0.01, []cell{{}, {10, 1, 40, 100}, {50, 1, 10, 20}}},
		{0.001, 0.05, []cell{{}, {10, 1, 10, 15}, {50, 1, 5, 5}}},
	} {
		row := []string{percent(c.limit), percent(c.failing)}
		for _, want := range c.cells {
			if want.rate == 0 {
				row = append(row, "-")
				continue
			}
			all := rehearsed(c.limit, Traffic{Rate: want.rate, regular: true}, c.failing, 500)
			caught, time := all.share(RolledBack), all.spread(RolledBack)
			if math.Abs(caught-want.caught) > 0.1 {
				t.Errorf("limit %v, fails %v, %v/s: %v are caught, want %v within 10 points", c.limit, c.failing, want.rate, caught, want.caught)
			}
			for what, pair := range map[string][2]float64{"median": {time.Median.Seconds(), want.median}, "p95": {time.P95.Seconds(), want.p95}} {
				// The table was made with looks every 5 s of 100 to 200 runs: it knows no less than one look.
				if pair[1] > 0 && math.Abs(pair[0]-pair[1]) > max(0.2*pair[1], 5) {
					t.Errorf("limit %v, fails %v, %v/s: %s = %v s, want %v s within 20 %% or one look", c.limit, c.failing, want.rate, what, pair[0], pair[1])
				}
			}
			text := fmt.Sprintf("%.0f / %.0f s", time.Median.Seconds(), time.P95.Seconds())
			if caught < 0.99 {
				text += fmt.Sprintf(", %.0f %% caught", 100*caught)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	document(t, "bad", rows)
}

func TestUnrulyTrafficDoesNotAbortAGoodRelease(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"traffic", "aborted of a release with 0.2 %", "a release with 5 % is caught in"}}
	for _, c := range []struct {
		name    string
		traffic Traffic
		most    float64
	}{
		{"10 requests/s, evenly", Traffic{Rate: 10}, 0.005},
		{"in bursts: all of 50 s within 5 s", Traffic{Rate: 10, Burst: 10}, 0.005},
		{"and a broken client that retries once a second", Traffic{Rate: 10, Retries: 1}, 0.005},
		{"and one that retries ten times a second", Traffic{Rate: 10, Retries: 10}, 0.005},
		{"five callers only", Traffic{Rate: 10, Callers: 5}, 0.005},
		{"five callers and the broken client", Traffic{Rate: 10, Callers: 5, Retries: 1}, 0.005},
		{"failures come in twos", Traffic{Rate: 10, Cluster: 2}, 0.005},
		{"failures come in fours", Traffic{Rate: 10, Cluster: 4}, 0.02},
	} {
		aborted := rehearsed(0.01, c.traffic, 0.002, 1000).share(RolledBack)
		if aborted > c.most {
			t.Errorf("%s: %v are aborted, want at most %v", c.name, aborted, c.most)
		}
		bad := rehearsed(0.01, c.traffic, 0.05, 100)
		if caught := bad.share(RolledBack); caught < 0.99 {
			t.Errorf("%s: %v of the bad are caught, want all", c.name, caught)
		}
		time := bad.spread(RolledBack)
		rows = append(rows, []string{c.name, percent(aborted), fmt.Sprintf("%.0f / %.0f s", time.Median.Seconds(), time.P95.Seconds())})
	}
	document(t, "unruly", rows)
}

// A release exactly at its limit is no good one, and need not be spared; but what many looks make of one
// chance in a thousand must be known.
func TestManyLooksErrMoreOftenThanOneButNotMuch(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"fails, of a limit of 1 %", "one look", "every 10 s", "every 5 s", "every second"}}
	for _, failing := range []float64{0.01, 0.0075, 0.005} {
		row := []string{percent(failing)}
		for _, look := range []time.Duration{10 * time.Minute, 10 * time.Second, 5 * time.Second, time.Second} {
			got := rehearsed(0.01, Traffic{Rate: 10, Look: look}, failing, 500).share(RolledBack)
			if most := 0.02; got > most || failing <= 0.005 && got > 0.002 {
				t.Errorf("fails %v, a look every %v: %v are aborted, want at most %v", failing, look, got, most)
			}
			row = append(row, percent(got))
		}
		rows = append(rows, row)
	}
	document(t, "looks", rows)
}

func TestARehearsalIsTheSameForTheSameSeed(t *testing.T) {
	p, tr := Plan{MaxErrors: 0.01}, Traffic{Rate: 20, Errors: 0.002}
	a, errA := Rehearse(p, tr, 50, 7)
	b, errB := Rehearse(p, tr, 50, 7)
	if errA != nil || errB != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("one seed gives\n%+v and\n%+v (%v, %v)", a, b, errA, errB)
	}
	if sum := a.Completed + a.Aborted + a.Held + a.Inconclusive; math.Abs(sum-1) > 1e-9 {
		t.Errorf("the ends add up to %v, want 1", sum)
	}
	if a.Completed < 0.9 || a.Finish.Median != 30*time.Minute {
		t.Errorf("%v completed in %v, want most in half an hour", a.Completed, a.Finish.Median)
	}
	for _, c := range a.Catches[1:] {
		if c.Caught < 0.99 || c.Time.P95 > 5*time.Minute {
			t.Errorf("%+v, want it caught within five minutes", c)
		}
	}
	for _, p := range a.Proofs {
		if !p.Possible() {
			t.Errorf("%+v is not possible", p)
		}
	}
}

func TestARehearsalSaysWhatCannotBeProven(t *testing.T) {
	r, err := Rehearse(DefaultPlan(), Traffic{Rate: 2, Errors: 0.0001}, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Proofs[0]; p.Possible() || p.Requests != 2995 || p.Rate != 0.2 || p.Time != 14_975*time.Second {
		t.Errorf("proof = %+v, want 2995 requests in 4 hours, which is impossible", p)
	}
	if r.Inconclusive < 0.9 {
		t.Errorf("%v are inconclusive, want nearly all", r.Inconclusive)
	}
}

// When stable fails as much as the candidate, a rehearsal ends too.
func TestARehearsalAboveTheLimitEnds(t *testing.T) {
	r, err := Rehearse(Plan{MaxErrors: 0.01}, Traffic{Rate: 50, Errors: 0.2, Slow: 0.1}, 20, 1)
	if err != nil || r.Held < 0.9 {
		t.Errorf("%v are held, %v, want nearly all", r.Held, err)
	}
}

func TestTrafficThatCannotBeIsRefused(t *testing.T) {
	for _, tr := range []Traffic{{}, {Rate: -1}, {Rate: math.NaN()}, {Rate: 1, Errors: 1}, {Rate: 1, Slow: -1}, {Rate: 1, Callers: -1}, {Rate: 1, Burst: 0.5}, {Rate: 1, Cluster: -1}, {Rate: 1, Retries: -1}, {Rate: 1, Look: 1}} {
		if _, err := Rehearse(Plan{}, tr, 1, 1); err == nil {
			t.Errorf("%+v is taken for traffic", tr)
		}
	}
	if _, err := Rehearse(Plan{}, Traffic{Rate: 1}, 0, 1); err == nil {
		t.Error("no run is taken for a rehearsal")
	}
}
