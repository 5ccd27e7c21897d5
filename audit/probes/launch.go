package probes

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func launch() []audit.Probe {
	return []audit.Probe{
		{
			ID: "LCH-01", Title: "The running build is identifiable", Severity: audit.Medium, Mode: audit.Passive, Category: audit.Launch,
			Confirms:     true,
			Sends:        "nothing, or GET of --version-path and of --metrics-url: looks for a version header, answer or metric",
			Passes:       "a commit or version that operators can see",
			Fails:        "none where it was said to be",
			Inconclusive: "nothing was named, and no answer carried one",
			Guard:        "it need not be public",
			Knobs:        []string{"--version-path", "--metrics-url"},
			Refs:         []string{"SRE book, canarying releases"},
			Why:          "Nobody can say which version fails, or whether the rollback has arrived.",
			Fix:          "Build the commit in, and give it as a header, a path on the private port, or a build_info metric.",
			Run:          buildKnown,
		},
		{
			ID: "LCH-02", Title: "Deploy without errors", Severity: audit.High, Mode: audit.Fault, Category: audit.Launch, Confirms: true,
			Sends:        "half the expected load on the fast path through --deploy-cmd",
			Passes:       "no failed request",
			Fails:        "any 5xx, reset or refusal",
			Inconclusive: "no deploy command, or the path failed before the deploy",
			Guard:        "a window before the deploy is the baseline",
			Knobs:        []string{"--deploy-cmd", "--rps"},
			Refs:         []string{"SRE book, launch checklist", "AWS ORR"},
			Why:          "Users see errors with every release, so releases become rare and large.",
			Fix:          "Start the new one, wait for its readiness, move traffic, drain the old one.",
			Run:          deploys,
		},
		{
			ID: "LCH-03", Title: "Rollback works and is timed", Severity: audit.High, Mode: audit.Fault, Category: audit.Launch, Confirms: true,
			Sends:        "half the expected load through --rollback-cmd after the deploy, and the version in between",
			Passes:       "the previous version serves within 5 min, and no request fails",
			Fails:        "it does not come back, comes later, or requests fail",
			Inconclusive: "no rollback command, or the version cannot be seen (an attestation earns half)",
			Guard:        "the version is the oracle",
			Knobs:        []string{"--deploy-cmd", "--rollback-cmd", "--version-path"},
			Refs:         []string{"AWS ORR"},
			Why:          "The first rollback is tried in the worst hour of the year.",
			Fix:          "Keep the last artifact at hand, and migrate the database so that both versions can read it.",
			Run:          rollsBack,
		},
		{
			ID: "LCH-04", Title: "Backup restores", Severity: audit.High, Mode: audit.Fault, Category: audit.Launch, Confirms: true,
			Sends:        "runs --restore-drill-cmd, which restores elsewhere and prints what came back",
			Passes:       "it exits 0 and prints a count",
			Fails:        "it exits otherwise",
			Inconclusive: "no drill (an attestation of at most 30 days earns half)",
			Guard:        "an attestation needs an owner, a date, a link and an expiry",
			Knobs:        []string{"--restore-drill-cmd"},
			Refs:         []string{"CWE-1053", "SRE book, launch checklist"},
			Why:          "A backup that was never restored is a hope.",
			Fix:          "Restore into an empty database on a schedule, and count what came back.",
			Run:          restores,
		},
		{
			ID: "LCH-05", Title: "An alert reaches a human path", Severity: audit.High, Mode: audit.Fault, Category: audit.Launch, Confirms: true,
			Sends:        "runs --fault-cmd and waits at --alert-webhook for the alert; then --restore-cmd",
			Passes:       "an alert within 5 min",
			Fails:        "none",
			Inconclusive: "no hook (an attestation earns half), or an alert came before the fault",
			Guard:        "silence before the fault, so that the alert is this fault's",
			Knobs:        []string{"--fault-cmd", "--restore-cmd", "--alert-webhook"},
			Refs:         []string{"AWS ORR", "ASVS 16.4.3"},
			Why:          "The users are the monitoring.",
			Fix:          "Alert on the burn rate of the error budget, and test the way to the one who is woken.",
			Run:          alerts,
		},
	}
}

