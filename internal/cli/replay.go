package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/report"
)

const replayAbout = `Asks again what a stored report found, and shows what goes over the wire. ID is a probe (JWT-01) or a piece of
evidence (7f3a11aa). The report holds no credential: give them again, with the flags and files of gantry audit.
The seed of the report is used, so that the same bytes are sent.

exit codes: 0 it is gone, 1 it is still there, 2 usage, 3 it could not be told`

// replay runs one probe of a stored report again and prints its exchanges.
func replay(ctx context.Context, p Process) int {
	fs := flags(p, "replay ID", replayAbout)
	a := newAuditFlags(fs, p)
	from := fs.String("report", "report.json", "the report in JSON")
	args, code, ok := parseMixed(fs, p)
	if !ok {
		return code
	}
	if len(args) != 1 {
		fmt.Fprintln(p.Stderr, "gantry replay: name one probe or one piece of evidence of the report")
		return Usage
	}
	old, err := readReport(*from)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry replay: --report:", err)
		return Usage
	}
	f, ok := evidenceOf(old, args[0])
	if !ok {
		fmt.Fprintf(p.Stderr, "gantry replay: %s has neither a probe nor evidence %q\n", *from, args[0])
		return Usage
	}
	job, err := a.job(ctx, old.Target)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry replay:", err)
		return Usage
	}
	defer job.close()
	job.cfg.Seed, job.cfg.Only = old.Seed, append(needs(f.Probe), f.Probe)
	again, code := job.run(ctx, p)
	if code != Good {
		return code
	}
	now, _ := again.Find(f.Probe)
	showReplay(p.Stdout, f, now)
	switch now.Outcome {
	case audit.Pass:
		return Good
	case audit.Fail:
		return Failed
	}
	return Incomplete
}

// needs names the probes that must run before another.
func needs(id string) []string {
	return map[string][]string{"RL-02": {"RL-01"}, "RL-03": {"RL-01"}, "RL-04": {"RL-01"}, "HLT-03": {"LIM-03", "DAT-01"}, "PERF-03": {"PERF-01", "PERF-02"}}[id]
}

func evidenceOf(r audit.Report, id string) (audit.Finding, bool) {
	for _, f := range r.Findings {
		if strings.EqualFold(f.Probe, id) || slices.ContainsFunc(f.Evidence, func(e audit.Evidence) bool { return strings.HasPrefix(e.ID, id) }) {
			return f, true
		}
	}
	return audit.Finding{}, false
}

func showReplay(w io.Writer, old, now audit.Finding) {
	fmt.Fprintf(w, "%s  %s\nthen  %s: %s\nnow   %s: %s\n", old.Probe, old.Title, old.Outcome, report.Plain(old.Message), now.Outcome, report.Plain(now.Message))
	for _, e := range now.Evidence {
		fmt.Fprintf(w, "\n%s  %s %s  [%s]\n", e.ID, report.Plain(e.Method), report.Plain(e.URL), report.Plain(e.Label))
		for _, part := range []string{e.Raw, e.Body} {
			if part != "" {
				fmt.Fprintf(w, "%s\n", report.Plain(part))
			}
		}
		fmt.Fprintf(w, "  -> %d %s  %.1f ms\n", e.Status, report.Plain(e.Error), e.Took)
		if e.Curl != "" {
			fmt.Fprintf(w, "  %s\n", report.Plain(e.Curl))
		}
	}
}
