package probes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func observability() []audit.Probe {
	return []audit.Probe{
		{
			ID: "OBS-01", Title: "Request id", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Observability,
			Sends:  "the protected path with no request id (twice), with a good one, with one of 10 kB, with encoded line breaks, and with escape codes of a terminal",
			Passes: "an id comes back, another each time, and the hostile ones are replaced or refused",
			Fails:  "no id, the same id twice, or a hostile one sent back",
			Guard:  "X-Request-Id, Request-Id, X-Correlation-Id and traceresponse all count",
			Refs:   []string{"CWE-117", "ASVS 16.2.1"},
			Why:    "Without an id nobody finds the log lines of the one request a customer complains about; with an unchecked one, customers write into the log.",
			Fix:    "A middleware that makes an id, or takes the client's when it matches ^[A-Za-z0-9-]{8,64}$, and returns it.",
			Run:    requestID,
		},
		{
			ID: "OBS-02", Title: "Trace context carried through", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Observability,
			Sends:        "two requests with one sampled traceparent",
			Passes:       "its trace id is found in the answer (traceresponse, Server-Timing), in what the trace sink received, or in the log",
			Fails:        "spans or log lines arrive, and the trace id is in none of them",
			Inconclusive: "nothing to look in, or nothing arrives there",
			Guard:        "a sink that received no span at all, or a log that did not grow, proves nothing",
			Knobs:        []string{"--otlp-sink (OTLP over HTTP; the target's exporter must point there)", "--log-cmd"},
			Refs:         []string{"W3C Trace Context"},
			Why:          "A slow request across three services is three unrelated stories.",
			Fix:          "Install the OpenTelemetry middleware of the framework, with a parent-based sampler.",
			Run:          traceContext,
		},
		{
			ID: "OBS-03", Title: "Metrics: private, and true", Severity: audit.High, Mode: audit.Safe, Category: audit.Observability,
			Sends:        "GET /metrics at the public address with no credential; the metrics URL before and after exactly 50 requests",
			Passes:       "not public; a counter of requests moved by 50 (2 more or less), and there are a latency histogram and a split by status",
			Fails:        "public, or no counter moves (medium: no histogram, or no split by status)",
			Inconclusive: "no metrics URL, another format than Prometheus text, or a counter that others move as well",
			Guard:        "metrics that are meant to be public can be declared so; the total and each route's own count are both compared",
			Knobs:        []string{"--metrics-url"},
			Refs:         []string{"OWASP API8:2023", "ASVS 13.4.5", "SRE golden signals"},
			Why:          "Public metrics tell strangers routes, versions and traffic; untrue ones tell the team that all is well.",
			Fix:          "Serve metrics on a private port: requests by route and status, a histogram of latency, and the pools.",
			Run:          trueMetrics,
		},
		{
			ID: "OBS-04", Title: "Logs: structured, correlated, without secrets", Severity: audit.High, Mode: audit.Safe, Category: audit.Observability,
			Sends:        "a request with a made-up token, a POST with a made-up password and e-mail address, and a valid request; then reads the log",
			Passes:       "a JSON line for the request with its id, status and latency; the refused token is logged; nothing made up stands in the log",
			Fails:        "anything made up in clear, no line at all, or a refusal that is not logged (medium: lines that are no JSON or lack id, status or latency)",
			Inconclusive: "no access to the log, or a log command that prints more than 64 KiB",
			Guard:        "what is made up is random in each run; only lines that are new count",
			Knobs:        []string{"--log-cmd"},
			Refs:         []string{"CWE-532", "ASVS 16.2.1", "ASVS 16.2.5", "ASVS 16.3.1"},
			Why:          "Logs are copied to more places than any database; a password in them is a password everywhere.",
			Fix:          "One JSON line a request, written by a middleware that knows no bodies; redact credentials; log every refused credential.",
			Run:          honestLogs,
		},
	}
}

// Headers in which APIs return the id of a request.
var idHeaders = []string{"X-Request-Id", "Request-Id", "X-Correlation-Id", "Traceresponse"}

func requestIDOf(x *audit.Exchange) string {
	for _, name := range idHeaders {
		if id := strings.TrimSpace(x.Header.Get(name)); id != "" {
			return id
		}
	}
	return ""
}

// idName is the request header that the API is most likely to read an id from.
func idName(x *audit.Exchange) string {
	for _, name := range idHeaders[:3] {
		if x.Header.Get(name) != "" {
			return name
		}
	}
	return idHeaders[0]
}

// withID sends the same id under all the names that APIs read.
func withID(s *audit.Session, label, id string) audit.Request {
	r := audit.Request{Path: s.Calibration().Path, Token: s.Target().Token, Label: label, Fresh: true}
	if id != "" {
		r.Header = audit.Header("X-Request-Id", id, "Request-Id", id, "X-Correlation-Id", id)
	}
	return r
}

func requestID(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	var got []*audit.Exchange
	for _, r := range []audit.Request{
		withID(s, "no request id", ""), withID(s, "no request id, again", ""), withID(s, "a good request id", random(16)),
	} {
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		if x.Status == 0 {
			return audit.Unproven("%s", x).With(x), nil
		}
		if requestIDOf(x) == "" {
			return audit.Failed("the answer to %s carries none of %s", x.Request.Label, strings.Join(idHeaders, ", ")).With(x), nil
		}
		got = append(got, x)
	}
	if requestIDOf(got[0]) == requestIDOf(got[1]) {
		return audit.Failed("two requests got the same id").With(got[0], got[1]), nil
	}
	return hostileIDs(ctx, s, got[2])
}

