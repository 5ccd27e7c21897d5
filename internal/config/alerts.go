package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/secret"
)

// Alerting says whom alerts reach, and where their messages lead.
type Alerting struct {
	// Dashboard is the address under which people reach the admin port's page; "" leads nowhere.
	Dashboard string
	Receivers []Receiver
	// Names are what rules call receivers. oncall, slack, engineering and email are always there, and end in the log
	// when nothing else is set.
	Names map[string][]string
}

// Kinds of receivers.
const (
	Slack     = "slack"
	PagerDuty = "pagerduty"
	Email     = "email"
	Webhook   = "webhook"
	LogOnly   = "log"
)

// Receiver is one place that messages go to.
type Receiver struct {
	Name    string // unique: slack, pagerduty, NAME/slack of gantry.yaml
	Kind    string
	Address Secret // of the webhook, of the SMTP server, of PagerDuty
	Key     Secret // PagerDuty's routing key; the decoded key that signs webhooks
	From    string
	To      []string
}

// Notifier makes what delivers to the receiver. It dials nobody; log is for [LogOnly].
func (r Receiver) Notifier(log *slog.Logger) (alert.Notifier, error) {
	address := r.Address.Reveal()
	switch r.Kind {
	case Slack:
		return alert.NewSlack(address, nil)
	case PagerDuty:
		return alert.NewPagerDuty(r.Key.Reveal(), address, nil)
	case Email:
		return alert.NewMail(alert.MailConfig{Server: address, From: r.From, To: r.To})
	case Webhook:
		return alert.NewWebhook(address, []byte(r.Key.Reveal()), nil)
	case LogOnly:
		return alert.Log{Logger: log}, nil
	}
	return nil, errors.New("there is no such kind of receiver")
}

// What the examples of faults show.
const (
	slackExample   = "https://hooks.slack.com/services/T.../B.../..."
	pagerExample   = "(the integration key of an Events API v2 integration)"
	smtpExample    = "smtp://user:password@smtp.example.com:587"
	addressExample = "alerts@example.com"
	webhookExample = "https://alerts.example.com/hook"
)

// receivers reads those of the environment and gives them their names. gantry.yaml's own are there already.
func (l *loader) receivers() {
	a := &l.cfg.Alerting
	a.Dashboard = l.text("DASHBOARD_URL", "")
	if a.Dashboard != "" && !isWebAddress(a.Dashboard) {
		l.bad(idInvalid, "DASHBOARD_URL", "is not an http or https address", "https://gantry.example.com")
	}
	pager := l.add(Receiver{Name: PagerDuty, Kind: PagerDuty, Key: l.secret("PAGERDUTY_ROUTING_KEY"), Address: NewSecret(l.text("PAGERDUTY_URL", ""))}, "PAGERDUTY_ROUTING_KEY")
	slack := l.add(Receiver{Name: Slack, Kind: Slack, Address: l.secret("SLACK_WEBHOOK_URL")}, "SLACK_WEBHOOK_URL")
	engineering := l.add(Receiver{Name: "engineering-slack", Kind: Slack, Address: l.secret("ALERT_ENGINEERING_SLACK_WEBHOOK_URL")}, "ALERT_ENGINEERING_SLACK_WEBHOOK_URL")
	email := l.email()
	webhook := l.add(Receiver{Name: Webhook, Kind: Webhook, Address: l.secret("ALERT_WEBHOOK_URL"), Key: l.signingKey("ALERT_WEBHOOK_SECRET")}, "ALERT_WEBHOOK_URL")
	a.Receivers = append(a.Receivers, Receiver{Name: LogOnly, Kind: LogOnly})
	// A name that nothing is set for is somebody else's, and never that of who is woken up.
	l.name("oncall", pager, slack, email, webhook)
	l.name("slack", slack, email, webhook)
	l.name("engineering", engineering, slack, email, webhook)
	l.name("email", email, webhook)
	for name, list := range a.Names { // the webhook is told of everything
		if webhook != "" && !slices.Contains(list, webhook) {
			a.Names[name] = append(list, webhook)
		}
	}
	if l.cfg.Environment == Production && slices.Contains(a.Names["oncall"], LogOnly) {
		l.fault(Fault{
			ID: idPolicy, Name: "PAGERDUTY_ROUTING_KEY", Problem: "is not set, and neither is another receiver of alerts: nobody is woken, they are only in the log",
			Example: "PAGERDUTY_ROUTING_KEY=..., SLACK_WEBHOOK_URL=https://..., or SMTP_URL=smtp://...",
		})
	}
	l.checkReceivers()
}

func isWebAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil
}

// add keeps a receiver that is set, and returns its name, or "".
func (l *loader) add(r Receiver, variable string) string {
	if !r.isSet() {
		return ""
	}
	problem, example := r.fault()
	if problem != "" {
		l.bad(idInvalid, variable, problem, example)
	}
	l.keep(r, variable, l.source(variable))
	return r.Name
}

