package cli

import (
	"context"
	"fmt"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/selftest"
)

// selftestWith holds every probe to its promise, and the code is 1 when one cannot tell faulty from fixed.
func selftestWith(ctx context.Context, p Process, list []audit.Probe) int {
	bar := newProgress(p.Stderr)
	told, done := 0, 0
	selftest.Run(ctx, list, func(r selftest.Result) {
		done++
		bar.show("self-test", done, len(list))
		if r.Tells() {
			told++
			return
		}
		bar.end()
		if r.Err != nil {
			fmt.Fprintf(p.Stdout, "%-8s %v\n", r.Probe, r.Err)
			return
		}
		fmt.Fprintf(p.Stdout, "%-8s faulty: %s (%s), want fail\n         fixed:  %s (%s), want pass\n",
			r.Probe, r.Faulty.Outcome, r.Faulty.Message, r.Fixed.Outcome, r.Fixed.Message)
	})
	bar.end()
	fmt.Fprintf(p.Stdout, "%d of %d probes tell faulty from fixed\n", told, len(list))
	if ctx.Err() != nil || told < len(list) {
		return Failed
	}
	return Good
}
