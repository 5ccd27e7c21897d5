package probes

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// risky names operations that do something whatever their input: they are not used for trying things out.
var risky = regexp.MustCompile(`(?i)log-?out|sign-?out|revoke|payment|checkout|charge|refund|e-?mail|sms|notif|send|webhook|reset|restart|shutdown|delete|purge|flush`)

const (
	negativeBudget  = 60 // requests by default
	negativeActive  = 300
	negativeShare   = 4 // requests for each operation at least: beyond that, operations are left out
	negativeFaults  = 5 // distinct ones that are enough to report
	negativeSilence = 2 // requests without an answer, after which the probe gives up
)

// negative is one bad value for one parameter.
type negative struct {
	op    audit.Operation
	in    input
	label string
}

// negatives sends them in turns, one operation after the other, so that a small budget reaches all.
func negatives(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t := s.Target()
	if len(t.Operations) == 0 {
		return audit.Unproven("there is no description of the API").Unlock("--openapi"), nil
	}
	left := negativeBudget
	if s.Allows(audit.Active) {
		left = negativeActive
	}
	queues := negativeQueues(s, left/negativeShare)
	if len(queues) == 0 {
		return audit.DoesNotApply("no GET operation of the description takes a parameter"), nil
	}
	n := negativeRun{s: s, left: left, faults: map[string]*audit.Exchange{}}
	var reached [][]negative
	for _, q := range queues {
		ok, err := n.reaches(ctx, q[0].op)
		if err != nil {
			return audit.Verdict{}, err
		}
		if ok {
			reached = append(reached, q)
		}
	}
	for i := 0; len(reached) > 0 && n.going(); i++ {
		more := false
		for _, q := range reached {
			if i < len(q) && n.going() {
				more = true
				if err := n.send(ctx, q[i]); err != nil {
					return audit.Verdict{}, err
				}
			}
		}
		if !more {
			break
		}
	}
	return n.verdict(len(reached), len(queues)), nil
}

// negativeQueues are the cases of each of at most limit operations, shuffled by the run's seed.
func negativeQueues(s *audit.Session, limit int) [][]negative {
	random := s.Rand()
	var queues [][]negative
	for _, op := range reads(s.Target().Operations) {
		var q []negative
		for _, p := range takes(op) {
			for _, v := range badValues(p) {
				q = append(q, negative{op, v.input, p.Name + " = " + v.label})
			}
		}
		if len(q) > 0 && !risky.MatchString(op.Path) {
			random.Shuffle(len(q), func(i, j int) { q[i], q[j] = q[j], q[i] })
			queues = append(queues, q)
		}
	}
	random.Shuffle(len(queues), func(i, j int) { queues[i], queues[j] = queues[j], queues[i] })
	return queues[:min(len(queues), limit)]
}

type badValue struct {
	label string
	input input
}

func badValues(p audit.Param) []badValue {
	values := []struct{ label, escaped string }{
		{"null", "null"},
		{"-1", "-1"},
		{"10,000 letters", strings.Repeat("a", 10_000)},
		{"NUL", "a%00b"},
		{"right-to-left text", escapedFor(p, "\u202e\u0645\u0631\u062d\u0628\u0627")},
		{"emoji", escapedFor(p, "\U0001F469\u200D\U0001F4BB")},
	}
	if p.In == "query" {
		values = append(values, struct{ label, escaped string }{"empty", ""})
	}
	switch p.Type {
	case "integer", "number":
		values = append(values, []struct{ label, escaped string }{
			{"text for a number", "abc"}, {"2^63", "9223372036854775808"}, {"1e400", "1e400"},
		}...)
	case "boolean":
		values = append(values, struct{ label, escaped string }{"text for a boolean", "perhaps"})
	}
	var list []badValue
	for _, v := range values {
		list = append(list, badValue{v.label, input{param: p, escaped: v.escaped}})
	}
	if p.Required && p.In == "query" {
		list = append(list, badValue{"left out", input{param: p, absent: true}})
	}
	return list
}

type negativeRun struct {
	s                            *audit.Session
	left                         int
	sent, refused, taken, silent int
	good                         int // operations that answer 2xx to their described values
	unstable                     int
	faults                       map[string]*audit.Exchange // by operation and status
	order                        []string
	last                         *audit.Exchange
}

func (n *negativeRun) going() bool {
	return n.left > 0 && len(n.faults) < negativeFaults && n.silent < negativeSilence
}

// reaches asks with the described values whether the operation answers at all.
func (n *negativeRun) reaches(ctx context.Context, op audit.Operation) (bool, error) {
	n.left--
	x, err := n.s.Do(ctx, requestOf(n.s.Target(), op, input{}, "values as described"))
	if err != nil {
		return false, err
	}
	n.last = x
	if x.OK() {
		n.good++
	}
	routed := x.Status != 404 || strings.Contains(op.Path, "{")
	return routed && !unreached(x) && x.Status < 500, nil
}

func (n *negativeRun) send(ctx context.Context, c negative) error {
	n.left--
	n.sent++
	r := requestOf(n.s.Target(), c.op, c.in, c.label)
	x, err := answerTo(ctx, n.s, r)
	if err != nil {
		return err
	}
	switch {
	case x.Status == 0:
		n.silent++
		n.last = x
	case serverFault(x):
		key := fmt.Sprintf("%s %s %d", c.op.Method, c.op.Path, x.Status)
		if n.faults[key] != nil {
			return nil
		}
		again, err := n.s.Repeats(ctx, r, func(y *audit.Exchange) bool { return y.Status == x.Status })
		if err != nil {
			return err
		}
		if !again {
			n.unstable++
			n.last = x
			return nil
		}
		n.faults[key] = x
		n.order = append(n.order, key)
	case x.OK():
		n.taken++
	default:
		n.refused++
		n.last = x
	}
	return nil
}

func (n *negativeRun) verdict(reached, all int) audit.Verdict {
	var v audit.Verdict
	switch {
	case len(n.faults) > 0:
		x := n.faults[n.order[0]]
		v = audit.Failed("%s %s answers %d to %s", x.Request.Method, shortPath(x), x.Status, x.Request.Label)
		if more := len(n.faults) - 1; more > 0 {
			v = audit.Failed("%s; %d more like it", v.Message, more)
		}
		for _, key := range n.order {
			v = v.With(n.faults[key])
		}
	case reached == 0:
		v = audit.Unproven("none of %d operations lets its described values in; the last answered %s", all, n.last).With(n.last).Unlock("--token, or examples in the description")
	case n.good == 0:
		v = audit.Unproven("no 5xx, but none of %d operations succeeds with its described values, so little was reached", all).With(n.last).Unlock("--token, or examples in the description")
	case n.silent > 0:
		v = audit.Unproven("%d requests got no answer", n.silent).With(n.last)
	case n.unstable > 0:
		v = audit.Unproven("%d answers of 5xx did not come back when asked again", n.unstable).With(n.last)
	default:
		v = audit.Passed("%d bad values on %d operations: %d refused, %d taken, no 5xx", n.sent, reached, n.refused, n.taken).With(n.last)
	}
	return v.Measured("sent", n.sent).Measured("refused", n.refused).Measured("taken", n.taken)
}

// shortPath is the path of a request, without the ten thousand letters.
func shortPath(x *audit.Exchange) string {
	if len(x.Request.Path) > 120 {
		return x.Request.Path[:120] + "…"
	}
	return x.Request.Path
}
