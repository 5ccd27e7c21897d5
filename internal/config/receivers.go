package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/gantryhq/gantry/alert"
)

// receiverEntry is one of gantry.yaml's receivers: all that is set is told. A secret may be env:NAME.
type receiverEntry struct {
	Slack         string   `yaml:"slack"`
	PagerDuty     string   `yaml:"pagerduty"`
	Email         []string `yaml:"email"`
	Webhook       string   `yaml:"webhook"`
	WebhookSecret string   `yaml:"webhook_secret"`
}

var alertKeys = []string{"receivers", "slack", "pagerduty", "email", "webhook", "webhook_secret", "alerts"}

// receiverReader reads gantry.yaml's receivers.
type receiverReader struct {
	*loader
	file string
	at   map[string]string // where keys stand, by their path
}

// ownReceivers reads gantry.yaml's, by name, so that the same file is always the same configuration.
func (l *loader) ownReceivers(entries map[string]receiverEntry, tree *ast.File) {
	r := receiverReader{l, tree.Name, places(tree)}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		list := r.entry(name, entries[name])
		switch {
		case !alert.IsReceiverName(name):
			r.refuse("receivers."+name, "is no name for a receiver: a letter, and at most 31 more letters, digits, - and _", "payments")
		case len(list) == 0:
			r.refuse("receivers."+name, "names nobody", "slack: env:TEAM_SLACK_WEBHOOK_URL")
		}
		l.cfg.Alerting.Names[name] = list
	}
}

// refuse reports a key that is wrong.
func (r receiverReader) refuse(path, problem, example string) {
	r.fault(Fault{ID: idReceiver, Name: path, Source: r.file + r.at[path], Problem: problem, Example: example})
}

// entry keeps the receivers of one name, NAME/slack, NAME/pagerduty and so on, and returns what they are called.
func (r receiverReader) entry(name string, e receiverEntry) (names []string) {
	at := "receivers." + name + "."
	smtp := Secret{}
	if len(e.Email) > 0 {
		smtp = r.secret("SMTP_URL")
	}
	for _, one := range []Receiver{
		{Kind: Slack, Address: r.value(at+"slack", e.Slack)},
		{Kind: PagerDuty, Key: r.value(at+"pagerduty", e.PagerDuty), Address: NewSecret(r.text("PAGERDUTY_URL", ""))},
		{Kind: Email, Address: smtp, From: r.text("ALERT_EMAIL_FROM", ""), To: e.Email},
		{Kind: Webhook, Address: r.value(at+"webhook", e.Webhook), Key: r.signature(at+"webhook_secret", e.WebhookSecret)},
	} {
		if !one.isSet() {
			continue
		}
		one.Name = name + "/" + one.Kind
		if problem, example := one.fault(); problem != "" {
			r.refuse(at+one.Kind, problem, example)
		}
		r.keep(one, at+one.Kind, r.file+r.at[at+one.Kind])
		names = append(names, one.Name)
	}
	return names
}

// value is the secret itself, or that of the variable it names.
func (r receiverReader) value(path, text string) Secret {
	variable, indirect := strings.CutPrefix(text, "env:")
	if !indirect {
		return NewSecret(text)
	}
	r.referred[variable], r.referred[variable+"_FILE"] = true, true
	s := r.secret(variable)
	if s.IsZero() {
		r.refuse(path, "the variable that it names is not set", "a variable of the environment or of .env")
	}
	return s
}

func (r receiverReader) signature(path, text string) Secret {
	key := r.value(path, text)
	if key.IsZero() {
		return key
	}
	key, err := decodeSigningKey(key)
	if err != nil {
		r.refuse(path, "is not whsec_ and 24 to 64 bytes in base64", "whsec_...")
	}
	return key
}

// places returns where the keys of the file's mappings stand, by their path: ":4:3" of "receivers.name.slack".
func places(tree *ast.File) map[string]string {
	at := make(map[string]string)
	for _, d := range tree.Docs {
		placeKeys(d.Body, "", at)
	}
	return at
}

func placeKeys(n ast.Node, path string, at map[string]string) {
	m, ok := n.(ast.MapNode)
	if !ok {
		return
	}
	for it := m.MapRange(); it.Next(); {
		token := it.Key().GetToken()
		name := path + token.Value
		at[name] = fmt.Sprintf(":%d:%d", token.Position.Line, token.Position.Column)
		placeKeys(it.Value(), name+".", at)
	}
}
