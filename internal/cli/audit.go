package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/audit/report"
)

const auditAbout = `Measures whether a running API is ready for production, and proves what it says.

The default run only reads, at 10 requests a second. --active writes to objects of its own, --load sends traffic,
--fault-cmd breaks a dependency and mends it again. Credentials may be given as @FILE, or in the environment
(GANTRY_TOKEN, GANTRY_TOKEN_B, GANTRY_ADMIN_TOKEN, GANTRY_JWT_KEY). What is known about the API for good belongs into
the audit section of gantry.yaml; "gantry audit init URL" proposes one.

exit codes: 0 ready, 1 below the gate, 2 usage, 3 target unreachable or audit incomplete`

// auditCommand audits the API that the first argument names, or does one of the things beside that.
func auditCommand(ctx context.Context, p Process) int {
	if len(p.Args) > 0 && p.Args[0] == "init" {
		p.Args = p.Args[1:]
		return auditInit(ctx, p)
	}
	fs := flags(p, "audit URL", auditAbout)
	a := newAuditFlags(fs, p)
	args, code, ok := parseMixed(fs, p)
	if !ok {
		return code
	}
	if a.selftest {
		return auditSelftest(ctx, p)
	}
	if len(args) != 1 {
		fmt.Fprintln(p.Stderr, "gantry audit: name one URL, such as: gantry audit http://127.0.0.1:8000")
		return Usage
	}
	job, err := a.job(ctx, args[0])
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return Usage
	}
	defer job.close()
	if a.through {
		return auditThrough(ctx, p, job)
	}
	found, code := job.run(ctx, p)
	if code != Good {
		return code
	}
	return job.publish(p, found)
}

// parseMixed parses flags that may stand before and after the arguments.
func parseMixed(fs *flag.FlagSet, p Process) (args []string, code int, ok bool) {
	rest := p.Args
	for {
		switch err := fs.Parse(rest); {
		case errors.Is(err, flag.ErrHelp):
			return nil, Good, false
		case err != nil:
			return nil, Usage, false
		case fs.NArg() == 0:
			return args, Good, true
		}
		args = append(args, fs.Arg(0))
		rest = fs.Args()[1:]
	}
}

// auditJob is an audit that is about to run.
type auditJob struct {
	target  *audit.Target
	cfg     audit.Config
	probes  []audit.Probe
	gate    gate
	out     output
	write   string // --write: where --through leaves its settings
	closers []func()
	notes   []string // to say before the start
}

func (j *auditJob) close() {
	for _, f := range slices.Backward(j.closers) {
		f()
	}
}

// run audits. The code is not Good when there is no report.
func (j *auditJob) run(ctx context.Context, p Process) (audit.Report, int) {
	cfg := j.cfg
	announce(p, j)
	bar := newAuditProgress(p.Stderr, j.out.quiet)
	cfg.Progress = bar.show
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard) // net/http quotes there what a target sends unasked
	found, err := audit.Run(ctx, j.target, j.probes, cfg)
	bar.end()
	switch {
	case errors.Is(err, audit.ErrUnreachable):
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return found, Incomplete
	case err != nil:
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return found, Usage
	}
	return found, Good
}

// announce says before the start what the run may spend.
func announce(p Process, j *auditJob) {
	if j.out.quiet {
		return
	}
	for _, note := range j.notes {
		fmt.Fprintln(p.Stderr, "note:", note)
	}
	c := j.cfg.Defaults()
	fmt.Fprintf(p.Stderr, "auditing %s: at most %d requests", j.target.URL, c.Budget.Requests)
	if c.Load {
		fmt.Fprintf(p.Stderr, " and %d of load", c.Budget.Load)
	}
	fmt.Fprintf(p.Stderr, ", %s, %d MiB received; %g requests a second; Ctrl-C stops and still reports\n",
		c.Budget.Time, c.Budget.Bytes>>20, c.Pace)
}

// publish writes the report where it belongs and gives the exit code, which is the same for every format.
func (j *auditJob) publish(p Process, found audit.Report) int {
	code := j.gate.code(found)
	options := report.Options{
		Colour: j.out.colour, Verbose: j.out.verbose, Probes: j.probes, Baseline: j.out.baseline, Gate: j.gate.say(found),
		SARIFAll: j.out.sarifAll, Strict: j.out.strict, Operations: j.target.Operations, Anchor: "gantry.yaml",
	}
	if err := j.out.write(p, found, options); err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return Failed
	}
	return code
}

// gate decides the exit code.
type gate struct {
	min float64 // 0: READY or READY FOR CONTROLLED LAUNCH is enough
}

// code of a report: waived failures look away here, and only here.
func (g gate) code(r audit.Report) int {
	switch {
	case r.Incomplete != "":
		return Incomplete
	case g.passes(audit.Rate(audit.Waived(r.Findings, r.Waivers, r.Started))):
		return Good
	}
	return Failed
}

func (g gate) passes(s audit.Score) bool {
	if s.RangeOnly || s.Label < audit.ControlledLaunch {
		return false
	}
	return s.Value >= g.min
}

// say in a line what the gate made of the report.
func (g gate) say(r audit.Report) string {
	want := "READY FOR CONTROLLED LAUNCH or better"
	if g.min > 0 {
		want = fmt.Sprintf("%.1f and %s", g.min, want)
	}
	switch g.code(r) {
	case Good:
		return "gate passed: " + want
	case Incomplete:
		return "audit incomplete: " + r.Incomplete
	}
	return "below the gate: " + want
}

// output says which reports go where.
type output struct {
	format   string
	files    []fileOutput
	quiet    bool
	verbose  bool
	colour   bool
	strict   bool
	sarifAll bool
	baseline *audit.Report
}

type fileOutput struct{ format, path string }

func (o output) write(p Process, r audit.Report, options report.Options) error {
	print, err := report.Format(o.format)
	if err != nil {
		return err
	}
	if err := print(p.Stdout, r, options); err != nil {
		return err
	}
	for _, f := range o.files {
		if err := writeReport(f, r, options); err != nil {
			return err
		}
	}
	return nil
}

// writeReport replaces the file in one step. A report may quote the API: nobody else reads it.
func writeReport(f fileOutput, r audit.Report, options report.Options) error {
	print, err := report.Format(f.format)
	if err != nil {
		return err
	}
	options.Colour = false
	next := f.path + ".next"
	file, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	err = errors.Join(print(file, r, options), file.Close())
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("report %s: %w", f.path, err)
	}
	return os.Rename(next, f.path)
}

// auditProgress draws the bar of a run.
type auditProgress struct {
	bar     *progress
	quiet   bool
	waiting time.Duration
}

func newAuditProgress(w interface{ Write([]byte) (int, error) }, quiet bool) *auditProgress {
	return &auditProgress{bar: newProgress(w), quiet: quiet}
}

func (a *auditProgress) show(p audit.Progress) {
	if a.quiet || p.Stage == "" && p.Waiting == a.waiting {
		return
	}
	a.waiting = p.Waiting
	phase := "auditing"
	if p.Waiting > 0 {
		phase = fmt.Sprintf("waiting %s for its limit", p.Waiting.Round(time.Second))
	}
	a.bar.show(phase, p.Done, p.Total)
}

func (a *auditProgress) end() { a.bar.end() }

func auditSelftest(ctx context.Context, p Process) int {
	return selftestWith(ctx, p, probes.All())
}

// list splits a comma-separated flag.
func list(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
