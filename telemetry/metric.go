package telemetry

// Metric is one of the metrics: what it is called, what it means, and how many series it may have.
type Metric struct {
	Name   string
	Type   string // counter, gauge, histogram or summary, as Prometheus has them
	Labels []string
	// Limit is how many combinations of labels the metric may have. Those that come later are counted
	// together, as _OTHER. A histogram has histogramSeries series of each combination where it is read as text.
	Limit int
	Help  string
}

// The metrics. Names are OpenTelemetry's where it has one (semantic conventions for HTTP and database
// clients), in Prometheus's spelling.
var (
	requestDuration = Metric{
		Name: "http_server_request_duration_seconds", Type: "histogram", Limit: 80,
		Labels: []string{"http_request_method", "http_route", "http_response_status_code"},
		Help:   "Requests, from their headers to the whole answer; streams to their first byte. http_route is the path of the configured pattern, `/` for what has none. Health checks are not among them. 499 is a client that left.",
	}
	activeRequests = Metric{
		Name: "http_server_active_requests", Type: "gauge", Limit: 1,
		Help: "Requests under way.",
	}
	healthHTTPStatus = Metric{
		Name: "gantry_health_http_status", Type: "gauge", Limit: 2, Labels: []string{"endpoint"},
		Help: "What /health (health) and /health/ready (ready) answer now: 200 or 503.",
	}
	healthCheckStatus = Metric{
		Name: "gantry_health_check_status", Type: "gauge", Limit: 32, Labels: []string{"check"},
		Help: "How a check of /health stands: 1 pass, 0.5 warn, 0 fail.",
	}
	ratelimitDecisions = Metric{
		Name: "gantry_ratelimit_decisions_total", Type: "counter", Limit: 32, Labels: []string{"policy", "outcome"},
		Help: "What the limits decided, by policy (user, address, route, anonymous, global; store for decisions without one). outcome is allowed, refused, full (no memory for one more caller), open or closed (the store is away).",
	}
	requestTimeouts = Metric{
		Name: "gantry_request_timeouts_total", Type: "counter", Limit: 64, Labels: []string{"http_route", "phase"},
		Help: "Requests answered 504, or cut off at their deadline, by what was under way: identity, quota, handler, body (of the request), upstream, answer (being sent).",
	}
	tokenRefusals = Metric{
		Name: "gantry_token_refusals_total", Type: "counter", Limit: 24, Labels: []string{"reason"},
		Help: "Tokens that were refused, by reason. Requests without a token are not among them.",
	}
	tokensAccepted = Metric{
		Name: "gantry_tokens_accepted_total", Type: "counter", Limit: 1,
		Help: "Requests that were let in with a token.",
	}
	poolConnections = Metric{
		Name: "db_client_connection_count", Type: "gauge", Limit: 2, Labels: []string{"state"},
		Help: "Database connections that are used or idle.",
	}
	poolLimit = Metric{
		Name: "db_client_connection_max", Type: "gauge", Limit: 1,
		Help: "How many database connections there may be.",
	}
	poolPending = Metric{
		Name: "db_client_connection_pending_requests", Type: "gauge", Limit: 1,
		Help: "Calls that wait for a database connection.",
	}
	poolWait = Metric{
		Name: "db_client_connection_wait_time_seconds", Type: "summary", Limit: 1,
		Help: "How long calls waited for a database connection.",
	}
	cacheRequests = Metric{
		Name: "gantry_cache_requests_total", Type: "counter", Limit: 16, Labels: []string{"cache", "result"},
		Help: "Questions to the caches of users and of verified tokens, by result: hit, miss, or stale (given while it is loaded anew).",
	}
	jwksAge = Metric{
		Name: "gantry_jwks_age_seconds", Type: "gauge", Limit: 16, Labels: []string{"issuer"},
		Help: "Time since an issuer's keys were last fetched; since the start, if they never were.",
	}
	upstreamDuration = Metric{
		Name: "gantry_upstream_request_duration_seconds", Type: "histogram", Limit: 2, Labels: []string{"version"},
		Help: "From asking the upstream to the first byte of its answer, by version: stable or candidate.",
	}
	upstreamErrors = Metric{
		Name: "gantry_upstream_errors_total", Type: "counter", Limit: 32, Labels: []string{"version", "reason"},
		Help: "Requests that the upstream did not answer, or not to the end, by reason.",
	}
	upstreamBreaker = Metric{
		Name: "gantry_upstream_breaker_open", Type: "gauge", Limit: 2, Labels: []string{"version"},
		Help: "1 while requests are refused for the upstream's sake.",
	}
	rolloutWeight = Metric{
		Name: "gantry_rollout_weight_ratio", Type: "gauge", Limit: 2, Labels: []string{"version"},
		Help: "The share of callers that a version gets.",
	}
	rolloutPhase = Metric{
		Name: "gantry_rollout_phase", Type: "gauge", Limit: 16, Labels: []string{"phase"},
		Help: "1 for the phase that the rollout is in, 0 for the others.",
	}
	rolloutRollbacks = Metric{
		Name: "gantry_rollout_rollbacks_total", Type: "counter", Limit: 1,
		Help: "Rollouts that were rolled back.",
	}
	rolloutHolds = Metric{
		Name: "gantry_rollout_holds_total", Type: "counter", Limit: 1,
		Help: "Rollouts that were held.",
	}
	degradedModes = Metric{
		Name: "gantry_degraded", Type: "gauge", Limit: 16, Labels: []string{"mode"},
		Help: "1 while the door works, but not as it should, by mode.",
	}
	buildInfo = Metric{
		Name: "gantry_build_info", Type: "gauge", Limit: 1, Labels: []string{"version", "goversion"},
		Help: "Which build runs; always 1.",
	}
	certificateEnd = Metric{
		Name: "gantry_certificate_not_after_timestamp_seconds", Type: "gauge", Limit: 1,
		Help: "When the door's certificate ends, in seconds since 1970.",
	}
	webhookSilence = Metric{
		Name: "gantry_webhook_silence_seconds", Type: "gauge", Limit: 1,
		Help: "How long Clerk has reported nothing although users signed in; 0 when nobody did.",
	}
	diskFree = Metric{
		Name: "gantry_disk_free_ratio", Type: "gauge", Limit: 1,
		Help: "The share of the data directory's file system that is free.",
	}
	telemetryDropped = Metric{
		Name: "gantry_telemetry_dropped_total", Type: "counter", Limit: 24, Labels: []string{"kind", "cause"},
		Help: "Spans, events and alerts that could not be delivered.",
	}
	alertsFiring = Metric{
		Name: "gantry_alerts_firing", Type: "gauge", Limit: 64, Labels: []string{"alert", "severity"},
		Help: "1 while an alert fires.",
	}
)

// Catalogue returns every metric, in the order of docs/metrics.md.
func Catalogue() []Metric {
	return []Metric{
		requestDuration, activeRequests, requestTimeouts, ratelimitDecisions, tokensAccepted, tokenRefusals,
		healthHTTPStatus, healthCheckStatus, degradedModes,
		poolConnections, poolLimit, poolPending, poolWait, cacheRequests, jwksAge,
		upstreamDuration, upstreamErrors, upstreamBreaker,
		rolloutWeight, rolloutPhase, rolloutRollbacks, rolloutHolds,
		certificateEnd, webhookSilence, diskFree, alertsFiring, telemetryDropped, buildInfo,
	}
}
