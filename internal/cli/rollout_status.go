package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

// rolloutStatus exits 0 while the launch goes on and when it is complete or there was none, and 1 when it was rolled
// back or its journal is unreadable.
func rolloutStatus(ctx context.Context, p Process) int {
	fs := flags(p, "rollout status", "Shows how the launch stands: on a terminal live, until it is over; elsewhere once, or with --wait when it is over.\nExits 0 while it goes on and when it is complete, 1 when it was rolled back or its journal is unreadable.")
	admin := addAdminFlags(fs, p)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	wait := fs.Bool("wait", false, "wait until the launch is over")
	once := fs.Bool("once", false, "show it once on a terminal, too")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	door, err := admin.client()
	if err != nil {
		return outcome(p, "rollout status", err)
	}
	screen := &screen{w: p.Stdout}
	live := isTerminal(p.Stdout) && !*asJSON && !*once
	for {
		var st fleet.Status
		if err := door.do(ctx, http.MethodGet, nil, &st, "api", "rollout"); err != nil {
			return outcome(p, "rollout status", err)
		}
		over := st.Launch.Phase.Over() || st.Corrupt
		switch {
		case live:
			screen.draw(statusText(st))
		case *wait && !over:
		case *asJSON:
			err = indented(p.Stdout, st)
		default:
			_, err = io.WriteString(p.Stdout, statusText(st))
		}
		if err != nil || over || !live && !*wait || !sleep(ctx, time.Second) {
			return statusCode(p, st, err)
		}
	}
}

func statusCode(p Process, st fleet.Status, err error) int {
	if err == nil && (st.Corrupt || st.Launch.Phase == rollout.RolledBack) {
		return Failed
	}
	return outcome(p, "rollout status", err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// screen draws over what it drew before. Lines are cut at the edge of the terminal (DECAWM off), since one that is
// wrapped is two to draw over.
type screen struct {
	w     io.Writer
	lines int
}

func (s *screen) draw(text string) {
	if s.lines > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.lines)
	}
	fmt.Fprintf(s.w, "\x1b[?7l%s\x1b[?7h", text)
	s.lines = strings.Count(text, "\n")
}

// statusText is a launch on a few lines.
func statusText(st fleet.Status) string {
	var b bytes.Buffer
	l := st.Launch
	if st.Fault != "" {
		fmt.Fprintf(&b, "WARNING  %s\n", st.Fault)
	}
	if l.Phase == rollout.None {
		fmt.Fprintf(&b, "there was no launch yet; everyone is on %s\n", st.StableURL)
		return b.String()
	}
	fmt.Fprintf(&b, "launch %s  %s -> %s\n", l.ID, l.StableURL, l.CandidateURL)
	fmt.Fprintf(&b, "  %s %v  %s", weightBar(l.Weight), l.Weight, l.Phase)
	if l.Reason != "" {
		fmt.Fprintf(&b, ": %s", l.Reason)
	}
	b.WriteByte('\n')
	if l.Phase.Over() || st.Corrupt {
		return b.String()
	}
	fmt.Fprintf(&b, "  %-10s %10s %8s %8s %8s\n", "", "requests", "failed", "slow", "callers")
	for _, side := range []struct {
		name string
		fleet.Totals
	}{{"stable", st.Stable}, {"candidate", st.Candidate}} {
		fmt.Fprintf(&b, "  %-10s %10d %8d %8d %8d\n", side.name, side.Requests, side.Failed, side.Slow, side.Callers)
	}
	writeEvidence(&b, st)
	return b.String()
}

func writeEvidence(b *bytes.Buffer, st fleet.Status) {
	if v := st.Verdict; v != nil {
		fmt.Fprintf(b, "  evidence   %s\n", v)
		fmt.Fprintf(b, "  errors     %v\n  slow       %v\n", v.Candidate.Errors, v.Candidate.Slow)
	}
	fmt.Fprintf(b, "  time left  %v of this step, %v of the launch, at least\n", st.StepLeft.Round(time.Second), st.Left.Round(time.Second))
	fmt.Fprintf(b, "  instances  %d, judged by %s", len(st.Instances), cmp.Or(st.Judge, "nobody yet"))
	if st.Missing > 0 {
		fmt.Fprintf(b, ", %d missing", st.Missing)
	}
	for _, i := range st.Instances {
		if i.Tripped != "" {
			fmt.Fprintf(b, "\n  %s is back on stable by itself: %s", i.Name, i.Tripped)
		}
	}
	b.WriteByte('\n')
}

func weightBar(w rollout.BasisPoints) string {
	const width = 30
	full := int(w) * width / int(rollout.All)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}
