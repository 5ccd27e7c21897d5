package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// source measures what a test says.
type source func(Signal, time.Duration) (Reading, bool)

func (f source) Read(s Signal, window time.Duration) (Reading, bool) { return f(s, window) }

// world is an engine with its clock, what it measures and what it told.
type world struct {
	*Engine
	t    *testing.T
	now  time.Time
	read func(Signal, time.Duration) (Reading, bool)
	cfg  Config
	said []string
	log  bytes.Buffer
}

func newWorld(t *testing.T, rules string, cfg Config) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)}
	w.set(0)
	cfg.Rules = mustParse(t, rules)
	cfg.Source = source(func(s Signal, window time.Duration) (Reading, bool) { return w.read(s, window) })
	cfg.Notify = func(n Notification) { w.said = append(w.said, told1(n)) }
	cfg.Now = func() time.Time { return w.now }
	cfg.Logger = slog.New(slog.NewTextHandler(&w.log, nil))
	w.cfg = cfg
	w.start()
	return w
}

func mustParse(t *testing.T, text string) []Rule {
	t.Helper()
	rules, faults := Parse("rules", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return rules
}

// told1 is a message in a word: what it tells and of which alert.
func told1(n Notification) string { return n.kind() + " " + n.Alert.Rule.Name }

// start is the beginning of another life of the process.
func (w *world) start() {
	w.t.Helper()
	e, err := NewEngine(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Engine = e
}

// set makes every signal measure v.
func (w *world) set(v float64) {
	w.read = func(Signal, time.Duration) (Reading, bool) { return Reading{Value: v, Count: 100}, true }
}

func (w *world) noData() {
	w.read = func(Signal, time.Duration) (Reading, bool) { return Reading{}, false }
}

// pass evaluates every five seconds for d, and returns what was told.
func (w *world) pass(d time.Duration) []string {
	w.said = nil
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(5 * time.Second)
		w.Evaluate(w.now)
	}
	return w.said
}

func (w *world) state() State { return w.Alerts()[0].State }

func (w *world) expect(what string, got []string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(got, want); diff != "" {
		w.t.Errorf("%s: told (got -, want +)\n%s", what, diff)
	}
}

const errorRule = "- name: Errors\n  condition: error_rate > 1%\n  for: 1m\n  severity: critical\n  notify: oncall\n"

func TestAnAlertIsPendingThenFiresThenResolves(t *testing.T) {
	w := newWorld(t, errorRule, Config{Instance: "host-1", Environment: "production", Dashboard: "https://dash", Facts: func(Alert) []Fact { return []Fact{{"requests", "1,204"}} }})
	var all []Notification
	w.Engine.cfg.Notify = func(n Notification) { all = append(all, n) }
	w.pass(time.Minute)
	w.set(0.02)
	w.pass(55 * time.Second)
	if len(all) > 0 || w.state() != Pending {
		t.Fatalf("within For: %v, told %v", w.state(), all)
	}
	w.pass(time.Hour)
	w.set(0.005)
	w.pass(55 * time.Second)
	if len(all) != 1 || w.state() != Firing {
		t.Fatalf("within Settle: %v, told %v", w.state(), all)
	}
	w.pass(time.Hour)
	if len(all) != 2 || w.state() != Inactive {
		t.Fatalf("%v, told %v", w.state(), all)
	}
	began, ended := all[0], all[1]
	if began.Resolved || !ended.Resolved || began.Alert.Incident == "" || began.Alert.Incident != ended.Alert.Incident {
		t.Errorf("incidents %q and %q", began.Alert.Incident, ended.Alert.Incident)
	}
	if got, want := ended.Alert.Reading.Value, 0.005; got != want {
		t.Errorf("the end tells %v, want %v", got, want)
	}
	want := Notification{
		Alert: began.Alert, At: began.Alert.Fired, Instance: "host-1", Environment: "production", Dashboard: "https://dash",
		Runbook: RunbookURL + "#errors", Facts: []Fact{{"requests", "1,204"}},
	}
	if diff := cmp.Diff(began, want); diff != "" {
		t.Errorf("(got -, want +)\n%s", diff)
	}
}

// A single event is seen by every evaluation for as long as the window is.
func TestOneBlipWakesNobody(t *testing.T) {
	for _, rule := range Defaults() {
		m, _ := measureOf(rule.Condition.Signal)
		if m.unit == count {
			continue // needs more than one by its limit
		}
		w := newWorld(t, errorRule, Config{})
		if err := w.SetRules([]Rule{rule}); err != nil {
			t.Fatal(err)
		}
		event := w.now.Add(time.Hour)
		bad, good := 1.0, 0.0
		switch m.signal {
		case HealthStatus:
			bad, good = 503, 200
		case CertExpiry, DiskFree:
			bad, good = 0, 1e9
		case JWKSAge, WebhookSilence:
			bad = 1e9
		}
		w.read = func(_ Signal, window time.Duration) (Reading, bool) {
			if since := w.now.Sub(event); since >= 0 && since <= window {
				return Reading{Value: bad, Count: 1}, true
			}
			return Reading{Value: good, Count: 1}, true
		}
		w.expect(rule.Name, w.pass(6*time.Hour))
	}
}

func TestADeadDatabaseIsToldWithinAMinute(t *testing.T) {
	w := newWorld(t, document, Config{})
	killed := w.now.Add(time.Minute)
	w.read = func(s Signal, _ time.Duration) (Reading, bool) {
		if s != HealthStatus {
			return Reading{}, false
		}
		// Checks run every five seconds and time out after two; the measurement is kept in steps of five.
		if w.now.Sub(killed) >= 12*time.Second {
			return Reading{Value: 503}, true
		}
		return Reading{Value: 200}, true
	}
	w.expect("before", w.pass(time.Minute))
	w.expect("within a minute", w.pass(time.Minute), "trigger Health Check Failed")
}

func TestNoDataIsNeitherGoodNorBad(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	w.set(1)
	w.pass(30 * time.Second)
	w.noData()
	w.expect("pending", w.pass(time.Hour))
	if a := w.Alerts()[0]; a.State != Pending || !a.NoData {
		t.Errorf("%v, no data %v", a.State, a.NoData)
	}
	w.set(1)
	w.expect("its time goes on where it stopped", w.pass(30*time.Second))
	w.expect("and is over", w.pass(5*time.Second), "trigger Errors")
	w.noData()
	w.expect("firing", w.pass(time.Hour))
	if w.state() != Firing {
		t.Errorf("no data resolved it")
	}
}

func TestSwingingAroundTheLimitIsOneIncident(t *testing.T) {
	w := newWorld(t, errorRule, Config{Repeat: day})
	start := w.now
	w.read = func(Signal, time.Duration) (Reading, bool) {
		swing := w.now.Sub(start)/(50*time.Second)%3 == 2 // 100 s over, 50 s under
		return Reading{Value: map[bool]float64{true: 0.001, false: 0.02}[swing]}, true
	}
	w.expect("two hours", w.pass(2*time.Hour), "trigger Errors")
}

func TestOnlyCriticalUnacknowledgedAlertsRepeat(t *testing.T) {
	w := newWorld(t, errorRule+strings.NewReplacer("Errors", "Other", "critical", "high").Replace(errorRule), Config{})
	w.set(1)
	w.expect("first", w.pass(time.Hour), "trigger Errors", "trigger Other")
	w.expect("after four hours", w.pass(4*time.Hour), "trigger Errors")
	w.said = nil
	if err := w.Acknowledge("Errors", "ada"); err != nil {
		t.Fatal(err)
	}
	w.expect("acknowledged", w.said, "acknowledge Errors")
	w.expect("a day later", w.pass(day))
	if got := w.Alerts()[0].AcknowledgedBy; got != "ada" {
		t.Errorf("acknowledged by %q", got)
	}
	w.set(0)
	w.expect("resolved", w.pass(time.Hour), "resolve Errors", "resolve Other")
	if err := w.Acknowledge("Errors", "ada"); !errors.Is(err, ErrNotFiring) {
		t.Errorf("Acknowledge = %v, want %v", err, ErrNotFiring)
	}
	w.set(1)
	w.expect("the next incident", w.pass(time.Hour), "trigger Errors", "trigger Other")
}

func TestASilencedAlertIsEvaluatedAndTellsNothing(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	silence := func(d time.Duration) {
		t.Helper()
		if err := w.Silence("Errors", d, "ada"); err != nil {
			t.Fatal(err)
		}
	}
	silence(time.Hour)
	w.set(1)
	w.expect("silenced", w.pass(55*time.Minute))
	if w.state() != Firing {
		t.Errorf("a silenced alert is %v", w.state())
	}
	w.expect("over, and still firing", w.pass(5*time.Minute), "trigger Errors")
	silence(time.Hour)
	w.set(0)
	w.expect("resolved in silence", w.pass(30*time.Minute))
	w.set(1)
	w.expect("fires anew in silence", w.pass(25*time.Minute))
	w.expect("over", w.pass(5*time.Minute), "resolve Errors", "trigger Errors")
	silence(time.Hour)
	w.expect("silenced again", w.pass(time.Minute))
	if err := w.Unsilence("Errors"); err != nil {
		t.Fatal(err)
	}
	w.expect("unsilenced", w.pass(5*time.Second), "trigger Errors")
	silence(time.Hour)
	w.set(0)
	w.pass(5 * time.Minute)
	silence(2 * time.Hour)
	w.expect("a longer silence holds for what ended, too", w.pass(90*time.Minute))
	w.expect("over", w.pass(time.Hour), "resolve Errors")
	w.set(1)
	silence(time.Hour)
	w.pass(10 * time.Minute)
	w.set(0)
	w.expect("what nobody was told of has no end to tell", w.pass(2*time.Hour))
}

func TestSilencesAreOfKnownAlertsAndBounded(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	for _, c := range []struct {
		name string
		d    time.Duration
		want error
	}{{"Errors", 0, ErrDuration}, {"Errors", MaxSilence + 1, ErrDuration}, {"errors", time.Hour, ErrUnknown}, {"Errors", MaxSilence, nil}} {
		if err := w.Silence(c.name, c.d, "ada"); !errors.Is(err, c.want) {
			t.Errorf("Silence(%q, %v) = %v, want %v", c.name, c.d, err, c.want)
		}
	}
}

func TestARestartKeepsWhatIsKnown(t *testing.T) {
	w := newWorld(t, errorRule, Config{StateFile: filepath.Join(t.TempDir(), "alerts.json")})
	w.set(1)
	w.pass(30 * time.Second)
	w.start()
	w.expect("pending goes on", w.pass(35*time.Second), "trigger Errors")
	before := w.Alerts()
	w.start()
	if diff := cmp.Diff(w.Alerts(), before); diff != "" {
		t.Errorf("after the restart (got -, want +)\n%s", diff)
	}
	w.expect("nobody is told twice", w.pass(time.Hour))
	if err := w.Acknowledge("Errors", "ada"); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.expect("acknowledged", w.pass(5*time.Hour))
	if err := w.Silence("Errors", time.Hour, "ada"); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.set(0)
	w.expect("silenced", w.pass(30*time.Minute))
	w.start()
	w.expect("what is owed", w.pass(time.Hour), "resolve Errors")
}

func TestALongAbsenceForgetsWhatWasPending(t *testing.T) {
	w := newWorld(t, errorRule, Config{StateFile: filepath.Join(t.TempDir(), "alerts.json")})
	w.set(1)
	w.pass(30 * time.Second)
	w.now = w.now.Add(time.Hour)
	w.start()
	w.expect("it begins anew", w.pass(time.Minute))
	w.expect("and fires", w.pass(5*time.Second), "trigger Errors")
}

func TestAnUnreadableStateIsToldAndPutAside(t *testing.T) {
	good := `{"version":1,"saved":"2026-11-26T03:00:00Z","alerts":[]}`
	for name, text := range map[string]string{
		"empty": "", "cut": good[:20], "another version": strings.Replace(good, "1", "2", 1), "no JSON": "\x00\xff",
		"another shape": "[]", "a hole": strings.Replace(good, "[]", "[null]", 1), "no state": strings.Replace(good, "[]", `[{"state":"odd"}]`, 1),
		"too large": strings.Repeat(" ", maxState+1), "too many": strings.Replace(good, "[]", "["+strings.Repeat(`{"state":"firing"},`, MaxRules)+`{"state":"firing"}]`, 1),
	} {
		file := filepath.Join(t.TempDir(), "alerts.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, errorRule, Config{StateFile: file})
		w.set(1)
		w.expect(name, w.pass(65*time.Second), "trigger Errors")
		if !strings.Contains(w.log.String(), "level=ERROR msg=\"the state of the alerts cannot be read") {
			t.Errorf("%s: the log says %q", name, w.log.String())
		}
		if kept, err := os.ReadFile(file + ".unreadable"); err != nil || string(kept) != text {
			t.Errorf("%s: %.20q, %v was put aside", name, kept, err)
		}
		if s, err := readState(file); err != nil || s.Alerts[0].State != Firing {
			t.Errorf("%s: the new state: %v", name, err)
		}
	}
}

func TestAStateThatCannotBeWrittenKeepsNobodyAsleep(t *testing.T) {
	w := newWorld(t, errorRule, Config{StateFile: filepath.Join(t.TempDir(), "away", "alerts.json")})
	w.set(1)
	w.expect("told", w.pass(65*time.Second), "trigger Errors")
	if !strings.Contains(w.log.String(), "the state of the alerts cannot be kept") {
		t.Errorf("the log says %q", w.log.String())
	}
}

func TestNewRulesKeepWhatTheyAskAsBefore(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	w.set(1)
	w.pass(65 * time.Second)
	incident := w.Alerts()[0].Incident
	set := func(text string) {
		t.Helper()
		if err := w.SetRules(mustParse(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	set("# moved\n\n" + strings.Replace(errorRule, "oncall", "slack", 1))
	a := w.Alerts()[0]
	if a.Incident != incident || a.State != Firing || a.Rule.Notify[0] != "slack" {
		t.Errorf("%v of %q tells %v", a.State, a.Incident, a.Rule.Notify)
	}
	w.expect("nothing new", w.pass(time.Minute))
	if err := w.Silence("Errors", time.Hour, "ada"); err != nil {
		t.Fatal(err)
	}
	set(strings.Replace(errorRule, "1%", "2%", 1))
	w.expect("another question, in silence", w.pass(55*time.Minute))
	w.expect("the old ends, the new fires", w.pass(5*time.Minute), "resolve Errors", "trigger Errors")
	set("[]")
	w.expect("a rule that is gone", w.pass(5*time.Second), "resolve Errors")
	if err := w.SetRules([]Rule{{Name: "A"}, {Name: "A"}}); err == nil {
		t.Error("two rules of one name were taken")
	}
}

func TestARestartEndsTheIncidentsOfRulesThatAreGone(t *testing.T) {
	w := newWorld(t, errorRule, Config{StateFile: filepath.Join(t.TempDir(), "alerts.json")})
	w.set(1)
	w.pass(65 * time.Second)
	w.cfg.Rules = nil
	w.start()
	w.expect("ended", w.pass(5*time.Second), "resolve Errors")
}

func TestAClockThatIsSetBackStopsNothing(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	w.set(1)
	w.pass(30 * time.Second)
	w.now = w.now.Add(-day)
	w.expect("fires all the same", w.pass(2*time.Minute), "trigger Errors")
	w.now = w.now.Add(-day)
	w.set(0)
	w.expect("and resolves", w.pass(2*time.Minute), "resolve Errors")
}

func TestABurnRateNeedsBothWindows(t *testing.T) {
	w := newWorld(t, "- name: Burn\n  condition: burn_rate(error_rate, 99.9%) > 14.4\n  windows: 1h, 5m\n  for: 0s\n  severity: critical\n  notify: oncall\n", Config{})
	var facts []Fact
	w.Engine.cfg.Notify = func(n Notification) { w.said, facts = append(w.said, told1(n)), n.Facts }
	errors := func(long, short float64) {
		w.read = func(s Signal, window time.Duration) (Reading, bool) {
			return Reading{Value: map[time.Duration]float64{time.Hour: long, 5 * time.Minute: short}[window]}, s == ErrorRate
		}
	}
	errors(0.0145, 0.001)
	w.expect("long ago", w.pass(time.Hour))
	errors(0.001, 0.5)
	w.expect("a short burst", w.pass(time.Hour))
	errors(0.0144, 0.5)
	w.expect("at the limit", w.pass(time.Hour))
	errors(0.0145, 0.5)
	w.expect("both", w.pass(time.Hour), "trigger Burn")
	if diff := cmp.Diff(facts, []Fact{{"Burn rate", "14.5 times what the objective allows"}}); diff != "" {
		t.Errorf("(got -, want +)\n%s", diff)
	}
	errors(0.0145, 0)
	w.expect("the errors end", w.pass(5*time.Minute), "resolve Burn")
}

func TestWhoReadsSlowlyGetsTheLatest(t *testing.T) {
	w := newWorld(t, errorRule, Config{})
	updates, stop := w.Subscribe()
	w.set(1)
	w.pass(65 * time.Second)
	if got := (<-updates)[0].State; got != Firing {
		t.Errorf("the first update is %v, want the latest", got)
	}
	stop()
	w.pass(time.Minute)
	select {
	case <-updates:
		t.Error("an update after the end")
	default:
	}
}

func TestRunEvaluatesAtEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		e, err := NewEngine(Config{
			Rules: mustParse(t, errorRule), Notify: func(Notification) {},
			Source: source(func(Signal, time.Duration) (Reading, bool) {
				at = append(at, time.Since(start))
				return Reading{}, false
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		if err := e.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(at), "[0s 5s 10s]"; got != want {
			t.Errorf("evaluated at %s, want %s", got, want)
		}
	})
}

func TestAllMayBeCalledAtOnce(t *testing.T) {
	w := newWorld(t, document, Config{StateFile: filepath.Join(t.TempDir(), "alerts.json")})
	var mu sync.Mutex
	ticks := 0
	w.Engine.cfg.Notify = func(Notification) { w.Alerts() }
	w.read = func(Signal, time.Duration) (Reading, bool) {
		mu.Lock()
		defer mu.Unlock()
		ticks++
		return Reading{Value: float64(ticks % 700)}, true
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			updates, stop := w.Subscribe()
			defer stop()
			for j := range 15 {
				w.Evaluate(w.now.Add(time.Duration(j) * time.Minute))
				_ = w.Silence("High Latency", time.Hour, "ada")
				_ = w.Acknowledge("High Error Rate", "ada")
				_ = w.Unsilence("High Latency")
				if i == 0 {
					_ = w.SetRules(documentRules)
				}
				<-updates
			}
		})
	}
	all.Wait()
	if got := len(w.Alerts()); got != 4 {
		t.Errorf("%d alerts, want 4", got)
	}
}
