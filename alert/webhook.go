package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Webhook posts to any address, in the form of Alertmanager's webhook, version 4
// (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config), so that what takes Alertmanager's messages
// takes these; "gantry" in each alert has the numbers as numbers.
type Webhook struct {
	*poster
	key []byte
}

// NewWebhook posts to an address. With a key messages are signed as Standard Webhooks says
// (https://www.standardwebhooks.com): webhook-id, which a message keeps through all attempts, webhook-timestamp, and
// webhook-signature, "v1," and the HMAC-SHA256 of id.timestamp.body. A nil transport is one of its own.
func NewWebhook(address string, key []byte, transport http.RoundTripper) (*Webhook, error) {
	p, err := newPoster(address, transport)
	if err != nil {
		return nil, fmt.Errorf("webhook %w", err)
	}
	return &Webhook{p, key}, nil
}

// webhookMessage is the body. What is always the same is there because Alertmanager's receivers read it.
type webhookMessage struct {
	Version           string            `json:"version"` // "4"
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"` // firing or resolved
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []webhookAlert    `json:"alerts"`
}

type webhookAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"` // year 1 while it fires
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
	Gantry       webhookNumbers    `json:"gantry"`
}

// webhookNumbers is what Alertmanager's form has no place for.
type webhookNumbers struct {
	Action         string  `json:"action"` // trigger, acknowledge, resolve
	Incident       string  `json:"incident"`
	Test           bool    `json:"test"`
	Signal         Signal  `json:"signal"`
	Value          float64 `json:"value"` // in the signal's unit: seconds, a share, a number
	Count          uint64  `json:"count"`
	Operator       string  `json:"operator"`
	Limit          float64 `json:"limit"`
	AcknowledgedBy string  `json:"acknowledged_by,omitempty"`
	Facts          []Fact  `json:"facts"`
}

// Notify implements [Notifier].
func (w *Webhook) Notify(ctx context.Context, n Notification) error {
	body, err := json.Marshal(webhookBody(n))
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return w.post(ctx, body, w.sign(n.id(), time.Now(), body))
}

// sign returns the headers of Standard Webhooks; without a key those that need none.
func (w *Webhook) sign(id string, at time.Time, body []byte) http.Header {
	seconds := strconv.FormatInt(at.Unix(), 10)
	h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {seconds}}
	if len(w.key) > 0 {
		mac := hmac.New(sha256.New, w.key)
		fmt.Fprintf(mac, "%s.%s.%s", id, seconds, body)
		h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return h
}

// id names a message: the same through all its attempts, and no other's.
func (n Notification) id() string {
	return "msg_" + digest(n.incident(), n.kind(), n.At.UTC().Format(time.RFC3339Nano))
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

func webhookBody(n Notification) webhookMessage {
	rule := n.Alert.Rule
	a := webhookAlert{
		Status: "firing", StartsAt: n.began().UTC(), GeneratorURL: n.Dashboard, Fingerprint: digest(rule.Name, n.Environment, n.Instance)[:16],
		Labels: map[string]string{
			"alertname": rule.Name, "severity": string(rule.Severity), "environment": n.Environment, "instance": n.Instance, "job": "gantry",
		},
		Annotations: map[string]string{
			"title": n.headline(), "summary": n.summary(), "condition": rule.Condition.Text, "runbook_url": n.Runbook, "dashboard_url": n.Dashboard,
		},
		Gantry: webhookNumbers{
			Action: n.kind(), Incident: n.incident(), Test: n.Test, Signal: rule.Condition.Signal, Value: n.Alert.Reading.Value,
			Count: n.Alert.Reading.Count, Operator: rule.Condition.Operator, Limit: rule.Condition.Limit,
			AcknowledgedBy: n.Alert.AcknowledgedBy, Facts: n.facts(),
		},
	}
	if n.Resolved {
		a.Status, a.EndsAt = "resolved", n.At.UTC()
	}
	return webhookMessage{
		Version: "4", GroupKey: fmt.Sprintf("{}:{alertname=%q}", rule.Name), Status: a.Status, Receiver: "gantry",
		GroupLabels: map[string]string{"alertname": rule.Name}, CommonLabels: a.Labels, CommonAnnotations: a.Annotations,
		ExternalURL: n.Dashboard, Alerts: []webhookAlert{a},
	}
}
