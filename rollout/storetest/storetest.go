// Package storetest holds the laws that every fleet.Store obeys.
//
// Begin with [Run] in a store's own test. The surprise: lines are any text here, since a store must
// give back also what nobody can read.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/rollout/fleet"
)

// Run tests every law on a store of its own. open returns two ways to the same data, as two
// instances have them.
func Run(t *testing.T, open func(*testing.T) (one, other fleet.Store)) {
	for name, law := range map[string]func(*testing.T, fleet.Store, fleet.Store){
		"an empty journal ends before its first line":   empty,
		"lines come back byte for byte, in order":       comesBack,
		"a line is written behind the end alone":        behindTheEnd,
		"of many writers at one place one wins":         race,
		"a long journal comes in pages":                 pages,
		"the end of a launch can be read after another": pastEnd,
		"the newest launches are kept":                  kept,
		"the lease has one holder":                      lease,
		"an instance has one share, the latest":         published,
		"writes wake the others":                        watched,
		"an ended context writes nothing":               ended,
	} {
		t.Run(name, func(t *testing.T) {
			one, other := open(t)
			law(t, one, other)
		})
	}
}

func place(launch int64, revision uint64) fleet.Place {
	return fleet.Place{Launch: launch, Revision: revision}
}

func line(launch int64, revision uint64) fleet.Line {
	return fleet.Line{
		Place: place(launch, revision), Base: "http://base",
		Text: fmt.Sprintf(`{"launch":%d,"text":"Zoë's \u0000 👩‍🚀; DROP TABLE x","n":%d.10}`, launch, revision),
	}
}

func write(t *testing.T, s fleet.Store, after fleet.Place, l fleet.Line) {
	t.Helper()
	if err := s.Append(t.Context(), after, l); err != nil {
		t.Fatalf("Append(%v, %v) = %v", after, l.Place, err)
	}
}

func read(t *testing.T, s fleet.Store, after fleet.Place) fleet.Page {
	t.Helper()
	page, err := s.Read(t.Context(), after)
	if err != nil {
		t.Fatalf("Read(%v) = %v", after, err)
	}
	return page
}

func empty(t *testing.T, s, _ fleet.Store) {
	page := read(t, s, fleet.Place{})
	if len(page.Lines) != 0 || page.Newest != (fleet.Place{}) {
		t.Errorf("Read of nothing = %v", page)
	}
	if off := time.Since(page.Now).Abs(); off > 10*time.Second || page.Now.Location() != time.UTC {
		t.Errorf("Now = %v, %v off", page.Now, off)
	}
	if ends, err := s.Ends(t.Context(), 5); err != nil || len(ends) != 0 {
		t.Errorf("Ends of nothing = %v, %v", ends, err)
	}
}

func comesBack(t *testing.T, s, other fleet.Store) {
	want := []fleet.Line{line(1, 1), line(1, 2), line(1, 3)}
	want[2].Text = strings.Repeat("a long line ", 20_000)
	after := fleet.Place{}
	for _, l := range want {
		write(t, s, after, l)
		after = l.Place
	}
	page := read(t, other, place(1, 0))
	if diff := cmp.Diff(page.Lines, want); diff != "" || page.Newest != after {
		t.Errorf("Read ends at %v, want %v; lines (-got +want):\n%s", page.Newest, after, diff)
	}
	if rest := read(t, other, place(1, 2)).Lines; len(rest) != 1 || rest[0].Revision != 3 {
		t.Errorf("Read behind line 2 = %d lines", len(rest))
	}
	if rest := read(t, other, after).Lines; len(rest) != 0 {
		t.Errorf("Read behind the end = %d lines", len(rest))
	}
}

func behindTheEnd(t *testing.T, s, other fleet.Store) {
	write(t, s, fleet.Place{}, line(1, 1))
	write(t, s, place(1, 1), line(1, 2))
	for _, try := range []struct{ after, at fleet.Place }{
		{fleet.Place{}, place(1, 1)},
		{place(1, 1), place(1, 2)},
		{place(1, 1), place(2, 1)},
		{place(1, 3), place(1, 4)},
		{place(2, 1), place(2, 2)},
	} {
		if err := other.Append(t.Context(), try.after, line(try.at.Launch, try.at.Revision)); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("Append(%v, %v) = %v, want ErrConflict", try.after, try.at, err)
		}
	}
	if got := read(t, s, place(1, 0)); len(got.Lines) != 2 || got.Newest != place(1, 2) {
		t.Errorf("after refusals the journal has %d lines up to %v", len(got.Lines), got.Newest)
	}
}

func race(t *testing.T, one, other fleet.Store) {
	write(t, one, fleet.Place{}, line(1, 1))
	after := place(1, 1)
	for range 5 {
		won := make(chan fleet.Place, 10)
		var writers sync.WaitGroup
		for i := range 10 {
			s, at := one, place(after.Launch, after.Revision+1)
			if i%2 == 1 {
				s, at = other, place(after.Launch+1, 1) // a start, at the same end
			}
			writers.Go(func() {
				switch err := s.Append(t.Context(), after, line(at.Launch, at.Revision)); {
				case err == nil:
					won <- at
				case !errors.Is(err, fleet.ErrConflict):
					t.Errorf("Append = %v, want nil or ErrConflict", err)
				}
			})
		}
		writers.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of 10 writers behind %v won, want 1", len(won), after)
		}
		after = <-won
		if got := read(t, one, after); got.Newest != after {
			t.Errorf("the journal ends at %v, want %v", got.Newest, after)
		}
	}
}

