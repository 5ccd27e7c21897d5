package alert

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Contact is what Alertmanager does for a name under notify. What is left out it does not do; several are done
// together.
type Contact struct {
	Name string
	// Slack is a file that has an incoming webhook's address, PagerDuty one that has the routing key of an Events API
	// v2 integration.
	Slack, PagerDuty string
	// Email are addresses; [Mailer] sends.
	Email []string
	// Webhook is an address, and written as it is: Alertmanager before 0.26 reads none from a file.
	Webhook string
}

// Mailer is how Alertmanager sends mail.
type Mailer struct {
	Smarthost string // host:port
	From      string
	// Username and PasswordFile are left out when the host needs none.
	Username, PasswordFile string
}

// alertmanagerFile is Alertmanager's configuration (https://prometheus.io/docs/alerting/latest/configuration/).
type alertmanagerFile struct {
	Global    amGlobal     `yaml:"global"`
	Route     amRoute      `yaml:"route"`
	Inhibit   []amInhibit  `yaml:"inhibit_rules"`
	Receivers []amReceiver `yaml:"receivers"`
}

type amGlobal struct {
	ResolveTimeout string `yaml:"resolve_timeout"`
	Smarthost      string `yaml:"smtp_smarthost,omitempty"`
	From           string `yaml:"smtp_from,omitempty"`
	Username       string `yaml:"smtp_auth_username,omitempty"`
	PasswordFile   string `yaml:"smtp_auth_password_file,omitempty"`
}

type amRoute struct {
	Receiver       string    `yaml:"receiver"`
	GroupBy        []string  `yaml:"group_by,omitempty"`
	GroupWait      string    `yaml:"group_wait,omitempty"`
	GroupInterval  string    `yaml:"group_interval,omitempty"`
	RepeatInterval string    `yaml:"repeat_interval,omitempty"`
	Matchers       []string  `yaml:"matchers,omitempty"`
	Continue       bool      `yaml:"continue,omitempty"`
	Routes         []amRoute `yaml:"routes,omitempty"`
}

type amInhibit struct {
	Source []string `yaml:"source_matchers"`
	Target []string `yaml:"target_matchers"`
	Equal  []string `yaml:"equal"`
}

type amReceiver struct {
	Name      string           `yaml:"name"`
	Slack     []map[string]any `yaml:"slack_configs,omitempty"`
	PagerDuty []map[string]any `yaml:"pagerduty_configs,omitempty"`
	Email     []map[string]any `yaml:"email_configs,omitempty"`
	Webhook   []map[string]any `yaml:"webhook_configs,omitempty"`
}

const alertmanagerHeader = `# Where Gantry's alerts go, for Alertmanager; written by "gantry alerts export". Secrets are in the files it names.
# The label notify of an alert names its receivers; each of them has a route, and an alert takes every one it names.
# An alert that names nobody here goes to the first, so that none is lost.
`

// Alertmanager returns a configuration of Alertmanager that routes by the label notify of [PrometheusRules]. What no
// route takes goes to oncall, or to the first contact where there is no oncall.
func Alertmanager(contacts []Contact, mail Mailer) ([]byte, error) {
	if len(contacts) == 0 {
		return nil, errors.New("alertmanager: there is nobody to tell")
	}
	file := alertmanagerFile{
		Global: amGlobal{ResolveTimeout: "5m"},
		Route: amRoute{
			Receiver: contacts[0].Name, GroupBy: []string{"alertname", "job"},
			GroupWait: "10s", GroupInterval: "1m", RepeatInterval: "4h",
		},
		// Of a dead instance its death is all that matters.
		Inhibit: []amInhibit{{
			Source: []string{fmt.Sprintf("alertname = %q", InstanceDown)}, Target: []string{`severity =~ ".+"`}, Equal: []string{"job", "instance"},
		}},
	}
	mails := false
	for _, c := range contacts {
		if !receiverName.MatchString(c.Name) || slices.ContainsFunc(file.Receivers, func(r amReceiver) bool { return r.Name == c.Name }) {
			return nil, fmt.Errorf("alertmanager: %q is no name for a receiver, or stands twice", c.Name)
		}
		if c.Name == "oncall" {
			file.Route.Receiver = c.Name
		}
		// Matchers are anchored at both ends.
		match := fmt.Sprintf(`notify =~ "(.*,)?%s(,.*)?"`, c.Name)
		file.Route.Routes = append(file.Route.Routes, amRoute{Receiver: c.Name, Matchers: []string{match}, Continue: true})
		file.Receivers = append(file.Receivers, c.receiver())
		mails = mails || len(c.Email) > 0
	}
	if mails && (mail.Smarthost == "" || mail.From == "") {
		return nil, errors.New("alertmanager: mail needs a host and a sender")
	}
	if mails {
		file.Global = amGlobal{file.Global.ResolveTimeout, mail.Smarthost, mail.From, mail.Username, mail.PasswordFile}
	}
	text, err := yaml.Marshal(file)
	return append([]byte(alertmanagerHeader), text...), err
}

const (
	amTitle = `{{ .Status | toUpper }}{{ if eq .Status "firing" }} {{ .CommonLabels.severity }}{{ end }}: {{ .CommonLabels.alertname }}`
	amText  = `{{ range .Alerts }}{{ .Annotations.summary }}{{ with .Labels.instance }} ({{ . }}){{ end }}
{{ end }}{{ .CommonAnnotations.runbook_url }}`
)

func (c Contact) receiver() amReceiver {
	r := amReceiver{Name: c.Name}
	if c.Slack != "" {
		r.Slack = append(r.Slack, map[string]any{
			"api_url_file": c.Slack, "send_resolved": true, "title": amTitle, "text": amText,
			"color": `{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}`,
		})
	}
	if c.PagerDuty != "" {
		r.PagerDuty = append(r.PagerDuty, map[string]any{
			"routing_key_file": c.PagerDuty, "send_resolved": true, "description": amTitle, "client": "Gantry",
			// PagerDuty's names for the severities.
			"severity": `{{ with .CommonLabels.severity }}{{ if eq . "critical" }}critical{{ else if eq . "high" }}error{{ else if eq . "medium" }}warning{{ else }}info{{ end }}{{ end }}`,
			"links":    []map[string]string{{"href": "{{ .CommonAnnotations.runbook_url }}", "text": "Runbook"}},
		})
	}
	if len(c.Email) > 0 {
		r.Email = append(r.Email, map[string]any{"to": strings.Join(c.Email, ", "), "send_resolved": true, "headers": map[string]string{"Subject": amTitle}})
	}
	if c.Webhook != "" {
		r.Webhook = append(r.Webhook, map[string]any{"url": c.Webhook, "send_resolved": true})
	}
	return r
}
