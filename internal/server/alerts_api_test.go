package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/problem"
)

// broken is a world in which every answer is an error.
type broken struct{}

func (broken) Read(s alert.Signal, _ time.Duration) (alert.Reading, bool) {
	return alert.Reading{Value: 0.5, Count: 100}, s == alert.ErrorRate
}

func newAlertsAPI(t *testing.T) (*alert.Engine, http.Handler) {
	t.Helper()
	rules, faults := alert.Parse("rules.yaml", []byte("- name: High Error Rate\n  condition: error_rate > 1%\n  severity: high\n  notify: oncall\n  for: 0s\n- name: Slow\n  condition: p95_latency > 1s\n  severity: low\n  notify: oncall\n"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	e, err := alert.NewEngine(alert.Config{Rules: rules, Source: broken{}, Notify: func(alert.Notification) {}})
	if err != nil {
		t.Fatal(err)
	}
	e.Evaluate(time.Now())
	return e, AlertsAPI(e)
}

func ask(h http.Handler, method, path, body string, header ...string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestAlertsAreListedSilencedAndAcknowledged(t *testing.T) {
	e, h := newAlertsAPI(t)
	code, text := ask(h, "GET", "/api/alerts", "")
	var list struct{ Alerts []alert.Alert }
	if err := json.Unmarshal([]byte(text), &list); err != nil || code != 200 || len(list.Alerts) != 2 || list.Alerts[0].State != alert.Firing {
		t.Fatalf("list = %d %s, %v", code, text, err)
	}
	if code, text := ask(h, "POST", "/api/alerts/High%20Error%20Rate/silence", `{"for":"2h","by":"ada"}`); code != 200 || time.Until(e.Alerts()[0].SilencedUntil) < time.Hour {
		t.Errorf("silence = %d %s", code, text)
	}
	if code, text := ask(h, "DELETE", "/api/alerts/high-error-rate/silence", ""); code != 200 || !e.Alerts()[0].SilencedUntil.IsZero() {
		t.Errorf("unsilence = %d %s", code, text)
	}
	if code, text := ask(h, "POST", "/api/alerts/high-error-rate/acknowledge", `{"by":"ada"}`); code != 200 || e.Alerts()[0].AcknowledgedBy != "ada" || !strings.Contains(text, `"acknowledged_by":"ada"`) {
		t.Errorf("acknowledge = %d %s", code, text)
	}
}

func TestChangesOfAlertsAreRefusedAsProblems(t *testing.T) {
	e, h := newAlertsAPI(t)
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		want                     problem.Details
	}{
		{"unknown", "POST", "/api/alerts/nobody/silence", `{"for":"1h"}`, nil, problem.NotFound},
		{"no time", "POST", "/api/alerts/slow/silence", `{}`, nil, problem.Unprocessable},
		{"too long", "POST", "/api/alerts/slow/silence", `{"for":"9000h"}`, nil, problem.Unprocessable},
		{"not firing", "POST", "/api/alerts/slow/acknowledge", `{}`, nil, problem.Conflict},
		{"a stranger", "POST", "/api/alerts/slow/silence", `{"fro":"1h"}`, nil, problem.BadRequest},
		{"no JSON", "POST", "/api/alerts/slow/silence", `for=1h`, []string{"Content-Type", "application/x-www-form-urlencoded"}, problem.UnsupportedMedia},
		{"too large", "POST", "/api/alerts/slow/silence", `{"by":"` + strings.Repeat("x", 5000) + `"}`, nil, problem.TooLarge},
		{"another origin", "POST", "/api/alerts/high-error-rate/acknowledge", "", []string{"Sec-Fetch-Site", "cross-site"}, problem.Forbidden},
	} {
		code, text := ask(h, c.method, c.path, c.body, c.header...)
		if code != c.want.Status || !strings.Contains(text, `"code":"`+c.want.Code+`"`) {
			t.Errorf("%s: %d %s, want %s", c.name, code, text, c.want.Code)
		}
	}
	for _, a := range e.Alerts() {
		if !a.SilencedUntil.IsZero() || a.AcknowledgedBy != "" {
			t.Errorf("%s was changed", a.Rule.Name)
		}
	}
}
