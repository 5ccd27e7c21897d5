package report

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gantryhq/gantry/audit"
)

// The terminal's rules: 80 columns, plain ASCII of our own, nothing told by colour alone; the first screen has the
// verdict, the number, why it is capped, the worst hole and the next step. Whatever the target sent is stripped of
// control characters before it is printed.

const width = 80

// detailed is how many holes are told in full unless everything is asked for.
const detailed = 4

// Text is the report for a terminal.
func Text(w io.Writer, r audit.Report, o Options) error {
	p := &printer{o: o}
	p.head(r)
	p.verdict(r)
	p.categories(r.Score)
	list := holes(r, o)
	p.holes(list)
	p.tally(r)
	p.open(r)
	p.steps(r.Score)
	p.declared(r)
	p.diff(r)
	if o.Verbose {
		p.passed(r)
		p.method(r)
	}
	if o.Gate != "" {
		p.line("\n%s", o.Gate)
	}
	_, err := io.WriteString(w, screen(p.b.String(), o.Colour))
	return err
}

type printer struct {
	b strings.Builder
	o Options
}

func (p *printer) line(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...) + "\n") {
		p.b.WriteString(strings.TrimRight(noCommand(line), " \n") + "\n")
	}
}

// noCommand breaks what a CI runner that shows our output would take for a command to itself: a line that begins with two
// colons, and ##[ anywhere.
func noCommand(line string) string {
	if start := strings.TrimLeft(line, " "); strings.HasPrefix(start, "::") {
		line = line[:len(line)-len(start)] + ":" + start[2:]
	}
	return strings.ReplaceAll(line, "##[", "#[")
}

// Colours by severity and label; the words say the same.
const (
	red    = "31;1"
	yellow = "33"
	green  = "32"
	bold   = "1"
	dim    = "2"
)

func (p *printer) colour(code, text string) string {
	if !p.o.Colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) head(r audit.Report) {
	title := "gantry audit " + r.Target
	facts := fmt.Sprintf("catalogue %d (%s)  seed %d", r.Catalogue.Probes, r.Catalogue.Hash, r.Seed)
	p.line("%s%s%s", p.colour(bold, title), strings.Repeat(" ", max(2, width-len(title)-len(facts))), facts)
	line := fmt.Sprintf("modes %s  %s  %d requests", r.Modes, r.Took.Round(100*time.Millisecond), r.Requests)
	if r.Waited > time.Second {
		line += fmt.Sprintf(", %s of it waiting for its rate limit", r.Waited.Round(time.Second))
	}
	if r.LoadSent > 0 {
		line += fmt.Sprintf(" and %d of load", r.LoadSent)
	}
	if r.Build != "" {
		line += "  build " + oneLine(r.Build, 20)
	}
	p.line("%s", line)
	if len(r.Points) > 0 {
		p.line("also seen from: %s", strings.Join(r.Points, ", "))
	}
	if r.Incomplete != "" {
		p.line("%s", p.colour(red, "INCOMPLETE: "+r.Incomplete))
	}
}

func (p *printer) verdict(r audit.Report) {
	s := r.Score
	code := map[audit.Label]string{audit.DoNotLaunch: red, audit.NotProven: yellow, audit.ControlledLaunch: yellow, audit.Ready: green}[s.Label]
	p.line("\n  %s   %s", p.colour(bold, grade(s)), p.colour(code, s.Label.String()))
	p.line("  before caps %.1f, proof %.0f %%, could be %.1f", tenth(s.Base), 100*s.Proof, s.CouldBe)
	if s.RangeOnly {
		p.line("  under half of the weight is proven: a range, not a grade")
	}
	for _, reason := range s.Reasons {
		p.wrap("  ", reason)
	}
	if !r.Calibration.Tells {
		p.wrap("  ", "identity is not judged: "+r.Calibration.Why)
	}
}

func tenth(v float64) float64 { return float64(int(v*10+1e-9)) / 10 }

func (p *printer) categories(s audit.Score) {
	p.line("")
	column := 0
	var row strings.Builder
	for _, c := range s.Categories {
		if !c.Applicable {
			continue
		}
		fmt.Fprintf(&row, "  %-13s %4.1f %s", c.Category, tenth(c.Score), bar(c.Score))
		if column++; column%2 == 0 {
			p.line("%s", row.String())
			row.Reset()
			continue
		}
		row.WriteString("    ")
	}
	if row.Len() > 0 {
		p.line("%s", row.String())
	}
}

