package alert

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// document is the block of the production-readiness document, letter for letter.
const document = `# Health Check Alert
- name: Health Check Failed
  condition: health_check_status != 200
  severity: critical
  notify: oncall, slack

# High Error Rate Alert
- name: High Error Rate
  condition: error_rate > 1%
  severity: high
  notify: oncall

# High Latency Alert
- name: High Latency
  condition: p95_latency > 500ms
  severity: medium
  notify: engineering

# Rate Limit Alert
- name: Rate Limit Exceeded
  condition: rate_limit_hits > 100/hour
  severity: low
  notify: engineering
`

var documentRules = []Rule{
	{
		Name: "Health Check Failed", Condition: Condition{HealthStatus, "!=", 200, 0, "health_check_status != 200"},
		Severity: Critical, Notify: []string{"oncall", "slack"}, For: 20 * time.Second, Window: 10 * time.Second,
	},
	{
		Name: "High Error Rate", Condition: Condition{ErrorRate, ">", 0.01, 0, "error_rate > 1%"},
		Severity: High, Notify: []string{"oncall"}, For: 2 * time.Minute, Window: time.Minute,
	},
	{
		Name: "High Latency", Condition: Condition{P95Latency, ">", 0.5, 0, "p95_latency > 500ms"},
		Severity: Medium, Notify: []string{"engineering"}, For: 3 * time.Minute, Window: time.Minute,
	},
	{
		Name: "Rate Limit Exceeded", Condition: Condition{RateLimitHits, ">", 100, 0, "rate_limit_hits > 100/hour"},
		Severity: Low, Notify: []string{"engineering"}, Window: time.Hour,
	},
}

func TestTheDocumentIsReadAsWritten(t *testing.T) {
	inside := "routes:\n  - path: /x\n    auth: none\nalerts:\n" + "  " + strings.ReplaceAll(strings.TrimSpace(document), "\n", "\n  ") + "\nplans: {pro: 1000/min}\n"
	for name, text := range map[string]string{"alone": document, "in gantry.yaml": inside, "with CRLF": strings.ReplaceAll(document, "\n", "\r\n")} {
		rules, faults := Parse("alerts.yaml", []byte(text))
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		if diff := cmp.Diff(unplaced(rules), documentRules); diff != "" {
			t.Errorf("%s: (got -, want +)\n%s", name, diff)
		}
	}
}

// unplaced forgets where rules stand.
func unplaced(rules []Rule) []Rule {
	for i := range rules {
		rules[i].Line, rules[i].Column, rules[i].NotifyAt = 0, 0, Position{}
	}
	return rules
}

func TestDefaultsBeginWithTheDocument(t *testing.T) {
	if diff := cmp.Diff(Defaults()[:4], documentRules); diff != "" {
		t.Errorf("(got -, want +)\n%s", diff)
	}
}

