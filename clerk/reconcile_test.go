package clerk_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/google/go-cmp/cmp"
)

// table is the smallest of mirrors.
type table map[string]clerk.Known

func (m table) Known(_ context.Context, each func(clerk.Known) error) error {
	for _, k := range m {
		if err := each(k); err != nil {
			return err
		}
	}
	return nil
}

func (m table) Apply(_ context.Context, u clerk.User) (bool, error) {
	k := m[u.ID]
	if k.Deleted || !u.UpdatedAt.After(k.UpdatedAt) {
		return false, nil
	}
	m[u.ID] = clerk.Known{ID: u.ID, UpdatedAt: u.UpdatedAt}
	return true, nil
}

func (m table) Remove(_ context.Context, id string, at time.Time) (bool, error) {
	m[id] = clerk.Known{ID: id, UpdatedAt: at, Deleted: true}
	return true, nil
}

// live is what the table should be: everybody Clerk has, with the time of the last change.
func (m table) live() table {
	out := make(table)
	for id, k := range m {
		if !k.Deleted {
			out[id] = k
		}
	}
	return out
}

func truth(c *testenv.Clerk) table {
	out := make(table)
	for id, u := range c.Users() {
		out[id] = clerk.Known{ID: id, UpdatedAt: time.UnixMilli(u.UpdatedAt).UTC()}
	}
	return out
}

// drifted is an instance of n users and a table that is off in every way there is.
func drifted(t *testing.T, n int) (*testenv.Clerk, table) {
	c := testenv.NewClerk(t)
	ids := populate(c, n)
	m := truth(c)
	delete(m, ids[0])
	m[ids[1]] = clerk.Known{ID: ids[1]} // seen with a token, and no report since
	c.Update(ids[2], func(*testenv.ClerkUser) {})
	c.Delete(ids[3])
	m[ids[4]] = clerk.Known{ID: ids[4], Deleted: true}
	return c, m
}

// reconcile runs with waits that take no time.
func reconcile(t *testing.T, c *testenv.Clerk, size int, m clerk.Mirror, cfg clerk.ReconcileConfig) (d clerk.Drift, err error) {
	t.Helper()
	inBubble(t, c, size, func(ctx context.Context, b *clerk.Backend) { d, err = clerk.Reconcile(ctx, b, m, cfg) })
	return d, err
}