func bar(score float64) string {
	full := min(10, int(score+0.5))
	return strings.Repeat("#", full) + strings.Repeat(".", 10-full)
}

func (p *printer) holes(list []hole) {
	for i, h := range list {
		if i < detailed || p.o.Verbose {
			p.hole(h)
			continue
		}
		if i == detailed {
			p.line("")
		}
		p.line("%-9s %-9s %s", p.severity(h.severity), h.first.Probe, fit(h.first.Title, width-21))
	}
}

func (p *printer) severity(s audit.Severity) string {
	code := map[audit.Severity]string{audit.Critical: red, audit.High: yellow, audit.Medium: bold, audit.Low: dim}[s]
	return p.colour(code, fmt.Sprintf("%-8s", strings.ToUpper(s.String())))
}

// hole tells one failure: what was sent, what came back, why it matters, what to do.
func (p *printer) hole(h hole) {
	also := ""
	if n := len(h.others); n > 0 {
		also = fmt.Sprintf(" (+%d)", n)
	}
	p.line("\n%s  %s   %s%s", p.severity(h.severity), p.colour(bold, fit(h.first.Title, 50)), h.first.Probe, also)
	p.field("found", h.first.Message)
	if h.first.Where != "" {
		p.field("where", h.first.Where)
	}
	for _, e := range h.first.Evidence[:min(len(h.first.Evidence), 2)] {
		p.evidence(e)
	}
	p.field("why", h.probe.Why)
	p.field("fix", h.probe.Fix)
	if h.probe.ID != "" {
		p.field("more", "gantry explain "+h.probe.ID)
	}
}

func (p *printer) evidence(e audit.Evidence) {
	sent := e.Method + " " + e.URL
	if e.Label != "" {
		sent += "  [" + e.Label + "]"
	}
	p.field("sent", sent)
	got := fmt.Sprintf("%d", e.Status)
	if e.Status == 0 {
		got = "no answer"
	}
	if e.Error != "" {
		got += ", " + e.Error
	}
	p.field("got", got+"  "+oneLine(e.Body, 160))
}

// field prints "  name   text", wrapped under itself.
func (p *printer) field(name, text string) {
	if text = Plain(text); text == "" {
		return
	}
	p.wrap(fmt.Sprintf("  %-6s ", name), text)
}

// wrap prints text with a prefix, later lines indented under it.
func (p *printer) wrap(prefix, text string) {
	indent := strings.Repeat(" ", len(prefix))
	line := prefix
	for _, word := range strings.Fields(Plain(text)) {
		for utf8.RuneCountInString(word) > width-len(indent) { // a word longer than the line
			head, tail := split(word, width-len(indent))
			if line != prefix && strings.TrimSpace(line) != "" {
				p.line("%s", line)
			}
			p.line("%s%s", prefixOnce(&prefix, indent), head)
			line, word = indent, tail
		}
		if utf8.RuneCountInString(line)+utf8.RuneCountInString(word) > width && strings.TrimSpace(line) != "" {
			p.line("%s", line)
			line = indent
		}
		line += word + " "
	}
	if strings.TrimSpace(line) != "" {
		p.line("%s", line)
	}
}

func prefixOnce(prefix *string, indent string) string {
	was := *prefix
	*prefix = indent
	return was
}

func split(s string, runes int) (head, tail string) {
	for i := range s {
		if runes == 0 {
			return s[:i], s[i:]
		}
		runes--
	}
	return s, ""
}

// Plain makes a string safe for a terminal: no control characters, no escapes, no text that runs backwards.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case audit.Hidden(r) || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// screen is the last look at what goes to a terminal: nothing hidden but line ends and our own colours, wherever in a
// stored report, which somebody else may have written, it came from.
func screen(s string, colour bool) string {
	if !colour {
		return lines(s)
	}
	var b strings.Builder
	end := 0
	for _, at := range colours.FindAllStringIndex(s, -1) {
		b.WriteString(lines(s[end:at[0]]) + s[at[0]:at[1]])
		end = at[1]
	}
	return b.String() + lines(s[end:])
}

