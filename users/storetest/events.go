package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

func events(t *testing.T, s users.Store) {
	u := create(t, s, user("user_1"))
	other := create(t, s, user("user_2"))
	for range 4 {
		u = update(t, s, u.ID, func(*users.User) {}, "bio", "locale")
		update(t, s, other.ID, func(*users.User) {})
	}
	log, err := s.Events(t.Context(), u.ID, 0, 50)
	if err != nil || len(log) != 5 {
		t.Fatalf("%d events, %v; want 5", len(log), err)
	}
	var chain users.User
	chain.ID = u.ID
	for i, e := range log {
		want := chain.Extend(users.Event{ID: e.ID, Kind: e.Kind, Actor: e.Actor, Fields: e.Fields, At: e.At})
		if cmp.Diff(want, e) != "" || i > 0 && log[i-1].ID >= e.ID {
			t.Errorf("event %d: %s", i, cmp.Diff(want, e))
		}
	}
	if chain.Events != u.Events || chain.Head != u.Head || fmt.Sprint(log[4].Fields) != "[bio locale]" || log[4].Kind != users.UserUpdated {
		t.Errorf("the last event is %+v; want it to be the head %d %s", log[4], u.Events, u.Head)
	}
	if page, err := s.Events(t.Context(), u.ID, 2, 2); err != nil || cmp.Diff(log[2:4], page) != "" {
		t.Errorf("a page of two after the second: %v %s", err, cmp.Diff(log[2:4], page))
	}
}

func chains(t *testing.T, s users.Store) {
	if id, err := s.LastEvent(t.Context()); err != nil || id != 0 {
		t.Errorf("LastEvent of an empty log = %d, %v; want 0", id, err)
	}
	var want []users.Head
	for _, id := range []string{"usr_b", "usr_B", "usr_a", "usr_-", "usr_Z"} {
		u := user(id)
		u.ID = id
		create(t, s, u)
		u = update(t, s, id, func(*users.User) {})
		want = append(want, users.Head{UserID: id, Events: u.Events, Hash: u.Head})
	}
	slices.SortFunc(want, func(a, b users.Head) int { return compare(a.UserID, b.UserID) })
	var heads []users.Head
	for after := ""; ; after = heads[len(heads)-1].UserID {
		page, err := s.Heads(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		heads = append(heads, page...)
	}
	if diff := cmp.Diff(want, heads); diff != "" {
		t.Error(diff)
	}
	walkChains(t, s, want)
}

func walkChains(t *testing.T, s users.Store, want []users.Head) {
	t.Helper()
	var last users.Event
	var highest int64
	for i := range want {
		for seq := int64(1); seq <= want[i].Events; seq++ {
			page, err := s.Chains(t.Context(), last.UserID, last.Seq, 1)
			if err != nil || len(page) != 1 || page[0].UserID != want[i].UserID || page[0].Seq != seq {
				t.Fatalf("after %s %d: %+v, %v; want %s %d", last.UserID, last.Seq, page, err, want[i].UserID, seq)
			}
			last = page[0]
			highest = max(highest, last.ID)
		}
	}
	if page, err := s.Chains(t.Context(), last.UserID, last.Seq, 10); err != nil || len(page) != 0 {
		t.Errorf("after the last: %+v, %v; want none", page, err)
	}
	if id, err := s.LastEvent(t.Context()); err != nil || id != highest {
		t.Errorf("LastEvent = %d, %v; want %d", id, err, highest)
	}
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func misplaced(t *testing.T, s users.Store) {
	u := create(t, s, user("user_1"))
	for name, e := range map[string]users.Event{
		"of nobody":             {UserID: "usr_nobody", Seq: 1, Kind: users.UserUpdated, At: now()},
		"in the place of first": {UserID: u.ID, Seq: 1, Kind: users.UserUpdated, At: now()},
	} {
		err := s.Tx(t.Context(), func(tx users.Tx) error { return tx.Append(context.WithoutCancel(t.Context()), e) })
		if err == nil || errors.Is(err, users.ErrNotFound) {
			t.Errorf("an event %s = %v, want an error of the engine", name, err)
		}
	}
}

func sound(t *testing.T, s users.Store) {
	const n = 30
	for i := range n {
		u := create(t, s, user(fmt.Sprint(i)))
		update(t, s, u.ID, func(*users.User) {}, "bio")
	}
	var all sync.WaitGroup
	var done atomic.Bool
	all.Go(func() {
		for i := 0; !done.Load(); i++ {
			u := create(t, s, user(fmt.Sprint("late_", i)))
			update(t, s, u.ID, func(*users.User) {})
		}
	})
	var first users.Report
	for i := range 5 {
		r, err := users.Verify(t.Context(), s, users.VerifyConfig{
			Since:  first.Checkpoint,
			Broken: func(b users.Break) { t.Error(b) },
		})
		if err != nil || !r.Sound() || r.Users < n || r.Events < 2*n || r.Checkpoint.Events < 2*n {
			t.Errorf("Verify = %+v, %v", r, err)
		}
		if i == 0 {
			first = r
		}
	}
	done.Store(true)
	all.Wait()
}