var (
	versionHeaders = []string{"X-Version", "X-App-Version", "X-Build", "X-Build-Id", "X-Commit", "X-Revision", "X-Release", "Gantry-Version"}
	versionText    = regexp.MustCompile(`(?i)"(?:version|commit|revision|build|git_sha|sha|release|vcs\.revision)"\s*:\s*"([^"]{1,80})"`)
	versionMetric  = regexp.MustCompile(`(?m)^\w*build_info\{[^}]*(?:version|revision|commit)="([^"]{1,80})"`)
	versionValue   = regexp.MustCompile(`:\s*"(v?\d+\.\d+\.\d+(?:[-+][\w.+-]{1,60})?)"`) // under any name: {"etcdserver": "3.4.23"}
	versionPlain   = regexp.MustCompile(`^\s*(v?\d+\.\d+[\w.+-]{0,60}|[0-9a-f]{7,64})\s*$`)
)

func buildKnown(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	build, x, err := buildOf(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if build == "" && s.Target().VersionPath == "" && s.Target().MetricsURL == "" {
		return audit.Unproven("no answer carries a version, and no place for it was named").Unlock("--version-path or --metrics-url"), nil
	}
	if build == "" {
		v := audit.Failed("no version or commit where it was said to be")
		if x != nil {
			v = v.With(x)
		}
		return v, nil
	}
	s.Remember("build", build)
	return audit.Passed("the running build is %s", build).With(x), nil
}

// buildOf reads the version that runs: of the version path, of the metrics, or of any header.
func buildOf(ctx context.Context, s *audit.Session) (string, *audit.Exchange, error) {
	var last *audit.Exchange
	if path := s.Target().VersionPath; path != "" {
		x, err := s.Do(ctx, audit.Request{Path: path, Token: s.Target().Token, Label: "version", Fresh: true})
		if err != nil {
			return "", nil, err
		}
		if build := versionIn(x); build != "" {
			return build, x, nil
		}
		last = x
	}
	if s.Target().MetricsURL != "" {
		x, err := s.Metrics(ctx)
		if err != nil {
			return "", nil, err
		}
		if m := versionMetric.FindSubmatch(x.Body); m != nil {
			return string(m[1]), x, nil
		}
		last = x
	}
	history := s.History()
	for i := len(history) - 1; i >= 0; i-- {
		if build := headerVersion(history[i]); build != "" {
			return build, history[i], nil
		}
	}
	return "", last, nil
}

func versionIn(x *audit.Exchange) string {
	if !x.OK() {
		return ""
	}
	for _, pattern := range []*regexp.Regexp{versionText, versionPlain, versionMetric, versionValue} {
		if m := pattern.FindSubmatch(x.Body); m != nil {
			return string(m[1])
		}
	}
	return headerVersion(x)
}

func headerVersion(x *audit.Exchange) string {
	for _, name := range versionHeaders {
		if v := x.Header.Get(name); v != "" && len(v) < 100 {
			return v
		}
	}
	return ""
}

// traffic counts what became of requests while something happened.
type traffic struct {
	mu           sync.Mutex
	sent, failed int
	example      *audit.Exchange
}

func (t *traffic) saw(x *audit.Exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	if x == nil || x.Err != nil || x.Status >= 500 || x.Status == 0 {
		t.failed++
		t.example = x
	}
}

// during sends the fast path at rate while f runs, and a little before and after it. Requests leave when they are due,
// whatever the answers do.
func during(ctx context.Context, s *audit.Session, rate float64, f func(context.Context) error) (*traffic, error) {
	t := &traffic{}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var flights sync.WaitGroup
	margin := s.Policy().Recovery / 10
	flights.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
		defer tick.Stop()
		for {
			select {
			case <-running.Done():
				return
			case <-tick.C:
			}
			flights.Go(func() {
				x, err := s.Unpaced(ctx, audit.Request{Path: s.FastPath(), Token: s.Target().Token, Timeout: 10 * time.Second, Label: "traffic"})
				if err == nil {
					t.saw(x)
				}
			})
		}
	})
	err := audit.Sleep(ctx, margin)
	if err == nil && t.lost() == 0 {
		err = f(ctx)
	}
	if err == nil {
		err = audit.Sleep(ctx, margin)
	}
	stop()
	flights.Wait()
	return t, err
}

