package probes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func lifecycle() []audit.Probe {
	return []audit.Probe{
		{
			ID: "HLT-01", Title: "Health and readiness exist, cheap, public and terse", Severity: audit.High, Mode: audit.Safe,
			Category: audit.Health,
			Sends:    "GET of the health path, or of the usual names (such as /health, /healthz, /livez, /readyz, /api/health, /-/healthy, /ping, /up), ten times without a credential",
			Passes:   "200 within 200 ms, with no secret, version or host in the body",
			Fails:    "no health path, an answer that takes over a second, or one that tells strangers about the insides",
			Guard:    "a page that answers any name is not a health check; only a 200 is read",
			Knobs:    []string{"--health-path"},
			Refs:     []string{"Kubernetes probes", "SRE book, launch checklist"},
			Why:      "A load balancer that cannot ask sends traffic to a process that cannot serve.",
			Fix:      "Answer /livez from the process alone and /readyz after a look at what it needs; say well or not well, and nothing else.",
			Run:      healthExists,
		},
		{
			ID: "HLT-02", Title: "Readiness says 503 when a dependency is down", Severity: audit.Critical, Mode: audit.Fault,
			Category: audit.Health, Confirms: true,
			Sends:        "runs --fault-cmd, then GET of readiness and of a path that needs the dependency, five times a second; then --restore-cmd",
			Passes:       "503 within 10 s while the path fails, and 200 within 30 s of the restore",
			Fails:        "readiness stays well while the path fails, or never comes back",
			Inconclusive: "the path did not fail: the fault had no effect",
			Guard:        "the failing path is the positive control; the restore runs whatever happens, on Ctrl-C too",
			Knobs:        []string{"--fault-cmd", "--restore-cmd", "--db-path"},
			Refs:         []string{"CWE-703", "AWS ORR"},
			Why:          "Every load balancer keeps sending users to an instance that fails them all.",
			Fix:          "Ping what requests need, with a timeout, in readiness only; answer 503 until it is back.",
			Run:          readinessTells,
		},
		{
			ID: "HLT-03", Title: "Health that lies under stress", Severity: audit.Critical, Mode: audit.Passive, Category: audit.Health,
			Root: "HLT-02", Confirms: true,
			Sends:        "nothing: compares the health samples with the data path's while load and faults ran",
			Passes:       "health was not well whenever the data path failed, or the data path never failed under observed stress",
			Fails:        "over half of the data path's answers failed for 5 s or more while health said 200",
			Inconclusive: "nothing was put under stress",
			Guard:        "only windows with 20 samples of the data path; correlation of samples under one clock",
			Knobs:        []string{"--load", "--fault-cmd"},
			Refs:         []string{"CWE-703"},
			Why:          "The dashboard is green while users see errors, and nobody is woken.",
			Fix:          "Let readiness depend on what requests depend on.",
			Run:          healthLies,
		},
		{
			ID: "HLT-04", Title: "A hanging dependency does not hang the service", Severity: audit.High, Mode: audit.Fault,
			Category: audit.Health, Confirms: true,
			Sends:        "runs --hang-cmd (SIGSTOP, a black hole), then GET of readiness and of the fast path; then --restore-cmd",
			Passes:       "both answer within 5 s, whatever they say",
			Fails:        "readiness or the fast path hangs",
			Inconclusive: "no command makes a dependency hang, or nothing was seen to hang",
			Guard:        "as HLT-02: the path that needs the dependency must be seen to suffer",
			Knobs:        []string{"--hang-cmd", "--restore-cmd", "--db-path"},
			Refs:         []string{"ASVS 13.1.3", "ASVS 16.5.2", "CWE-400"},
			Why:          "A dependency that is slow takes everything with it, also what does not need it.",
			Fix:          "A timeout on every call, a bound on how many wait, and a circuit breaker.",
			Run:          hangContained,
		},
		{
			ID: "HLT-05", Title: "SIGTERM drains requests in flight", Severity: audit.High, Mode: audit.Fault, Category: audit.Health,
			Confirms:     true,
			Sends:        "20 requests to the slow path in flight, then --restart-cmd",
			Passes:       "all of them are answered; new ones are served or refused at the door",
			Fails:        "answers are cut: resets, 502, half bodies",
			Inconclusive: "no restart command, or the slow path takes no time",
			Guard:        "a refused connection after the drain is in order; a reset in the middle of an answer is not",
			Knobs:        []string{"--restart-cmd", "--slow-path"},
			Refs:         []string{"The Twelve-Factor App IX", "SRE book, launch checklist"},
			Why:          "Every deploy loses the requests that were running.",
			Fix:          "On SIGTERM: readiness away, wait for the load balancer, finish what runs, then exit.",
			Run:          drains,
		},
	}
}

