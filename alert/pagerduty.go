package alert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// PagerDutyURL is where events go; accounts in the EU use https://events.eu.pagerduty.com.
const PagerDutyURL = "https://events.pagerduty.com"

// PagerDuty sends events to its Events API v2 (https://developer.pagerduty.com/docs/send-alert-event).
type PagerDuty struct {
	*poster
	key string
}

var errRoutingKey = errors.New("pagerduty routing key is not 32 letters and digits")

// NewPagerDuty sends to the service of a routing key (an integration key of the Events API v2). An empty address is
// [PagerDutyURL], a nil transport one of its own.
func NewPagerDuty(routingKey, address string, transport http.RoundTripper) (*PagerDuty, error) {
	if !IsRoutingKey(routingKey) {
		return nil, errRoutingKey
	}
	p, err := newPoster(strings.TrimSuffix(cmp.Or(address, PagerDutyURL), "/")+"/v2/enqueue", transport, routingKey)
	if err != nil {
		return nil, fmt.Errorf("pagerduty address %w", err)
	}
	p.want = http.StatusAccepted
	return &PagerDuty{p, routingKey}, nil
}

// IsRoutingKey says that text has the form of a PagerDuty routing key.
func IsRoutingKey(text string) bool {
	return len(text) == 32 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// pagerEvent is the body of /v2/enqueue.
type pagerEvent struct {
	RoutingKey string        `json:"routing_key"`
	Action     string        `json:"event_action"`
	DedupKey   string        `json:"dedup_key"`
	Client     string        `json:"client,omitempty"`
	ClientURL  string        `json:"client_url,omitempty"`
	Links      []pagerLink   `json:"links,omitempty"`
	Payload    *pagerPayload `json:"payload,omitempty"`
}

type pagerLink struct {
	Href string `json:"href"`
	Text string `json:"text"`
}

type pagerPayload struct {
	Summary   string            `json:"summary"`
	Source    string            `json:"source"`
	Severity  string            `json:"severity"`
	Timestamp string            `json:"timestamp"`
	Group     string            `json:"group,omitempty"`
	Class     string            `json:"class,omitempty"`
	Details   map[string]string `json:"custom_details"`
}

// PagerDuty's limits, in characters.
const (
	pagerSummary = 1024
	pagerDedup   = 255
)

var pagerSeverity = map[Severity]string{Critical: "critical", High: "error", Medium: "warning", Low: "info"}

// Notify implements [Notifier]. Only the first event of an incident says what it is about; those that acknowledge and
// resolve it have the key alone.
func (p *PagerDuty) Notify(ctx context.Context, n Notification) error {
	body, err := json.Marshal(p.event(n))
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return p.post(ctx, body, nil)
}

func (p *PagerDuty) event(n Notification) pagerEvent {
	e := pagerEvent{RoutingKey: p.key, Action: n.kind(), DedupKey: clip(n.incident(), pagerDedup)}
	if e.Action != trigger {
		return e
	}
	e.Client, e.ClientURL = "Gantry", n.Dashboard
	for _, l := range n.links() {
		e.Links = append(e.Links, pagerLink{Href: l.Value, Text: l.Name})
	}
	details := make(map[string]string)
	for _, f := range n.facts() {
		details[f.Name] = f.Value
	}
	e.Payload = &pagerPayload{
		Summary: clip(n.headline()+": "+n.summary(), pagerSummary), Source: cmp.Or(n.Instance, "gantry"),
		Severity:  cmp.Or(pagerSeverity[n.Alert.Rule.Severity], "error"),
		Timestamp: n.At.UTC().Format(time.RFC3339Nano), Group: n.Environment,
		Class: string(n.Alert.Rule.Condition.Signal), Details: details,
	}
	return e
}