func pages(t *testing.T, s, _ fleet.Store) {
	after := fleet.Place{}
	for i := range uint64(fleet.PageSize + 1) {
		l := line(1, i+1)
		write(t, s, after, l)
		after = l.Place
	}
	if n := len(read(t, s, place(1, 0)).Lines); n != fleet.PageSize {
		t.Errorf("the first page has %d lines, want %d", n, fleet.PageSize)
	}
	if rest := read(t, s, place(1, fleet.PageSize)).Lines; len(rest) != 1 {
		t.Errorf("the second page has %d lines, want 1", len(rest))
	}
}

func pastEnd(t *testing.T, s, other fleet.Store) {
	write(t, s, fleet.Place{}, line(1, 1))
	write(t, s, place(1, 1), line(1, 2))
	write(t, s, place(1, 2), line(2, 1))
	page := read(t, other, place(1, 1))
	if len(page.Lines) != 1 || page.Lines[0].Place != place(1, 2) || page.Newest != place(2, 1) {
		t.Errorf("Read(1, 1) = %v, want line 2 of launch 1 and the end at launch 2", page)
	}
}

func kept(t *testing.T, s, _ fleet.Store) {
	after := fleet.Place{}
	for i := range int64(fleet.Kept + 3) {
		write(t, s, after, line(i+1, 1))
		write(t, s, place(i+1, 1), line(i+1, 2))
		write(t, s, place(i+1, 2), line(i+1, 3))
		after = place(i+1, 3)
	}
	all, err := s.Ends(t.Context(), fleet.Kept+3)
	if err != nil || len(all) != 2*fleet.Kept || all[0].Place != place(4, 1) {
		t.Errorf("Ends = %d lines, %v; want %d from launch 4 on", len(all), err, 2*fleet.Kept)
	}
	some, err := s.Ends(t.Context(), 1)
	if want := []fleet.Line{line(after.Launch, 1), line(after.Launch, 3)}; err != nil || cmp.Diff(some, want) != "" {
		t.Errorf("Ends(1) = %v, %v; want %v", some, err, want)
	}
	if gone := read(t, s, place(3, 0)).Lines; len(gone) != 0 {
		t.Errorf("launch 3 still has %d lines", len(gone))
	}
}

func lease(t *testing.T, one, other fleet.Store) {
	hold := func(s fleet.Store, who string, length time.Duration, want string) {
		t.Helper()
		if got, err := s.Hold(t.Context(), who, length); err != nil || got != want {
			t.Errorf("Hold(%q, %v) = %q, %v; want %q", who, length, got, err, want)
		}
	}
	hold(one, "a", time.Minute, "a")
	hold(other, "b", time.Minute, "a")
	hold(other, "b", 0, "a") // not b's to give back
	hold(one, "a", 100*time.Millisecond, "a")
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if got, err := other.Hold(t.Context(), "b", time.Minute); err != nil || time.Since(began) > 10*time.Second {
			t.Fatalf("the lease of a does not end: %q, %v", got, err)
		} else if got == "b" {
			break
		}
	}
	hold(one, "a", time.Minute, "b")
	hold(other, "b", 0, "")
	hold(one, "a", time.Minute, "a")
}

func published(t *testing.T, one, other fleet.Store) {
	publish := func(s fleet.Store, instance, body string) {
		t.Helper()
		if err := s.Publish(t.Context(), instance, body); err != nil {
			t.Fatal(err)
		}
	}
	publish(one, "b", `{"n":1}`)
	publish(one, "a", `{"n":2}`)
	publish(other, "b", `{"n":3}`)
	got, err := other.Published(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("Published = %v, %v; want two", got, err)
	}
	for i, want := range []fleet.Notice{{Instance: "a", Body: `{"n":2}`}, {Instance: "b", Body: `{"n":3}`}} {
		if want.Age = got[i].Age; got[i] != want || got[i].Age < 0 || got[i].Age > time.Minute {
			t.Errorf("Published[%d] = %v, want %v", i, got[i], want)
		}
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		later, err := one.Published(t.Context())
		if err != nil || time.Since(began) > 10*time.Second {
			t.Fatalf("the age of %v does not grow, %v", got[0].Age, err)
		} else if later[0].Age > got[0].Age {
			return
		}
	}
}

func watched(t *testing.T, one, other fleet.Store) {
	ctx, stop := context.WithCancel(t.Context())
	woken, over := make(chan struct{}, 1000), make(chan error, 1)
	go func() { over <- other.Watch(ctx, func() { woken <- struct{}{} }) }()
	after := fleet.Place{}
	for _, l := range []fleet.Line{line(1, 1), line(1, 2)} {
		hear(t, woken) // before the first line: that it watches
		write(t, one, after, l)
		after = l.Place
	}
	hear(t, woken)
	stop()
	if err := <-over; err == nil {
		t.Error("Watch ended without an error")
	}
}

func hear(t *testing.T, woken <-chan struct{}) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(2 * time.Second):
		t.Error("nobody was woken within 2 s")
	}
}

func ended(t *testing.T, s, _ fleet.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, fleet.Place{}, line(1, 1)); err == nil {
		t.Error("Append with an ended context succeeded")
	}
	if got := read(t, s, fleet.Place{}).Newest; got != (fleet.Place{}) {
		t.Errorf("the journal ends at %v, want nothing in it", got)
	}
}
