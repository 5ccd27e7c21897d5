package alert

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// RunbookURL is where docs/runbook.md can be read.
const RunbookURL = "https://github.com/gantryhq/gantry/blob/main/docs/runbook.md"

// MaxSilence is the longest that an alert can be silenced for: what nobody wants to hear for longer is a wrong rule.
const MaxSilence = 30 * day

// Config says what is evaluated and who is told.
type Config struct {
	// Rules are what is evaluated, such as [Defaults]; disabled ones are not.
	Rules []Rule
	// Source measures. Required.
	Source Source
	// Notify is handed every message, one after the other. It must return at once: what it waits for, the next
	// evaluation waits for. It may ask [Engine.Alerts], and change nothing. Required.
	Notify func(Notification)
	// Facts adds to what a message tells, in order; nil adds nothing.
	Facts func(Alert) []Fact
	// Interval is the time between evaluations; default 5 s.
	Interval time.Duration
	// Settle is how long a firing alert's condition must not hold before it resolves, so that what swings around its
	// limit is one incident; default 1 min.
	Settle time.Duration
	// Repeat is after how long an alert that is critical and that nobody acknowledged is told again; default 4 h.
	Repeat time.Duration
	// StateFile keeps where every rule stands over restarts; "" keeps nothing.
	StateFile string
	// Instance names this process, Environment where it runs, Dashboard the page that shows more. Messages have them.
	Instance, Environment, Dashboard string
	// Runbook is the address of the runbook, to which a rule's [Anchor] is added; default [RunbookURL].
	Runbook string
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger is told of every alert that fires or resolves, and of a state file that cannot be used; nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = 5 * time.Second
	}
	if c.Settle <= 0 {
		c.Settle = time.Minute
	}
	if c.Repeat <= 0 {
		c.Repeat = 4 * time.Hour
	}
	if c.Runbook == "" {
		c.Runbook = RunbookURL
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Engine evaluates rules. All methods may be called at any time from any goroutine.
type Engine struct {
	cfg Config

	step sync.Mutex // held over an evaluation and over every change: messages leave in the order of what they tell of

	mu      sync.Mutex // guards what follows
	records []*record
	owed    []Alert // incidents that ended, and of whose end nobody was told yet
	watch   map[chan []Alert]struct{}
	saved   time.Time // when the state file was last written
}

// The errors of [Engine.Silence] and its like.
var (
	ErrUnknown   = errors.New("there is no alert of this name")
	ErrNotFiring = errors.New("the alert is not firing")
	ErrDuration  = errors.New("a silence lasts from 1s to 720h")
)

// NewEngine returns an engine with the state that it had when the process ended. A state file that cannot be read is
// told to the logger and put aside; it never keeps the engine from starting.
func NewEngine(cfg Config) (*Engine, error) {
	if cfg.Source == nil || cfg.Notify == nil {
		return nil, errors.New("alert: Source and Notify are required")
	}
	if err := unique(cfg.Rules); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg.withDefaults(), watch: make(map[chan []Alert]struct{})}
	now := e.now()
	e.adopt(cfg.Rules, e.load(now), now)
	return e, nil
}

func unique(rules []Rule) error {
	if len(rules) > MaxRules {
		return fmt.Errorf("alert: more than %d rules", MaxRules)
	}
	seen := make(map[string]bool)
	for _, r := range rules {
		if seen[r.Name] {
			return fmt.Errorf("alert: two rules are named %q", r.Name)
		}
		seen[r.Name] = true
	}
	return nil
}

// now has no monotonic part: it is compared with times of another life of the process.
func (e *Engine) now() time.Time { return e.cfg.Now().Round(0).UTC() }

// Run evaluates at once and then at every interval, until ctx ends. It keeps the state then.
func (e *Engine) Run(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.Interval)
	defer tick.Stop()
	for {
		e.Evaluate(e.now())
		select {
		case <-ctx.Done():
			e.save(e.now())
			return nil
		case <-tick.C:
		}
	}
}

// Evaluate reads every rule's signal once and hands over the messages that follow from it.
func (e *Engine) Evaluate(now time.Time) {
	e.step.Lock()
	defer e.step.Unlock()
	now = now.Round(0).UTC()
	e.mu.Lock()
	changed := false
	for _, r := range e.records {
		changed = e.observe(r, now) || changed
	}
	news := e.due(now)
	e.mu.Unlock()
	e.finish(news, changed || len(news) > 0, now)
}