func TestEveryFaultIsToldWithItsPlace(t *testing.T) {
	rule := func(rest string) string { return "- name: A\n  severity: low\n  notify: slack\n" + rest }
	for _, c := range []struct{ name, text, want string }{
		{"a signal that is none", rule("  condition: p95_latncy > 500ms\n"), `a.yaml:4:14: condition: "p95_latncy" is not a signal; did you mean p95_latency?, for example error_rate > 1%`},
		{"another unit", rule("  condition: error_rate > 500ms\n"), `a.yaml:4:27: condition: error_rate is a share, and 500ms is a time, for example error_rate > 1%`},
		{"a share without its sign", rule("  condition: error_rate > 0.01\n"), `a.yaml:4:27: condition: error_rate is a share, and 0.01 is a number, for example error_rate > 1%`},
		{"a rate of a share", rule("  condition: error_rate > 1%/hour\n"), `a.yaml:4:27: condition: error_rate is not counted per "hour", for example error_rate > 1%`},
		{"an unknown time", rule("  condition: timeouts > 10/fortnight\n"), `a.yaml:4:25: condition: timeouts is not counted per "fortnight", for example timeouts > 10`},
		{"a comparison that is none", rule("  condition: error_rate => 1%\n"), `a.yaml:4:25: condition: "=>" is not a comparison, for example > >= < <= == !=`},
		{"an assignment", rule("  condition: health_check_status = 200\n"), `a.yaml:4:34: condition: "=" is not a comparison; did you mean ==?, for example > >= < <= == !=`},
		{"no comparison", rule("  condition: error_rate\n"), `a.yaml:4:14: condition: is not a signal, a comparison and a limit, for example error_rate > 1%`},
		{"no limit", rule("  condition: error_rate >\n"), `a.yaml:4:26: condition: "" is not a limit, for example error_rate > 1%`},
		{"a limit that nothing is over", rule("  condition: error_rate > 100%\n"), `a.yaml:4:14: condition: never holds: error_rate is from 0% to 100%`},
		{"a limit that all is over", rule("  condition: disk_free <= 100%\n"), `a.yaml:4:14: condition: always holds: disk_free is from 0% to 100%`},
		{"less than nothing", rule("  condition: timeouts >= 0\n"), `a.yaml:4:14: condition: always holds: timeouts is never negative`},
		{"a status that is none", rule("  condition: health_check_status == 404\n"), `a.yaml:4:14: condition: never holds: health_check_status is 200 or 503`},
		{"exactly", rule("  condition: p95_latency == 500ms\n"), `a.yaml:4:14: condition: p95_latency is hardly ever exactly a value: compare with >, for example p95_latency > 500ms`},
		{"good news", rule("  condition: error_rate < 1%\n"), `a.yaml:4:14: condition: holds while all is well: compare with >, for example error_rate > 1%`},
		{"good health", rule("  condition: health_check_status == 200\n"), `a.yaml:4:14: condition: holds while all is well: compare with !=, for example health_check_status != 200`},
		{"good disks", rule("  condition: disk_free > 10%\n"), `a.yaml:4:14: condition: holds while all is well: compare with <, for example disk_free < 10%`},
		{"a rate too low for its window", rule("  condition: timeouts > 1/hour\n  window: 1m\n"), `a.yaml:4:14: condition: the limit is less than one in a window of 1 min, for example window: 1h`},
		{"a window too short", rule("  condition: error_rate > 1%\n  window: 1s\n"), `a.yaml:5:11: window: is less than 10s, and measurements are kept in steps of 5s, for example window: 5m`},
		{"a window too long", rule("  condition: error_rate > 1%\n  window: 30d\n"), `a.yaml:5:11: window: is more than a day, and measurements are kept for a day, for example window: 5m`},
		{"no time", rule("  condition: error_rate > 1%\n  for: soon\n"), `a.yaml:5:8: for: "soon" is not a time, for example for: 5m`},
		{"a severity that is none", "- name: A\n  severity: hihg\n  notify: slack\n  condition: error_rate > 1%\n", `a.yaml:2:13: severity: "hihg" is no severity; did you mean high?, for example critical, high, medium, low`},
		{"a key that is none", rule("  condition: error_rate > 1%\n  windw: 5m\n"), `a.yaml:5:3: "windw" is not a key of a rule; did you mean window?, for example name, condition, severity, notify, for, window, windows, runbook, enabled`},
		{"nobody", "- name: A\n  severity: low\n  notify: []\n  condition: error_rate > 1%\n", `a.yaml:3:11: notify: names nobody, for example notify: oncall, slack`},
		{"empty", "- name: A\n  severity: low\n  notify:\n  condition: error_rate > 1%\n", `a.yaml:3:10: notify: is empty`},
		{"somebody twice", "- name: A\n  severity: low\n  notify: slack, slack\n  condition: error_rate > 1%\n", `a.yaml:3:11: notify: "slack" stands twice`},
		{"no name of a receiver", "- name: A\n  severity: low\n  notify: '#ops'\n  condition: error_rate > 1%\n", `a.yaml:3:11: notify: "#ops" is not the name of a receiver, for example notify: oncall, slack`},
		{"a runbook that is no address", rule("  condition: error_rate > 1%\n  runbook: wiki\n"), `a.yaml:5:12: runbook: is not an http or https address, for example https://wiki.example/runbooks/errors`},
		{"windows of no burn rate", rule("  condition: error_rate > 1%\n  windows: 1h, 5m\n"), `a.yaml:5:12: windows: is for burn rates; write window, for example window: 5m`},
		{"one window of a burn rate", rule("  condition: burn_rate(error_rate, 99.9%) > 14.4\n  window: 1h\n"), `a.yaml:5:11: window: a burn rate has two: write windows, for example windows: 1h, 5m`},
		{"windows the wrong way round", rule("  condition: burn_rate(error_rate, 99.9%) > 14.4\n  windows: 5m, 1h\n"), `a.yaml:5:12: windows: the first must be the longer one, for example windows: 1h, 5m`},
		{"a burn rate of no share", rule("  condition: burn_rate(p95_latency, 99.9%) > 14.4\n"), `a.yaml:4:24: condition: p95_latency has no error budget: error_rate and slow_rate have, for example burn_rate(error_rate, 99.9%) > 14.4`},
		{"an objective that allows nothing", rule("  condition: burn_rate(error_rate, 100%) > 14.4\n"), `a.yaml:4:24: condition: the objective is not a share from 50% to less than 100%, for example burn_rate(error_rate, 99.9%) > 14.4`},
		{"a burn rate out of reach", rule("  condition: burn_rate(slow_rate, 95%) > 20\n"), `a.yaml:4:42: condition: never holds: with this objective no burn rate is more than 20, for example burn_rate(error_rate, 99.9%) > 14.4`},
		{"a function that is none", rule("  condition: burnrate(error_rate, 99.9%) > 14.4\n"), `a.yaml:4:14: condition: "burnrate" is not a function; did you mean burn_rate?, for example burn_rate(error_rate, 99.9%) > 14.4`},
		{"a condition in two lines", rule("  condition: >\n    1%\n"), `a.yaml:4:14: condition: must stand in one line, and begin with a signal, for example error_rate > 1%`},
		{"no list", "alerts: soon\n", `a.yaml:1:9: must be a list of rules, for example - name: High Error Rate`},
		{"no rule", "- x\n", `a.yaml:1:3: must be a rule, for example name: High Error Rate`},
		{"an alias", "- &a {name: A}\n- *a\n", `a.yaml:1:3: rules have no anchors, aliases and tags`},
		{"two documents", document + "---\n" + document, `a.yaml:24:1: must be one YAML document`},
		{"a key twice", "- name: A\n  name: B\n", `a.yaml:2:3: the key stands twice`},
		{"brackets", strings.Repeat("[", 100), `a.yaml:1:1: is nested more than 64 deep`},
		{"dashes", strings.Repeat("- ", 200), `a.yaml:1:1: is nested more than 64 deep`},
		{"not YAML", "- name: 'A\n", `a.yaml:1:9: is not valid YAML`},
		{"not text", "- name: \xff\n", `a.yaml:1:1: is not UTF-8`},
		{"a file without end", strings.Repeat("#\n", MaxFile), `a.yaml:1:1: is larger than 256 KiB`},
	} {
		_, faults := Parse("a.yaml", []byte(c.text))
		var got []string
		for _, f := range faults {
			got = append(got, f.Error())
		}
		if diff := cmp.Diff(got, []string{c.want}); diff != "" {
			t.Errorf("%s: (got -, want +)\n%s", c.name, diff)
		}
	}
}

