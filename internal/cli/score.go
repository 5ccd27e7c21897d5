package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/audit/report"
)

// scoreCommand scores a report in JSON again: the score is a function of the findings, on any machine.
func scoreCommand(_ context.Context, p Process) int {
	fs := flags(p, "score report.json", "Scores a report again and prints it, in any format.")
	format := fs.String("format", "text", "text, json, html, markdown, sarif, junit, checklist, badge")
	minimum := fs.Float64("min", 0, "score below which the exit code is 1")
	args, code, ok := parseMixed(fs, p)
	if !ok {
		return code
	}
	if len(args) != 1 {
		fmt.Fprintln(p.Stderr, "gantry score: name one report, such as: gantry score report.json")
		return Usage
	}
	found, err := readReport(args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry score:", err)
		return Usage
	}
	found.Score = audit.Rate(found.Findings)
	g := gate{min: *minimum}
	print, err := report.Format(*format)
	if err == nil {
		err = print(p.Stdout, found, report.Options{
			Colour: isTerminal(p.Stdout) && getenv(p.Environ, "NO_COLOR") == "", Probes: probes.All(), Gate: g.say(found), Anchor: "gantry.yaml",
		})
	}
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry score:", err)
		return Usage
	}
	return g.code(found)
}

const maxReport = 64 << 20

func readReport(path string) (audit.Report, error) {
	var r audit.Report
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	text, err := readAtMost(f, path, maxReport)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s is not a report in JSON: %w", path, err)
	}
	if r.Schema != audit.Schema {
		return r, fmt.Errorf("%s says schema %q; this gantry reads %s", path, r.Schema, audit.Schema)
	}
	return r, nil
}
