package alert

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is an alert told the long way: it keeps everything that was ever seen, and looks back over it each time.
type model struct {
	hold, settle, repeat time.Duration

	seen     []sight
	firing   bool
	told     time.Time // of this firing
	again    bool
	acked    bool
	owed     int // ends of incidents that were told
	silenced time.Time
	said     []string
}

// sight is one evaluation.
type sight struct {
	at        time.Time
	ok, holds bool
}

// has returns for how long all data since some sight agrees with the last; time that led to no data does not count.
func (m *model) has() (d time.Duration) {
	end := len(m.seen) - 1
	begin := end
	for i := end; i >= 0 && (!m.seen[i].ok || m.seen[i].holds == m.seen[end].holds); i-- {
		if m.seen[i].ok {
			begin = i
		}
	}
	for i := begin + 1; i <= end; i++ {
		if m.seen[i].ok {
			d += m.seen[i].at.Sub(m.seen[i-1].at)
		}
	}
	return d
}

func (m *model) evaluate(now time.Time, ok, holds bool) {
	m.seen = append(m.seen, sight{now, ok, holds})
	if !m.silenced.IsZero() && !m.silenced.After(now) {
		m.again, m.silenced = m.firing, time.Time{}
	}
	quiet := m.silenced.After(now)
	switch {
	case !ok:
	case m.firing && !holds && m.has() >= m.settle:
		if !m.told.IsZero() {
			m.owed++
		}
		m.firing, m.told, m.again, m.acked = false, time.Time{}, false, false
	case !m.firing && holds && m.has() >= m.hold:
		m.firing = true
	}
	if quiet {
		return
	}
	for ; m.owed > 0; m.owed-- {
		m.said = append(m.said, "resolve A")
	}
	if m.firing && (m.told.IsZero() || !m.acked && (m.again || now.Sub(m.told) >= m.repeat)) {
		m.told, m.again = now, false
		m.said = append(m.said, map[bool]string{false: "trigger A", true: "acknowledge A"}[m.acked])
	}
}

func TestTheEngineDoesWhatTheModelDoes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alerts.json")
	rapid.Check(t, func(t *rapid.T) {
		second := func(name string, least, most int) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(t, name)) * time.Second
		}
		m := &model{hold: second("for", 0, 40), settle: second("settle", 1, 40), repeat: second("repeat", 60, 600)}
		now := time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)
		var said []string
		var reading Reading
		var ok bool
		cfg := Config{
			Rules: []Rule{{
				Name: "A", Condition: Condition{Signal: ErrorRate, Operator: ">", Limit: 0.5}, Severity: Critical,
				For: m.hold, Window: time.Minute, Notify: []string{"oncall"},
			}},
			Source: source(func(Signal, time.Duration) (Reading, bool) { return reading, ok }),
			Notify: func(n Notification) { said = append(said, told1(n)) },
			Settle: m.settle, Repeat: m.repeat, Now: func() time.Time { return now },
		}
		var e *Engine
		restart := func() {
			var err error
			if e, err = NewEngine(cfg); err != nil {
				t.Fatal(err)
			}
		}
		restart()
		t.Repeat(map[string]func(*rapid.T){
			"evaluate": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "times") {
					now = now.Add(second("later", 1, 20))
				}
				holds := rapid.Bool().Draw(t, "holds")
				ok = rapid.IntRange(0, 4).Draw(t, "data") > 0
				reading.Value = 0
				if holds {
					reading.Value = 1
				}
				for range rapid.IntRange(1, 6).Draw(t, "evaluations") {
					now = now.Add(second("step", 1, 10))
					e.Evaluate(now)
					m.evaluate(now, ok, holds)
				}
			},
			"silence": func(t *rapid.T) {
				d := second("silence", 1, 100)
				if err := e.Silence("A", d, "ada"); err != nil {
					t.Fatal(err)
				}
				m.silenced = now.Add(d)
			},
			"unsilence": func(t *rapid.T) {
				if err := e.Unsilence("A"); err != nil {
					t.Fatal(err)
				}
				m.again, m.silenced = m.again || m.firing && !m.silenced.IsZero(), time.Time{}
			},
			"acknowledge": func(t *rapid.T) {
				if err := e.Acknowledge("A", "ada"); (err == nil) != m.firing {
					t.Fatalf("Acknowledge = %v, firing %v", err, m.firing)
				}
				if m.firing {
					m.acked = true
					if !m.told.IsZero() && !m.silenced.After(now) {
						m.said = append(m.said, "acknowledge A")
					}
				}
			},
			"restart": func(t *rapid.T) {
				e.cfg.StateFile, cfg.StateFile = file, file
				e.save(now)
				restart()
				e.cfg.StateFile = ""
			},
			"reload": func(t *rapid.T) {
				if err := e.SetRules(cfg.Rules); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if diff := cmp.Diff(said, m.said); diff != "" {
					t.Fatalf("told (got -, want +)\n%s", diff)
				}
				if a := e.Alerts()[0]; (a.State == Firing) != m.firing {
					t.Fatalf("%v, want firing %v", a.State, m.firing)
				}
			},
		})
	})
}
