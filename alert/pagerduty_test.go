package alert

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

const routingKey = "R0123456789ABCDEFGHIJKLMNOPQRSTU"

func TestPagerDutyEventsAreTheGoldenOnes(t *testing.T) {
	in := newInbox(t, answering(http.StatusAccepted))
	p, err := NewPagerDuty(routingKey, in.URL+"/", in.transport())
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]Notification{"trigger": sample(), "acknowledge": acknowledged(sample()), "resolve": resolved(acknowledged(sample()))} {
		if err := p.Notify(t.Context(), n); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := <-in.got
		if got.path != "/v2/enqueue" || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("posted %s to %s", got.header.Get("Content-Type"), got.path)
		}
		golden(t, "pagerduty_"+name+".golden.json", indented(t, got.body))
	}
}

func TestPagerDutySeveritiesAndLimits(t *testing.T) {
	p, err := NewPagerDuty(routingKey, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for severity, want := range map[Severity]string{Critical: "critical", High: "error", Medium: "warning", Low: "info"} {
		n := hostile()
		n.Alert.Rule.Severity, n.Alert.Incident = severity, strings.Repeat("x", 400)
		e := p.event(n)
		if e.Payload.Severity != want {
			t.Errorf("%s = %s, want %s", severity, e.Payload.Severity, want)
		}
		if n := utf8.RuneCountInString(e.Payload.Summary); n > 1024 || len(e.DedupKey) > 257 {
			t.Errorf("summary of %d, key of %d characters", n, len(e.DedupKey))
		}
	}
}

func TestOnlyAcceptedIsDelivered(t *testing.T) {
	in := newInbox(t, answering(http.StatusOK)) // what a captive portal says
	p, err := NewPagerDuty(routingKey, in.URL, in.transport())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Notify(t.Context(), sample()); err == nil || !strings.Contains(err.Error(), "200") {
		t.Errorf("200 instead of 202: %v", err)
	}
	if _, err := NewPagerDuty("short", "", nil); err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a bad key: %v", err)
	}
}
