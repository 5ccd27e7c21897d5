package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgressIsALineNowAndThen(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(0, 0)
	b := newProgress(&out)
	b.now = func() time.Time { return at }
	for done := range 101 {
		b.show("listing", done, 100)
		at = at.Add(time.Second / 4)
	}
	b.show("removing", 0, 0)
	b.end()
	want := "listing: 20 of 100\nlisting: 40 of 100\nlisting: 60 of 100\nlisting: 80 of 100\nlisting: 100 of 100\n"
	if out.String() != want {
		t.Errorf("lines:\n%s, want\n%s", &out, want)
	}
}

func TestProgressOnATerminalIsOneBarPerPhase(t *testing.T) {
	var out bytes.Buffer
	at := time.Unix(0, 0)
	b := newProgress(&out)
	b.terminal, b.now = true, func() time.Time { return at }
	for range 2 {
		for done := range 1001 {
			b.show("listing", done, 1000)
			at = at.Add(time.Millisecond)
		}
		b.show("applying", 5, 5)
	}
	b.end()
	b.end()
	text := out.String()
	if n := strings.Count(text, "\n"); n != 4 {
		t.Errorf("%d lines, want 4", n)
	}
	if n := strings.Count(text, "\r"); n > 30 {
		t.Errorf("drawn %d times in two seconds", n)
	}
	if !strings.Contains(text, "["+strings.Repeat("#", 30)+"] 1000 of 1000\n") || !strings.Contains(text, "[###---") {
		t.Errorf("bars: %q", text)
	}
}
