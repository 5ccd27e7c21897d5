package alert

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What a message tells. The words are those of PagerDuty's event_action.
const (
	trigger     = "trigger"
	acknowledge = "acknowledge"
	resolve     = "resolve"
)

// kind is what the message tells.
func (n Notification) kind() string {
	switch {
	case n.Resolved:
		return resolve
	case n.Alert.AcknowledgedBy != "":
		return acknowledge
	}
	return trigger
}

// incident is the key that receivers deduplicate by.
func (n Notification) incident() string {
	return cmp.Or(n.Alert.Incident, Anchor(n.Alert.Rule.Name))
}

// headline is the message in one line, the important word first: telephones show no more of it.
func (n Notification) headline() string {
	var b strings.Builder
	if n.Test {
		b.WriteString("[TEST] ")
	}
	name := n.Alert.Rule.Name
	switch n.kind() {
	case resolve:
		fmt.Fprintf(&b, "RESOLVED: %s", name)
	case acknowledge:
		fmt.Fprintf(&b, "ACKNOWLEDGED: %s, by %s", name, n.Alert.AcknowledgedBy)
	default:
		fmt.Fprintf(&b, "%s: %s", strings.ToUpper(string(n.Alert.Rule.Severity)), name)
	}
	if n.Environment != "" {
		fmt.Fprintf(&b, " (%s)", n.Environment)
	}
	return b.String()
}

// summary says in one sentence what is wrong, with the number and the limit.
func (n Notification) summary() string {
	rule := n.Alert.Rule
	value := rule.Condition.Signal.Value(n.Alert.Reading.Value)
	if n.Resolved {
		return fmt.Sprintf("%s is %s again; it fired for %s", rule.Condition.Signal, value, span(n.At.Sub(n.began())))
	}
	return fmt.Sprintf("%s is %s; the rule is %s", rule.Condition.Signal, value, rule.Condition.Text)
}

// began is when the alert began to fire.
func (n Notification) began() time.Time {
	if n.Alert.Fired.IsZero() {
		return n.Alert.Since
	}
	return n.Alert.Fired
}

// Bounds of what one message carries: receivers refuse what is too long, and cut it where it hurts.
const (
	maxFacts = 40
	maxFact  = 1000 // characters of a value
)

// facts are what every receiver shows, in order: what the rule is about first, then what the evaluation added.
func (n Notification) facts() []Fact {
	rule := n.Alert.Rule
	now := rule.Condition.Signal.Value(n.Alert.Reading.Value)
	if n.Alert.Reading.Count > 0 {
		now += fmt.Sprintf(" (of %s)", grouped(n.Alert.Reading.Count))
	}
	limit := rule.Condition.Text
	if rule.Window > 0 {
		limit += " over " + span(rule.Window)
	}
	list := []Fact{{"Now", now}, {"Rule", limit}, {"Since", n.began().UTC().Format("2006-01-02 15:04:05 MST")}}
	if n.Resolved {
		list = append(list, Fact{"Fired for", span(n.At.Sub(n.began()))})
	}
	for _, f := range []Fact{{"Severity", string(rule.Severity)}, {"Environment", n.Environment}, {"Instance", n.Instance}, {"Acknowledged by", n.Alert.AcknowledgedBy}} {
		if f.Value != "" {
			list = append(list, f)
		}
	}
	list = append(list, n.Facts...)
	if more := len(list) - maxFacts; more > 0 {
		list = append(list[:maxFacts-1], Fact{"More", fmt.Sprintf("%d facts on the dashboard", more+1)})
	}
	for i := range list {
		list[i] = Fact{clip(list[i].Name, 100), clip(list[i].Value, maxFact)}
	}
	return list
}

// Value writes a value in the signal's unit, short enough for a telephone.
func (s Signal) Value(v float64) string {
	switch s {
	case P95Latency, JWKSAge, CertExpiry, WebhookSilence:
		return span(time.Duration(v * float64(time.Second)))
	case ErrorRate, PoolUtilization, DiskFree, SlowRate:
		return strconv.FormatFloat(v*100, 'f', decimals(v*100), 64) + "%"
	}
	if v >= 0 && v == float64(uint64(v)) && s != HealthStatus {
		return grouped(uint64(v))
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// decimals keeps 0.12% apart from 0.1% without telling 83.12%.
func decimals(v float64) int {
	switch {
	case v >= 10:
		return 0
	case v >= 1:
		return 1
	}
	return 2
}

// span writes a time in its two largest units.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d %s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// grouped writes 1204 as 1,204.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// clip makes text one line of at most limit characters, without what a terminal or a mail would act on.
func clip(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError:
			return -1
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return string([]rune(text)[:limit-1]) + "…"
}

// Anchor is the fragment under which docs/runbook.md explains a rule: what GitHub makes of a heading.
func Anchor(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}
