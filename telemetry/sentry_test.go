package telemetry

import (
	"encoding/json"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// reporter returns a Sentry of a test's.
func reporter(t *testing.T, dsn string, change func(*SentryConfig)) *Sentry {
	t.Helper()
	cfg := SentryConfig{DSN: dsn, Release: "v1.2.3", Environment: "production", Timeout: 300 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	s, err := NewSentry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// field reads a value out of an event, by the names on the way to it.
func field(event map[string]any, names ...string) any {
	var v any = event
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

func TestAFailureIsReportedWithItsContextAndNothingElse(t *testing.T) {
	s := testenv.NewSentry(t)
	reports := reporter(t, s.DSN, nil)
	stop := running(t, reports.Run)
	reports.Record(request("fine", 200))
	reports.Record(request("refused", 429))
	late := request("late", 504)
	late.Decision, late.Path = "timeout", "/v1/reset/joe@example.org"
	reports.Record(late)
	s.Until(func() bool { return len(s.Events()) == 1 })
	stop()
	event := s.Events()[0]
	for want, names := range map[string][]string{
		"v1.2.3": {"release"}, "production": {"environment"}, "error": {"level"}, "GET /v1/things/{id}": {"transaction"},
		"late": {"tags", "request_id"}, "504": {"tags", "status"}, "timeout": {"tags", "decision"}, "10.0.0.9:3000": {"tags", "upstream"}, "1": {"tags", "repeats"},
		"u_2c80f694c664": {"user", "id"}, "GET": {"request", "method"}, "//api.example.org:8443/v1/reset/" + redacted: {"request", "url"},
		"4bf92f3577b34da6a3ce929d0e0e4736": {"contexts", "trace", "trace_id"}, "00f067aa0ba902b7": {"contexts", "trace", "span_id"},
		"40.0 ms": {"contexts", "gantry", "total"}, "4.0 ms passed": {"contexts", "gantry", "2 identity"},
	} {
		if got := field(event, names...); got != want {
			t.Errorf("%v = %v, want %q", names, got, want)
		}
	}
	if n := s.Calls(); n != 1 {
		t.Errorf("%d reports, want one: an answer of the caller's own fault is none", n)
	}
	if text := s.Received(); strings.Contains(text, "joe@") || strings.Contains(text, "192.0.2.7") {
		t.Errorf("an e-mail address or the client's address is reported: %s", text)
	}
}

func TestAPanicIsReportedWithItsStack(t *testing.T) {
	s := testenv.NewSentry(t)
	reports := reporter(t, s.DSN, nil)
	stop := running(t, reports.Run)
	r := request("A", 500)
	r.Decision = "panic"
	r.Panic, r.Stack = explode(t)
	reports.Record(r)
	s.Until(func() bool { return len(s.Events()) == 1 })
	stop()
	text, _ := json.Marshal(s.Events()[0])
	for _, want := range []string{`"type":"panic"`, `"value":"key ` + redacted + `"`, `"function":"explode"`, `"module":"github.com/gantryhq/gantry/telemetry"`, `sentry_test.go`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %s: %s", want, text)
		}
	}
	list := frames(r.Stack)
	if last := list[len(list)-1]; last.Function != "explode" {
		t.Errorf("the last frame is %s, want the one that panicked", last.Function)
	}
}

// explode panics with a secret, and recovers as the guard does.
func explode(t *testing.T) (value string, stack []byte) {
	t.Helper()
	defer func() { value, stack = recover().(string), debug.Stack() }()
	panic("key sk_live_abcdefgh12345678")
}

func TestRepeatedFailuresAreOneReportWithACount(t *testing.T) {
	s := testenv.NewSentry(t)
	var now atomic.Int64
	reports := reporter(t, s.DSN, func(c *SentryConfig) {
		c.Now = func() time.Time { return start.Add(time.Duration(now.Load())) }
		c.Window = 20 * time.Millisecond // how often Run looks; the clock above says when it is over
	})
	stop := running(t, reports.Run)
	for range 1000 {
		reports.Record(request("A", 500))
	}
	reports.Record(request("B", 502))
	s.Until(func() bool { return len(s.Events()) == 2 })
	now.Store(int64(time.Minute))
	s.Until(func() bool { return len(s.Events()) == 3 })
	stop()
	if got := field(s.Events()[2], "tags", "repeats"); got != "999" {
		t.Errorf("the last report tells of %v failures, want 999", got)
	}
	if got := dropped(reports.Dropped()); len(got) != 0 {
		t.Errorf("dropped %v, want none: each was counted in a report", got)
	}
}

func TestReportsAreBoundedInRate(t *testing.T) {
	s := testenv.NewSentry(t)
	reports := reporter(t, s.DSN, func(c *SentryConfig) { c.Now = func() time.Time { return start } })
	for i := range 100 {
		r := request("A", 500)
		r.Route = "GET /" + string(rune('a'+i))
		reports.Record(r)
	}
	running(t, reports.Run)()
	if sent, got := len(s.Events()), dropped(reports.Dropped()); sent != 30 || got[causeRate] != 70 {
		t.Errorf("%d sent, dropped %v; want 30, and 70 for their rate", sent, got)
	}
}

func TestSentryThatFailsIsCountedAndHoldsNobodyUp(t *testing.T) {
	for fault, want := range map[testenv.ReceiverFault]string{
		testenv.ReceiverHangs: causeTimeout, testenv.ReceiverBusy: causeThrottled, testenv.ReceiverFails: causeRejected, -1: causeUnreachable,
	} {
		s := testenv.NewSentry(t)
		s.Break(fault)
		if fault < 0 {
			s.Vanish()
		}
		log, said := listen()
		reports := reporter(t, s.DSN, func(c *SentryConfig) { c.Logger = log })
		stop := running(t, reports.Run)
		reports.Record(request("A", 500))
		if line := <-said; !strings.Contains(line, want) || strings.Contains(line, "0123456789abcdef") {
			t.Errorf("%v: the log says %q, want %s and no key", fault, line, want)
		}
		for i := range 29 {
			r := request("A", 500)
			r.Route = "GET /" + string(rune('a'+i))
			reports.Record(r)
		}
		if took := stop(); took > grace+time.Second {
			t.Errorf("%v: the end took %v", fault, took)
		}
		if n := total(reports.Dropped()); n != 30 {
			t.Errorf("%v: %d dropped %v, want 30", fault, n, dropped(reports.Dropped()))
		}
		if n := s.Calls(); fault == testenv.ReceiverBusy && n != 1 {
			t.Errorf("Sentry asked for silence and was called %d times", n)
		}
	}
}

func TestSilenceIsReadFromTheHeaders(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": 0, "60": time.Minute, "60::organization": time.Minute, "30:error;transaction:key": 30 * time.Second, "30:transaction:key": 0,
		"10:transaction:key, 20:error:key": 20 * time.Second, "soon:error": 0, "-5::": 0,
	} {
		if got := limitOf(header); got != want {
			t.Errorf("X-Sentry-Rate-Limits %q: %v, want %v", header, got, want)
		}
	}
	for header, want := range map[string]time.Duration{
		"7": 7 * time.Second, start.Add(time.Hour).Format(http.TimeFormat): time.Hour, "": sentryPause, "never": sentryPause, "99999999999": sentryPause,
	} {
		if got := retryAfter(header, start); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
}

func TestABadDSNIsNotRepeatedInTheError(t *testing.T) {
	_, err := NewSentry(SentryConfig{DSN: "https://canary@/x"})
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error = %v, want one without the key", err)
	}
}

func TestDialSentryAsksTheHost(t *testing.T) {
	s := testenv.NewSentry(t)
	if err := DialSentry(t.Context(), s.DSN); err != nil {
		t.Error(err)
	}
	s.Vanish()
	if DialSentry(t.Context(), s.DSN) == nil {
		t.Error("a host that is gone is called good")
	}
}
