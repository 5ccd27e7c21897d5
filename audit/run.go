package audit

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// ErrUnreachable says that the target did not answer at all.
var ErrUnreachable = errors.New("the target does not answer")

// stage is a part of a run. The order of the constants is the order of the run: identity is judged before anything has
// stressed the target, the limiter alone, and what breaks things comes last; passive probes look at all of it.
type stage int

const (
	stageSafe stage = iota
	stageIdentity
	stageValidation
	stageLimits
	stageActive
	stageLoad
	stageRate
	stageFault
	stagePassive
)

var stageNames = []string{"safe", "identity", "validation", "limits", "active", "load", "rate limit", "fault", "passive"}

func (s stage) String() string { return stageNames[s] }

func stageOf(p Probe) stage {
	switch {
	case p.Mode == Fault:
		return stageFault
	case p.Category == Identity && p.Mode != Active:
		return stageIdentity // the passive ones too: what they find lets others mint tokens
	case p.Mode == Passive:
		return stagePassive
	case p.Category == Abuse && p.Mode != Active:
		return stageRate
	case p.Mode == Load:
		return stageLoad
	case p.Mode == Active:
		return stageActive
	case p.Category == Validation:
		return stageValidation
	case p.Category == Limits || p.Category == Data:
		return stageLimits
	}
	return stageSafe
}

// run is one audit in progress.
type run struct {
	Session // the engine's own, under the name of CALIBRATE
	probes  []Probe
	started time.Time
	done    int
	stages  []StageTime
	waiting time.Duration // now, for the target's limiter
	waited  time.Duration // in all
	halted  error         // why nothing can be told although the run goes on
	mu      sync.Mutex    // of findings, done and progress
	saying  sync.Mutex
}

// Run audits t with the probes. It returns a report whenever the target answered at all, even when ctx ended or the
// budget was spent half-way: then Incomplete says so. The error is ErrUnreachable, or a fault of the configuration.
func Run(ctx context.Context, t *Target, probes []Probe, c Config) (Report, error) {
	if err := c.Validate(t); err != nil {
		return Report{}, err
	}
	c = c.Defaults()
	copied := *t
	r := &run{probes: probes, started: c.Now()}
	r.Session = Session{
		probe: Probe{ID: "CALIBRATE"}, target: &copied, cfg: c, wire: newWire(&copied, c),
		shared: &shared{findings: map[string]Finding{}, took: map[string]time.Duration{}, facts: map[string]any{}, controls: map[string][]*Exchange{}},
	}
	defer r.close()
	r.wire.wait = r.sayWaiting
	ctx, cancel := context.WithTimeoutCause(ctx, c.Budget.Time, ErrBudget)
	defer cancel()
	if err := r.prepare(ctx); err != nil {
		return Report{}, err
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { r.sampleHealth(sampling) })
	r.stagesInTurn(ctx)
	stop()
	sampler.Wait()
	return r.report(ctx), nil
}

func (r *run) close() {
	r.wire.close()
	if r.shared.callback != nil {
		r.shared.callback.close()
	}
	if r.shared.harness != nil {
		r.shared.harness.close()
	}
	if r.shared.sink != nil {
		r.shared.sink.close()
	}
}

// prepare opens the means of minting and calibrates.
func (r *run) prepare(ctx context.Context) error {
	r.say(Progress{Stage: "calibration"})
	if err := r.openSigner(ctx); err != nil {
		return err
	}
	if err := r.openSink(ctx); err != nil {
		return err
	}
	began := time.Now()
	c, err := r.calibrate(ctx)
	switch {
	case errors.Is(err, ErrUnreachable):
		return err
	case ctx.Err() != nil:
		if !r.wire.answered.Load() && errors.Is(r.ended(ctx), ErrBudget) {
			return fmt.Errorf("%w: %s, within %s", ErrUnreachable, r.target.Origin(), r.cfg.Budget.Time)
		}
		c = &Calibration{Why: "calibration did not finish: " + r.ended(ctx).Error()}
	case errors.Is(err, ErrRateLimited), errors.Is(err, ErrBudget):
		r.halted, c = err, &Calibration{Why: err.Error()}
	case err != nil:
		return err
	}
	r.shared.calibration = c
	r.stages = append(r.stages, StageTime{"calibration", time.Since(began), int(r.wire.requests.Load())})
	return nil
}

