package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/alert"
)

const (
	slackSetting = "SLACK_WEBHOOK_URL=https://hooks.example.org/services/T0/B0/x"
	pagerSetting = "PAGERDUTY_ROUTING_KEY=R0123456789ABCDEFGHIJKLMNOPQRSTU"
	hookSetting  = "ALERT_WEBHOOK_URL=https://hook.example.org/"
)

var mailSettings = []string{"SMTP_URL=smtps://app:pw@mail.example.org", "ALERT_EMAIL_FROM=Gantry <a@example.org>", "ALERT_EMAIL_TO=b@example.org, c@example.org"}

// TestNamesFallToWhoIsThere is whom the four names reach, whatever is set.
func TestNamesFallToWhoIsThere(t *testing.T) {
	for _, c := range []struct {
		set                              []string
		oncall, slack, engineering, mail string
	}{
		{nil, "log", "log", "log", "log"},
		{[]string{slackSetting}, "slack", "slack", "slack", "log"},
		{[]string{pagerSetting}, "pagerduty", "log", "log", "log"},
		{mailSettings, "email", "email", "email", "email"},
		{slices.Concat(mailSettings, []string{slackSetting, pagerSetting}), "pagerduty", "slack", "slack", "email"},
		{[]string{slackSetting, "ALERT_ENGINEERING_" + slackSetting}, "slack", "slack", "engineering-slack", "log"},
		{[]string{hookSetting}, "webhook", "webhook", "webhook", "webhook"},
		{[]string{hookSetting, pagerSetting, slackSetting}, "pagerduty webhook", "slack webhook", "slack webhook", "webhook"},
	} {
		cfg, report := Load(Sources{Dir: t.TempDir(), Environ: c.set})
		if !report.OK() {
			t.Errorf("%v: %v", c.set, report.Faults)
		}
		n := cfg.Alerting.Names
		got := []string{strings.Join(n["oncall"], " "), strings.Join(n["slack"], " "), strings.Join(n["engineering"], " "), strings.Join(n["email"], " ")}
		if diff := cmp.Diff([]string{c.oncall, c.slack, c.engineering, c.mail}, got); diff != "" {
			t.Errorf("%v: %s", c.set, diff)
		}
		for _, r := range cfg.Alerting.Receivers {
			if _, err := r.Notifier(nil); err != nil {
				t.Errorf("%v: %s: %v", c.set, r.Name, err)
			}
		}
	}
}

const alertsYAML = `receivers:
  payments:
    slack: env:PAYMENTS_SLACK
    email: [a@example.org]
    webhook: https://alerts.example.org/hook
    webhook_secret: env:PAYMENTS_SECRET
  oncall:
    pagerduty: R0123456789ABCDEFGHIJKLMNOPQRSTU
alerts:
  - name: High Latency
    condition: p95_latency > 2s
    severity: high
    notify: payments, slack
`

func TestOwnReceiversAndRules(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := "PAYMENTS_SLACK=https://hooks.example.org/p\nPAYMENTS_SECRET_FILE=" + filepath.Join(dir, "key") + "\nSMTP_URL=smtp://mail.example.org\nALERT_EMAIL_FROM=a@example.org\n"
	for name, text := range map[string]string{"gantry.yaml": alertsYAML, ".env": env} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, report := Load(Sources{Dir: dir})
	if len(report.Faults) > 0 {
		t.Errorf("faults: %+v", report.Faults)
	}
	want := map[string][]string{
		"payments": {"payments/slack", "payments/email", "payments/webhook"}, "oncall": {"oncall/pagerduty"},
		"slack": {"log"}, "engineering": {"log"}, "email": {"log"},
	}
	if diff := cmp.Diff(want, cfg.Alerting.Names); diff != "" {
		t.Error(diff)
	}
	i := slices.IndexFunc(cfg.AlertRules, func(r alert.Rule) bool { return r.Name == "High Latency" })
	if i < 0 || cfg.AlertRules[i].Condition.Limit != 2 || len(cfg.AlertRules) != len(alert.Defaults()) {
		t.Errorf("rules = %+v", cfg.AlertRules)
	}
	for _, r := range cfg.Alerting.Receivers {
		if _, err := r.Notifier(nil); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		if r.Name == "payments/webhook" && len(r.Key.Reveal()) != 24 {
			t.Errorf("key of %d bytes", len(r.Key.Reveal()))
		}
	}
}

func TestFaultsOfAlertsHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"receivers:\n  a:\n    slakc: x\n":                                                                "config.E020 slakc gantry.yaml:3:5 is not a key; did you mean slack?",
		"receivers:\n  a:\n    slack: env:NOWHERE\n":                                                      "config.E032 receivers.a.slack gantry.yaml:3:5 the variable",
		"receivers:\n  a:\n    slack: http://h.example.org/hunter2\n":                                     "config.E032 receivers.a.slack gantry.yaml:3:5 is not the https address",
		"receivers:\n  a:\n    pagerduty: hunter2\n":                                                      "config.E032 receivers.a.pagerduty gantry.yaml:3:5 is not a routing key",
		"receivers:\n  a:\n    webhook: https://h/\n    webhook_secret: hunter2\n":                        "config.E032 receivers.a.webhook_secret gantry.yaml:4:5",
		"receivers:\n  a:\n    email: [b@example.org]\n":                                                  "config.E032 receivers.a.email gantry.yaml:3:5 mail server",
		"receivers:\n  a: {}\n":                                                                           "config.E032 receivers.a gantry.yaml:2:3 names nobody",
		"receivers:\n  a b:\n    webhook: https://h/\n":                                                   "config.E032 receivers.a b gantry.yaml:2:3 is no name",
		"receivers:\n  a:\n    email: hunter2\n":                                                          "wrong type",
		"alerts:\n  - name: A\n    condition: p95_latency > 1s\n    severity: high\n    notify: onkall\n": "config.E031 alerts.notify gantry.yaml:5:13",
		"alerts:\n  - name: A\n    condition: p95_latency > 1%\n    severity: high\n    notify: oncall\n": "config.E031 alerts.condition gantry.yaml:3:",
		"alert: []\n": "did you mean alerts?",
	} {
		_, faults := yamlFaults(t, text)
		if !strings.Contains(faults, want) || strings.Contains(faults, "hunter2") {
			t.Errorf("%q: %v, want %q", text, faults, want)
		}
	}
}
