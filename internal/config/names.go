package config

import (
	"fmt"
	"slices"
	"strings"
)

// setting is a name that Gantry understands.
type setting struct {
	name   string
	secret bool // may also be given as NAME_FILE
}

var settings = []setting{
	{"SECRET_KEY", true},
	{"SECRET_KEY_FALLBACKS", true},
	{"ENVIRONMENT", false},
	{"DEBUG", false},
	{"ALLOWED_HOSTS", false},
	{"DATABASE_URL", true},
	{"VALKEY_URL", true},
	{"VALKEY_CA_FILE", false},
	{"CLERK_PUBLISHABLE_KEY", false},
	{"CLERK_SECRET_KEY", true},
	{"CLERK_WEBHOOK_SIGNING_SECRET", true},
	{"CLERK_AUTHORIZED_PARTIES", false},
	{"CLERK_ISSUER", false},
	{"CLERK_JWT_KEY", true},
	{"CLERK_API_URL", false},
	{"AUTH_ISSUER", false},
	{"AUTH_AUDIENCE", false},
	{"AUTH_JWKS_URL", false},
	{"RATE_LIMIT_PER_USER", false},
	{"RATE_LIMIT_GLOBAL", false},
	{"RATE_LIMIT_ANONYMOUS", false},
	{"RATE_LIMIT_ANONYMOUS_SHARE", false},
	{"RATE_LIMIT_ON_STORE_FAILURE", false},
	{"REQUEST_TIMEOUT", false},
	{"MAX_BODY_BYTES", false},
	{"MAX_URL_BYTES", false},
	{"UPSTREAM_URL", false},
	{"UPSTREAM_HEALTH_PATH", false},
	{"UPSTREAM_ALLOW_LINK_LOCAL", false},
	{"ROLLOUT_COOKIE", false},
	{"TRUSTED_PROXIES", false},
	{"CORS_ORIGINS", false},
	{"LISTEN", false},
	{"ADMIN_LISTEN", false},
	{"ADMIN_TOKEN", true},
	{"ADMIN_SUBJECTS", false},
	{"INSTANCES", false},
	{"DATA_DIR", false},
	{"DRAIN_DELAY", false},
	{"DRAIN_TIMEOUT", false},
	{"DB_POOL_MIN", false},
	{"DB_POOL_MAX", false},
	{"DB_POOL_LIFETIME", false},
	{"SENTRY_DSN", true},
	{"OTEL_SDK_DISABLED", false},
	{"OTEL_TRACES_EXPORTER", false},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", false},
	{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", false},
	{"OTEL_EXPORTER_OTLP_PROTOCOL", false},
	{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", false},
	{"OTEL_EXPORTER_OTLP_HEADERS", true},
	{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", true},
	{"OTEL_EXPORTER_OTLP_COMPRESSION", false},
	{"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", false},
	{"OTEL_EXPORTER_OTLP_TIMEOUT", false},
	{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", false},
	{"OTEL_EXPORTER_OTLP_CERTIFICATE", false},
	{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", false},
	{"OTEL_TRACES_SAMPLER", false},
	{"OTEL_TRACES_SAMPLER_ARG", false},
	{"OTEL_SERVICE_NAME", false},
	{"OTEL_RESOURCE_ATTRIBUTES", false},
	{"OTEL_BSP_SCHEDULE_DELAY", false},
	{"OTEL_BSP_MAX_QUEUE_SIZE", false},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", false},
	{"SLACK_WEBHOOK_URL", true},
	{"PAGERDUTY_ROUTING_KEY", true},
	{"PAGERDUTY_URL", false},
	{"ALERT_ENGINEERING_SLACK_WEBHOOK_URL", true},
	{"SMTP_URL", true},
	{"ALERT_EMAIL_FROM", false},
	{"ALERT_EMAIL_TO", false},
	{"ALERT_WEBHOOK_URL", true},
	{"ALERT_WEBHOOK_SECRET", true},
	{"DASHBOARD_URL", false},
	{"LOG_FILE", false},
	{"LOG_LEVEL", false},
	{"TLS_CERT_FILE", false},
	{"TLS_KEY_FILE", false},
	{"TLS_ACME_DOMAINS", false},
}

// known returns every name, the _FILE forms included.
func known() map[string]setting {
	out := make(map[string]setting)
	for _, s := range settings {
		out[s.name] = s
		if s.secret {
			out[s.name+"_FILE"] = s
		}
	}
	return out
}

// checkNames reports names that are not ours but look like it. In .env everything is meant for this
// process, so an unknown name that is close is an error; in the process environment other programs'
// names live too, and it is a warning.
func (l *loader) checkNames() {
	ours := known()
	for name, v := range l.dotenv {
		if _, ok := ours[name]; !ok {
			l.unknownName(name, v.source, true)
		}
	}
	for name := range l.environ {
		if _, ok := ours[name]; !ok {
			l.unknownName(name, "environment", false)
		}
	}
}

func (l *loader) unknownName(name, source string, strict bool) {
	near := nearest(name, l.names)
	switch {
	case l.referred[name]:
	case strings.HasPrefix(name, "OTEL_"), name == "SSL_CERT_FILE": // other programs' names
	case strings.HasPrefix(name, "GANTRY_"):
		l.fault(Fault{ID: idUnknown, Name: name, Source: source, Problem: "is not a setting; names have no GANTRY_ prefix", Example: near})
	case near != "" && strict:
		l.fault(Fault{ID: idUnknown, Name: name, Source: source, Problem: fmt.Sprintf("is not a setting; did you mean %s?", near), Example: near})
	case near != "":
		l.fault(Fault{ID: idNearMiss, Name: name, Source: source, Problem: fmt.Sprintf("is not a setting; did you mean %s?", near), Example: near})
	}
}

// nearest returns the known name within two edits, or "".
func nearest(name string, names []string) string {
	name = strings.TrimPrefix(strings.ToUpper(name), "GANTRY_")
	best, distance := "", 3
	for _, candidate := range names {
		if d := editDistance(name, candidate, 2); d < distance && d < len(candidate)/2 {
			best, distance = candidate, d
		}
	}
	return best
}

// editDistance is Damerau-Levenshtein with adjacent transpositions, cut off above limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func sortedNames() []string {
	var names []string
	for name := range known() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