func (r *run) openSigner(ctx context.Context) error {
	if r.cfg.Harness != "" {
		h, err := newHarness(ctx, r.cfg.Harness, r.cfg.Claims)
		if err != nil {
			return err
		}
		r.shared.harness, r.shared.signer = h, h.signer()
		if r.target.Token == "" {
			token, err := r.shared.signer.Mint(r.cfg.Now(), nil, map[string]any{"exp": r.cfg.Now().Add(time.Hour).Unix()})
			if err != nil {
				return err
			}
			r.target.Token = token
			r.wire.hide.hide(token)
		}
	}
	if r.target.JWTKey == "" {
		return nil
	}
	base, err := r.Token()
	if err != nil {
		return fmt.Errorf("--jwt-key: %w; give a sample with --token", err)
	}
	r.shared.signer, err = newSigner(r.target.JWTKey, base)
	return err
}

func (r *run) openSink(ctx context.Context) (err error) {
	if r.cfg.OTLPSink != "" {
		r.shared.sink, err = newSink(ctx, r.cfg.OTLPSink)
	}
	return err
}

// stagesInTurn runs all probes. Those that mostly wait run beside the first stages.
func (r *run) stagesInTurn(ctx context.Context) {
	var background sync.WaitGroup
	for _, p := range r.probes {
		if p.Background && r.wanted(p) == "" {
			background.Go(func() { r.settle(p, r.ask(ctx, p)) })
		}
	}
	for s := stageSafe; s <= stagePassive; s++ {
		if s == stageActive {
			r.timed("waiting for slow answers", background.Wait)
		}
		if s == stageRate && r.wire.limited.Load() || s == stageFault && r.cfg.Faults && 2*r.Spent(r.cfg.Policy.RateWindow) > r.cfg.Policy.RateLimit {
			r.timed("letting the rate limit forget", func() { _ = Sleep(ctx, r.cfg.Policy.RateWindow) })
		}
		r.timed(s.String(), func() { r.oneStage(ctx, s) })
	}
}

func (r *run) timed(name string, f func()) {
	began, sent := time.Now(), r.wire.requests.Load()
	f()
	if took := time.Since(began); took > 10*time.Millisecond {
		r.stages = append(r.stages, StageTime{name, took, int(r.wire.requests.Load() - sent)})
	}
}

func (r *run) oneStage(ctx context.Context, s stage) {
	for _, p := range r.probes {
		if stageOf(p) != s {
			continue
		}
		if why := r.wanted(p); why != "" {
			r.settle(p, Unproven("%s", why).Unlock("%s", p.Mode.Flag()))
		} else if !p.Background {
			r.settle(p, r.ask(ctx, p))
		}
	}
}

// wanted says why a probe is not run, or nothing.
func (r *run) wanted(p Probe) string {
	switch {
	case len(r.cfg.Only) > 0 && !slices.Contains(r.cfg.Only, p.ID), slices.Contains(r.cfg.Skip, p.ID):
		return "left out by the operator"
	case !r.cfg.allows(p.Mode):
		return "needs " + p.Mode.Flag()
	}
	return ""
}

// ask runs a probe and confirms a failure.
func (r *run) ask(ctx context.Context, p Probe) Verdict {
	s := r.Session
	s.probe = p
	began := time.Now()
	defer func() { r.took(p.ID, time.Since(began)) }()
	if c := s.Calibration(); p.NeedsCredential && !c.Tells {
		return Unproven("%s", c.Why).Unlock("--token and --protected-path")
	}
	v := s.once(ctx)
	if v.Outcome == Fail && !p.Confirms {
		v = s.confirm(ctx, v)
	}
	if p.NeedsCredential && (v.Outcome == Pass || v.Outcome == Fail) {
		if err := s.Control(ctx); err != nil {
			return Unproven("%v", err).With(v.Evidence...)
		}
	}
	return v
}

// took notes how long a probe ran, repeats and waits included.
func (r *run) took(id string, d time.Duration) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	r.shared.took[id] = d
}

// confirm asks once more, with the unchanged valid token in between; who only looks needs no control.
func (s *Session) confirm(ctx context.Context, first Verdict) Verdict {
	if s.probe.Mode == Passive {
		return s.once(ctx)
	}
	if err := s.Control(ctx); err != nil {
		return Unproven("%v; before that: %s", err, first.Message).With(first.Evidence...)
	}
	again := s.once(ctx)
	if again.Outcome != Fail {
		return Unproven("failed once and not again: first %s; then %s", first.Message, again.Message).With(first.Evidence...)
	}
	return again
}

