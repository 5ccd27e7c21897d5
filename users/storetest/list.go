package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

// many stores n users, several of whom were made in the same microsecond, and returns their ids in the
// order of a list.
func many(t *testing.T, s users.Store, n int) []string {
	t.Helper()
	var all []users.User
	base := now()
	for i := range n {
		u := user(fmt.Sprintf("user_%d", i))
		u.CreatedAt = base.Add(time.Duration(i/3) * time.Microsecond)
		all = append(all, create(t, s, u))
	}
	slices.SortFunc(all, func(a, b users.User) int {
		if d := b.CreatedAt.Compare(a.CreatedAt); d != 0 {
			return d
		}
		return compare(b.ID, a.ID)
	})
	ids := make([]string, n)
	for i, u := range all {
		ids[i] = u.ID
	}
	return ids
}

// pages reads a whole list; between is called after each page.
func pages(t *testing.T, s users.Store, q users.Query, between func()) []string {
	t.Helper()
	var ids []string
	for {
		page, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > q.Limit {
			t.Fatalf("a page of %d, want at most %d", len(page), q.Limit)
		}
		for _, u := range page {
			ids = append(ids, u.ID)
			q.After = users.Position{At: u.CreatedAt, ID: u.ID}
		}
		if len(page) < q.Limit {
			return ids
		}
		between()
	}
}

func list(t *testing.T, s users.Store) {
	want := many(t, s, 20)
	for _, limit := range []int{1, 3, 7, 100} {
		if got := pages(t, s, users.Query{Limit: limit}, func() {}); cmp.Diff(want, got) != "" {
			t.Errorf("by %d: %s", limit, cmp.Diff(want, got))
		}
	}
	for range 4 {
		update(t, s, want[1], func(*users.User) {})
	}
	page, err := s.List(t.Context(), users.Query{Limit: 2})
	if err != nil || len(page) != 2 || len(page[0].Recent) != 1 || len(page[1].Recent) != 3 {
		t.Fatalf("page = %+v, %v; want one event, and the last three", page, err)
	}
	if r := page[1].Recent; r[0].Seq != 5 || r[1].Seq != 4 || r[2].Seq != 3 || r[0].Hash != page[1].Head {
		t.Errorf("the last three are %+v, want 5, 4, 3", r)
	}
}

func stable(t *testing.T, s users.Store) {
	want := many(t, s, 10)
	n := 0
	got := pages(t, s, users.Query{Limit: 2}, func() {
		u := user(fmt.Sprintf("late_%d", n))
		u.CreatedAt = u.CreatedAt.Add(time.Second)
		create(t, s, u)
		n++
	})
	if diff := cmp.Diff(want, got); diff != "" || n == 0 {
		t.Error(diff)
	}
}

func filter(t *testing.T, s users.Store) {
	ids := many(t, s, 9)
	for _, i := range []int{1, 4, 5, 8} {
		update(t, s, ids[i], func(u *users.User) { u.Status = users.Suspended })
	}
	ann := update(t, s, ids[3], func(u *users.User) { u.Handle, u.Email = "ann", "Ann@Example.com" })
	suspended := []string{ids[1], ids[4], ids[5], ids[8]}
	for _, tt := range []struct {
		q    users.Query
		want []string
	}{
		{users.Query{Status: users.Suspended}, suspended},
		{users.Query{Status: users.Deleted}, nil},
		{users.Query{Match: ann.ID}, []string{ann.ID}},
		{users.Query{Match: ann.Subject}, []string{ann.ID}},
		{users.Query{Match: "ann"}, []string{ann.ID}},
		{users.Query{Match: "aNN@example.COM"}, []string{ann.ID}},
		{users.Query{Match: "an"}, nil},
		{users.Query{Match: "a%"}, nil},
		{users.Query{Match: ann.ID, Status: users.Suspended}, nil},
		{users.Query{Match: "Ünï@example.com", Status: users.Suspended}, suspended},
	} {
		tt.q.Limit = 2
		if got := pages(t, s, tt.q, func() {}); cmp.Diff(tt.want, got) != "" {
			t.Errorf("%+v: %s", tt.q, cmp.Diff(tt.want, got))
		}
	}
}
