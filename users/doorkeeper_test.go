package users_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
)

const testIssuer = "https://i.example"

// until polls for what another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// instance is a service with a Doorkeeper of its own over a shared store.
func instance(t *testing.T, store *sqlite.Store) (*users.Service, *users.Doorkeeper) {
	t.Helper()
	door := users.NewDoorkeeper(store, users.DoorConfig{Interval: 20 * time.Millisecond})
	if err := door.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- door.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return users.NewService(store, users.Config{Door: door}), door
}

func TestEveryDoorKnowsOfAChange(t *testing.T) {
	store := openStore(t)
	here, hereDoor := instance(t, store)
	_, thereDoor := instance(t, store)
	ctx, admin := t.Context(), claims("admin")
	ann, err := here.Me(ctx, claims("ann"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want users.Verdict) {
		t.Helper()
		if got := hereDoor.Standing(testIssuer, "ann", "sess_1"); got != want {
			t.Errorf("%s: here %+v at once, want %+v", what, got, want)
		}
		until(t, what, func() bool { return thereDoor.Standing(testIssuer, "ann", "sess_1") == want })
	}
	must := func(_ users.Outcome, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("a plain user", users.Verdict{Status: users.Active})
	must(here.Suspend(ctx, admin, ann.ID, users.Once{}))
	check("suspended", users.Verdict{Status: users.Suspended})
	must(here.Reinstate(ctx, admin, ann.ID, users.Once{}))
	check("reinstated", users.Verdict{Status: users.Active})
	must(here.SetPlan(ctx, admin, ann.ID, "pro", users.Once{}))
	check("a plan", users.Verdict{Status: users.Active, Plan: "pro"})
	if _, err := here.RevokeSession(ctx, users.Revocation{Issuer: testIssuer, SessionID: "sess_1", Subject: "ann"}, ""); err != nil {
		t.Fatal(err)
	}
	check("a revoked session", users.Verdict{Status: users.Active, Plan: "pro", Revoked: true})
	must(here.Delete(ctx, claims("ann"), nil, users.Once{}))
	check("deleted", users.Verdict{Status: users.Deleted, Revoked: true})
	if got := thereDoor.Standing(testIssuer, "bob", "sess_2"); got != (users.Verdict{Status: users.Active}) {
		t.Errorf("a stranger = %+v, want active", got)
	}
	if got := thereDoor.Standing("https://other.example", "ann", "sess_1"); got != (users.Verdict{Status: users.Active}) {
		t.Errorf("the same ids of another issuer = %+v, want active", got)
	}
	fresh := users.NewDoorkeeper(store, users.DoorConfig{})
	if err := fresh.Load(ctx); err != nil || fresh.Standing(testIssuer, "ann", "").Status != users.Deleted {
		t.Errorf("a new instance: %v, %+v", err, fresh.Standing(testIssuer, "ann", ""))
	}
}

// feed is a store's feed whose rows the test chooses, and which can be away.
type feed struct {
	mu        sync.Mutex
	standings []users.Standing
	revoked   []users.Revocation
	away      bool
	asked     []users.Position
}

func (f *feed) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Standings implements users.Feed.
func (f *feed) Standings(_ context.Context, after users.Position, n int) (page []users.Standing, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked = append(f.asked, after); f.away {
		return nil, users.ErrUnavailable
	}
	for _, s := range f.standings {
		if later := s.ChangedAt.After(after.At) || s.ChangedAt.Equal(after.At) && s.UserID > after.ID; later && len(page) < n {
			page = append(page, s)
		}
	}
	return page, nil
}

// Revocations implements users.Feed.
func (f *feed) Revocations(_ context.Context, after users.Position, n int) (page []users.Revocation, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.revoked {
		if later := r.At.After(after.At) || r.At.Equal(after.At) && r.SessionID > after.ID; later && len(page) < n {
			page = append(page, r)
		}
	}
	return page, nil
}

func standing(i int, status users.Status, version int64, at time.Time) users.Standing {
	id := fmt.Sprintf("usr_%07d", i)
	return users.Standing{UserID: id, Subject: users.Subject{Issuer: testIssuer, Subject: id}, Status: status, Version: version, ChangedAt: at}
}

// running starts Run in a bubble, and ends it with the test's func.
func running(t *testing.T, d *users.Doorkeeper, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = d.Run(ctx) })
	f()
	cancel()
	all.Wait()
}

func TestAStoreThatIsAwayChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &feed{standings: []users.Standing{standing(1, users.Suspended, 2, time.Now())}}
		d := users.NewDoorkeeper(f, users.DoorConfig{})
		running(t, d, func() {
			time.Sleep(1500 * time.Millisecond)
			if got := d.Standing(testIssuer, "usr_0000001", ""); got.Status != users.Suspended || d.Age() > time.Second {
				t.Errorf("after a second: %+v, age %v", got, d.Age())
			}
			f.set(func() { f.away = true })
			time.Sleep(time.Hour)
			if got := d.Standing(testIssuer, "usr_0000001", ""); got.Status != users.Suspended || d.Age() < 59*time.Minute {
				t.Errorf("after an hour away: %+v, age %v; want it still known, and old", got, d.Age())
			}
			f.set(func() {
				f.away = false
				f.standings = []users.Standing{standing(1, users.Active, 3, time.Now()), standing(2, users.Suspended, 2, time.Now())}
			})
			time.Sleep(1500 * time.Millisecond)
			if d.Standing(testIssuer, "usr_0000001", "").Status != users.Active || d.Standing(testIssuer, "usr_0000002", "").Status != users.Suspended || d.Age() > time.Second {
				t.Errorf("back again: age %v", d.Age())
			}
		})
	})
}

func TestALateCommitIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &feed{standings: []users.Standing{standing(1, users.Suspended, 2, time.Now())}}
		d := users.NewDoorkeeper(f, users.DoorConfig{Reload: 24 * time.Hour})
		running(t, d, func() {
			time.Sleep(1500 * time.Millisecond)
			late := standing(2, users.Suspended, 2, time.Now().Add(-50*time.Second))
			f.set(func() { f.standings = append([]users.Standing{late}, f.standings...) })
			time.Sleep(time.Second)
			if got := d.Standing(testIssuer, "usr_0000002", ""); got.Status != users.Suspended {
				t.Errorf("a change that was committed 50 s after its time = %+v", got)
			}
		})
	})
}

func TestAReloadHealsAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		f := &feed{
			standings: []users.Standing{standing(1, users.Suspended, 2, now), standing(2, users.Active, 5, now), standing(3, users.Suspended, 2, now)},
			revoked:   []users.Revocation{{Issuer: testIssuer, SessionID: "s1", At: now, Until: now.Add(2 * time.Minute)}, {Issuer: testIssuer, SessionID: "s2", At: now, Until: now.Add(time.Hour)}},
		}
		d := users.NewDoorkeeper(f, users.DoorConfig{})
		if err := d.Load(t.Context()); err != nil || d.Known() != 4 {
			t.Errorf("Load: %v, %d known; want 2 users and 2 sessions", err, d.Known())
		}
		running(t, d, func() {
			time.Sleep(time.Minute)
			if !d.Standing(testIssuer, "x", "s1").Revoked || !d.Standing(testIssuer, "x", "s2").Revoked {
				t.Error("a revocation does not count until its end")
			}
			f.set(func() { f.standings = f.standings[:1] }) // as after a restore from a backup
			time.Sleep(5 * time.Minute)
			if d.Known() != 2 || d.Standing(testIssuer, "usr_0000003", "").Status != users.Active {
				t.Errorf("%d known after the reload, want 2", d.Known())
			}
		})
	})
}

func TestAnOlderStandingNeverWins(t *testing.T) {
	d := users.NewDoorkeeper(&feed{}, users.DoorConfig{})
	d.Tell(standing(1, users.Active, 7, time.Now()))
	d.Tell(standing(1, users.Suspended, 6, time.Now()))
	if got := d.Standing(testIssuer, "usr_0000001", ""); got.Status != users.Active {
		t.Errorf("standing = %+v, want version 7's", got)
	}
}

func TestTheDoorkeeperIsBounded(t *testing.T) {
	f := &feed{}
	for i := range 5000 {
		f.standings = append(f.standings, standing(i, users.Suspended, 2, time.Now()))
	}
	d := users.NewDoorkeeper(f, users.DoorConfig{Max: 3000})
	if err := d.Load(t.Context()); err != nil || d.Known() != 3000 {
		t.Errorf("Load: %v, %d known; want 3000", err, d.Known())
	}
	f.set(func() { f.standings = f.standings[4000:] })
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Load(t.Context()); err != nil || d.Known() != 1000 {
		t.Errorf("Load: %v, %d known; want the room of what is gone to be free again", err, d.Known())
	}
	f.set(func() { f.away = true })
	if err := d.Load(t.Context()); !errors.Is(err, users.ErrUnavailable) || d.Known() != 1000 {
		t.Errorf("Load of a store that is away = %v, %d known", err, d.Known())
	}
}

func TestReadersAndWritersMeet(t *testing.T) {
	d := users.NewDoorkeeper(&feed{}, users.DoorConfig{})
	var all sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				d.Standing(testIssuer, "usr_0000001", "s1")
			}
		})
	}
	for v := range int64(2000) {
		d.Tell(standing(1, users.Suspended, v, time.Now()))
		d.TellRevoked(users.Revocation{Issuer: testIssuer, SessionID: "s1", Until: time.Now().Add(time.Hour)})
	}
	stop.Store(true)
	all.Wait()
	if got := d.Standing(testIssuer, "usr_0000001", "s1"); got != (users.Verdict{Status: users.Suspended, Revoked: true}) {
		t.Errorf("standing = %+v", got)
	}
}

// BenchmarkStanding/maps is what two look-ups in plain maps cost on the same machine.
func BenchmarkStanding(b *testing.B) {
	plain := make(map[users.Subject]int)
	for i := range 100_000 {
		plain[users.Subject{Issuer: testIssuer, Subject: fmt.Sprintf("usr_%07d", i)}] = i
	}
	b.Run("maps", func(b *testing.B) {
		for b.Loop() {
			_ = plain[users.Subject{Issuer: testIssuer, Subject: "usr_0050000"}]
			_ = plain[users.Subject{Issuer: testIssuer, Subject: "sess_50000"}]
		}
	})
	d := users.NewDoorkeeper(&feed{}, users.DoorConfig{})
	for i := range 100_000 {
		d.Tell(standing(i, users.Suspended, 2, time.Now()))
		d.TellRevoked(users.Revocation{Issuer: testIssuer, SessionID: fmt.Sprint("sess_", i), Until: time.Now().Add(time.Hour)})
	}
	for name, ids := range map[string][2]string{"known": {"usr_0050000", "sess_50000"}, "plain": {"user_2abcdefghijklmnopqrstuvwxyz", "sess_2abcdefghijklmnopqrstuvwxyz"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d.Standing(testIssuer, ids[0], ids[1])
			}
		})
	}
}
