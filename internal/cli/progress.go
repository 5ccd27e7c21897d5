package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress shows how far a long command has come: a bar that is drawn over on a terminal, and a line
// now and then anywhere else. What it writes is for people; nothing may depend on it.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	phase    string
	shown    time.Time
	open     bool // a bar stands on the current line
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: isTerminal(w), now: time.Now}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// show reports done of total in a phase; total 0 is unknown. A bar is drawn ten times a second at most,
// a line every five seconds, and both at the end of a phase.
func (b *progress) show(phase string, done, total int) {
	every := 5 * time.Second
	if b.terminal {
		every = 100 * time.Millisecond
	}
	now := b.now()
	begun := phase != b.phase
	finished := total > 0 && done == total
	if begun {
		b.end()
		b.phase, b.shown = phase, now
	}
	if !finished && (begun && !b.terminal || !begun && now.Sub(b.shown) < every) {
		return
	}
	b.shown = now
	if b.terminal {
		fmt.Fprintf(b.w, "\r\x1b[K%-24s %s", phase, bar(done, total))
		b.open = true
		return
	}
	fmt.Fprintf(b.w, "%s: %s\n", phase, amount(done, total))
}

// end leaves the line of a bar.
func (b *progress) end() {
	if b.open {
		fmt.Fprintln(b.w)
		b.open = false
	}
}

func bar(done, total int) string {
	if total <= 0 {
		return amount(done, total)
	}
	const width = 30
	full := min(width, done*width/total)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "] " + amount(done, total)
}

func amount(done, total int) string {
	if total <= 0 {
		return fmt.Sprint(done)
	}
	return fmt.Sprintf("%d of %d", done, total)
}