func TestEveryFaultOfAFileIsToldAtOnceInItsOrder(t *testing.T) {
	_, faults := Parse("alerts.yaml", []byte(`alerts:
  - name: High Latency
    condition: p95_latncy > 500ms
    severity: urgent
    ntify: slack
  - condition: error_rate > 500ms
  - name: high latency
    condition: "error_rate   >  1"
    severity: low
    notify: [slack, 'bad name']
`))
	var got []string
	for _, f := range faults {
		got = append(got, strings.Join([]string{strings.SplitN(f.Error(), " ", 2)[0], f.Key, f.Problem}, " "))
	}
	want := []string{
		`alerts.yaml:2:5: notify is missing`,
		`alerts.yaml:3:16: condition "p95_latncy" is not a signal; did you mean p95_latency?`,
		`alerts.yaml:4:15: severity "urgent" is no severity`,
		`alerts.yaml:5:5:  "ntify" is not a key of a rule; did you mean notify?`,
		`alerts.yaml:6:5: name is missing`,
		`alerts.yaml:6:5: severity is missing`,
		`alerts.yaml:6:5: notify is missing`,
		`alerts.yaml:6:29: condition error_rate is a share, and 500ms is a time`,
		`alerts.yaml:7:5: name "high latency" is the name of the rule in line 2 too`,
		`alerts.yaml:8:33: condition error_rate is a share, and 1 is a number`,
		`alerts.yaml:10:21: notify "bad name" is not the name of a receiver`,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(got -, want +)\n%s", diff)
	}
}