// observe evaluates one rule, and says whether it stands elsewhere now.
func (e *Engine) observe(r *record, now time.Time) bool {
	before := r.State
	reading, ok := r.Rule.read(e.cfg.Source)
	ended := r.observe(reading, ok, now, e.cfg.Settle)
	if ended != nil {
		e.owe(*ended)
	}
	if r.State == Firing && r.Incident == "" {
		r.Incident = e.incident(r.Rule.Name, now)
	}
	e.tellLog(before, r.Alert)
	return r.State != before
}

// news is what there is to tell about an alert.
type news struct {
	Alert
	resolved bool
}

// finish keeps what was decided before it is told: an incident that was told has its key after a crash, too.
func (e *Engine) finish(all []news, changed bool, now time.Time) {
	if changed || e.stale(now) {
		e.save(now)
	}
	for _, one := range all {
		e.cfg.Notify(e.message(one, now))
	}
	e.publish()
}

// due collects what is to be told now, ends of incidents first.
func (e *Engine) due(now time.Time) []news {
	var all []news
	e.owed = slices.DeleteFunc(e.owed, func(a Alert) bool {
		if a.SilencedUntil.After(now) {
			return false
		}
		all = append(all, news{a, true})
		return true
	})
	for _, r := range e.records {
		if r.due(now, e.cfg.Repeat) {
			r.Told, r.Again = now, false
			all = append(all, news{r.Alert, false})
		}
	}
	return all
}

// owe keeps the end of an incident until it can be told. Only what was told of has an end to tell.
func (e *Engine) owe(a Alert) {
	if len(e.owed) >= 2*MaxRules {
		e.cfg.Logger.Error("the end of an alert is not told: too many are silenced", slog.String("alert", e.owed[0].Rule.Name))
		e.owed = slices.Delete(e.owed, 0, 1)
	}
	e.owed = append(e.owed, a)
}

func (e *Engine) message(one news, now time.Time) Notification {
	a := one.Alert
	n := Notification{
		Alert: a, Resolved: one.resolved, At: now,
		Instance: e.cfg.Instance, Environment: e.cfg.Environment, Dashboard: e.cfg.Dashboard,
		Runbook: a.Rule.runbook(e.cfg.Runbook),
	}
	if budget := a.Rule.Condition.Budget; budget > 0 {
		n.Facts = append(n.Facts, Fact{"Burn rate", fmt.Sprintf("%.1f times what the objective allows", a.Reading.Value/budget)})
	}
	if a.NoData {
		n.Facts = append(n.Facts, Fact{"No data", "nothing was measured at the last evaluation"})
	}
	if e.cfg.Facts != nil {
		n.Facts = append(n.Facts, e.cfg.Facts(a)...)
	}
	return n
}

// runbook is the address of the rule's instructions.
func (r Rule) runbook(base string) string {
	if r.Runbook != "" {
		return r.Runbook
	}
	return base + "#" + Anchor(r.Name)
}

// incident is unique to a firing, and stays when the process starts again.
func (e *Engine) incident(name string, fired time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", e.cfg.Environment, e.cfg.Instance, name, fired.UnixNano()))
	return fmt.Sprintf("%s-%x", clip(Anchor(name), 60), sum[:8])
}

func (e *Engine) tellLog(before State, a Alert) {
	attrs := []any{
		slog.String("alert", a.Rule.Name), slog.String("severity", string(a.Rule.Severity)),
		slog.String("condition", a.Rule.Condition.Text), slog.Float64("value", a.Reading.Value),
	}
	switch {
	case before != Firing && a.State == Firing:
		e.cfg.Logger.Warn("alert fires", attrs...)
	case before == Firing && a.State != Firing:
		e.cfg.Logger.Info("alert resolved", attrs...)
	}
}

// SetRules replaces the rules. One that asks what one of the same name asked before stays where it stands, whoever is
// to be told now; of one that is gone, or that asks something else, a firing ends. Silences stay with the name.
func (e *Engine) SetRules(rules []Rule) error {
	if err := unique(rules); err != nil {
		return err
	}
	e.step.Lock()
	defer e.step.Unlock()
	now := e.now()
	e.mu.Lock()
	e.adopt(rules, e.records, now)
	e.mu.Unlock()
	e.finish(nil, true, now)
	return nil
}

