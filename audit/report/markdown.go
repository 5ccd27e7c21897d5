package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// markdownLines is how long a comment on a pull request may get.
const markdownLines = 60

// Markdown is the report as a comment on a pull request, at most 60 lines.
func Markdown(w io.Writer, r audit.Report, o Options) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	s := r.Score
	line("## %s: %s", escape(s.Label.String()), grade(s))
	line("\n%s · before caps %.1f · proof %.0f %% · could be %.1f · modes %s · seed %d", code(r.Target), tenth(s.Base), 100*s.Proof, s.CouldBe, r.Modes, r.Seed)
	for _, reason := range s.Reasons {
		line("\n> %s", escape(reason))
	}
	line("\n| | root | finding | probes |\n|---|---|---|---|")
	list := holes(r, o)
	shown := min(len(list), 25)
	for _, h := range list[:shown] {
		line("| %s | %s | %s | %s |", strings.ToUpper(h.severity.String()), escape(h.root), escape(fit(h.first.Title+": "+h.first.Message, 180)), ids(h))
	}
	if len(list) > shown {
		line("\nand %d more failures", len(list)-shown)
	}
	c := s.Counts
	line("\npassed %d · not proven %d · not applicable %d", c.Passed, c.Unproven+c.Attested, c.NotApplicable)
	for _, g := range s.Next[:min(3, len(s.Next))] {
		line("- fix %s: score %.1f once done", code(g.Name), g.After)
	}
	for _, g := range s.Unlock[:min(3, len(s.Unlock))] {
		line("- give %s: proves %s", code(g.Name), strings.Join(g.Probes, " "))
	}
	for _, d := range changes(r, o.Baseline)[:min(10, len(changes(r, o.Baseline)))] {
		line("- %s: %s → %s", d.probe, d.old, d.new)
	}
	if o.Gate != "" {
		line("\n%s", escape(o.Gate))
	}
	_, err := io.WriteString(w, firstLines(b.String(), markdownLines))
	return err
}

func ids(h hole) string {
	text := h.first.Probe
	for i, f := range h.others {
		if i == 4 {
			return text + fmt.Sprintf(" +%d", len(h.others)-i)
		}
		text += " " + f.Probe
	}
	return text
}

func firstLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[:min(n, len(lines))], "")
}

// escape makes text from anywhere harmless in Markdown: no HTML, no links, no table cells, no mentions.
func escape(s string) string {
	var b strings.Builder
	for _, r := range Plain(s) {
		switch {
		case strings.ContainsRune("\\`*_{}[]()#+!|~", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '@':
			b.WriteString("@\u200b") // so that nobody is called by a page's text
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func code(s string) string { return "`" + strings.ReplaceAll(Plain(s), "`", "'") + "`" }