var colours = regexp.MustCompile("\x1b\\[(?:31;1|33|32|1|2|0)m")

// lines is Plain that keeps line ends and tabs.
func lines(s string) string {
	all := strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
	for i, line := range all {
		parts := strings.Split(line, "\t")
		for j := range parts {
			parts[j] = Plain(parts[j])
		}
		all[i] = strings.Join(parts, "\t")
	}
	return strings.Join(all, "\n")
}

func oneLine(s string, n int) string { return fit(strings.Join(strings.Fields(Plain(s)), " "), n) }

func fit(s string, n int) string {
	head, tail := split(Plain(s), n)
	if tail == "" {
		return head
	}
	head, _ = split(head, n-2)
	return head + ".."
}

func (p *printer) tally(r audit.Report) {
	c := r.Score.Counts
	p.line("\nCRITICAL %d   HIGH %d   MEDIUM %d   LOW %d   PASSED %d   NOT PROVEN %d   N/A %d",
		c.Critical, c.High, c.Medium, c.Low, c.Passed, c.Unproven+c.Attested, c.NotApplicable)
}

// open lists what is not proven and what would prove it.
func (p *printer) open(r audit.Report) {
	if !p.o.Verbose {
		return
	}
	for _, g := range unproven(r) {
		p.line("")
		p.wrap("NOT PROVEN  ", g.ids())
		p.field("why", g.why)
		p.field("give", g.hint)
	}
}

func (p *printer) steps(s audit.Score) {
	if len(s.Next) > 0 {
		names := ""
		for i, g := range s.Next[:min(3, len(s.Next))] {
			if i > 0 {
				names += ", "
			}
			names += g.Name
		}
		last := s.Next[min(3, len(s.Next))-1]
		p.wrap("NEXT      ", fmt.Sprintf("fix %s: %.1f -> %.1f", names, s.Value, last.After))
	}
	for i, g := range s.Unlock[:min(4, len(s.Unlock))] {
		prefix := "UNLOCK    "
		if i > 0 {
			prefix = "          "
		}
		text := fmt.Sprintf("%s proves %s", g.Name, countOf(len(g.Probes), "probe"))
		if g.Gain > 0 {
			text += fmt.Sprintf(" (up to +%.1f)", g.Gain)
		}
		p.wrap(prefix, text)
	}
}

func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// declared shows on the first pages what somebody said instead of what was seen.
func (p *printer) declared(r audit.Report) {
	for _, f := range with(r, audit.NotApplicable) {
		if f.Declared {
			p.wrap("DECLARED  ", f.Probe+" "+f.Message)
		}
	}
	for _, f := range with(r, audit.Attested) {
		p.wrap("ATTESTED  ", f.Probe+" "+f.Message)
	}
	for _, w := range r.Waivers {
		p.wrap("ACCEPTED  ", fmt.Sprintf("%s by %s until %s: %s", w.ID, w.Owner, w.Expires.AddDate(0, 0, -1).Format(time.DateOnly), w.Reason))
	}
}

func (p *printer) diff(r audit.Report) {
	if p.o.Baseline == nil {
		return
	}
	p.line("\nSINCE %s: %s -> %s", p.o.Baseline.Started.Format("2006-01-02 15:04"), grade(p.o.Baseline.Score), grade(r.Score))
	for _, c := range changes(r, p.o.Baseline) {
		p.line("  %-8s %-12s -> %-12s %s", c.probe, c.old, c.new, fit(c.title, width-40))
	}
}

func (p *printer) passed(r audit.Report) {
	p.line("\nPASSED")
	for _, f := range with(r, audit.Pass) {
		p.wrap(fmt.Sprintf("  %-8s ", f.Probe), f.Title+": "+f.Message)
	}
}

// method says how the run was made, so that somebody else can make it again.
func (p *printer) method(r audit.Report) {
	p.line("\nMETHOD")
	p.field("score", r.Score.Algorithm)
	p.field("knobs", strings.Join(r.Knobs, " "))
	for _, s := range r.Stages {
		p.line("  %-28s %8s  %d requests", s.Stage, s.Took.Round(10*time.Millisecond), s.Requests)
	}
}
