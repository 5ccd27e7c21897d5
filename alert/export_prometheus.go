package alert

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// ruleFile is a file of Prometheus rules
// (https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/).
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name     string           `yaml:"name"`
	Interval string           `yaml:"interval"`
	Rules    []prometheusRule `yaml:"rules"`
}

type prometheusRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Keep        string            `yaml:"keep_firing_for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

const rulesHeader = `# Gantry's alerts as Prometheus rules, for a fleet that one Prometheus scrapes; written by "gantry alerts export".
# Rates are of all instances of a job together; what an instance has of its own is asked of each.
# The label notify has the receivers that alertmanager.yml routes to. keep_firing_for needs Prometheus 2.42.
`

// InstanceDown is the one rule that only a fleet has: no process tells of its own end. It is about the job "gantry".
const InstanceDown = "Instance Down"

// PrometheusRules returns the rules as a Prometheus rule file, over the metrics on Gantry's admin port, and
// [InstanceDown]. Windows shorter than a minute are a minute there: a shorter one holds too few scrapes.
func PrometheusRules(rules []Rule) ([]byte, error) {
	alerts, slo := ruleGroup{Name: "gantry", Interval: "15s"}, ruleGroup{Name: "gantry-slo", Interval: "1m"}
	for _, r := range rules {
		m, ok := measureOf(r.Condition.Signal)
		switch {
		case r.Disabled:
		case !ok:
			return nil, fmt.Errorf("rule %q: %q is no signal", r.Name, r.Condition.Signal)
		case r.Condition.Budget > 0:
			slo.Rules = append(slo.Rules, prometheusOf(r, m))
		default:
			alerts.Rules = append(alerts.Rules, prometheusOf(r, m))
		}
	}
	fleet := ruleGroup{Name: "gantry-fleet", Interval: "15s", Rules: []prometheusRule{{
		Alert: InstanceDown, Expr: `up{job="gantry"} == 0`, For: "1m", Keep: "1m",
		Labels: map[string]string{"severity": string(Critical), "notify": "oncall,slack"},
		Annotations: map[string]string{
			"summary":     "{{ $labels.instance }} cannot be scraped",
			"runbook_url": Rule{Name: InstanceDown}.runbook(RunbookURL),
		},
	}}}
	file := ruleFile{slices.DeleteFunc([]ruleGroup{alerts, slo, fleet}, func(g ruleGroup) bool { return len(g.Rules) == 0 })}
	text, err := yaml.MarshalWithOptions(file, yaml.UseLiteralStyleIfMultiline(true))
	return append([]byte(rulesHeader), text...), err
}

func prometheusOf(r Rule, m measure) prometheusRule {
	p := prometheusRule{
		Alert: r.Name, Expr: r.promql(m), Keep: "1m",
		Labels: map[string]string{"severity": string(r.Severity), "notify": strings.Join(r.Notify, ",")},
		Annotations: map[string]string{
			"summary":     fmt.Sprintf("%s is {{ $value | %s }}; the rule is %s", r.Condition.Signal, m.unit.humanize(), untemplated(r.Condition.Text)),
			"runbook_url": untemplated(r.runbook(RunbookURL)),
		},
	}
	if r.For > 0 {
		p.For = promTime(r.For)
	}
	return p
}

// untemplated makes text that an operator wrote stay as it is in a template.
func untemplated(text string) string { return strings.ReplaceAll(text, "{{", `{{"{{"}}`) }

// humanize is the template function that writes a value of the unit.
func (u unit) humanize() string {
	switch u {
	case share:
		return "humanizePercentage"
	case seconds:
		return "humanizeDuration"
	}
	return `printf "%.0f"`
}

// promTime writes a duration as Prometheus reads it, which has no fractions.
func promTime(d time.Duration) string {
	if d%time.Second != 0 {
		return fmt.Sprintf("%dms", d/time.Millisecond)
	}
	text := d.String()
	for _, nothing := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, nothing) {
			text = text[:len(text)-2]
		}
	}
	return text
}

func promNumber(f float64) string {
	if f == math.Trunc(f) {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', 12, 64)
}

// promql is the rule's condition as Prometheus evaluates it.
func (r Rule) promql(m measure) string {
	c := r.Condition
	if c.Budget > 0 {
		limit := fmt.Sprintf("%s %s * %s", c.Operator, promNumber(c.Limit/c.Budget), promNumber(c.Budget))
		return fmt.Sprintf("(%s) %s\nand\n(%s) %s", m.promql(r.Window), limit, m.promql(r.Short), limit)
	}
	window, limit := max(r.Window, time.Minute), c.Limit
	if m.unit == count {
		limit *= float64(window) / float64(r.Window)
	}
	return fmt.Sprintf("%s %s %s", m.promql(window), c.Operator, promNumber(limit))
}

const (
	requestCount  = "http_server_request_duration_seconds_count"
	requestBucket = "http_server_request_duration_seconds_bucket"
)

// promql is the signal as Prometheus computes it over a window. Latencies are read from the classic buckets, of which
// 0.5 s is one: Prometheus keeps them beside native histograms only when it is told to.
func (m measure) promql(window time.Duration) string {
	w := promTime(window)
	switch m.signal {
	case HealthStatus:
		return each("max", worst("max", `gantry_health_http_status{endpoint="health"}`, window))
	case ErrorRate:
		return rate(requestCount, `http_response_status_code=~"5.."`, w) + " / " + rate(requestCount, "", w)
	case P95Latency:
		return fmt.Sprintf("histogram_quantile(0.95, sum by (job, le) (rate(%s[%s])))", requestBucket, w)
	case SlowRate:
		return fmt.Sprintf("1 - %s / %s", rate(requestBucket, `le="0.5"`, w), rate(requestCount, "", w))
	case RateLimitHits:
		return increase(requestCount+`{http_response_status_code="429"}`, w)
	case Timeouts:
		return increase(requestCount+`{http_response_status_code="504"}`, w)
	case TokenRefusals:
		return increase("gantry_token_refusals_total", w)
	case PoolUtilization:
		return each("max", worst("max", `db_client_connection_count{state="used"} / ignoring (state) db_client_connection_max`, window))
	case JWKSAge:
		return each("max", worst("max", "gantry_jwks_age_seconds", window))
	case CertExpiry:
		return each("min", worst("min", "gantry_certificate_not_after_timestamp_seconds - time()", window))
	case WebhookSilence: // a webhook reaches one instance of many
		return fmt.Sprintf("min by (job) (%s)", worst("min", "gantry_webhook_silence_seconds", window))
	case DiskFree:
		return each("min", worst("min", "gantry_disk_free_ratio", window))
	case RolloutTrouble:
		return increase("gantry_rollout_rollbacks_total", w) + " + " + increase("gantry_rollout_holds_total", w)
	case TelemetryLost:
		return increase("gantry_telemetry_dropped_total", w)
	}
	return ""
}

func each(how, gauge string) string { return fmt.Sprintf("%s by (job, instance) (%s)", how, gauge) }

// worst is a gauge's worst value in a window. In a minute there are too few scrapes for it: the latest will do.
func worst(how, gauge string, window time.Duration) string {
	if window <= time.Minute {
		return gauge
	}
	return fmt.Sprintf("%s_over_time((%s)[%s:15s])", how, gauge, promTime(window))
}

func rate(counter, label, window string) string {
	if label != "" {
		label = "{" + label + "}"
	}
	return fmt.Sprintf("sum by (job) (rate(%s%s[%s]))", counter, label, window)
}

// increase counts what a counter counted in a window. To Prometheus a series begins with its first scrape, and what it
// had counted by then is no increase: a storm of refusals between two scrapes would be none. So a series that is new
// counts as a whole, where its instance is not.
func increase(counter, window string) string {
	return fmt.Sprintf("sum by (job) ((%[1]s unless %[1]s offset %[2]s) and on (job, instance) (up offset %[2]s) or increase(%[1]s[%[2]s]))", counter, window)
}
