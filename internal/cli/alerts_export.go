package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/internal/config"
)

// alertsExport writes the rules, or whom they reach, for a fleet that a Prometheus watches.
func alertsExport(_ context.Context, p Process) int {
	fs := flags(p, "alerts export prometheus|alertmanager|grafana", "Prints the configured rules as a Prometheus rule file, the receivers as an Alertmanager configuration, or a dashboard for Grafana with the rules' limits.\nAlertmanager reads secrets from files in --secrets; their names are in what is printed.")
	src := sources(fs, p)
	secrets := fs.String("secrets", "/etc/alertmanager/secrets", "the folder where Alertmanager finds them")
	args, code, ok := parseMixed(fs, p)
	switch {
	case !ok:
		return code
	case len(args) != 1:
		fs.Usage()
		return Usage
	}
	cfg, report := config.Load(*src)
	if !report.OK() {
		_ = report.WriteText(p.Stderr)
		return BadSetup
	}
	var text []byte
	var err error
	switch args[0] {
	case "prometheus":
		text, err = alert.PrometheusRules(cfg.AlertRules)
	case "alertmanager":
		text, err = exportReceivers(cfg.Alerting, *secrets)
	case "grafana":
		text, err = alert.Grafana(cfg.AlertRules)
	default:
		fmt.Fprintf(p.Stderr, "gantry alerts export: there is no %q; prometheus, alertmanager and grafana are what there is\n", args[0])
		return Usage
	}
	if err == nil {
		_, err = p.Stdout.Write(text)
	}
	return outcome(p, "alerts export", err)
}

func exportReceivers(a config.Alerting, secrets string) ([]byte, error) {
	var mail alert.Mailer
	var contacts []alert.Contact
	for _, name := range slices.Sorted(maps.Keys(a.Names)) {
		c, ok := alert.Contact{Name: name}, false
		for _, r := range a.Receivers {
			if !slices.Contains(a.Names[name], r.Name) || r.Kind == config.LogOnly {
				continue
			}
			ok = true
			addContact(&c, &mail, r, secrets)
		}
		if ok {
			contacts = append(contacts, c)
		}
	}
	if len(contacts) == 0 {
		return nil, errLogOnly
	}
	return alert.Alertmanager(contacts, mail)
}

// addContact says to Alertmanager what r says to Gantry, with a file in place of each secret.
func addContact(c *alert.Contact, mail *alert.Mailer, r config.Receiver, secrets string) {
	file := func(what string) string {
		return path.Join(secrets, strings.ReplaceAll(strings.TrimSuffix(r.Name, "/"+r.Kind), "/", "-")+"-"+what)
	}
	switch r.Kind {
	case config.Slack:
		c.Slack = file("webhook-url")
	case config.PagerDuty:
		c.PagerDuty = file("routing-key")
	case config.Webhook:
		c.Webhook = r.Address.Reveal()
	case config.Email:
		c.Email = r.To
		*mail = mailer(r, secrets)
	}
}

func mailer(r config.Receiver, secrets string) alert.Mailer {
	u, err := url.Parse(r.Address.Reveal())
	if err != nil {
		return alert.Mailer{}
	}
	port := map[string]string{"smtp": "587", "smtps": "465"}[u.Scheme]
	m := alert.Mailer{Smarthost: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)), From: r.From, Username: u.User.Username()}
	if m.Username != "" {
		m.PasswordFile = path.Join(secrets, "smtp-password")
	}
	return m
}
