package probes

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/load"
	"github.com/gantryhq/gantry/audit/stat"
)

// An error rate passes when the upper end of its interval is under the limit, which at passConfidence is a one-sided bound of
// 90 %: none failed in 2,000 answers is under 0.1 %. It fails when the lower end is above, one-sided 97.5 %: a false alarm
// costs more than an open question.
const (
	passConfidence = 0.80
	failConfidence = 0.95
)

// errorBounds of a rate: what it is at least, to fail, and at most, to pass.
func errorBounds(failed, n int64) (atLeast, atMost float64) {
	atLeast, _ = stat.Wilson(failed, n, failConfidence)
	_, atMost = stat.Wilson(failed, n, passConfidence)
	return atLeast, atMost
}

func performance() []audit.Probe {
	return []audit.Probe{
		{
			ID: "PERF-01", Title: "Error rate and latency at the expected load", Severity: audit.High, Mode: audit.Load,
			Category: audit.Performance, Confirms: true,
			Sends:        "the expected rate (20/s) on the fast path for three windows of 34 s (--load-window)",
			Passes:       "under 0.1 % errors, p95 under 500 ms and p99 under 1 s in the median window",
			Fails:        "the confidence interval of the median window lies above a limit",
			Inconclusive: "an interval straddles a limit, fewer than 2,000 answers, or the generator was the bottleneck",
			Guard:        "open model, latency from the intended moment (no coordinated omission); 429 left out and shown",
			Knobs:        []string{"--load", "--rps", "--fast-path"},
			Refs:         []string{"success criteria: error rate < 0.1 %, p95 < 500 ms"},
			Why:          "The API does not hold what launch day expects of it.",
			Fix:          "Look at the findings on limits and data first: pools, deadlines, queries.",
			Run:          atExpectedLoad,
		},
		{
			ID: "PERF-02", Title: "Ten times the load", Severity: audit.High, Mode: audit.Load, Category: audit.Performance, Confirms: true,
			Sends:        "ten times the expected rate for half a window",
			Passes:       "under 1 % errors, or refusals in order (429, 503 with Retry-After) while what is served has a p99 under 2 s",
			Fails:        "timeouts, resets or 5xx above 1 %",
			Inconclusive: "the generator was the bottleneck",
			Guard:        "stops at 20 % errors",
			Knobs:        []string{"--load", "--rps"},
			Refs:         []string{"SRE book, launch checklist: plan for 10x growth"},
			Why:          "Success arrives at once; what does not refuse in order falls over as a whole.",
			Fix:          "Refuse at the door what cannot be served in time; scale on what queues.",
			Run:          atTenTimes,
		},
		{
			ID: "PERF-03", Title: "Recovery after overload", Severity: audit.High, Mode: audit.Load, Category: audit.Performance,
			Confirms:     true,
			Sends:        "the expected rate, right after ten times as much",
			Passes:       "p95 within 1.5 times its earlier value in 30 s",
			Fails:        "not recovered in 60 s",
			Inconclusive: "PERF-01 or PERF-02 did not measure",
			Guard:        "a difference under 20 ms is not called slow",
			Knobs:        []string{"--load", "--rps"},
			Refs:         []string{"SRE book chapter 22, cascading failures"},
			Why:          "A minute of overload becomes an hour of outage.",
			Fix:          "Bound every queue, drop what nobody waits for any longer, and let retries be few.",
			Run:          afterOverload,
		},
		{
			ID: "PERF-04", Title: "No drift in a soak", Severity: audit.Medium, Mode: audit.Load, Category: audit.Performance, Confirms: true,
			Sends:        "the expected rate for as long as --soak says, ten minutes for instance",
			Passes:       "p95 and resident memory do not rise by more than 5 %",
			Fails:        "either rises steadily, by more than 20 %",
			Inconclusive: "no --soak, a change in between, or the generator was the bottleneck",
			Guard:        "Mann-Kendall test over twenty windows; p95 must also rise by more than 10 ms",
			Knobs:        []string{"--load", "--soak", "--metrics-url"},
			Refs:         []string{"CWE-401"},
			Why:          "It is restarted every night, and nobody knows why.",
			Fix:          "Find the leak; until then recycle workers.",
			Run:          inASoak,
		},
	}
}