// once runs the probe. A crash is the audit's fault, not the target's.
func (s *Session) once(ctx context.Context) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("probe crashed", "probe", s.probe.ID, "panic", p, "stack", string(debug.Stack()))
			v = Unproven("the probe itself crashed; please report it: %v", p)
		}
	}()
	limit := 4 * time.Minute
	if s.probe.Mode == Load || s.probe.Mode == Fault {
		limit = 4*s.cfg.Policy.LoadWindow + s.cfg.Policy.Soak + 10*time.Minute
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	v, err := s.probe.Run(inner, s)
	switch {
	case ctx.Err() != nil:
		return Unproven("%v", s.ended(ctx)).With(v.Evidence...)
	case inner.Err() != nil:
		return Unproven("the probe took longer than %s", limit)
	case err != nil:
		return Unproven("%v", err).With(v.Evidence...).Unlock("%s", v.Hint)
	}
	return v
}

// ended says why ctx is over.
func (s *Session) ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrBudget) {
		return s.wire.late()
	}
	return errInterrupted
}

var errInterrupted = errors.New("the run was interrupted")

// settle turns the verdict into the run's finding.
func (r *run) settle(p Probe, v Verdict) {
	f := finding(p, v)
	f.Message, f.Hint = r.wire.hide.text(f.Message, 600), r.wire.hide.text(f.Hint, 300)
	f.Data = r.wire.hide.data(f.Data)
	for _, x := range v.Evidence[:min(len(v.Evidence), 6)] {
		f.Evidence = append(f.Evidence, x.evidence(r.wire.hide))
	}
	r.declare(&f)
	f = attest(f, r.cfg.Attested, r.cfg.Now())
	f.Requests = r.wire.sentBy(p.ID)
	r.shared.mu.Lock()
	f.Took = r.shared.took[p.ID]
	r.shared.findings[p.ID] = f
	r.shared.mu.Unlock()
	r.mu.Lock()
	r.done++
	progress := Progress{Stage: stageOf(p).String(), Probe: p.ID, Finished: &f}
	r.mu.Unlock()
	r.say(progress)
}

// declare makes a probe not applicable when the operator said so, unless it was seen to fail.
func (r *run) declare(f *Finding) {
	reason := r.target.Declared[f.Probe]
	if reason == "" || r.cfg.NoDeclared || f.Outcome == Fail || f.Outcome == Pass {
		return
	}
	f.Outcome, f.Declared, f.Message = NotApplicable, true, "declared: "+clean(reason)
}

// attest gives half credit to a launch probe that could not run and that somebody vouches for.
func attest(f Finding, list []Attestation, now time.Time) Finding {
	if f.Category != Launch || f.Outcome != Inconclusive {
		return f
	}
	for _, a := range list {
		if a.ID == f.Probe && now.Before(a.Expires) {
			f.Outcome = Attested
			f.Message = clean(fmt.Sprintf("attested by %s on %s until %s: %s",
				a.Owner, a.Date.Format(time.DateOnly), a.Expires.Format(time.DateOnly), a.Link))
		}
	}
	return f
}

func (r *run) say(p Progress) {
	r.saying.Lock() // background probes end beside the others, and who listens hears one at a time
	defer r.saying.Unlock()
	r.mu.Lock()
	p.Done, p.Total = r.done, len(r.probes)
	p.Waiting = r.waiting
	r.mu.Unlock()
	p.Requests, p.Elapsed = int(r.wire.requests.Load()), r.cfg.Now().Sub(r.started)
	r.cfg.Progress(p)
}

func (r *run) sayWaiting(d time.Duration) {
	r.mu.Lock()
	r.waiting = d
	r.waited += d
	r.mu.Unlock()
	r.say(Progress{})
}

// sampleHealth looks at the health path once a second while load or faults are allowed.
func (r *run) sampleHealth(ctx context.Context) {
	if !r.cfg.Load && !r.cfg.Faults {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.HealthPath() == "" {
			continue
		}
		x, err := r.Unpaced(ctx, Request{Path: r.HealthPath(), Timeout: 3 * time.Second, Fresh: true, Label: "health sample"})
		if err == nil {
			r.Sampled(true, Sample{x.At, x.Status, x.Took})
		}
	}
}

