package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

func standings(t *testing.T, s users.Store) {
	for i := range 5 {
		create(t, s, user(fmt.Sprint(i)))
	}
	pro := user("pro")
	pro.Plan = "pro"
	pro = create(t, s, pro)
	plain := create(t, s, user("plain"))
	ids := func(after users.Position) (subjects []string) {
		list, err := s.Standings(t.Context(), after, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range list {
			subjects = append(subjects, st.Subject.Subject+" "+string(st.Status)+" "+st.Plan)
		}
		return subjects
	}
	update(t, s, plain.ID, func(u *users.User) { u.Bio = "x" })
	if diff := cmp.Diff([]string{"pro active pro"}, ids(users.Position{})); diff != "" {
		t.Errorf("only a plan is a change: %s", diff)
	}
	plain = update(t, s, plain.ID, func(u *users.User) { u.Status = users.Suspended })
	update(t, s, pro.ID, func(u *users.User) { u.Bio = "x" })
	list, err := s.Standings(t.Context(), users.Position{}, 100)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d standings, %v; want 2", len(list), err)
	}
	want := users.Standing{
		UserID: plain.ID, Subject: users.Subject{Issuer: issuer, Subject: "plain"}, Status: users.Suspended,
		Version: plain.Version, ChangedAt: list[1].ChangedAt,
	}
	if diff := cmp.Diff(want, list[1]); diff != "" || list[1].ChangedAt.Before(list[0].ChangedAt) {
		t.Errorf("standing: %s", diff)
	}
	update(t, s, plain.ID, func(u *users.User) { u.Status = users.Active })
	if diff := cmp.Diff([]string{"plain active "}, ids(users.Position{At: list[1].ChangedAt, ID: list[1].UserID})); diff != "" {
		t.Errorf("back to normal is a change too: %s", diff)
	}
}

func revocations(t *testing.T, s users.Store) {
	until := now().Add(minute)
	for _, r := range []users.Revocation{
		{Issuer: issuer, SessionID: "s1", Subject: "user_1", Until: until},
		{Issuer: issuer, SessionID: "s1", Until: until.Add(-time.Hour)},
		{Issuer: "https://other.example", SessionID: "s1", Subject: "user_1", Until: until},
		{Issuer: issuer, SessionID: "s2", Until: until},
		{Issuer: issuer, SessionID: "s2", Subject: "user_2", Until: until.Add(time.Hour)},
	} {
		do(t, s, func(ctx context.Context, tx users.Tx) error { return tx.Revoke(ctx, r) })
	}
	all, err := s.Revocations(t.Context(), users.Position{}, 10)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d revocations, %v; want 3", len(all), err)
	}
	for i, want := range []users.Revocation{
		{Issuer: issuer, SessionID: "s1", Subject: "user_1", Until: until},
		{Issuer: "https://other.example", SessionID: "s1", Subject: "user_1", Until: until},
		{Issuer: issuer, SessionID: "s2", Subject: "user_2", Until: until.Add(time.Hour)},
	} {
		want.At = all[i].At
		if diff := cmp.Diff(want, all[i]); diff != "" || all[i].At.IsZero() {
			t.Errorf("revocation %d: %s", i, diff)
		}
	}
	if own, err := s.RevokedSessions(t.Context(), issuer, "user_1", 10); err != nil || cmp.Diff(all[:1], own) != "" {
		t.Errorf("a user's own: %v %s", err, cmp.Diff(all[:1], own))
	}
}

// feed pages through both halves with changes in between: nothing that was there is missed, and what
// changes meanwhile comes once more.
func feed(t *testing.T, s users.Store) {
	for i := range 10 {
		u := user(fmt.Sprint(i))
		u.Status = users.Suspended
		create(t, s, u)
		do(t, s, func(ctx context.Context, tx users.Tx) error {
			return tx.Revoke(ctx, users.Revocation{Issuer: issuer, SessionID: fmt.Sprint(i), Until: now().Add(minute)})
		})
	}
	seen := make(map[string]int)
	var at users.Position
	for {
		page, err := s.Standings(t.Context(), at, 3)
		if err != nil || len(page) > 3 {
			t.Fatalf("a page of %d, %v", len(page), err)
		}
		for _, st := range page {
			seen["user "+st.Subject.Subject]++
			at = users.Position{At: st.ChangedAt, ID: st.UserID}
		}
		if len(page) < 3 {
			break
		}
		if len(seen) == 3 {
			update(t, s, page[0].UserID, func(u *users.User) { u.Status = users.Active })
		}
	}
	for at = (users.Position{}); ; {
		page, err := s.Revocations(t.Context(), at, 3)
		if err != nil || len(page) > 3 {
			t.Fatalf("a page of %d, %v", len(page), err)
		}
		for _, r := range page {
			seen["session "+r.SessionID]++
			at = users.Position{At: r.At, ID: r.SessionID}
		}
		if len(page) < 3 {
			break
		}
	}
	total := 0
	for _, n := range seen {
		total += n
	}
	if len(seen) != 20 || total != 21 {
		t.Errorf("%d seen, %d times; want 20, 21 times: %v", len(seen), total, seen)
	}
}

func sweep(t *testing.T, s users.Store) {
	at := now()
	for i := range 5 {
		end := at.Add(time.Duration(i-2) * minute) // two in the past, one now, two to come
		mustClaim(t, s, users.Claim{Scope: "s", Key: fmt.Sprint(i), At: end.Add(-minute), Expires: end})
		do(t, s, func(ctx context.Context, tx users.Tx) error {
			return tx.Revoke(ctx, users.Revocation{Issuer: issuer, SessionID: fmt.Sprint(i), Until: end})
		})
	}
	for _, want := range []int{4, 2, 0} {
		if n, err := s.Sweep(t.Context(), at, 2); err != nil || n != want {
			t.Errorf("Sweep = %d, %v; want %d", n, err, want)
		}
	}
	if left, err := s.Revocations(t.Context(), users.Position{}, 10); err != nil || len(left) != 2 {
		t.Errorf("%d revocations are left, %v; want 2", len(left), err)
	}
	for _, key := range []string{"3", "4"} {
		taken(t, s, users.Claim{Scope: "s", Key: key, At: at, Expires: at.Add(minute)})
	}
	mustClaim(t, s, users.Claim{Scope: "s", Key: "2", At: at, Expires: at.Add(minute)})
}