// usualHealth are names under which services say how they are.
var usualHealth = []string{
	"/readyz", "/health/ready", "/health", "/healthz", "/livez", "/api/health", "/ready", "/actuator/health",
	"/-/ready", "/-/healthy", "/-/ping", "/health/live", "/healthcheck", "/ping", "/up",
}

func healthExists(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	path, err := findHealth(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if path == "" {
		return audit.Failed("none of %d usual health paths answers 200; name yours with --health-path", len(usualHealth)), nil
	}
	s.Remember("health-path", path)
	var answers []*audit.Exchange
	for range 10 {
		x, err := s.Do(ctx, audit.Request{Path: path, Label: "health"})
		if err != nil {
			return audit.Verdict{}, err
		}
		if x.Status != 200 {
			return audit.Failed("%s answers %d", path, x.Status).With(x), nil
		}
		answers = append(answers, x)
	}
	slices.SortFunc(answers, func(a, b *audit.Exchange) int { return cmp.Compare(a.Took, b.Took) })
	return judgeHealth(path, answers[len(answers)/2]), nil
}

// judgeHealth by the answer whose time is in the middle.
func judgeHealth(path string, middle *audit.Exchange) audit.Verdict {
	took := short(middle.Took)
	v := audit.Passed("%s answers 200 in %s", path, took)
	switch leak := tellsInsides(middle.Body); {
	case leak != "":
		v = audit.Failed("%s tells strangers %s", path, leak)
	case middle.Took > time.Second:
		v = audit.Failed("%s takes %s", path, took)
	case middle.Took > 200*time.Millisecond:
		v = audit.Unproven("%s takes %s: over 200 ms, under a second", path, took)
	}
	return v.With(middle).Measured("medianMs", middle.Took.Milliseconds())
}

// findHealth takes the declared path, or the first usual one that answers 200 and is no catch-all page.
func findHealth(ctx context.Context, s *audit.Session) (string, error) {
	if s.Target().HealthPath != "" {
		return s.Target().HealthPath, nil
	}
	for _, path := range usualHealth {
		x, err := s.Do(ctx, audit.Request{Path: path, Label: "is this the health path?"})
		if err != nil {
			return "", err
		}
		if x.Status != 200 {
			continue
		}
		absent, err := s.Absent(ctx, x)
		if err != nil || !absent {
			return path, err
		}
	}
	return "", nil
}

// watched is what one look at readiness and at the path behind it saw.
type watched struct {
	at          time.Duration // since the fault
	ready, data *audit.Exchange
}

// look at both paths five times a second until done says so, at most limit.
func look(ctx context.Context, s *audit.Session, limit time.Duration, done func(watched) bool) ([]watched, error) {
	began := time.Now()
	tick := time.NewTicker(min(200*time.Millisecond, limit/40))
	defer tick.Stop()
	var seen []watched
	for time.Since(began) < limit {
		w, err := lookOnce(ctx, s)
		if err != nil {
			return seen, err
		}
		w.at = time.Since(began)
		seen = append(seen, w)
		if done(w) {
			return seen, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return seen, ctx.Err()
		}
	}
	return seen, nil
}

func lookOnce(ctx context.Context, s *audit.Session) (w watched, err error) {
	w.ready, err = s.Unpaced(ctx, audit.Request{Path: s.HealthPath(), Timeout: 5 * time.Second, Label: "readiness", Fresh: true})
	if err != nil {
		return w, err
	}
	w.data, err = s.Unpaced(ctx, audit.Request{Path: s.Target().DBPath, Token: s.Target().Token, Timeout: 5 * time.Second, Label: "path that needs the dependency"})
	if err != nil {
		return w, err
	}
	s.Sampled(true, audit.Sample{At: w.ready.At, Status: w.ready.Status, Took: w.ready.Took})
	s.Sampled(false, audit.Sample{At: w.data.At, Status: w.data.Status, Took: w.data.Took})
	return w, nil
}

func failing(x *audit.Exchange) bool { return x.Status == 0 || x.Status >= 500 }

// faultReady says what is missing for a fault probe.
func faultReady(s *audit.Session, command, flag string) string {
	switch {
	case command == "":
		return flag + " and --restore-cmd"
	case s.Hooks().Restore == "":
		return "--restore-cmd"
	case s.Target().DBPath == "":
		return "--db-path"
	case s.HealthPath() == "":
		return "--health-path"
	}
	return ""
}

func readinessTells(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if missing := faultReady(s, s.Hooks().Fault, "--fault-cmd"); missing != "" {
		return audit.Unproven("no dependency can be stopped and watched").Unlock("%s", missing), nil
	}
	before, err := lookOnce(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if failing(before.ready) || failing(before.data) {
		return audit.Unproven("readiness or %s was unwell before the fault", s.Target().DBPath).With(before.ready, before.data), nil
	}
	var down []watched
	told := func(w watched) bool { return failing(w.data) && w.ready.Status == 503 }
	err = s.Broken(ctx, s.Hooks().Fault, func(ctx context.Context) (err error) {
		down, err = look(ctx, s, s.Policy().Recovery, told)
		return err
	})
	if err != nil {
		return audit.Verdict{}, err
	}
	up, err := look(ctx, s, s.Policy().Recovery, func(w watched) bool { return w.ready.Status == 200 && !failing(w.data) })
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeReadiness(s, down, up), nil
}

func judgeReadiness(s *audit.Session, down, up []watched) audit.Verdict {
	suffered, told := firstWhere(down, func(w watched) bool { return failing(w.data) }), firstWhere(down, func(w watched) bool { return w.ready.Status == 503 })
	back := up[len(up)-1]
	limit := min(10*time.Second, s.Policy().Recovery)
	switch {
	case suffered == nil:
		return audit.Unproven("the fault had no effect: %s kept answering", s.Target().DBPath).With(down[len(down)-1].data)
	case told == nil:
		last := down[len(down)-1]
		return audit.Failed("readiness says %s while %s fails", answerOf(last.ready), s.Target().DBPath).With(last.ready, suffered.data)
	case told.at-suffered.at > limit:
		return audit.Failed("readiness said 503 only %s after requests failed", (told.at-suffered.at).Round(time.Second)).With(told.ready, suffered.data)
	case back.ready.Status != 200:
		return audit.Failed("readiness still says %s %s after the dependency came back", answerOf(back.ready), s.Policy().Recovery).With(back.ready)
	}
	return audit.Passed("503 while %s failed, 200 within %s of the restore", s.Target().DBPath, back.at.Round(100*time.Millisecond)).
		With(told.ready, suffered.data, back.ready)
}

func answerOf(x *audit.Exchange) string {
	if x.Status == 0 {
		return "nothing"
	}
	return fmt.Sprint(x.Status)
}

func firstWhere(list []watched, is func(watched) bool) *watched {
	for i := range list {
		if is(list[i]) {
			return &list[i]
		}
	}
	return nil
}

// lieWindow is how long health must be wrong before it is called a lie; lieSamples is how much of the data path must have
// been seen in it.
const (
	lieWindow  = 5 * time.Second
	lieSamples = 20
)

func healthLies(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	health, data := s.Timeline()
	if len(data) == 0 || len(health) == 0 {
		return audit.Unproven("nothing was put under stress while health was watched").Unlock("--load, or --fault-cmd"), nil
	}
	window := min(lieWindow, s.Policy().Recovery)
	slices.SortFunc(data, func(a, b audit.Sample) int { return a.At.Compare(b.At) })
	next, bad := 0, 0 // data[i:next] is the window, bad of it failed
	for i := range data {
		end := data[i].At.Add(window)
		for ; next < len(data) && !data[next].At.After(end); next++ {
			bad += failed(data[next])
		}
		if seen := next - i; seen >= lieSamples && 2*bad > seen {
			if wrong := wellAllAlong(health, data[i].At, end); wrong > 0 {
				return audit.Failed("for %s, %d of %d requests failed while health said 200 each of %d times", window, bad, seen, wrong).
					Drawn(lieChart(data, health)), nil
			}
		}
		bad -= failed(data[i])
	}
	from, to, fell := failures(data)
	switch {
	case !fell:
		return audit.Unproven("the data path never failed while health was watched").Unlock("--fault-cmd"), nil
	case wellAllAlong(health, from.Add(-window), to.Add(window)) > 0:
		return audit.Unproven("requests failed while health said 200, but for too short a time to call it a lie"), nil
	}
	return audit.Passed("health was not well when requests failed").Drawn(lieChart(data, health)), nil
}

// failures is the time from the first failed request to the last.
func failures(data []audit.Sample) (from, to time.Time, any bool) {
	for _, d := range data {
		if d.Well() {
			continue
		}
		if !any {
			from, any = d.At, true
		}
		to = d.At
	}
	return from, to, any
}

// failed is 1 for a sample that was not well.
func failed(d audit.Sample) int {
	if d.Well() {
		return 0
	}
	return 1
}

// wellAllAlong counts the health samples in a window; 0 when one was not well, or there is none.
func wellAllAlong(health []audit.Sample, from, to time.Time) int {
	n := 0
	for _, h := range health {
		if h.At.Before(from) || h.At.After(to) {
			continue
		}
		if h.Status != 200 {
			return 0
		}
		n++
	}
	return n
}

// lieChart puts both under one clock.
func lieChart(data, health []audit.Sample) audit.Chart {
	c := audit.Chart{Title: "What requests saw and what health said", X: "seconds", Y: "status"}
	start := data[0].At
	for _, s := range []struct {
		name string
		list []audit.Sample
	}{{"requests", data}, {"health", health}} {
		line := audit.Series{Name: s.name}
		for i := 0; i < len(s.list); i += len(s.list)/300 + 1 {
			line.X = append(line.X, s.list[i].At.Sub(start).Seconds())
			line.Y = append(line.Y, float64(s.list[i].Status))
		}
		c.Series = append(c.Series, line)
	}
	return c
}

func hangContained(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if missing := faultReady(s, s.Hooks().Hang, "--hang-cmd"); missing != "" {
		return audit.Unproven("no dependency can be made to hang and watched").Unlock("%s", missing), nil
	}
	limit := min(5*time.Second, s.Policy().Deadline)
	var ready, fast, data *audit.Exchange
	err := s.Broken(ctx, s.Hooks().Hang, func(ctx context.Context) (err error) {
		suffering := make(chan *audit.Exchange, 1)
		go func() {
			x, _ := s.Unpaced(ctx, audit.Request{Path: s.Target().DBPath, Token: s.Target().Token, Timeout: limit, Label: "path that needs the dependency"})
			suffering <- x
		}()
		if ready, err = s.Unpaced(ctx, audit.Request{Path: s.HealthPath(), Timeout: limit, Label: "readiness", Fresh: true}); err != nil {
			return err
		}
		fast, err = s.Unpaced(ctx, audit.Request{Path: s.FastPath(), Token: s.Target().Token, Timeout: limit, Label: "fast path", Fresh: true})
		data = <-suffering
		return err
	})
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeHang(s, limit, ready, fast, data), nil
}

func judgeHang(s *audit.Session, limit time.Duration, ready, fast, data *audit.Exchange) audit.Verdict {
	switch {
	case ready.TimedOut():
		return audit.Failed("readiness did not answer within %s while a dependency hung", limit).With(ready)
	case fast.TimedOut() && s.FastPath() != s.Target().DBPath:
		return audit.Failed("the fast path did not answer within %s while a dependency hung", limit).With(fast)
	case data == nil || !failing(data) && data.Took < limit/2:
		return audit.Unproven("the hanging dependency had no effect on %s", s.Target().DBPath).With(ready)
	}
	return audit.Passed("readiness answered %s in %s while %s suffered", answerOf(ready), ready.Took.Round(time.Millisecond), s.Target().DBPath).
		With(ready, fast, data)
}

// inFlight is how many slow requests are running when the restart comes.
const inFlight = 20

func drains(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Hooks().Restart == "" || s.Target().SlowPath == "" {
		return audit.Unproven("no restart was allowed, or no request takes long enough to be caught by it").Unlock("--restart-cmd and --slow-path"), nil
	}
	slow := audit.Request{Path: s.Target().SlowPath, Token: s.Target().Token, Timeout: s.Policy().Deadline + 10*time.Second, Label: "slow path", Fresh: true}
	alone, err := s.Unpaced(ctx, slow)
	if err != nil {
		return audit.Verdict{}, err
	}
	if failing(alone) || alone.Took < 300*time.Millisecond {
		return audit.Unproven("the slow path must answer well after half a second or more; it answered %s after %s", answerOf(alone), alone.Took.Round(time.Millisecond)).With(alone), nil
	}
	answers := make(chan *audit.Exchange, inFlight)
	for range inFlight {
		go func() {
			x, _ := s.Unpaced(ctx, slow)
			answers <- x
		}()
	}
	if err := audit.Sleep(ctx, alone.Took/4); err != nil { // let them arrive
		return audit.Verdict{}, err
	}
	if _, err := s.Hook(ctx, s.Hooks().Restart, 2*time.Minute); err != nil {
		return audit.Verdict{}, fmt.Errorf("restart command: %w", err)
	}
	return judgeDrain(s, alone, answers), awake(ctx, s)
}

func judgeDrain(s *audit.Session, alone *audit.Exchange, answers chan *audit.Exchange) audit.Verdict {
	lost := 0
	var example *audit.Exchange
	for range inFlight {
		if x := <-answers; x == nil || x.Err != nil || x.Status != alone.Status {
			lost++
			if x != nil {
				example = x
			}
		}
	}
	if lost == 0 {
		return audit.Passed("%d requests of %s in flight were all answered through the restart", inFlight, alone.Took.Round(100*time.Millisecond)).With(alone)
	}
	v := audit.Failed("%d of %d requests in flight were lost in the restart", lost, inFlight).Measured("lost", lost)
	if example != nil {
		v = v.With(example)
	}
	return v
}

// awake waits until the target answers again, so that later probes do not judge a restart.
func awake(ctx context.Context, s *audit.Session) error {
	for range 60 {
		x, err := s.Unpaced(ctx, audit.Request{Path: s.FastPath(), Token: s.Target().Token, Timeout: 2 * time.Second, Fresh: true})
		if err != nil {
			return err
		}
		if x.Status > 0 && x.Status < 500 {
			return nil
		}
		if err := audit.Sleep(ctx, s.Policy().Recovery/60); err != nil {
			return err
		}
	}
	return fmt.Errorf("the target did not come back after the restart")
}