func TestConditionsAreReadInTheSignalsUnit(t *testing.T) {
	for _, c := range []struct {
		text string
		want Rule
	}{
		{"condition: pool_utilization >= 80%", Rule{Condition: Condition{PoolUtilization, ">=", 0.8, 0, ""}, Window: time.Minute, For: 2 * time.Minute}},
		{"condition: jwks_age > 1h30m", Rule{Condition: Condition{JWKSAge, ">", 5400, 0, ""}, Window: 10 * time.Second, For: time.Minute}},
		{"condition: certificate_expires_in < 2w", Rule{Condition: Condition{CertExpiry, "<", 14 * 86400, 0, ""}, Window: 10 * time.Second, For: time.Minute}},
		{"condition: health_check_status == 503", Rule{Condition: Condition{HealthStatus, "==", 503, 0, ""}, Window: 10 * time.Second, For: 20 * time.Second}},
		{"condition: rate_limit_hits > 2/s\n  window: 5m", Rule{Condition: Condition{RateLimitHits, ">", 600, 0, ""}, Window: 5 * time.Minute}},
		{"condition: rate_limit_hits > 2/s", Rule{Condition: Condition{RateLimitHits, ">", 20, 0, ""}, Window: 10 * time.Second}},
		{"condition: token_refusals > 30/min\n  for: 5m", Rule{Condition: Condition{TokenRefusals, ">", 30, 0, ""}, Window: time.Minute, For: 5 * time.Minute}},
		{"condition: timeouts > 10\n  for: 0", Rule{Condition: Condition{Timeouts, ">", 10, 0, ""}, Window: 5 * time.Minute}},
		{"condition: timeouts > 1000/day", Rule{Condition: Condition{Timeouts, ">", 1000, 0, ""}, Window: day}},
		{"condition: 'disk_free<5.5%'\n  for: 0s", Rule{Condition: Condition{DiskFree, "<", 0.055, 0, ""}, Window: 10 * time.Second}},
		{"condition: burn_rate(error_rate, 99.9%) > 14.4", Rule{Condition: Condition{ErrorRate, ">", 0.0144, 0.001, ""}, Window: time.Hour, Short: 5 * time.Minute, For: 2 * time.Minute}},
		{"condition: burn_rate( slow_rate , 95% ) >= 6\n  windows: [6h, 30m]\n  for: 35m", Rule{Condition: Condition{SlowRate, ">=", 0.3, 0.05, ""}, Window: 6 * time.Hour, Short: 30 * time.Minute, For: 35 * time.Minute}},
	} {
		got := unplaced(mustParse(t, "- name: A\n  severity: low\n  notify: [slack]\n  "+c.text+"\n"))[0]
		got.Condition.Text = ""
		c.want.Name, c.want.Severity, c.want.Notify = "A", Low, []string{"slack"}
		if diff := cmp.Diff(got, c.want); diff != "" {
			t.Errorf("%s: (got -, want +)\n%s", c.text, diff)
		}
	}
}