// hostileIDs sends ids that must not come back.
func hostileIDs(ctx context.Context, s *audit.Session, good *audit.Exchange) (audit.Verdict, error) {
	name := idName(good)
	long := strings.Repeat("a", 10_000)
	for _, h := range []struct{ label, id, echo string }{
		{"a request id of 10 kB", long, long},
		{"a request id with encoded line breaks", "gantry%0d%0aX-Gantry-Injected:%201", "%0d%0a"},
	} {
		r := withID(s, h.label, "")
		r.Header = audit.Header(name, h.id) // under one name: three times 10 kB is another probe's matter
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		if x.Header.Get("X-Gantry-Injected") != "" {
			return audit.Failed("%s writes a header of its own into the answer", h.label).With(x).As(audit.High), nil
		}
		if echoes(x, h.echo) {
			return audit.Failed("%s is sent back as it came", h.label).With(x), nil
		}
	}
	x, err := escapeCodes(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if echoes(x, "\x1b[31m") {
		return audit.Failed("a request id with escape codes of a terminal is sent back as it came").With(x), nil
	}
	return audit.Passed("every answer has an id of its own, and hostile ones are replaced or refused").With(good, x), nil
}

func echoes(x *audit.Exchange, hostile string) bool {
	for _, values := range x.Header {
		if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(strings.ToLower(v), hostile) }) {
			return true
		}
	}
	return false
}

// escapeCodes writes the bytes itself: no HTTP client would.
func escapeCodes(ctx context.Context, s *audit.Session) (*audit.Exchange, error) {
	conn, err := s.Dial(ctx, "a request id with escape codes")
	if err != nil {
		return nil, err
	}
	const id = "\x1b[31mgantry\x1b[0m"
	head := rawHead(s, "GET", s.Calibration().Path, "X-Request-Id: "+id, "Request-Id: "+id, "X-Correlation-Id: "+id, "Connection: close")
	if err := conn.Send(head + "\r\n"); err == nil {
		_, _, err = conn.Receive(10*time.Second, 64<<10)
		if err != nil && outOfTime(err) {
			return nil, fmt.Errorf("no answer to a request id with escape codes: %w", err)
		}
	}
	return conn.Done(), ctx.Err()
}

// random hexadecimal digits of n bytes; new in each run, whatever the seed: an old log must not match.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// exportDelay is how long spans may take: exporters send a batch every 5 s.
func exportDelay(p audit.Policy) time.Duration { return 4 * p.Grace }

func traceContext(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	var id [16]byte
	rand.Read(id[:])
	text, sink := hex.EncodeToString(id[:]), s.Sink()
	if sink != nil {
		sink.Expect(id)
	}
	before, err := readLog(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	var x *audit.Exchange
	for range 2 {
		r := withID(s, "sampled traceparent", "")
		r.Header = audit.Header("Traceparent", "00-"+text+"-"+random(8)+"-01")
		if x, err = s.Do(ctx, r); err != nil {
			return audit.Verdict{}, err
		}
	}
	if where := traceIn(x, text); where != "" {
		return audit.Passed("the trace id comes back in %s", where).With(x), nil
	}
	return traceBehind(ctx, s, x, id, before)
}

// traceIn names the header of an answer that carries the trace id.
func traceIn(x *audit.Exchange, id string) string {
	for _, name := range []string{"Traceresponse", "Server-Timing", "Traceparent"} {
		if strings.Contains(strings.ToLower(strings.Join(x.Header.Values(name), ",")), id) {
			return name
		}
	}
	return ""
}

// traceBehind looks for the id in the sink and in the log, where there are any.
func traceBehind(ctx context.Context, s *audit.Session, x *audit.Exchange, id [16]byte, before []string) (audit.Verdict, error) {
	sink, text := s.Sink(), hex.EncodeToString(id[:])
	if sink == nil && s.Hooks().Log == "" {
		return audit.Unproven("the answer does not show the trace id, and there is nothing else to look in").With(x).
			Unlock("--otlp-sink or --log-cmd"), nil
	}
	delay, connected := exportDelay(s.Policy()), []string{}
	if s.Hooks().Log != "" {
		lines, err := awaitLog(ctx, s, before, delay/2, func(lines []string) bool { return anyHas(lines, text) })
		switch {
		case err != nil:
			return audit.Verdict{}, err
		case anyHas(lines, text):
			return audit.Passed("the trace id is in the log").With(x), nil
		case len(lines) > 0:
			connected = append(connected, fmt.Sprintf("%d new lines of the log", len(lines)))
		}
	}
	if sink != nil {
		if sink.Wait(ctx, id, delay) {
			return audit.Passed("the trace id arrived in the trace sink").With(x), nil
		}
		if n := sink.Exports(); n > 0 {
			connected = append(connected, fmt.Sprintf("%d exports to the trace sink", n))
		}
	}
	if len(connected) == 0 {
		return audit.Unproven("nothing arrived in the sink or the log, so the trace id could not either").With(x), ctx.Err()
	}
	return audit.Failed("the trace id of the request is not in %s", strings.Join(connected, " nor in ")).With(x), ctx.Err()
}
