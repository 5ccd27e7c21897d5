package alert

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// panel is a chart, or with stat a number.
type panel struct {
	title, help string
	unit        string // Grafana's name
	stat        bool
	queries     []query
	limit       Signal // whose limit is drawn as a line
	width       int    // of 24
}

type query struct{ legend, expr string }

// row is a line of panels under a heading.
type row struct {
	title  string
	height int
	panels []panel
}

// Grafana returns a dashboard for Grafana 11 or later: the key metrics of the production-readiness document, and what
// explains them. Lines are drawn at the limits of the rules.
func Grafana(rules []Rule) ([]byte, error) {
	var all []any
	y := 0
	add := func(p map[string]any, x, w, h int) {
		p["id"] = len(all) + 1
		p["gridPos"] = map[string]int{"x": x, "y": y, "w": w, "h": h}
		all = append(all, p)
	}
	for _, r := range board() {
		add(map[string]any{"type": "row", "title": r.title, "collapsed": false, "panels": []any{}}, 0, 24, 1)
		y++
		x := 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y = 0, y+r.height
			}
			add(p.grafana(rules), x, p.width, r.height)
			x += p.width
		}
		y += r.height
	}
	text, err := json.MarshalIndent(map[string]any{
		"uid": "gantry", "title": "Gantry", "tags": []string{"gantry"}, "schemaVersion": 39, "version": 1,
		"description": "What the API is doing, beside the limits of its alerts.",
		"editable":    true, "graphTooltip": 1, "refresh": "15s", "timezone": "browser",
		"time":        map[string]string{"from": "now-1h", "to": "now"},
		"annotations": map[string]any{"list": []any{}},
		"links":       []any{map[string]any{"title": "Runbook", "type": "link", "url": RunbookURL, "icon": "doc", "targetBlank": true}},
		"templating":  map[string]any{"list": []any{sourceVariable, labelVariable("job", `label_values(gantry_build_info, job)`), labelVariable("instance", `label_values(gantry_build_info{job=~"$job"}, instance)`)}},
		"panels":      all,
	}, "", "  ")
	return append(text, '\n'), err
}

var sourceVariable = map[string]any{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}

func labelVariable(name, query string) map[string]any {
	return map[string]any{
		"name": name, "label": strings.ToUpper(name[:1]) + name[1:], "type": "query", "datasource": dataSource,
		"query": map[string]string{"query": query, "refId": name}, "definition": query,
		"refresh": 2, "multi": true, "includeAll": true, "allValue": ".*", "sort": 1,
	}
}

var dataSource = map[string]string{"type": "prometheus", "uid": "${source}"}

func (p panel) grafana(rules []Rule) map[string]any {
	var targets []any
	for i, q := range p.queries {
		targets = append(targets, map[string]any{
			"refId": string(rune('A' + i)), "expr": q.expr, "legendFormat": q.legend, "datasource": dataSource, "editorMode": "code",
		})
	}
	steps := steps(rules, p.limit)
	custom := map[string]any{"fillOpacity": 10, "showPoints": "never"}
	if len(steps) > 1 {
		custom["thresholdsStyle"] = map[string]string{"mode": "line"}
	}
	defaults := map[string]any{"unit": p.unit, "thresholds": map[string]any{"mode": "absolute", "steps": steps}}
	g := map[string]any{"title": p.title, "description": p.help, "type": "stat", "datasource": dataSource, "targets": targets}
	if !p.stat {
		g["type"] = "timeseries"
		defaults["min"], defaults["custom"] = 0, custom
		g["options"] = map[string]any{"tooltip": map[string]string{"mode": "multi", "sort": "desc"}, "legend": map[string]any{"displayMode": "list", "placement": "bottom"}}
	}
	g["fieldConfig"] = map[string]any{"defaults": defaults, "overrides": []any{}}
	return g
}

// steps are the colours on either side of the limit of the first plain rule about a signal; without one, all is green.
func steps(rules []Rule, s Signal) []map[string]any {
	step := func(color string, from any) map[string]any { return map[string]any{"color": color, "value": from} }
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Condition.Signal == s && r.Condition.Budget == 0 && !r.Disabled })
	m, ok := measureOf(s)
	switch {
	case i < 0 || !ok:
		return []map[string]any{step("green", nil)}
	case m.unit == status:
		return []map[string]any{step("green", nil), step("red", m.worst)}
	case m.worst < m.best:
		return []map[string]any{step("red", nil), step("green", rules[i].Condition.Limit)}
	}
	return []map[string]any{step("green", nil), step("red", rules[i].Condition.Limit)}
}