func TestReconcileHealsEveryDrift(t *testing.T) {
	c, m := drifted(t, 20)
	want := clerk.Drift{Listed: 19, Local: 18, Missing: 1, Outdated: 2, Gone: 1, Buried: 1, Applied: 3, Removed: 1}
	dry := want
	dry.Applied, dry.Removed = 0, 0
	before := table{}
	for id, k := range m {
		before[id] = k
	}
	got, err := reconcile(t, c, 6, m, clerk.ReconcileConfig{DryRun: true})
	if err != nil || got != dry || !cmp.Equal(m, before) {
		t.Errorf("a dry run: %+v, %v (changed: %v), want %+v", got, err, !cmp.Equal(m, before), dry)
	}
	if got, err = reconcile(t, c, 6, m, clerk.ReconcileConfig{}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	expected := truth(c)
	for id, k := range before {
		if k.Deleted {
			delete(expected, id)
		}
	}
	if diff := cmp.Diff(m.live(), expected); diff != "" {
		t.Errorf("the table (-got +want):\n%s", diff)
	}
	if got, err = reconcile(t, c, 6, m, clerk.ReconcileConfig{}); err != nil || !got.None() || got.Applied+got.Removed != 0 {
		t.Errorf("the second time: %+v, %v", got, err)
	}
}

// TestAFailedPageDeletesNothing breaks each request of a run in turn, for good.
func TestAFailedPageDeletesNothing(t *testing.T) {
	for broken := range 100 {
		c, m := drifted(t, 12)
		before := table{}
		for id, k := range m {
			before[id] = k
		}
		hit := false
		c.Break(func(n int, _ *http.Request) testenv.ClerkFault {
			if n < broken {
				return testenv.ClerkHealthy
			}
			hit = true
			return testenv.ClerkIsEmpty
		})
		_, err := reconcile(t, c, 4, m, clerk.ReconcileConfig{Force: true})
		if !hit {
			if err != nil || broken < 6 {
				t.Errorf("with all of %d requests: %v", broken, err)
			}
			return
		}
		if err == nil || !cmp.Equal(m, before) {
			t.Errorf("request %d broken: %v, changed: %v", broken, err, !cmp.Equal(m, before))
		}
	}
}

// TestNobodyIsRemovedWhoExists hides a user from every page, which no listing can notice, and finds
// that asking by id does.
func TestNobodyIsRemovedWhoExists(t *testing.T) {
	c := testenv.NewClerk(t)
	ids := populate(c, 9)
	m := truth(c)
	hidden := testenv.NewClerk(t)
	hidden.SecretKey = c.SecretKey
	proxy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Query()["user_id"]) > 0 {
			c.ServeHTTP(w, r)
			return
		}
		hidden.ServeHTTP(w, r)
	})
	for _, id := range ids[1:] {
		hidden.Adopt(c.Users()[id])
	}
	b, err := clerk.NewBackend(c.SecretKey, clerk.BackendConfig{Transport: recorder{proxy}, PageSize: 4})
	if err != nil {
		t.Fatal(err)
	}
	got, err := clerk.Reconcile(t.Context(), b, m, clerk.ReconcileConfig{})
	if err != nil || got.Gone != 0 || got.Removed != 0 || len(m.live()) != 9 {
		t.Errorf("%+v, %v; %d left", got, err, len(m.live()))
	}
}

func TestManyRemovalsNeedForce(t *testing.T) {
	for _, tt := range []struct {
		users, gone int
		stopped     bool
	}{{100, 10, false}, {100, 11, true}, {200, 20, false}, {200, 21, true}, {9, 8, false}, {9, 9, true}} {
		c := testenv.NewClerk(t)
		ids := populate(c, tt.users)
		m := truth(c)
		for _, id := range ids[:tt.gone] {
			c.Delete(id)
		}
		_, err := reconcile(t, c, 0, m, clerk.ReconcileConfig{})
		if errors.Is(err, clerk.ErrUnsafe) != tt.stopped {
			t.Errorf("%d of %d: %v, want it stopped: %v", tt.gone, tt.users, err, tt.stopped)
		}
		if tt.stopped && len(m.live()) != tt.users {
			t.Errorf("%d of %d: %d left", tt.gone, tt.users, len(m.live()))
		}
		got, err := reconcile(t, c, 0, m, clerk.ReconcileConfig{Force: true})
		if err != nil || len(m.live()) != tt.users-tt.gone || tt.stopped && got.Removed != tt.gone {
			t.Errorf("forced: %+v, %v; %d left", got, err, len(m.live()))
		}
	}
}

func TestProgressEndsEachPhaseWhole(t *testing.T) {
	c, m := drifted(t, 20)
	var phases []clerk.Phase
	last := make(map[clerk.Phase][2]int)
	_, err := reconcile(t, c, 6, m, clerk.ReconcileConfig{Progress: func(p clerk.Phase, done, total int) {
		if !slices.Contains(phases, p) {
			phases = append(phases, p)
		}
		last[p] = [2]int{done, total}
	}})
	want := []clerk.Phase{clerk.PhaseLocal, clerk.PhaseListing, clerk.PhaseConfirm, clerk.PhaseApply, clerk.PhaseRemove}
	if err != nil || !slices.Equal(phases, want) {
		t.Errorf("phases = %v, %v", phases, err)
	}
	for p, n := range last {
		if n[0] != n[1] {
			t.Errorf("%s ended at %d of %d", p, n[0], n[1])
		}
	}
}
