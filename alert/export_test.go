package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// run runs a tool of Prometheus or Alertmanager; where it is not installed the test is skipped.
func run(t *testing.T, tool string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install prometheus prometheus-alertmanager", tool)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
}

func write(t *testing.T, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func exported(t *testing.T, rules []Rule) []byte {
	t.Helper()
	text, err := PrometheusRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// exampleContacts are the receivers of deploy/alertmanager.yml.
var exampleContacts = []Contact{
	{Name: "oncall", PagerDuty: "/etc/alertmanager/secrets/pagerduty-routing-key"},
	{Name: "slack", Slack: "/etc/alertmanager/secrets/slack-webhook-url"},
	{Name: "engineering", Email: []string{"engineering@example.com"}},
}

var exampleMailer = Mailer{Smarthost: "smtp.example.com:587", From: "gantry@example.com", Username: "gantry", PasswordFile: "/etc/alertmanager/secrets/smtp-password"}

func TestDeployFilesAreCurrentAndGood(t *testing.T) {
	golden(t, "../../deploy/gantry-rules.yml", exported(t, Defaults()))
	contacts, err := Alertmanager(exampleContacts, exampleMailer)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../deploy/alertmanager.yml", contacts)
	board, err := Grafana(Defaults())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../deploy/grafana-dashboard.json", board)
	run(t, "promtool", "check", "config", "../deploy/prometheus.yml")
	run(t, "promtool", "check", "rules", "../deploy/gantry-rules.yml")
	run(t, "amtool", "check-config", "../deploy/alertmanager.yml")
	for notify, want := range map[string]string{"oncall,slack": "oncall,slack", "engineering": "engineering", "slack,engineering": "slack,engineering", "nobody": "oncall"} {
		run(t, "amtool", "config", "routes", "test", "--config.file", "../deploy/alertmanager.yml", "--verify.receivers", want, "notify="+notify)
	}
}

// A rule is tested with a value on either side of its limit, one in a hundred away.
func TestExportedRulesFireOverTheLimitAndNotUnderIt(t *testing.T) {
	t.Parallel()
	rules := append(Defaults(), mustParse(t, `
- {name: Window, condition: pool_utilization > 80%, window: 10m, severity: low, notify: slack}
- {name: Short Window, condition: timeouts > 2/s, severity: low, notify: slack}
- {name: "Disk {{ $labels }}", condition: disk_free < 5%, window: 10m, severity: low, notify: slack}
- {name: At Least, condition: p95_latency >= 500ms, severity: low, notify: slack}
`)...)
	dir, args := t.TempDir(), []string{"test", "rules"}
	add := func(name string, rules []Rule, tests string) {
		write(t, filepath.Join(dir, name+".rules.yml"), exported(t, rules))
		args = append(args, write(t, filepath.Join(dir, name+".yml"), []byte("rule_files: ["+name+".rules.yml]\nevaluation_interval: 15s\ntests:\n"+tests)))
	}
	for _, r := range rules {
		over, under := r.Condition.Limit*1.01, r.Condition.Limit*0.99
		switch m, _ := measureOf(r.Condition.Signal); {
		case m.unit == status:
			over, under = 503, 200
		case m.worst < m.best:
			over, under = under, over
		case over == 0:
			over = 0.1
		}
		add(Anchor(r.Name), []Rule{r}, unitTest(r, over, true)+unitTest(r, under, false))
	}
	add("appearing", documentRules, appearing)
	add("dying", nil, dying)
	add("burning", Defaults(), burning)
	run(t, "promtool", args...)
}

// unitTest is a test of promtool in which the signal has a value for as long as the rule needs to be sure.
func unitTest(r Rule, v float64, fires bool) string {
	long, step := max(r.Window, time.Minute)+r.For+2*time.Minute, 15*time.Second
	if r.Short > 0 { // a share is the same over the part of a window that there is
		long, step = 10*time.Minute+r.For, time.Minute
	}
	n := int(long/step) + 1
	var b strings.Builder
	fmt.Fprintf(&b, "- name: %q\n  interval: %s\n  input_series:\n", fmt.Sprint(r.Name, " at ", v), step)
	for _, s := range series(r, v, step, n, long) {
		fmt.Fprintf(&b, "  - {series: '%s', values: '%s'}\n", s[0], s[1])
	}
	fmt.Fprintf(&b, "  promql_expr_test:\n  - expr: count(ALERTS{alertname=%q,alertstate=\"firing\"})\n    eval_time: %s\n", r.Name, promTime(long))
	if fires {
		b.WriteString("    exp_samples: [{labels: '{}', value: 1}]\n")
	}
	return b.String()
}

// series are the series by which a signal has a value; a counter grows evenly.
func series(r Rule, v float64, step time.Duration, n int, end time.Duration) [][2]string {
	const who = `job="gantry",instance="a"`
	gauge := func(name string, v float64) [2]string {
		return [2]string{name + "{" + who, fmt.Sprintf("%.9gx%d", v, n)}
	}
	counter := func(name, label string, each float64) [2]string {
		return [2]string{name + "{" + label + who, fmt.Sprintf("0+%.9gx%d", each, n)}
	}
	// A count is over the rule's window.
	each := v * float64(step) / float64(r.Window)
	var list [][2]string
	switch r.Condition.Signal {
	case HealthStatus:
		list = append(list, gauge("gantry_health_http_status", v))
		list[0][0] += `,endpoint="health"`
	case ErrorRate:
		list = append(list, counter(requestCount, `http_response_status_code="200",`, 1000*(1-v)), counter(requestCount, `http_response_status_code="503",`, 1000*v))
	case SlowRate:
		list = append(list, counter(requestBucket, `le="0.5",`, 1000*(1-v)), counter(requestCount, "", 1000))
	case P95Latency: // linear between the buckets 0 to 2 × the limit
		far := 2 * r.Condition.Limit
		fast := (0.95 - (v-r.Condition.Limit)/(far-r.Condition.Limit)) / (1 - (v-r.Condition.Limit)/(far-r.Condition.Limit))
		if v < r.Condition.Limit {
			fast = 0.95 * r.Condition.Limit / v
		}
		for le, share := range map[string]float64{promNumber(r.Condition.Limit): fast, promNumber(far): 1, "+Inf": 1} {
			list = append(list, counter(requestBucket, fmt.Sprintf("le=%q,", le), 1000*math.Min(share, 1)))
		}
	case RateLimitHits:
		list = append(list, counter(requestCount, `http_response_status_code="429",`, each))
	case Timeouts:
		list = append(list, counter(requestCount, `http_response_status_code="504",`, each))
	case TokenRefusals:
		list = append(list, counter("gantry_token_refusals_total", `reason="expired",`, each/2), counter("gantry_token_refusals_total", `reason="signature",`, each/2))
	case PoolUtilization:
		list = append(list, gauge("db_client_connection_count", 1000*v), gauge("db_client_connection_max", 1000))
		list[0][0] += `,state="used"`
	case JWKSAge:
		list = append(list, gauge("gantry_jwks_age_seconds", v))
	case CertExpiry:
		list = append(list, gauge("gantry_certificate_not_after_timestamp_seconds", v+end.Seconds()))
	case WebhookSilence:
		list = append(list, gauge("gantry_webhook_silence_seconds", v), [2]string{`gantry_webhook_silence_seconds{job="gantry",instance="b"`, fmt.Sprintf("%.9gx%d", 2*v, n)})
	case DiskFree:
		list = append(list, gauge("gantry_disk_free_ratio", v))
	case RolloutTrouble:
		list = append(list, counter("gantry_rollout_rollbacks_total", "", each), counter("gantry_rollout_holds_total", "", 0))
	case TelemetryLost:
		list = append(list, counter("gantry_telemetry_dropped_total", `kind="span",cause="queue",`, each))
	}
	list = append(list, gauge("up", 1))
	for i := range list {
		list[i][0] += "}"
	}
	return list
}

// appearing is a storm of refusals that began and ended between two scrapes: all that Prometheus sees is a new series.
// Of an instance that is itself new nothing is known, and nothing told.
const appearing = `- name: a new series of a known instance
  interval: 15s
  input_series:
  - {series: 'up{job="gantry",instance="a"}', values: '1x400'}
  - {series: 'http_server_request_duration_seconds_count{job="gantry",instance="a",http_response_status_code="429"}', values: '_x300 101x100'}
  promql_expr_test:
  - expr: count(ALERTS{alertname="Rate Limit Exceeded",alertstate="firing"})
    eval_time: 80m
    exp_samples: [{labels: '{}', value: 1}]
- name: a new series of a new instance
  interval: 15s
  input_series:
  - {series: 'up{job="gantry",instance="a"}', values: '_x300 1x100'}
  - {series: 'http_server_request_duration_seconds_count{job="gantry",instance="a",http_response_status_code="429"}', values: '_x300 5000x100'}
  promql_expr_test:
  - expr: count(ALERTS{alertname="Rate Limit Exceeded",alertstate="firing"})
    eval_time: 80m
`

const dying = `- name: an instance that is away
  interval: 15s
  input_series:
  - {series: 'up{job="gantry",instance="a"}', values: '1x4 0x8'}
  - {series: 'up{job="gantry",instance="b"}', values: '1x12'}
  promql_expr_test:
  - expr: ALERTS{alertname="Instance Down",alertstate="firing"}
    eval_time: 3m
    exp_samples: [{labels: 'ALERTS{alertname="Instance Down",alertstate="firing",instance="a",job="gantry",notify="oncall,slack",severity="critical"}', value: 1}]
`

// burning is a burst of errors that is over: the hour still shows it, the five minutes no longer do.
const burning = `- name: errors that are over
  interval: 1m
  input_series:
  - {series: 'http_server_request_duration_seconds_count{job="gantry",instance="a",http_response_status_code="200"}', values: '0+950x30 0+1000x30'}
  - {series: 'http_server_request_duration_seconds_count{job="gantry",instance="a",http_response_status_code="500"}', values: '0+50x30 1500x30'}
  promql_expr_test:
  - expr: count(ALERTS{alertname="Error Budget Burning Fast",alertstate="firing"})
    eval_time: 29m
    exp_samples: [{labels: '{}', value: 1}]
  - expr: count(ALERTS{alertname="Error Budget Burning Fast"})
    eval_time: 45m
`

var (
	metricName = regexp.MustCompile(`\b(?:http|db|gantry)_[a-z0-9_]+`)
	labelName  = regexp.MustCompile(`^http_(request_method|route|response_status_code)$`)
)

// docs/metrics.md lists what Gantry publishes; a rule or a chart of anything else would be empty for ever.
func TestWhatIsExportedIsAboutMetricsThatExist(t *testing.T) {
	list, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := metricName.FindAllString(string(list), -1)
	for _, file := range []string{"gantry-rules.yml", "grafana-dashboard.json"} {
		text, err := os.ReadFile("../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricName.FindAllString(string(text), -1)
		if len(names) < 20 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			plain := name
			for _, end := range []string{"_bucket", "_count", "_sum"} {
				if base, cut := strings.CutSuffix(name, end); cut && strings.HasSuffix(base, "_seconds") {
					plain = base
				}
			}
			if !labelName.MatchString(name) && !slices.Contains(known, plain) {
				t.Errorf("%s: %s is published by nothing", file, name)
			}
		}
	}
}

// The queries of the dashboard are checked as recording rules, with Grafana's variables filled in.
func TestTheDashboardIsGrafanas(t *testing.T) {
	text, err := Grafana(Defaults())
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID           string `json:"uid"`
		SchemaVersion int    `json:"schemaVersion"`
		Panels        []struct {
			ID      int    `json:"id"`
			Type    string `json:"type"`
			Title   string `json:"title"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	if board.SchemaVersion < 39 || board.UID == "" {
		t.Errorf("schema %d, uid %q", board.SchemaVersion, board.UID)
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	cells := make(map[[2]int]string)
	for _, p := range board.Panels {
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[cell] != "" || cell[0] >= 24 {
					t.Errorf("%q is drawn over %q or the edge", p.Title, cells[cell])
				}
				cells[cell] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%q asks for nothing", p.Title)
		}
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$job", "gantry", "$instance", ".*").Replace(q.Expr)
			rules += fmt.Sprintf("  - record: panel_%d_%s\n    expr: %q\n", p.ID, q.RefID, expr)
		}
	}
	run(t, "promtool", "check", "rules", write(t, filepath.Join(t.TempDir(), "queries.yml"), []byte(rules)))
}

func TestAlertmanagerIsToldEveryKindOfReceiver(t *testing.T) {
	text, err := Alertmanager([]Contact{{Name: "all", PagerDuty: "/k", Slack: "/s", Email: []string{"a@example.com", "b@example.com"}, Webhook: "https://hook.example/"}}, exampleMailer)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "amtool", "check-config", write(t, filepath.Join(t.TempDir(), "alertmanager.yml"), text))
	for what, contacts := range map[string][]Contact{"nobody": nil, "twice": {{Name: "a"}, {Name: "a"}}, "no name": {{Name: "a b"}}} {
		if _, err := Alertmanager(contacts, exampleMailer); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	if _, err := Alertmanager([]Contact{{Name: "a", Email: []string{"a@example.com"}}}, Mailer{}); err == nil || errors.Unwrap(err) != nil {
		t.Errorf("mail without a host: %v", err)
	}
}
