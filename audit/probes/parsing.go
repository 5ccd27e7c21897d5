package probes

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func parsing() []audit.Probe {
	return []audit.Probe{{
		ID: "TRN-06", Title: "Strict HTTP parsing", Severity: audit.High, Mode: audit.Safe, Category: audit.Transport, Confirms: true,
		Sends:        "a GET that succeeds, then the same with Transfer-Encoding and Content-Length, two Content-Lengths, `Content-Length: +5`, a space before a colon, two Hosts, a bad Host, a folded header and bare line feeds, each on a connection of its own",
		Passes:       "400 or 501, or the connection closed after it",
		Fails:        "2xx with the connection kept open after Transfer-Encoding with Content-Length, or two Content-Lengths. Medium: +5, the space, two Hosts; low: bare line feeds, a bad Host",
		Inconclusive: "the well-formed request does not succeed, or a proxy answers in the API's place",
		Guard:        "the bytes sent are a whole request whichever header is believed: nothing is left over for a second one. A folded header may be accepted (RFC 9112 section 5.2)",
		Refs:         []string{"RFC 9112 section 6.1", "RFC 9112 section 6.3", "RFC 9112 section 2.2", "CWE-444", "ASVS 4.2.1"},
		Why:          "Where a proxy and the API disagree on where a request ends, a stranger's request is glued to a customer's.",
		Fix:          "Update the server; refuse what is ambiguous at the edge, and close the connection. Use one parser's rules on every hop.",
		Run:          strictParsing,
	}}
}

const (
	rawPatience = 3 * time.Second
	rawClosing  = 700 * time.Millisecond // in which a server that means to close has closed
)

// oddity is a malformed request. accepted is the severity when it is answered 2xx, kept when the connection then also
// stays open; zero is no fault.
type oddity struct {
	label          string
	headers, body  string
	accepted, kept audit.Severity
	edit           func(string) string // of the whole text, when headers alone do not make it
}

var oddities = []oddity{
	{label: "Transfer-Encoding and Content-Length", headers: "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", body: "0\r\n\r\n", kept: audit.High},
	{label: "Content-Length 5 and 6", headers: "Content-Length: 5\r\nContent-Length: 6\r\n", body: "hello", accepted: audit.Medium, kept: audit.High},
	{label: "Content-Length 6 and 5", headers: "Content-Length: 6\r\nContent-Length: 5\r\n", body: "hello", accepted: audit.Medium, kept: audit.High},
	{label: "Content-Length: +5", headers: "Content-Length: +5\r\n", body: "hello", accepted: audit.Medium, kept: audit.Medium},
	{label: "a space before the colon", headers: "X-Gantry : 1\r\n", accepted: audit.Medium, kept: audit.Medium},
	{label: "two Hosts", headers: "Host: gantry.invalid\r\n", accepted: audit.Medium, kept: audit.Medium},
	{label: "a folded header", headers: "X-Gantry: 1\r\n 2\r\n"},
	{label: "Host: a@b/..", accepted: audit.Low, kept: audit.Low, edit: badHost},
	{label: "bare line feeds", accepted: audit.Low, kept: audit.Low, edit: func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }},
}

func badHost(text string) string {
	head, rest, _ := strings.Cut(text, "\r\nHost: ")
	_, rest, _ = strings.Cut(rest, "\r\n")
	return head + "\r\nHost: a@b/..\r\n" + rest
}

func strictParsing(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	r := rawRequest(s)
	plain, err := r.send(ctx, s, oddity{label: "well formed"})
	if err != nil {
		return audit.Verdict{}, err
	}
	if !plain.x.OK() {
		return audit.Unproven("the well-formed request does not succeed: %s", plain.x).With(plain.x).Unlock("--health-path, or --token and --protected-path"), nil
	}
	withBody, err := r.send(ctx, s, oddity{label: "well formed, with a body", headers: "Content-Length: 5\r\n", body: "hello"})
	if err != nil {
		return audit.Verdict{}, err
	}
	p := parsed{framing: withBody.x.OK(), proxy: plain.x.Header.Get("Via")}
	for _, o := range oddities {
		got, err := r.send(ctx, s, o)
		if err != nil {
			return audit.Verdict{}, err
		}
		if severity := got.severity(o); severity > 0 {
			again, err := r.send(ctx, s, o)
			if err != nil {
				return audit.Verdict{}, err
			}
			if again.severity(o) != severity {
				p.unclear = append(p.unclear, o.label)
				continue
			}
			p.fault(severity, o.label, got)
			continue
		}
		p.sort(o, got)
	}
	return p.verdict(), nil
}