func TestFilesWithoutRulesHaveNone(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "routes: []\n", "alerts:\n", "alerts: []\n", "[]"} {
		if rules, faults := Parse("gantry.yaml", []byte(text)); len(rules)+len(faults) > 0 {
			t.Errorf("%q: %v, %v", text, rules, faults)
		}
	}
}

func TestOwnRulesStandInTheDefaultsPlace(t *testing.T) {
	own := mustParse(t, "- name: high error rate\n  condition: error_rate > 5%\n  severity: low\n  notify: slack\n"+
		"- name: Disk Nearly Full\n  enabled: false\n- name: Mine\n  condition: timeouts > 1\n  severity: low\n  notify: slack\n  enabled: true\n")
	all := WithDefaults(own)
	if got, want := len(all), len(Defaults()); got != want {
		t.Errorf("%d rules, want %d", got, want)
	}
	names := make(map[string]bool)
	for _, r := range all {
		names[r.Name] = true
	}
	for name, want := range map[string]bool{"High Error Rate": false, "high error rate": true, "Disk Nearly Full": false, "Mine": true, "High Latency": true} {
		if names[name] != want {
			t.Errorf("%q is a rule: %v, want %v", name, names[name], want)
		}
	}
}

func TestReceiversThatNobodyAnswersToAreFaults(t *testing.T) {
	rules := mustParse(t, "- name: A\n  condition: error_rate > 1%\n  severity: low\n  notify: oncall, slak\n")
	var got []string
	for _, f := range CheckReceivers("a.yaml", rules, []string{"oncall", "slack"}) {
		got = append(got, f.Error())
	}
	if diff := cmp.Diff(got, []string{`a.yaml:4:11: notify: "slak" is no receiver; did you mean slack?, for example oncall, slack`}); diff != "" {
		t.Errorf("(got -, want +)\n%s", diff)
	}
}

func TestTheNumberOfRulesIsBounded(t *testing.T) {
	_, faults := Parse("a.yaml", []byte(strings.Repeat("- name: A\n", MaxRules+1)))
	if len(faults) != 1 || faults[0].Line != MaxRules+1 {
		t.Errorf("%v, want one fault in line %d", faults, MaxRules+1)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(document))
	f.Add(defaults)
	f.Add([]byte("alerts:\n  - {name: A, condition: 'burn_rate(error_rate, 99.9%) > 14.4', severity: low, notify: [a, b], windows: 1h,5m}\n"))
	f.Add([]byte("- name: A\n  condition: >-\n    x\n  <<: *a\n  notify: !!str a\n- - -\n? x\n: y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules, faults := Parse("f", text)
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Problem == "" {
				t.Errorf("%+v", fault)
			}
		}
		names := make(map[string]bool)
		for _, r := range rules {
			if names[r.Name] || r.Name == "" {
				t.Errorf("the name %q stands twice or is empty", r.Name)
			}
			names[r.Name] = true
			if r.Disabled {
				continue
			}
			if r.Window < MinWindow || r.Window > MaxWindow || r.For < 0 || len(r.Notify) == 0 || r.Condition.Holds(r.Condition.Limit-1) == r.Condition.Holds(r.Condition.Limit+1) && r.Condition.Operator != "==" && r.Condition.Operator != "!=" {
				t.Errorf("unsound: %+v", r)
			}
		}
	})
}
