package alert

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// sample is an alert that a person might get.
func sample() Notification {
	return Notification{
		Alert: Alert{
			Rule: Rule{
				Name: "High Error Rate", Severity: High, Notify: []string{"oncall"}, Window: time.Minute,
				Condition: Condition{Signal: ErrorRate, Operator: ">", Limit: 0.01, Text: "error_rate > 1%"},
			},
			State: Firing, Since: noon.Add(-3 * time.Minute), Fired: noon.Add(-3 * time.Minute), Incident: "high-error-rate-7f3a",
			Reading: Reading{Value: 0.0243, Count: 1204},
		},
		At: noon, Instance: "door-1", Environment: "production",
		Dashboard: "https://gantry.example.org/?from=1&to=2", Runbook: "https://docs.example.org/runbook#high-error-rate",
		Facts: []Fact{{"Top route", "GET /v1/items/{id}: 27 of 30"}, {"Upstream", "v2 <canary>"}},
	}
}

func resolved(n Notification) Notification {
	n.Resolved, n.Alert.State, n.Alert.Since = true, Inactive, n.At.Add(12*time.Minute)
	n.At, n.Alert.Reading.Value = n.At.Add(12*time.Minute), 0.0004
	return n
}

func acknowledged(n Notification) Notification {
	n.Alert.AcknowledgedBy = "ada"
	return n
}

// hostile has everything that strangers may put into an alert, and too much of it.
func hostile() Notification {
	n := sample()
	n.Test = true
	n.Alert.Rule.Name = "<!channel> & *bold* \r\nBcc: all@example.org " + strings.Repeat("é", 2000)
	n.Facts = nil
	for range 100 {
		n.Facts = append(n.Facts, Fact{"<@U1>\n", strings.Repeat("<&>", 5000)})
	}
	n.Dashboard, n.Runbook = "javascript:alert(1)", "https://docs.example.org/a|b>c"
	return n
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if diff := cmp.Diff(string(want), string(got)); err != nil || diff != "" {
		t.Errorf("%s: %v %s", name, err, diff)
	}
}

func indented(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// inbox is a receiver that keeps what it is sent and answers as told.
type inbox struct {
	*httptest.Server
	got chan request
}

type request struct {
	path   string
	header http.Header
	body   []byte
}

func newInbox(t *testing.T, answer http.HandlerFunc) *inbox {
	t.Helper()
	in := &inbox{got: make(chan request, 1000)}
	in.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		in.got <- request{r.URL.Path, r.Header, body}
		answer(w, r)
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *inbox) transport() http.RoundTripper {
	t := in.Client().Transport.(*http.Transport).Clone()
	t.DisableKeepAlives = true
	return t
}

func answering(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestSlackMessagesAreTheGoldenOnes(t *testing.T) {
	in := newInbox(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	s, err := NewSlack(in.URL+"/services/T0/B0/secretsecret", in.transport())
	if err != nil {
		t.Fatal(err)
	}
	test := sample()
	test.Test, test.Alert.Rule.Severity = true, Critical
	for name, n := range map[string]Notification{
		"firing": sample(), "resolved": resolved(sample()), "acknowledged": acknowledged(sample()), "test": test,
	} {
		if err := s.Notify(t.Context(), n); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, "slack_"+name+".golden.json", indented(t, (<-in.got).body))
	}
}

func TestSlackMessagesKeepWithinItsLimits(t *testing.T) {
	m := slackMessage(hostile())
	blocks := m.Attachments[0].Blocks
	if n := utf8.RuneCountInString(m.Text); len(blocks) > 50 || n == 0 || n > 3000 || strings.Contains(m.Text, "<!") {
		t.Errorf("%d blocks, %d characters of text", len(blocks), len(m.Text))
	}
	check := func(w slackWords, limit int) {
		if n := utf8.RuneCountInString(w.Text); n == 0 || n > limit {
			t.Errorf("%d characters, want 1 to %d", n, limit)
		}
		if w.Type == "mrkdwn" && (strings.Contains(w.Text, "<!") || strings.Contains(w.Text, "<@")) {
			t.Errorf("%.60q mentions people", w.Text)
		}
	}
	for _, b := range blocks {
		if len(b.Fields) > 10 {
			t.Errorf("%d fields", len(b.Fields))
		}
		for _, f := range b.Fields {
			check(f, 2000)
		}
		for _, e := range b.Elements {
			check(e, 3000)
			if want := "<https://docs.example.org/a%7Cb%3Ec|Runbook>"; e.Text != want {
				t.Errorf("links = %s, want %s", e.Text, want)
			}
		}
	}
}

func TestValuesAreReadInTheirUnit(t *testing.T) {
	for _, c := range []struct {
		signal Signal
		value  float64
		want   string
	}{
		{P95Latency, 0.8124, "812ms"},
		{P95Latency, 1.5, "1.5s"},
		{JWKSAge, 3720, "1 h 2 min"},
		{CertExpiry, 12*86400 + 3600, "12 d 1 h"},
		{CertExpiry, -90, "-1 min 30 s"},
		{ErrorRate, 0.00123, "0.12%"},
		{ErrorRate, 0.0243, "2.4%"},
		{PoolUtilization, 0.834, "83%"},
		{RateLimitHits, 1204, "1,204"},
		{RateLimitHits, 12.5, "12.5"},
		{HealthStatus, 503, "503"},
		{Timeouts, 1234567, "1,234,567"},
	} {
		if got := c.signal.Value(c.value); got != c.want {
			t.Errorf("%s %v = %q, want %q", c.signal, c.value, got, c.want)
		}
	}
}

func TestAnchorsAreGitHubs(t *testing.T) {
	for name, want := range map[string]string{
		"Health Check Failed": "health-check-failed", "Pool > 80 %": "pool--80-", "SLO: burn (fast)": "slo-burn-fast",
	} {
		if got := Anchor(name); got != want {
			t.Errorf("Anchor(%q) = %q, want %q", name, got, want)
		}
	}
}
