package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Slack posts to an incoming webhook (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks), or to
// whatever takes the same messages.
type Slack struct{ *poster }

// NewSlack posts to a webhook's address, which is a secret: whoever has it can post. A nil transport is one of its own.
func NewSlack(webhook string, transport http.RoundTripper) (*Slack, error) {
	p, err := newPoster(webhook, transport)
	if err != nil {
		return nil, fmt.Errorf("slack webhook %w", err)
	}
	return &Slack{p}, nil
}

// Notify implements [Notifier].
func (s *Slack) Notify(ctx context.Context, n Notification) error {
	body, err := json.Marshal(slackMessage(n))
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return s.post(ctx, body, nil)
}

// Slack's limits (https://docs.slack.dev/reference/block-kit/blocks/section-block), and ours of the text above the blocks.
const (
	slackHeadline = 150  // characters
	slackSummary  = 500  // characters
	slackField    = 2000 // characters
	slackFields   = 10   // of a section
)

// slackPayload says what matters in its text, which is also what telephones show, and all that receivers of Slack's
// messages who know no blocks show. The blocks are in an attachment: only attachments have a colour.
type slackPayload struct {
	Text        string            `json:"text"`
	Attachments []slackAttachment `json:"attachments"`
}

type slackAttachment struct {
	Color  string       `json:"color"`
	Blocks []slackBlock `json:"blocks"`
}

type slackBlock struct {
	Type     string       `json:"type"`
	Fields   []slackWords `json:"fields,omitempty"`
	Elements []slackWords `json:"elements,omitempty"`
}

type slackWords struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim,omitempty"` // no link or name is made of plain text
}

func slackMessage(n Notification) slackPayload {
	var blocks []slackBlock
	facts := n.facts()
	for len(facts) > 0 {
		few := min(slackFields, len(facts))
		var fields []slackWords
		for _, f := range facts[:few] {
			fields = append(fields, slackFact(f))
		}
		blocks = append(blocks, slackBlock{Type: "section", Fields: fields})
		facts = facts[few:]
	}
	if links := slackLinks(n); links != "" {
		blocks = append(blocks, slackBlock{Type: "context", Elements: []slackWords{mrkdwn(links)}})
	}
	return slackPayload{
		Text:        "*" + slackEscape(clip(n.headline(), slackHeadline)) + "*\n" + slackEscape(clip(n.summary(), slackSummary)),
		Attachments: []slackAttachment{{Color: slackColor(n), Blocks: blocks}},
	}
}

// slackFact clips before it escapes, so that no entity is cut: an escaped character is at most five.
func slackFact(f Fact) slackWords {
	return mrkdwn("*" + slackEscape(f.Name) + "*\n" + slackEscape(clip(f.Value, (slackField-600)/5)))
}

func mrkdwn(escaped string) slackWords {
	return slackWords{Type: "mrkdwn", Text: escaped, Verbatim: true}
}

// slackEscape takes away what mentions people or makes links (https://docs.slack.dev/messaging/formatting-message-text).
func slackEscape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

func slackLinks(n Notification) string {
	var links []string
	for _, l := range n.links() {
		links = append(links, "<"+slackEscape(strings.ReplaceAll(l.Value, "|", "%7C"))+"|"+l.Name+">")
	}
	return strings.Join(links, "  ·  ")
}

// links are the addresses that a message leads to.
func (n Notification) links() []Fact {
	var list []Fact
	for _, l := range []Fact{{"Dashboard", n.Dashboard}, {"Runbook", n.Runbook}} {
		if u, err := url.Parse(l.Value); err == nil && (u.Scheme == "https" || u.Scheme == "http") && len(l.Value) <= 1000 {
			list = append(list, Fact{l.Name, u.String()})
		}
	}
	return list
}

func slackColor(n Notification) string {
	switch {
	case n.Resolved:
		return "#2e7d32"
	case n.kind() == acknowledge:
		return "#607d8b"
	}
	switch n.Alert.Rule.Severity {
	case Critical:
		return "#b71c1c"
	case High:
		return "#e65100"
	case Medium:
		return "#f9a825"
	}
	return "#1565c0"
}