// chosen narrows a metric to the variables of the dashboard.
func chosen(metric string, labels ...string) string {
	return metric + "{" + strings.Join(append(labels, `job=~"$job"`, `instance=~"$instance"`), ",") + "}"
}

func perSecond(by, metric string, labels ...string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, chosen(metric, labels...))
}

// hits counts over a window, as the rule about the signal does.
func hits(by, window, metric string, labels ...string) string {
	return fmt.Sprintf("sum by (%s) (increase(%s[%s]))", by, chosen(metric, labels...), window)
}

func quantile(q, by, histogram string) string {
	return fmt.Sprintf("histogram_quantile(%s, %s)", q, perSecond(strings.TrimSuffix("le, "+by, ", "), histogram))
}

func board() []row {
	const (
		requests = requestCount
		code     = "http_response_status_code"
	)
	errorShare := perSecond("", requests, code+`=~"5.."`) + " / " + perSecond("", requests)
	return []row{
		{"Now", 4, []panel{
			{title: "Health", help: "What /health answers; the worst instance.", stat: true, limit: HealthStatus, width: 4, queries: []query{{"status", "max(" + chosen("gantry_health_http_status", `endpoint="health"`) + ")"}}},
			{title: "Instances", stat: true, width: 4, queries: []query{{"up", "count(" + chosen("gantry_build_info") + ")"}}},
			{title: "Alerts firing", stat: true, width: 4, queries: []query{{"firing", "sum(" + chosen("gantry_alerts_firing") + ") or vector(0)"}}},
			{title: "Requests", stat: true, unit: "reqps", width: 4, queries: []query{{"rate", perSecond("", requests)}}},
			{title: "Errors", stat: true, unit: "percentunit", limit: ErrorRate, width: 4, queries: []query{{"5xx", errorShare}}},
			{title: "p95", stat: true, unit: "s", limit: P95Latency, width: 4, queries: []query{{"p95", quantile("0.95", "", requestBucket)}}},
		}},
		{"The five key metrics", 7, []panel{
			{title: "1. Health check status", help: "1 passes, 0.5 warns, 0 fails.", width: 8, queries: []query{{"{{check}}", "min by (check) (" + chosen("gantry_health_check_status") + ")"}}},
			{title: "2. Rate limit hits in an hour", help: "Answers that are 429.", limit: RateLimitHits, width: 8, queries: []query{{"429", hits("", "1h", requests, code+`="429"`)}}},
			{title: "3. Request timeouts in five minutes", help: "Answers that are 504.", limit: Timeouts, width: 8, queries: []query{{"504", hits("", "5m", requests, code+`="504"`)}}},
			{title: "4. JWT verification failures in five minutes", limit: TokenRefusals, width: 12, queries: []query{{"{{reason}}", hits("reason", "5m", "gantry_token_refusals_total")}}},
			{title: "5. Database connection pool", help: "Share in use.", unit: "percentunit", limit: PoolUtilization, width: 12, queries: []query{{
				"{{instance}}",
				"max by (instance) (" + chosen("db_client_connection_count", `state="used"`) + " / ignoring (state) " + chosen("db_client_connection_max") + ")",
			}}},
		}},
		{"Requests", 8, []panel{
			{title: "Rate by status", unit: "reqps", width: 8, queries: []query{{"{{" + code + "}}", perSecond(code, requests)}}},
			{title: "Error share", unit: "percentunit", limit: ErrorRate, width: 8, queries: []query{{"5xx", errorShare}}},
			{title: "Latency", unit: "s", limit: P95Latency, width: 8, queries: []query{
				{"p50", quantile("0.5", "", requestBucket)},
				{"p95", quantile("0.95", "", requestBucket)},
				{"p99", quantile("0.99", "", requestBucket)},
			}},
			{title: "Busiest routes", unit: "reqps", width: 8, queries: []query{{"{{http_route}}", "topk(10, " + perSecond("http_route", requests) + ")"}}},
			{title: "Timeouts by route and phase", unit: "reqps", width: 8, queries: []query{{"{{http_route}} {{phase}}", perSecond("http_route, phase", "gantry_request_timeouts_total")}}},
			{title: "In flight", width: 8, queries: []query{{"{{instance}}", "sum by (instance) (" + chosen("http_server_active_requests") + ")"}}},
		}},
		{"What it stands on", 7, []panel{
			{title: "Connections", width: 8, queries: []query{
				{"{{state}}", "sum by (state) (" + chosen("db_client_connection_count") + ")"},
				{"waiting", "sum(" + chosen("db_client_connection_pending_requests") + ")"},
				{"most", "sum(" + chosen("db_client_connection_max") + ")"},
			}},
			{title: "Wait for a connection", unit: "s", width: 8, queries: []query{{"mean", perSecond("", "db_client_connection_wait_time_seconds_sum") + " / " + perSecond("", "db_client_connection_wait_time_seconds_count")}}},
			{title: "Limiter", unit: "reqps", width: 8, queries: []query{{"{{policy}} {{outcome}}", perSecond("policy, outcome", "gantry_ratelimit_decisions_total")}}},
			{title: "Cache", unit: "reqps", width: 8, queries: []query{{"{{cache}} {{result}}", perSecond("cache, result", "gantry_cache_requests_total")}}},
			{title: "Age of signing keys", unit: "s", limit: JWKSAge, width: 8, queries: []query{{"{{issuer}}", "max by (issuer) (" + chosen("gantry_jwks_age_seconds") + ")"}}},
			{title: "Tokens", unit: "reqps", width: 8, queries: []query{{"accepted", perSecond("", "gantry_tokens_accepted_total")}, {"refused", perSecond("", "gantry_token_refusals_total")}}},
			{title: "Degraded", help: "1 while it makes do without something.", width: 8, queries: []query{{"{{mode}}", "max by (mode) (" + chosen("gantry_degraded") + ")"}}},
			{title: "Certificate", help: "Time until it ends.", unit: "s", limit: CertExpiry, width: 8, queries: []query{{"{{instance}}", "min by (instance) (" + chosen("gantry_certificate_not_after_timestamp_seconds") + ") - time()"}}},
			{title: "Disk free", unit: "percentunit", limit: DiskFree, width: 8, queries: []query{{"{{instance}}", "min by (instance) (" + chosen("gantry_disk_free_ratio") + ")"}}},
			{title: "Webhook silence", unit: "s", limit: WebhookSilence, width: 8, queries: []query{{"silence", "min(" + chosen("gantry_webhook_silence_seconds") + ")"}}},
			{title: "Telemetry dropped in ten minutes", limit: TelemetryLost, width: 8, queries: []query{{"{{kind}} {{cause}}", hits("kind, cause", "10m", "gantry_telemetry_dropped_total")}}},
			{title: "Circuit breaker open", width: 8, queries: []query{{"{{version}}", "max by (version) (" + chosen("gantry_upstream_breaker_open") + ")"}}},
		}},
		{"Rollout", 8, []panel{
			{title: "Weight", unit: "percentunit", width: 6, queries: []query{{"{{version}}", "max by (version) (" + chosen("gantry_rollout_weight_ratio") + ")"}}},
			{title: "Phase", width: 6, queries: []query{
				{"{{phase}}", "max by (phase) (" + chosen("gantry_rollout_phase") + ") == 1"},
				{"rolled back in an hour", hits("", "1h", "gantry_rollout_rollbacks_total")},
				{"held in an hour", hits("", "1h", "gantry_rollout_holds_total")},
			}},
			{title: "Upstream p95 by version", help: "Time to the first byte.", unit: "s", width: 6, queries: []query{{"{{version}}", quantile("0.95", "version", "gantry_upstream_request_duration_seconds_bucket")}}},
			{title: "Upstream errors by version", unit: "reqps", width: 6, queries: []query{{"{{version}} {{reason}}", perSecond("version, reason", "gantry_upstream_errors_total")}}},
		}},
		{"Error budgets of the success criteria", 7, []panel{
			{title: "Burn rate of errors", help: "Share of 5xx over what 99.9 % allows; 1 spends the budget in exactly its month.", width: 12, queries: []query{
				{"1h", hits("", "1h", requests, code+`=~"5.."`) + " / " + hits("", "1h", requests) + " / 0.001"},
				{"6h", hits("", "6h", requests, code+`=~"5.."`) + " / " + hits("", "6h", requests) + " / 0.001"},
			}},
			{title: "Burn rate of latency", help: "Share of answers over 500 ms over the 5 % that p95 < 500 ms allows.", width: 12, queries: []query{
				{"1h", "(1 - " + hits("", "1h", requestBucket, `le="0.5"`) + " / " + hits("", "1h", requests) + ") / 0.05"},
				{"6h", "(1 - " + hits("", "6h", requestBucket, `le="0.5"`) + " / " + hits("", "6h", requests) + ") / 0.05"},
			}},
		}},
	}
}