// adopt makes the rules the engine's own, with what the records know of them.
func (e *Engine) adopt(rules []Rule, known []*record, now time.Time) {
	byName := make(map[string]*record, len(known))
	for _, r := range known {
		byName[r.Rule.Name] = r
	}
	e.records = make([]*record, 0, len(rules))
	for _, rule := range rules {
		if rule.Disabled {
			continue
		}
		r := newRecord(rule, now)
		if old := byName[rule.Name]; old != nil {
			r.SilencedUntil, r.SilencedBy = old.SilencedUntil, old.SilencedBy
			if old.Rule.same(rule) {
				old.Rule = rule
				r = old
				delete(byName, rule.Name)
			}
		}
		e.records = append(e.records, r)
	}
	for _, old := range known {
		if byName[old.Rule.Name] == old && old.State == Firing && !old.Told.IsZero() {
			e.owe(old.Alert)
		}
	}
}

// Silence keeps the alert's messages back for a time, from 1 s to [MaxSilence]. It is evaluated all the same; what
// still fires when the silence ends is told then, and so is the end of what was told of before.
func (e *Engine) Silence(name string, d time.Duration, by string) error {
	if d < time.Second || d > MaxSilence {
		return ErrDuration
	}
	return e.change(name, func(r *record, now time.Time) ([]news, error) {
		r.SilencedUntil, r.SilencedBy = now.Add(d), clip(by, maxName)
		e.holdBack(name, r.SilencedUntil)
		return nil, nil
	})
}

// Unsilence ends a silence; the next evaluation tells what there is to tell.
func (e *Engine) Unsilence(name string) error {
	return e.change(name, func(r *record, now time.Time) ([]news, error) {
		r.lift()
		e.holdBack(name, time.Time{})
		return nil, nil
	})
}

// holdBack sets until when the end of incidents of a name is not told.
func (e *Engine) holdBack(name string, until time.Time) {
	for i := range e.owed {
		if e.owed[i].Rule.Name == name {
			e.owed[i].SilencedUntil = until
		}
	}
}

// Acknowledge says that somebody is at it: a firing alert is not repeated until it has resolved. The receivers are told.
func (e *Engine) Acknowledge(name, by string) error {
	return e.change(name, func(r *record, now time.Time) ([]news, error) {
		if r.State != Firing {
			return nil, ErrNotFiring
		}
		r.AcknowledgedBy = clip(by, maxName)
		if r.silenced(now) || r.Told.IsZero() {
			return nil, nil
		}
		return []news{{r.Alert, false}}, nil
	})
}

// change does something to the record of a name, keeps it and tells what follows.
func (e *Engine) change(name string, do func(*record, time.Time) ([]news, error)) error {
	e.step.Lock()
	defer e.step.Unlock()
	now := e.now()
	all, err := e.changeRecord(name, now, do)
	if err == nil {
		e.finish(all, true, now)
	}
	return err
}

func (e *Engine) changeRecord(name string, now time.Time, do func(*record, time.Time) ([]news, error)) ([]news, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.records, func(r *record) bool { return r.Rule.Name == name })
	if i < 0 {
		return nil, ErrUnknown
	}
	return do(e.records[i], now)
}

// Alerts returns where every rule stands, in the order of the rules.
func (e *Engine) Alerts() []Alert {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]Alert, len(e.records))
	for i, r := range e.records {
		all[i] = r.Alert
	}
	return all
}

// Subscribe returns a channel that has what [Engine.Alerts] says after every evaluation and every change. Who reads
// slowly misses some and gets the latest. The channel is never closed; stop ends the subscription.
func (e *Engine) Subscribe() (updates <-chan []Alert, stop func()) {
	c := make(chan []Alert, 1)
	e.mu.Lock()
	e.watch[c] = struct{}{}
	e.mu.Unlock()
	return c, func() {
		e.mu.Lock()
		delete(e.watch, c)
		e.mu.Unlock()
	}
}

func (e *Engine) publish() {
	all := e.Alerts()
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.watch {
		select { // take away what nobody read: only this sends, so that there is room then
		case <-c:
		default:
		}
		c <- all
	}
}