func fastRequest(s *audit.Session) audit.Request {
	return audit.Request{Path: s.FastPath(), Token: s.Target().Token, Label: "load", Timeout: 10 * time.Second}
}

func atExpectedLoad(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	p := s.Policy()
	result, err := s.OpenLoad(ctx, load.Open{Rate: p.Rate, Duration: 3 * p.LoadWindow, Windows: 3, Drain: 10 * time.Second}, fastRequest(s), nil)
	if err != nil {
		return audit.Verdict{}, err
	}
	median := result.Median(0.95)
	v := judgeLoad(p, result, median)
	if v.Outcome == audit.Pass || v.Outcome == audit.Fail {
		s.Remember("p95", median.Latency.Quantile(0.95))
	}
	return measured(v, result.Window, median).Drawn(latencyChart("Latency at the expected load", result, p.P95)).Drawn(statusChart("Answers at the expected load", result)), nil
}

// judgeLoad compares intervals with limits: a limit inside an interval decides nothing.
func judgeLoad(p audit.Policy, all load.Result, median load.Window) audit.Verdict {
	low, high := errorBounds(all.Failed, all.Judgeable())
	p95, p99 := median.Latency.Judge(0.95, 0.95, p.P95), median.Latency.Judge(0.99, 0.95, p.P99)
	figures := fmt.Sprintf("%d of %d failed, p95 %s, p99 %s", all.Failed, all.Judgeable(), short(median.Latency.Quantile(0.95)), short(median.Latency.Quantile(0.99)))
	switch {
	case all.Bottleneck != "":
		return audit.Unproven("the generator was the bottleneck: %s", all.Bottleneck)
	case all.Judgeable() < int64(p.MinSamples):
		return audit.Unproven("%d answers are too few to judge (%d refused in order)", all.Judgeable(), all.Shed).Unlock("--rps, or --jwt-key, so that the load comes from many users")
	case low > p.Errors:
		return audit.Failed("errors above %.2g %%: %s", 100*p.Errors, figures)
	case p95 == load.Above:
		return audit.Failed("p95 above %s: %s", p.P95, figures)
	case p99 == load.Above:
		return audit.Failed("p99 above %s: %s", p.P99, figures)
	case high > p.Errors || p95 != load.Below || p99 != load.Below:
		return audit.Unproven("too close to a limit to tell: %s", figures)
	}
	return audit.Passed("%s at %.3g/s", figures, p.Rate)
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func measured(v audit.Verdict, all, median load.Window) audit.Verdict {
	return v.Measured("sent", all.Sent).Measured("failed", all.Failed).Measured("shed", all.Shed).
		Measured("p50Ms", ms(median.Latency.Quantile(0.5))).Measured("p95Ms", ms(median.Latency.Quantile(0.95))).
		Measured("p99Ms", ms(median.Latency.Quantile(0.99))).Measured("perSecond", all.Rate())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func atTenTimes(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	p := s.Policy()
	plan := load.Open{Rate: 10 * p.Rate, Duration: p.LoadWindow / 2, StopAt: 0.2, Drain: 10 * time.Second}
	result, err := s.OpenLoad(ctx, plan, fastRequest(s), nil)
	if err != nil {
		return audit.Verdict{}, err
	}
	s.Remember("overloaded", true)
	low, high := errorBounds(result.Failed, result.Judgeable())
	figures := fmt.Sprintf("%d of %d failed, %d refused in order, p99 of what was served %s",
		result.Failed, result.Judgeable(), result.Shed, short(result.Latency.Quantile(0.99)))
	served := result.Latency.Judge(0.99, 0.95, 2*time.Second)
	var v audit.Verdict
	switch {
	case low > 0.01:
		v = audit.Failed("%s", figures)
	case result.Bottleneck != "":
		v = audit.Unproven("the generator was the bottleneck: %s", result.Bottleneck)
	case result.Shed > 0 && served == load.Above:
		v = audit.Failed("it refuses, and is slow all the same: %s", figures)
	case high > 0.01 || result.Shed > 0 && served != load.Below:
		v = audit.Unproven("too close to a limit to tell: %s", figures)
	default:
		v = audit.Passed("%s at %.4g/s", figures, 10*p.Rate)
	}
	return measured(v, result.Window, result.Window).Drawn(latencyChart("Latency at ten times the load", result, 2*time.Second)).
		Drawn(statusChart("Answers at ten times the load", result)), nil
}

func afterOverload(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	before, ok := s.Fact("p95").(time.Duration)
	if !ok || s.Fact("overloaded") == nil {
		return audit.Unproven("there is no measured load before, or no overload").Unlock("--load"), nil
	}
	p := s.Policy()
	limit := max(before*3/2, before+20*time.Millisecond)
	var last load.Result
	for half := range 2 {
		result, err := s.OpenLoad(ctx, load.Open{Rate: p.Rate, Duration: p.Recovery, Windows: 2, Drain: 10 * time.Second}, fastRequest(s), nil)
		if err != nil {
			return audit.Verdict{}, err
		}
		if result.Bottleneck != "" {
			return audit.Unproven("the generator was the bottleneck: %s", result.Bottleneck), nil
		}
		end := result.Windows[len(result.Windows)-1]
		if recovered(end, limit) {
			return recovery(half, end, before, p.Recovery).Drawn(latencyChart("Latency after the overload", result, limit)), nil
		}
		last = result
	}
	return measured(audit.Failed("%s after the overload p95 is %s and %.1f %% fail; before it was %s", 2*p.Recovery,
		short(last.Latency.Quantile(0.95)), 100*last.ErrorRate(), short(before)), last.Window, last.Window).
		Drawn(latencyChart("Latency after the overload", last, limit)), nil
}

func recovered(w load.Window, limit time.Duration) bool {
	return w.Judgeable() > 0 && w.ErrorRate() <= 0.01 && w.Latency.Quantile(0.95) <= limit
}

func recovery(half int, end load.Window, before, allowed time.Duration) audit.Verdict {
	figures := fmt.Sprintf("p95 was %s again; before the overload it was %s", short(end.Latency.Quantile(0.95)), short(before))
	v := audit.Passed("within %s %s", allowed, figures)
	if half > 0 {
		v = audit.Unproven("only after more than %s %s", allowed, figures)
	}
	return measured(v, end, end)
}

// soakWindows is how many points the test for a trend has, and soakAnswers how many answers each needs.
const (
	soakWindows = 20
	soakAnswers = 15
)

func inASoak(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	p := s.Policy()
	if p.Soak == 0 {
		return audit.Unproven("no soak was asked for").Unlock("--soak 10m"), nil
	}
	memory := watchMemory(ctx, s, p.Soak/soakWindows)
	result, err := s.OpenLoad(ctx, load.Open{Rate: p.Rate, Duration: p.Soak, Windows: soakWindows, Drain: 10 * time.Second}, fastRequest(s), nil)
	rss := memory()
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.Bottleneck != "" {
		return audit.Unproven("the generator was the bottleneck: %s", result.Bottleneck), nil
	}
	var p95 []float64
	for _, w := range result.Windows {
		if w.Judgeable() < soakAnswers {
			return audit.Unproven("%d answers in a twentieth of the soak are too few for a p95", w.Judgeable()).Unlock("a longer --soak, or --rps"), nil
		}
		p95 = append(p95, ms(w.Service.Quantile(0.95))) // a generator that left late says nothing of the target
	}
	v := judgeSoak(drift(p95), drift(rss), len(rss) > 3)
	return measured(v, result.Window, result.Window).Measured("residentBytes", rss).Drawn(latencyChart("Latency in the soak", result, p.P95)), nil
}

// moved is how a series went from its start to its end.
type moved struct {
	by     float64 // in the series' unit
	share  float64 // of its start
	steady bool    // a trend, and no chance (p < 0.01)
}

// drift of a series by the median slope over its length.
func drift(series []float64) moved {
	if len(series) < 4 || series[0] <= 0 {
		return moved{}
	}
	t := stat.MannKendall(series)
	start := stat.Median(series[:max(1, len(series)/4)])
	by := t.Slope * float64(len(series)-1)
	return moved{by: by, share: by / start, steady: t.P < 0.01}
}

// leastRise in milliseconds is what a machine's other work can do to a fast answer: half a millisecond doubles without
// any leak.
const leastRise = 10

func judgeSoak(latency, memory moved, sawMemory bool) audit.Verdict {
	also := ""
	if sawMemory {
		also = fmt.Sprintf(", memory by %+.0f %%", 100*memory.share)
	}
	switch {
	case latency.steady && latency.share > 0.2 && latency.by > leastRise:
		return audit.Failed("p95 rose steadily by %.0f %%%s", 100*latency.share, also)
	case sawMemory && memory.steady && memory.share > 0.2:
		return audit.Failed("resident memory rose steadily by %.0f %%", 100*memory.share)
	case latency.steady && latency.share > 0.05, sawMemory && memory.steady && memory.share > 0.05:
		return audit.Unproven("p95 moved by %+.0f %%%s: more than noise, less than a fault", 100*latency.share, also)
	}
	return audit.Passed("p95 moved by %+.0f %%%s", 100*latency.share, also)
}

var residentMemory = regexp.MustCompile(`(?m)^process_resident_memory_bytes(?:\{[^}]*\})?\s+([0-9.e+]+)`)

// watchMemory reads the resident memory from the metrics, when there are any, until the func it returns is called.
func watchMemory(ctx context.Context, s *audit.Session, every time.Duration) func() []float64 {
	if s.Target().MetricsURL == "" {
		return func() []float64 { return nil }
	}
	ctx, stop := context.WithCancel(ctx)
	result := make(chan []float64, 1)
	go func() {
		var seen []float64
		for audit.Sleep(ctx, every) == nil {
			x, err := s.Metrics(ctx)
			if err != nil {
				break
			}
			if m := residentMemory.FindSubmatch(x.Body); m != nil {
				if bytes, err := strconv.ParseFloat(string(m[1]), 64); err == nil {
					seen = append(seen, bytes)
				}
			}
		}
		result <- seen
	}()
	return func() []float64 { stop(); return <-result }
}

// latencyChart draws the quantiles over time.
func latencyChart(title string, r load.Result, limit time.Duration) audit.Chart {
	c := audit.Chart{Title: title, X: "seconds", Y: "ms", Limits: []audit.Limit{{Name: "limit", Y: ms(limit)}}}
	lines := []audit.Series{{Name: "p50"}, {Name: "p95"}, {Name: "p99"}}
	for _, p := range r.Points {
		for i, q := range []time.Duration{p.P50, p.P95, p.P99} {
			lines[i].X = append(lines[i].X, p.Start.Seconds())
			lines[i].Y = append(lines[i].Y, ms(q))
		}
	}
	c.Series = lines
	return c
}

// statusChart draws what became of the requests over time.
func statusChart(title string, r load.Result) audit.Chart {
	lines := []audit.Series{{Name: "served"}, {Name: "refused in order"}, {Name: "failed"}}
	for _, p := range r.Points {
		seconds := max(p.Length.Seconds(), 1e-3)
		for i, n := range []int64{p.Sent - p.Failed - p.Shed, p.Shed, p.Failed} {
			lines[i].X = append(lines[i].X, p.Start.Seconds())
			lines[i].Y = append(lines[i].Y, float64(n)/seconds)
		}
	}
	return audit.Chart{Title: title, X: "seconds", Y: "per second", Series: lines}
}
