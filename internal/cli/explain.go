package cli

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
)

// explain says what a probe asks and why it matters, or what became of a request; without an id it lists
// all probes.
func explain(ctx context.Context, p Process) int {
	fs := flags(p, "explain [ID]", "Explains a probe: what it sends, what proves the fault, why it matters and how to fix it.\nWith a request id (X-Request-Id of any answer) it asks the running door what became of the request:\nwhich checks ran, what they decided and counted, and how long each took. Without an id it lists all probes.")
	ask := requestFlags(fs, p)
	args, code, ok := parseMixed(fs, p)
	if !ok {
		return code
	}
	if len(args) == 0 {
		listProbes(p.Stdout)
		return Good
	}
	for _, id := range args {
		probe, found := probes.Find(strings.ToUpper(id))
		switch {
		case found:
			explainProbe(p.Stdout, probe)
		case isProbeID.MatchString(id):
			fmt.Fprintf(p.Stderr, "gantry explain: there is no probe %q; gantry explain lists them\n", id)
			return Usage
		default:
			if code := ask.explain(ctx, p, id); code != Good {
				return code
			}
		}
	}
	return Good
}

// isProbeID tells a mistyped probe from a request.
var isProbeID = regexp.MustCompile(`^(?i)[a-z]{2,5}-[0-9]{1,3}$`)

func listProbes(w io.Writer) {
	for _, p := range probes.All() {
		fmt.Fprintf(w, "%-8s %-8s %s  %s\n", p.ID, p.Severity, p.Mode, p.Title)
	}
	fmt.Fprint(w, "\nmodes: P looks only, S reads, A writes (--active), L sends load (--load), X breaks and mends (--fault-cmd)\n")
}

func explainProbe(w io.Writer, p audit.Probe) {
	fmt.Fprintf(w, "%s  %s\n%s, %s, root %s, mode %s %s\n", p.ID, p.Title, p.Severity, p.Category, p.RootName(), p.Mode, p.Mode.Flag())
	for _, n := range p.Notes() {
		fmt.Fprintf(w, "\n  %-12s %s\n", n.Name, wrapped(n.Text, 15, 80))
	}
	fmt.Fprintln(w)
}

// wrapped breaks text into lines of at most width, later ones indented.
func wrapped(text string, indent, width int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		switch {
		case i > 0 && column+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		case i > 0:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