// keep warns of a webhook that anybody on the way can read.
func (l *loader) keep(r Receiver, variable, source string) {
	if r.Kind == Webhook && r.isPlain() {
		l.fault(Fault{ID: idPolicy, Name: variable, Source: source, Problem: "is not encrypted: alerts can be read on the way", Example: webhookExample})
	}
	l.cfg.Alerting.Receivers = append(l.cfg.Alerting.Receivers, r)
}

// fault says what is wrong with a receiver, without its secrets, and what would be right.
func (r Receiver) fault() (problem, example string) {
	_, err := r.Notifier(nil)
	switch {
	case r.Kind == Slack && (err != nil || r.isPlain() || secret.IsPlaceholder(r.Address.Reveal())):
		return "is not the https address of an incoming webhook", slackExample
	case r.Kind == PagerDuty && (err != nil || r.isPlain()):
		return "is not a routing key of 32 letters and digits, or PAGERDUTY_URL is no https address", pagerExample
	case r.Kind == Email && err != nil:
		return err.Error(), smtpExample
	case r.Kind == Webhook && err != nil:
		return "is not an http or https address", webhookExample
	}
	return "", ""
}

// isSet says that there is somebody to tell.
func (r Receiver) isSet() bool {
	switch r.Kind {
	case PagerDuty:
		return !r.Key.IsZero()
	case Email:
		return len(r.To) > 0
	}
	return !r.Address.IsZero()
}

// isPlain says that messages would go over a network unencrypted.
func (r Receiver) isPlain() bool {
	u, err := url.Parse(r.Address.Reveal())
	return err == nil && u.Scheme == "http" && !isLoopback(net.JoinHostPort(u.Hostname(), "0"))
}

// email needs three settings; some of them alone are a mistake.
func (l *loader) email() string {
	server := l.secret("SMTP_URL")
	r := Receiver{Name: Email, Kind: Email, Address: server, From: l.text("ALERT_EMAIL_FROM", ""), To: l.list("ALERT_EMAIL_TO")}
	for _, part := range []struct {
		name, example string
		set           bool
	}{
		{"SMTP_URL", smtpExample, !server.IsZero()}, {"ALERT_EMAIL_FROM", addressExample, r.From != ""}, {"ALERT_EMAIL_TO", addressExample, len(r.To) > 0},
	} {
		switch {
		case part.set:
		case part.name == "ALERT_EMAIL_TO" && l.mailsNamed(): // gantry.yaml says to whom
			return ""
		case l.attempted("SMTP_URL", "SMTP_URL_FILE", "ALERT_EMAIL_FROM", "ALERT_EMAIL_TO"):
			l.missing(part.name, "must be set: mail needs SMTP_URL, ALERT_EMAIL_FROM and ALERT_EMAIL_TO", part.example)
			return ""
		default:
			return ""
		}
	}
	return l.add(r, "SMTP_URL")
}

func (l *loader) mailsNamed() bool {
	return slices.ContainsFunc(l.cfg.Alerting.Receivers, func(r Receiver) bool { return r.Kind == Email })
}

// signingKey reads a secret of Standard Webhooks.
func (l *loader) signingKey(name string) Secret {
	text := l.secret(name)
	if text.IsZero() {
		return text
	}
	key, err := decodeSigningKey(text)
	if err != nil {
		l.bad(idInvalid, name, "is not whsec_ and 24 to 64 bytes in base64", "whsec_...")
	}
	return key
}

func decodeSigningKey(text Secret) (Secret, error) {
	key, err := clerk.DecodeWebhookSecret(text.Reveal())
	if err != nil || !strings.HasPrefix(text.Reveal(), "whsec_") {
		return Secret{}, clerk.ErrWebhookSecret
	}
	return NewSecret(string(key)), nil
}

// name gives a name to the first of the receivers that is set, or else to the log. A name of gantry.yaml stays.
func (l *loader) name(name string, receivers ...string) {
	if _, own := l.cfg.Alerting.Names[name]; !own {
		l.cfg.Alerting.Names[name] = []string{cmp.Or(append(receivers, LogOnly)...)}
	}
}

// rules reads gantry.yaml's alerts; those of the same name as a default take its place.
func (l *loader) rules(file, text string) {
	own, faults := alert.Parse(file, []byte(text))
	l.cfg.AlertRules = own
	l.ruleFaults(faults)
}

func (l *loader) ruleFaults(faults []alert.Fault) {
	for _, f := range faults {
		l.fault(Fault{
			ID: idAlert, Name: strings.TrimSuffix("alerts."+f.Key, "."), Source: fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column),
			Problem: f.Problem, Example: f.Example,
		})
	}
}

// checkReceivers asks for somebody behind every name that rules use, and puts the defaults beside them.
func (l *loader) checkReceivers() {
	var names []string
	for name := range l.cfg.Alerting.Names {
		names = append(names, name)
	}
	slices.Sort(names)
	l.ruleFaults(alert.CheckReceivers(l.yamlName, l.cfg.AlertRules, names))
	l.cfg.AlertRules = alert.WithDefaults(l.cfg.AlertRules)
}
