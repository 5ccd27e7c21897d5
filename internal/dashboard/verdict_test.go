package dashboard

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTheVerdictNamesTheWorstFirst(t *testing.T) {
	firing := func(severity string) Alert {
		return Alert{Name: "High Error Rate", Signal: "error_rate", Severity: severity, State: "firing", Reading: "3.1 %"}
	}
	for name, c := range map[string]struct {
		change   func(*View)
		level    Level
		headline string
		problems int
	}{
		"nothing wrong":  {func(*View) {}, Well, "All well", 0},
		"nothing to do":  {func(v *View) { v.Now.Requests = 0 }, Well, "All well, no requests in the last minute", 0},
		"an alert fires": {func(v *View) { v.Alerts[0] = firing("high") }, Wrong, "High Error Rate: 3.1 %", 1},
		"one of little weight": {
			func(v *View) { v.Alerts[0] = firing("low") }, Look, "High Error Rate: 3.1 %", 1,
		},
		"a silenced one": {
			func(v *View) { v.Alerts[0] = firing("critical"); v.Alerts[0].SilencedUntil = v.At.Add(time.Hour) }, Look, "High Error Rate: 3.1 % (silenced)", 1,
		},
		"one that somebody has in hand": {
			func(v *View) { v.Alerts[0] = firing("critical"); v.Alerts[0].AcknowledgedBy = "ann" }, Look, "High Error Rate: 3.1 % (acknowledged)", 1,
		},
		"a pending one": {func(v *View) { v.Alerts[0].State = "pending" }, Well, "All well", 0},
		"a check that never ran": {
			func(v *View) { v.Health.Checks[0].Status = "" }, Look, "database was not checked yet", 1,
		},
		"no check at all": {func(v *View) { v.Health = Health{} }, Look, "health is not known yet", 1},
		"a check warns":   {func(v *View) { v.Health.Checks[0].Status = "warn" }, Look, "database warns", 1},
		"a check fails, and a limit is passed": {
			func(v *View) { v.Health.Checks[0].Status, v.Health.Checks[0].Reason, v.Now.P95 = "fail", "timeout", .7 }, Wrong, "database: timeout", 2,
		},
		"errors above the limit":         {func(v *View) { v.Now.Errors = 12 }, Wrong, "2.0 % of requests fail", 1},
		"errors of very few":             {func(v *View) { v.Now.Requests, v.Now.Errors = enough-1, 5 }, Well, "All well", 0},
		"an alert says the same already": {func(v *View) { v.Now.Errors, v.Alerts[0] = 12, firing("high") }, Wrong, "High Error Rate: 3.1 %", 1},
		"a full pool":                    {func(v *View) { v.Now.PoolUsed = 9 }, Look, "90 % of the database pool is in use", 1},
		"a held rollout":                 {func(v *View) { v.Rollout = &Rollout{Phase: "held", Reason: "shared cause", Trouble: true} }, Look, "rollout held: shared cause", 1},
		"a refused reload":               {func(v *View) { v.Config.Refused = "config.E001" }, Look, "the last reload was refused", 1},
		"limits of one's own":            {func(v *View) { v.Degraded = []Degraded{{Mode: "limits-local", Text: "limits are local"}} }, Look, "limits are local", 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := healthy()
			v.At = time.Now()
			c.change(&v)
			got := judge(v)
			if got.Level != c.level || got.Headline != c.headline || len(got.Problems) != c.problems {
				t.Errorf("judge = %q, %q, %d problems; want %q, %q, %d", got.Level, got.Headline, len(got.Problems), c.level, c.headline, c.problems)
			}
		})
	}
}

func TestAViewThatNobodyFilledIsNotWell(t *testing.T) {
	if got := judge(View{}).Level; got == Well {
		t.Error("an empty view is well")
	}
}

func TestNumbersAreWrittenAsPeopleReadThem(t *testing.T) {
	for got, want := range map[string]string{
		percent(0): "0 %", percent(.00001): "< 0.01 %", percent(.00123): "0.12 %", percent(.0316): "3.2 %", percent(.5): "50 %",
		took(0): "–", took(.00004): "40 µs", took(.0042): "4.2 ms", took(.182): "182 ms", took(1.27): "1.3 s",
		age(3): "3 s", age(200): "3 min", age(26 * 3600): "26 h", age(86400 * 5): "5 days",
		count(999): "999", count(12345): "12\u202f345", count(1234567): "1\u202f234\u202f567", rate(.25): "0.2", rate(41.6): "42",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestChartsAreSoundWhateverTheHistory(t *testing.T) {
	empty := View{}
	full := healthy()
	gaps := healthy()
	for i := range gaps.Short.Points {
		if i%3 == 0 {
			gaps.Short.Points[i] = Point{Seconds: 5}
		}
	}
	one := healthy()
	one.Short.Points = one.Short.Points[:1]
	for name, v := range map[string]View{"empty": empty, "full": full, "with gaps": gaps, "one point": one} {
		var all []string
		for _, m := range keyMetrics(v) {
			all = append(all, string(m.Short), string(m.Long))
		}
		all = append(all, string(rateChart().draw(v.Short)), string(latencyChart(v.Limits.P95).draw(v.Short)))
		for _, svg := range all {
			if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
				t.Errorf("%s: %s", name, svg)
			}
			if !strings.Contains(svg, `role="img" aria-label="`) || !strings.Contains(svg, "<title>") {
				t.Errorf("%s: those who hear the page hear nothing: %s", name, svg)
			}
			d := xml.NewDecoder(strings.NewReader(svg))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v in %s", name, err, svg)
				}
			}
		}
	}
}

func TestALineBreaksWhereNothingIsKnown(t *testing.T) {
	v := healthy()
	v.Short.Points = v.Short.Points[:5]
	v.Short.Points[2] = Point{Seconds: 5}
	svg := string(latencyChart(v.Limits.P95).draw(v.Short))
	if n := strings.Count(svg, "h.1"); n != 6 { // two stretches of three lines
		t.Errorf("%d stretches are drawn, want 6: %s", n, svg)
	}
	if !strings.Contains(svg, "limit 500 ms") {
		t.Error("the limit has no line")
	}
}

func TestMergingLosesNothing(t *testing.T) {
	var points []Point
	for i := range 179 {
		points = append(points, Point{Seconds: 5, RateLimited: uint64(i), Health: 200 + i%2*303})
	}
	got := merged(points, maxBars)
	if len(got) > maxBars || !reflect.DeepEqual(sum(got), sum(points)) {
		t.Errorf("%d points with %+v, want %d at most with %+v", len(got), sum(got), maxBars, sum(points))
	}
	if last := got[len(got)-1]; last.RateLimited != 176+177+178 {
		t.Errorf("the newest group is not whole: %+v", last)
	}
}

func TestTextFitsAndHidesNothing(t *testing.T) {
	var v View
	fill(reflect.ValueOf(&v).Elem(), hostile)
	for name, view := range map[string]View{"hostile": v, "healthy": healthy()} {
		for _, columns := range []int{40, 80, 200} {
			var b bytes.Buffer
			if err := Text(&b, view, columns, false); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(b.String(), "\x1b\u202e") {
				t.Errorf("%s: control characters without colour", name)
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(line) - 1; n > columns {
					t.Errorf("%s: a line of %d at %d columns: %q", name, n, columns, line)
				}
			}
		}
	}
	var b bytes.Buffer
	well := healthy()
	well.Verdict = judge(well)
	if err := Text(&b, well, 80, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\x1b[32mAll well\x1b[0m") {
		t.Error("the verdict has no colour")
	}
}
