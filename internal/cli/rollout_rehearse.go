package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// rehearse plays a plan before anything moves.
func rehearse(_ context.Context, p Process) int {
	fs := flags(p, "rollout rehearse", "Plays a launch many times by chance, with your traffic, your usual errors and your limits, and says how often a\ngood release would be stopped, how soon a bad one, how long it takes, and what the traffic can prove. Nothing is\nsent anywhere.")
	terms, traffic := termFlags(fs), trafficFlags(fs)
	runs := fs.Int("runs", 500, "how many launches of each release are played")
	seed := fs.Uint64("seed", 1, "another number is another chance")
	asJSON := fs.Bool("json", false, "print the result as JSON")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	plan, err := terms.Plan()
	var played rollout.Rehearsal
	if err == nil {
		played, err = rollout.Rehearse(plan, *traffic, *runs, *seed)
	}
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry rollout rehearse:", err)
		return Usage
	}
	if *asJSON {
		err = indented(p.Stdout, played)
	} else {
		err = printRehearsal(p.Stdout, played)
	}
	return outcome(p, "rollout rehearse", err)
}

func trafficFlags(fs *flag.FlagSet) *rollout.Traffic {
	t := &rollout.Traffic{Rate: 20, Errors: 0.0001}
	number := func(name, usage string, f *float64, read func(string) (float64, error)) {
		fs.Func(name, usage, func(s string) (err error) {
			*f, err = read(s)
			return err
		})
	}
	number("traffic", "the `rate` of all requests (default 20rps)", &t.Rate, parseRate)
	number("error-rate", "the `share` that fails already today (default 0.01%)", &t.Errors, parseShare)
	number("slow-rate", "the `share` that is slow already today (default 0%)", &t.Slow, parseShare)
	fs.IntVar(&t.Callers, "callers", 500, "how many users or clients send them")
	return t
}

func printRehearsal(w io.Writer, r rollout.Rehearsal) error {
	var b strings.Builder
	weights := make([]string, len(r.Plan.Steps))
	for i, s := range r.Plan.Steps {
		weights[i] = s.Weight.String()
	}
	fmt.Fprintf(&b, "%s at %s requests/s, at most %s errors and %s slower than %v\n\n",
		strings.Join(weights, " → "), digits(r.Traffic.Rate), share(r.Plan.MaxErrors), share(r.Plan.MaxSlow), r.Plan.SlowAfter)
	printEnds(&b, r)
	b.WriteString("\nA release that fails more often:\n\n     fails    caught      held  failed requests  caught after\n")
	for _, c := range r.Catches {
		fmt.Fprintf(&b, "  %8s  %8s  %8s  %15s  %s\n", share(c.Errors), share(c.Caught), share(c.Held), digits(c.Failures), spread(c.Time))
	}
	b.WriteString("\nWhat the traffic can prove:\n\n      step  requests/s  proof\n")
	for _, s := range r.Proofs {
		fmt.Fprintf(&b, "  %8s  %10s  %s\n", s.Weight, digits(s.Rate), proof(s))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printEnds(b *strings.Builder, r rollout.Rehearsal) {
	aborted := "without cause"
	if r.Plan.OnInconclusive == rollout.GiveUp {
		aborted = "for want of evidence, or without cause"
	}
	fmt.Fprintf(b, "A release as good as today's (%s errors), launched %d times:\n\n", share(r.Traffic.Errors), r.Runs)
	for _, end := range []struct {
		share      float64
		name, what string
	}{
		{r.Completed, "completed", "after " + spread(r.Finish)},
		{r.Inconclusive, "inconclusive", "the evidence did not come in time; it waits for it, or for a person"},
		{r.Held, "held", "it looked worse than stable, or stable failed as well: a person is asked"},
		{r.Aborted, "aborted", aborted},
	} {
		if end.share == 0 {
			end.what = ""
		}
		fmt.Fprintln(b, strings.TrimRight(fmt.Sprintf("  %8s  %-12s  %s", share(end.share), end.name, end.what), " "))
	}
}

// proof is what can be proven at a step, and what to do when that is not the limit.
func proof(s rollout.Proof) string {
	takes := fmt.Sprintf("%d without an error take %v", s.Requests, plain(s.Time))
	if s.Possible() {
		return takes
	}
	return fmt.Sprintf("NOT IN TIME: %s, of %v; errors below %s can be proven", takes, plain(s.Patience), share(s.Provable()))
}

func spread(s rollout.Spread) string {
	if s.Median == 0 {
		return "-"
	}
	return fmt.Sprintf("%s, in 95 of 100 within %s", plain(s.Median), plain(s.P95))
}

// plain is a time without the zeros: 30m, 2m15s.
func plain(d time.Duration) string {
	s := d.Round(time.Second).String()
	if trimmed, found := strings.CutSuffix(s, "m0s"); found {
		s = trimmed + "m"
	}
	if trimmed, found := strings.CutSuffix(s, "h0m"); found {
		s = trimmed + "h"
	}
	return s
}

func share(f float64) string { return strconv.FormatFloat(100*f, 'g', 3, 64) + " %" }

// digits is a number as short as it is worth: 0.2, 2, 2000.
func digits(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

// parseShare reads a percentage from 0 to 100, such as "0.1%", as a share of 1. The sign may be missing.
func parseShare(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "%")), 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("%q is not a percentage such as 0.1%%", s)
	}
	return f / 100, nil
}

// parseRate reads "20rps", "20/s" or "20" as requests a second.
func parseRate(s string) (float64, error) {
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(s), "rps"), "/s")
	f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || !(f > 0) {
		return 0, fmt.Errorf("%q is not a number of requests a second such as 20rps", s)
	}
	return f, nil
}
