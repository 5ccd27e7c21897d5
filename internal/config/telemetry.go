package config

import (
	"maps"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names of settings for OTLP come in two: for all signals, and for traces alone, which wins
// (OpenTelemetry specification, OTLP Exporter Configuration).
const (
	otlpAll    = "OTEL_EXPORTER_OTLP_"
	otlpTraces = "OTEL_EXPORTER_OTLP_TRACES_"
)

// otlp returns the name of a setting that is in force, the general one when neither is.
func (l *loader) otlp(what string) string {
	if name := otlpTraces + what; l.attempted(name, name+"_FILE") {
		return name
	}
	return otlpAll + what
}

// traces reads the OTEL_ variables. Tracing is on when an endpoint or the exporter is named.
func (l *loader) traces() {
	t := &l.cfg.Traces
	t.Protocol = l.otlpProtocol()
	t.Headers = l.otlpHeaders()
	t.Gzip = l.otlpCompression()
	t.Timeout = time.Duration(l.integer(l.otlp("TIMEOUT"), 10_000, 100, 60_000)) * time.Millisecond
	t.CA = l.otlpCA()
	t.Resource = l.resource()
	t.ParentBased, t.Ratio = l.sampler()
	t.Queue = int(l.integer("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, 100_000))
	t.Batch = int(l.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 10_000))
	t.Delay = time.Duration(l.integer("OTEL_BSP_SCHEDULE_DELAY", 5_000, 10, 600_000)) * time.Millisecond
	if endpoint := l.otlpEndpoint(t.Protocol); l.tracing() && endpoint != nil {
		t.Endpoint = endpoint
		l.vendors(*t)
	}
}

// tracing says whether traces are wanted.
func (l *loader) tracing() bool {
	disabled := l.flag("OTEL_SDK_DISABLED")
	exporter := l.text("OTEL_TRACES_EXPORTER", "")
	switch exporter {
	case "none":
		return false
	case "otlp":
		return !disabled
	case "":
		return !disabled && l.attempted(otlpAll+"ENDPOINT", otlpTraces+"ENDPOINT")
	}
	l.bad(idInvalid, "OTEL_TRACES_EXPORTER", "is neither otlp nor none", "otlp")
	return false
}

func (l *loader) otlpProtocol() string {
	const standard = "http/protobuf"
	name := l.otlp("PROTOCOL")
	protocol := l.text(name, standard)
	if protocol != standard && protocol != "grpc" {
		l.bad(idInvalid, name, "is neither grpc nor http/protobuf", standard)
		return standard
	}
	return protocol
}

// otlpEndpoint is the whole address: over HTTP the general setting is a base, to which the signal's path
// is added, and that of traces is used as it is.
func (l *loader) otlpEndpoint(protocol string) *url.URL {
	name := l.otlp("ENDPOINT")
	standard := map[string]string{"grpc": "http://localhost:4317"}[protocol]
	if standard == "" {
		standard = "http://localhost:4318"
	}
	u, err := url.Parse(l.text(name, standard))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		l.bad(idInvalid, name, "is not an http or https address without user and query", standard)
		return nil
	}
	if protocol == "http/protobuf" && name == otlpAll+"ENDPOINT" {
		u.Path = path.Join("/", u.Path, "v1/traces")
	}
	if port := map[string]string{"grpc": "4318", "http/protobuf": "4317"}[protocol]; u.Port() == port && !isNewRelic(u) {
		l.bad(idPolicy, name, "has the port that collectors keep for the other protocol (4317 is gRPC's, 4318 HTTP's)", standard)
	}
	return u
}

// otlpHeaders are secrets as a rule: a vendor's key is among them.
func (l *loader) otlpHeaders() map[string]Secret {
	name := l.otlp("HEADERS")
	headers := make(map[string]Secret)
	for key, value := range l.pairs(name, l.secret(name).Reveal(), "api-key=...") {
		if textproto.TrimString(key) != key || strings.ContainsFunc(key, notToken) || strings.ContainsFunc(value, isControl) {
			l.bad(idInvalid, name, "holds something that is no header", "api-key=...")
			return nil
		}
		headers[strings.ToLower(key)] = NewSecret(value)
	}
	return headers
}

// notToken says that c cannot be in a header's name (RFC 9110 section 5.6.2).
func notToken(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// pairs reads name=value,name=value, the values percent-encoded (W3C Baggage, as OpenTelemetry wants it).
func (l *loader) pairs(name, text, example string) map[string]string {
	pairs := make(map[string]string)
	for _, item := range items(text) {
		key, value, found := strings.Cut(item, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !found || key == "" || err != nil {
			l.bad(idInvalid, name, "is not name=value, several of them parted by commas, the values percent-encoded", example)
			return nil
		}
		pairs[key] = value
	}
	return pairs
}

func (l *loader) otlpCompression() bool {
	name := l.otlp("COMPRESSION")
	switch l.text(name, "none") {
	case "none":
		return false
	case "gzip":
		return true
	}
	l.bad(idInvalid, name, "is neither gzip nor none", "gzip")
	return false
}

func (l *loader) otlpCA() []byte {
	name := l.otlp("CERTIFICATE")
	if file := l.text(name, ""); file != "" {
		return l.authority(name, file, "/etc/gantry/collector-ca.pem")
	}
	return nil
}

// resource describes this process to whoever reads its traces.
func (l *loader) resource() map[string]string {
	attrs := map[string]string{
		"service.name": "gantry", "service.version": l.cfg.Version, "deployment.environment.name": string(l.cfg.Environment),
	}
	maps.Copy(attrs, l.pairs("OTEL_RESOURCE_ATTRIBUTES", l.text("OTEL_RESOURCE_ATTRIBUTES", ""), "service.namespace=shop,host.name=web-1"))
	if name := l.text("OTEL_SERVICE_NAME", ""); name != "" {
		attrs["service.name"] = name
	}
	return attrs
}

// sampler reads which share of traces is recorded. What the standard names by a pair of names differs only
// in whether the caller's decision counts.
func (l *loader) sampler() (parentBased bool, ratio float64) {
	text := l.text("OTEL_TRACES_SAMPLER", "parentbased_always_on")
	name, parentBased := strings.CutPrefix(text, "parentbased_")
	switch name {
	case "always_on":
		return parentBased, 1
	case "always_off":
		return parentBased, 0
	case "traceidratio":
		return parentBased, l.ratio("OTEL_TRACES_SAMPLER_ARG")
	}
	l.bad(idInvalid, "OTEL_TRACES_SAMPLER", "is none of always_on, always_off, traceidratio, each also with parentbased_ before it", "parentbased_traceidratio")
	return true, 1
}

func (l *loader) ratio(name string) float64 {
	ratio, err := strconv.ParseFloat(l.text(name, "1"), 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) { // not a number is neither
		l.bad(idRange, name, "is not a number from 0 to 1", "0.01")
		return 1
	}
	return ratio
}

// vendors knows what the two that the document names want: without their key they answer 403, which
// nobody sees.
func (l *loader) vendors(t Traces) {
	key := ""
	switch {
	case isNewRelic(t.Endpoint):
		key = "api-key"
	case isDatadog(t.Endpoint):
		key = "dd-api-key"
		if t.Protocol == "grpc" {
			l.bad(idPolicy, l.otlp("PROTOCOL"), "is grpc, which Datadog's own intake does not take", "http/protobuf")
		}
	}
	if key != "" && !slices.Contains(slices.Collect(maps.Keys(t.Headers)), key) {
		l.bad(idPolicy, l.otlp("HEADERS"), "has no "+key+", without which the endpoint refuses everything", key+"=...")
	}
}

func isNewRelic(u *url.URL) bool { return strings.HasSuffix(u.Hostname(), ".nr-data.net") }

func isDatadog(u *url.URL) bool {
	host := u.Hostname()
	return strings.HasPrefix(host, "otlp.") && (strings.Contains(host, "datadoghq.") || strings.HasSuffix(host, ".ddog-gov.com"))
}

// sentry reads SENTRY_DSN: SCHEME://KEY@HOST[/path]/PROJECT.
func (l *loader) sentry() {
	const example = "https://key@o1.ingest.sentry.io/1"
	l.cfg.SentryDSN = l.secret("SENTRY_DSN")
	if l.cfg.SentryDSN.IsZero() {
		return
	}
	u, err := url.Parse(l.cfg.SentryDSN.Reveal())
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User.Username() == "" || !isProject(path.Base(u.Path)):
		l.bad(idInvalid, "SENTRY_DSN", "is not a DSN: scheme, key, host and the project's number", example)
		l.cfg.SentryDSN = Secret{}
	case u.Scheme == "http" && !isLoopback(u.Hostname()+":0") && !l.development():
		l.bad(idPolicy, "SENTRY_DSN", "is not encrypted: reports can be read on the way", example)
	}
}

func isProject(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}