func (r *run) report(ctx context.Context) Report {
	out := Report{
		Schema: Schema, Gantry: r.cfg.Version, Catalogue: catalogue(r.probes), Target: r.target.URL.String(),
		Started: r.started.UTC(), Took: r.cfg.Now().Sub(r.started), Seed: r.cfg.Seed, Modes: r.modes(), Knobs: r.knobs(),
		Points: r.cfg.Points, Policy: r.cfg.Policy, Budget: r.cfg.Budget, Requests: int(r.wire.requests.Load()),
		LoadSent: int(r.wire.load.Load()), Received: r.wire.bytes.Load(), Waivers: r.cfg.Waivers, Attested: r.cfg.Attested,
		Stages: r.stages, Waited: r.waited, Calibration: r.calibrationReport(), Health: r.healthStrip(),
	}
	if build, ok := r.Fact("build").(string); ok {
		out.Build = r.wire.hide.text(clean(build), 100)
	}
	for _, p := range r.probes {
		if f, ok := r.Finding(p.ID); ok {
			out.Findings = append(out.Findings, f)
		}
	}
	r.shared.mu.Lock()
	out.Findings = append(append(out.Findings, r.shared.seen...), r.cfg.Vantage...)
	r.shared.mu.Unlock()
	overrun := r.wire.overrun.Load()
	switch {
	case ctx.Err() != nil:
		out.Incomplete = r.ended(ctx).Error()
	case overrun != nil:
		out.Incomplete = (*overrun).Error()
	case r.halted != nil:
		out.Incomplete = r.halted.Error()
	}
	out.Score = Rate(out.Findings)
	return out
}

func (r *run) calibrationReport() CalibrationReport {
	c := r.shared.calibration
	out := CalibrationReport{Path: c.Path, Tells: c.Tells, Why: r.wire.hide.text(c.Why, 300)}
	for _, x := range []*Exchange{c.Valid, c.Missing, c.Garbage} {
		if x != nil {
			out.Evidence = append(out.Evidence, x.evidence(r.wire.hide))
		}
	}
	return out
}

func (r *run) healthStrip() []HealthSample {
	health, _ := r.Timeline()
	step := len(health)/600 + 1
	var out []HealthSample
	for i := 0; i < len(health); i += step {
		out = append(out, HealthSample{health[i].At.Sub(r.started).Seconds(), health[i].Status, milliseconds(health[i].Took)})
	}
	return out
}

func (r *run) modes() string {
	letters := ""
	for _, m := range []Mode{Passive, Safe, Active, Load, Fault} {
		if r.cfg.allows(m) {
			letters += m.String()
		}
	}
	return letters
}

// knobs names what the run was told.
func (r *run) knobs() []string {
	t, c := r.target, r.cfg
	told := []struct {
		name string
		set  bool
	}{
		{"token", t.Token != ""},
		{"token-b", t.TokenB != ""},
		{"admin-token", t.AdminToken != ""},
		{"token-expired", t.TokenExpired != ""},
		{"token-other-aud", t.TokenOtherAudience != ""},
		{"id-token", t.IDToken != ""},
		{"refresh-token", t.RefreshToken != ""},
		{"jwt-key", t.JWTKey != ""},
		{"jwks", t.JWKS != ""},
		{"issuer-harness", c.Harness != ""},
		{"protected-path", len(t.ProtectedPaths) > 0},
		{"admin-path", len(t.AdminPaths) > 0},
		{"object-a", t.ObjectA != ""},
		{"object-b", t.ObjectB != ""},
		{"health-path", t.HealthPath != ""},
		{"slow-path", t.SlowPath != ""},
		{"list-path", t.ListPath != ""},
		{"db-path", t.DBPath != ""},
		{"write-path", t.WritePath != ""},
		{"metrics-url", t.MetricsURL != ""},
		{"version-path", t.VersionPath != ""},
		{"openapi", len(t.Operations) > 0},
		{"recipes", len(t.Recipes) > 0},
		{"canary", t.Canary != nil},
		{"fault-cmd", c.Hooks.Fault != ""},
		{"restart-cmd", c.Hooks.Restart != ""},
		{"deploy-cmd", c.Hooks.Deploy != ""},
		{"rollback-cmd", c.Hooks.Rollback != ""},
		{"log-cmd", c.Hooks.Log != ""},
		{"otlp-sink", c.OTLPSink != ""},
	}
	var names []string
	for _, k := range told {
		if k.set {
			names = append(names, k.name)
		}
	}
	return names
}