func (t *traffic) lost() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func deploys(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Hooks().Deploy == "" {
		return audit.Unproven("no deploy was allowed").Unlock("--deploy-cmd"), nil
	}
	before, _, err := buildOf(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	ran := false
	t, err := during(ctx, s, s.Policy().Rate/2, func(ctx context.Context) error {
		ran = true
		_, err := s.Hook(ctx, s.Hooks().Deploy, 10*time.Minute)
		return err
	})
	if err != nil {
		return audit.Verdict{}, fmt.Errorf("deploy command: %w", err)
	}
	if !ran {
		return audit.Unproven("requests failed before the deploy began").With(t.example), nil
	}
	s.Remember("deployed-over", before)
	return t.verdict("the deploy"), nil
}

func (t *traffic) verdict(what string) audit.Verdict {
	if t.failed > 0 {
		v := audit.Failed("%d of %d requests failed during %s", t.failed, t.sent, what).Measured("failed", t.failed).Measured("sent", t.sent)
		if t.example != nil {
			v = v.With(t.example)
		}
		return v
	}
	return audit.Passed("none of %d requests failed during %s", t.sent, what).Measured("sent", t.sent)
}

func rollsBack(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	previous, deployed := s.Fact("deployed-over").(string)
	switch {
	case s.Hooks().Rollback == "" || !deployed:
		return audit.Unproven("no deploy and rollback were allowed").Unlock("--deploy-cmd and --rollback-cmd"), nil
	case previous == "":
		return audit.Unproven("the version that runs cannot be seen").Unlock("--version-path"), nil
	}
	now, _, err := buildOf(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if now == previous {
		return audit.Unproven("the deploy did not change the version (%s)", now), nil
	}
	began, back := time.Now(), ""
	t, err := during(ctx, s, s.Policy().Rate/2, func(ctx context.Context) error {
		if _, err := s.Hook(ctx, s.Hooks().Rollback, 5*time.Minute); err != nil {
			return err
		}
		back, err = waitForBuild(ctx, s, previous)
		return err
	})
	if err != nil {
		return audit.Verdict{}, fmt.Errorf("rollback command: %w", err)
	}
	took := time.Since(began).Round(100 * time.Millisecond)
	if back != previous {
		return audit.Failed("after the rollback %s runs, not %s", back, previous), nil
	}
	return t.verdict(fmt.Sprintf("the rollback from %s to %s, which took %s", now, previous, took)).Measured("tookMs", took.Milliseconds()), nil
}

// waitForBuild asks for the version until it is the one wanted, for the policy's recovery time.
func waitForBuild(ctx context.Context, s *audit.Session, want string) (string, error) {
	for deadline := time.Now().Add(s.Policy().Recovery); ; {
		build, _, err := buildOf(ctx, s)
		if err != nil || build == want || time.Now().After(deadline) {
			return build, err
		}
		if err := audit.Sleep(ctx, s.Policy().Recovery/30); err != nil {
			return "", err
		}
	}
}

var digits = regexp.MustCompile(`\d+`)

func restores(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Hooks().RestoreDrill == "" {
		return audit.Unproven("no restore drill was run").Unlock("--restore-drill-cmd"), nil
	}
	began := time.Now()
	out, err := s.Hook(ctx, s.Hooks().RestoreDrill, 30*time.Minute)
	if ctx.Err() != nil {
		return audit.Verdict{}, ctx.Err()
	}
	took := time.Since(began).Round(100 * time.Millisecond)
	last := lastLine(out)
	switch {
	case err != nil:
		return audit.Failed("the restore drill failed after %s: %v", took, err), nil
	case !digits.MatchString(out):
		return audit.Unproven("the drill ended well but printed no count of what came back: %q", last), nil
	}
	return audit.Passed("the drill restored in %s: %s", took, last).Measured("tookMs", took.Milliseconds()), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func alerts(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	h := s.Hooks()
	if h.AlertWebhook == "" || h.Fault == "" {
		return audit.Unproven("no fault was allowed to cause an alert").Unlock("--fault-cmd and --alert-webhook"), nil
	}
	sink, err := s.Listen(ctx, h.AlertWebhook)
	if err != nil {
		return audit.Verdict{}, err
	}
	defer sink.Close()
	if _, early := sink.Any(ctx, s.Policy().Recovery/10); early {
		return audit.Unproven("an alert came before the fault"), nil
	}
	began := time.Now()
	var hit audit.Hit
	var came bool
	err = s.Broken(ctx, h.Fault, func(ctx context.Context) error {
		hit, came = sink.Any(ctx, 10*s.Policy().Recovery) // 5 minutes by default
		return ctx.Err()
	})
	if err != nil {
		return audit.Verdict{}, err
	}
	if !came {
		return audit.Failed("no alert within %s of the fault", 10*s.Policy().Recovery), nil
	}
	return audit.Passed("an alert came %s after the fault (%s %s)", hit.At.Sub(began).Round(time.Second), hit.Method, hit.Path), nil
}