// rawGet is the request that succeeds.
type rawGet struct{ path, host, token string }

// rawRequest chooses a path that needs no token where there is one.
func rawRequest(s *audit.Session) rawGet {
	t, c := s.Target(), s.Calibration()
	r := rawGet{host: t.URL.Host}
	path := c.Path
	switch health := s.HealthPath(); {
	case health != "":
		path = health
	case c.Missing == nil || !c.Missing.OK():
		r.token = t.Token
	}
	if r.path = t.URL.EscapedPath() + path; r.path == "" {
		r.path = "/"
	}
	return r
}

func (r rawGet) text(o oddity) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gantry-audit\r\nAccept: */*\r\n", r.path, r.host)
	if r.token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", r.token)
	}
	b.WriteString(o.headers + "\r\n" + o.body)
	if o.edit != nil {
		return o.edit(b.String())
	}
	return b.String()
}

// rawAnswer is what came back.
type rawAnswer struct {
	x      *audit.Exchange
	open   bool // afterwards
	silent bool // no answer within the patience, and not closed either
}

func (r rawGet) send(ctx context.Context, s *audit.Session, o oddity) (rawAnswer, error) {
	conn, err := s.Dial(ctx, o.label)
	if err != nil {
		return rawAnswer{}, err
	}
	var out rawAnswer
	if err := conn.Send(r.text(o)); err == nil {
		res, _, err := conn.Receive(rawPatience, 64<<10)
		if err == nil {
			out.open = o.kept == audit.High && res.StatusCode < 300 && !res.Close && !conn.Closed(rawClosing)
		}
	}
	out.x = conn.Done()
	out.silent = out.x.TimedOut()
	return out, ctx.Err()
}

// severity of the answer as a fault; 0 when it is none.
func (a rawAnswer) severity(o oddity) audit.Severity {
	switch {
	case !a.x.OK():
		return 0
	case a.open:
		return o.kept
	}
	return o.accepted
}

// parsed is what is known of the parser.
type parsed struct {
	framing bool // a GET with a body is accepted, so that what becomes of a malformed one means something
	proxy   string
	worst   audit.Severity
	faults  []string
	unclear []string
	refused int
	shown   []*audit.Exchange
	last    *audit.Exchange
}

func (p *parsed) fault(severity audit.Severity, label string, a rawAnswer) {
	text := fmt.Sprintf("%s: %d", label, a.x.Status)
	if a.open {
		text += ", connection kept open"
	}
	p.faults, p.worst = append(p.faults, text), max(p.worst, severity)
	p.shown = append(p.shown, a.x)
}

// sort files an answer that is no fault.
func (p *parsed) sort(o oddity, a rawAnswer) {
	switch {
	case a.silent, o.body != "" && !p.framing, a.x.Status >= 300 && a.x.Status < 400:
		p.unclear = append(p.unclear, o.label)
	case a.x.Status == 0 || a.x.Status >= 400:
		p.refused++
		p.last = a.x
	}
}

func (p *parsed) verdict() audit.Verdict {
	switch {
	case len(p.faults) > 0:
		return audit.Failed("accepted: %s", strings.Join(p.faults, "; ")).As(p.worst).With(p.shown[:min(len(p.shown), 4)]...)
	case p.proxy != "":
		return audit.Unproven("a proxy answered (Via: %s), and not the API", p.proxy).Unlock("the API's own address")
	case len(p.unclear) > 0:
		return audit.Unproven("no clear answer to: %s", strings.Join(p.unclear, ", ")).With(p.shown...)
	case p.last == nil:
		return audit.Passed("ambiguous requests are answered and the connection closed")
	}
	return audit.Passed("%d malformed requests are refused (%s)", p.refused, refusal(p.last)).With(p.last)
}

func refusal(x *audit.Exchange) string {
	if x.Status == 0 {
		return "the connection is closed"
	}
	return fmt.Sprint(x.Status, " ", http.StatusText(x.Status))
}
