package report

import (
	"fmt"
	"io"
	"slices"

	"github.com/gantryhq/gantry/audit"
)

// SideBySide compares a target with the same target behind a door: both cards, what the door closed, and what only the
// team behind it can.
func SideBySide(w io.Writer, before, after audit.Report, o Options) error {
	p := &printer{o: o}
	p.line("%-38s  %s", "BEFORE  "+fit(before.Target, 30), "BEHIND THE DOOR  "+fit(after.Target, 22))
	p.line("")
	p.pair(p.colour(bold, fmt.Sprintf("%-38s", "  "+grade(before.Score))), p.colour(bold, "  "+grade(after.Score)))
	p.pair(fmt.Sprintf("%-38s", "  "+before.Score.Label.String()), "  "+after.Score.Label.String())
	p.pair(fmt.Sprintf("%-38s", fmt.Sprintf("  critical %d, high %d", before.Score.Counts.Critical, before.Score.Counts.High)),
		fmt.Sprintf("  critical %d, high %d", after.Score.Counts.Critical, after.Score.Counts.High))
	p.line("")
	for i, c := range before.Score.Categories {
		if d := after.Score.Categories[i]; c.Applicable || d.Applicable {
			p.pair(fmt.Sprintf("  %-13s %4.1f %s         ", c.Category, tenth(c.Score), bar(c.Score)), fmt.Sprintf("  %4.1f %s", tenth(d.Score), bar(d.Score)))
		}
	}
	closed, left, opened := moved(before, after)
	p.section("THE DOOR CLOSED", closed)
	own, behind := atTheDoor(left)
	p.section("ONLY THE TEAM BEHIND IT CAN CLOSE", behind)
	p.section("OPEN AT THE DOOR ITSELF", own)
	p.section("SEEN ONLY BEHIND THE DOOR", opened)
	_, err := io.WriteString(w, screen(p.b.String(), o.Colour))
	return err
}

// doorsOwn are the probes whose subject is whoever answers first: behind a door that is the door.
var doorsOwn = []string{"TRN-01", "TRN-02", "TRN-06", "LIM-01", "LIM-02", "LIM-05", "OBS-01", "RL-01", "RL-02", "RL-03", "RL-04"}

func atTheDoor(list []audit.Finding) (own, behind []audit.Finding) {
	for _, f := range list {
		if slices.Contains(doorsOwn, f.Probe) {
			own = append(own, f)
		} else {
			behind = append(behind, f)
		}
	}
	return own, behind
}

func (p *printer) pair(a, b string) { p.line("%s  %s", a, b) }

func (p *printer) section(title string, list []audit.Finding) {
	if len(list) == 0 {
		return
	}
	p.line("\n%s", p.colour(bold, title))
	for _, f := range list {
		p.line("  %s  %-7s  %s", p.severity(f.FailedAs), f.Probe, fit(f.Title, width-21))
	}
}

// moved sorts failures by what became of them.
func moved(before, after audit.Report) (closed, left, opened []audit.Finding) {
	for _, f := range with(before, audit.Fail) {
		now, _ := after.Find(f.Probe)
		if now.Outcome == audit.Fail {
			left = append(left, now)
		} else if now.Outcome == audit.Pass || now.Outcome == audit.NotApplicable {
			closed = append(closed, f)
		} else {
			left = append(left, f)
		}
	}
	for _, f := range with(after, audit.Fail) {
		if old, _ := before.Find(f.Probe); old.Outcome != audit.Fail {
			opened = append(opened, f)
		}
	}
	return closed, left, opened
}
