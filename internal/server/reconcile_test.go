package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
	"github.com/google/go-cmp/cmp"
)

const testIssuer = "https://clerk.example.com"

// rig is a real store behind the real webhook, and a Clerk that sends to it.
type rig struct {
	clerk   *testenv.Clerk
	store   *sqlite.Store
	service *users.Service
	mirror  *mirror
	url     string
	client  *http.Client
	mu      sync.Mutex
	counts  map[clerk.Result]int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "users.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	g := &rig{clerk: testenv.NewClerk(t), store: store, service: users.NewService(store, users.Config{}), counts: make(map[clerk.Result]int)}
	g.mirror = newMirror(store, g.service, testIssuer)
	keys, err := clerk.DecodeWebhookSecrets(g.clerk.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	hook, err := clerk.NewWebhook(clerk.WebhookConfig{
		Secrets: func() [][]byte { return keys }, Apply: g.mirror.event, InstanceID: g.clerk.InstanceID,
		Seen: func(_ *http.Request, r clerk.Receipt) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.counts[r.Result]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(hook)
	t.Cleanup(server.Close)
	g.url, g.client = server.URL, server.Client()
	return g
}

func (g *rig) count(r clerk.Result) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[r]
}

// deliver sends messages through eight connections at once.
func (g *rig) deliver(t *testing.T, messages []testenv.Message) {
	t.Helper()
	queue := make(chan testenv.Message)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for m := range queue {
				if _, err := g.clerk.Send(t.Context(), g.client, g.url, m); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	for _, m := range messages {
		queue <- m
	}
	close(queue)
	all.Wait()
}

// history makes n users and a life for them.
func history(c *testenv.Clerk, n int, dice *rand.Rand) (gone []string) {
	for i := range n {
		u := c.Create(fmt.Sprintf("U%d", i))
		for k := range dice.IntN(4) {
			c.Update(u.ID, func(u *testenv.ClerkUser) {
				u.FirstName, u.Email = fmt.Sprintf("N%d", k), fmt.Sprintf("u%d.%d@example.com", i, k)
			})
		}
		if dice.IntN(3) == 0 {
			c.EndSession([]string{"ended", "removed", "revoked"}[i%3], fmt.Sprintf("sess_%d", i), u.ID)
		}
		if dice.IntN(4) == 0 {
			c.Delete(u.ID)
			gone = append(gone, u.ID)
		}
	}
	return gone
}

// mangle drops a tenth, doubles a third and shuffles all.
func mangle(messages []testenv.Message, dice *rand.Rand) (sent []testenv.Message, dropped int) {
	for _, m := range messages {
		if dice.IntN(10) == 0 {
			dropped++
			continue
		}
		sent = append(sent, m)
		if dice.IntN(3) == 0 {
			sent = append(sent, m)
		}
	}
	dice.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
	return sent, dropped
}

// row is what of a user must be Clerk's.
type row struct{ Email, Name, ImageURL, UpdatedAt string }

func rows(t *testing.T, store users.Store) (live map[string]row, tombstones map[string]users.User) {
	t.Helper()
	live, tombstones = make(map[string]row), make(map[string]users.User)
	for q := (users.Query{Limit: 100}); ; {
		page, err := store.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page {
			if u.Status == users.Deleted {
				tombstones[u.Subject] = u.User
			} else {
				live[u.Subject] = row{u.Email, u.DisplayName, u.ImageURL, u.SourceUpdatedAt.Format(time.RFC3339Nano)}
			}
			q.After = users.Position{At: u.CreatedAt, ID: u.ID}
		}
		if len(page) < q.Limit {
			return live, tombstones
		}
	}
}

func atClerk(c *testenv.Clerk) map[string]row {
	out := make(map[string]row)
	for id, u := range c.Users() {
		out[id] = row{u.Email, strings.TrimSpace(u.FirstName + " " + u.LastName), u.ImageURL, time.UnixMilli(u.UpdatedAt).UTC().Format(time.RFC3339Nano)}
	}
	return out
}

func (g *rig) reconcile(ctx context.Context, t *testing.T, cfg clerk.ReconcileConfig) (clerk.Drift, error) {
	t.Helper()
	b, err := clerk.NewBackend(g.clerk.SecretKey, clerk.BackendConfig{URL: g.clerk.URL, PageSize: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return clerk.Reconcile(ctx, b, g.mirror, cfg)
}

// same compares the table with Clerk, and checks the chains of all users.
func (g *rig) same(t *testing.T) {
	t.Helper()
	heads, err := g.store.Heads(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		g.chain(t, h)
	}
	live, tombstones := rows(t, g.store)
	if diff := cmp.Diff(live, atClerk(g.clerk)); diff != "" {
		t.Errorf("the table (-got +Clerk):\n%s", diff)
	}
	for id, u := range tombstones {
		if u.Email+u.DisplayName+u.ImageURL+u.Bio+u.Handle != "" {
			t.Errorf("the tombstone of %s keeps %+v", id, u)
		}
	}
}

func (g *rig) chain(t *testing.T, h users.Head) {
	t.Helper()
	events, err := g.store.Events(t.Context(), h.UserID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	prev := ""
	for _, e := range events {
		if e.Prev != prev || e.Hash != e.Sum() {
			t.Errorf("%s: event %d is out of the chain", h.UserID, e.Seq)
		}
		prev = e.Hash
	}
	if prev != h.Hash || int64(len(events)) != h.Events {
		t.Errorf("%s: the chain does not end in its head", h.UserID)
	}
}

func TestTheTableIsTrueToClerkAfterLossDoublingAndDisorder(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			g, dice := newRig(t), rand.New(rand.NewPCG(seed, 1))
			gone := history(g.clerk, 70, dice)
			sent, dropped := mangle(g.clerk.Messages(), dice)
			g.deliver(t, sent)
			if g.count(clerk.WithoutEffect) == 0 || g.count(clerk.Failed) != 0 {
				t.Errorf("receipts = %v", g.counts)
			}
			drift, err := g.reconcile(t.Context(), t, clerk.ReconcileConfig{Force: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d messages sent, %d dropped, receipts %v, drift %+v", len(sent), dropped, g.counts, drift)
			if drift.Missing == 0 || drift.Outdated == 0 || drift.Gone == 0 {
				t.Error("the loss made too little drift: the test shows nothing")
			}
			g.same(t)
			g.deliver(t, sent) // all of it once more, long after
			g.same(t)
			if _, tombstones := rows(t, g.store); len(tombstones) == 0 || len(tombstones) > len(gone) {
				t.Errorf("%d tombstones of %d deletions", len(tombstones), len(gone))
			}
		})
	}
}

func TestTwoDuplicatesAtOnceHaveOneEffect(t *testing.T) {
	g := newRig(t)
	u := g.clerk.Create("Ann")
	g.clerk.EndSession("revoked", "sess_1", u.ID)
	messages := g.clerk.Messages()
	var all []testenv.Message
	for range 16 {
		all = append(all, messages[0])
	}
	g.deliver(t, all)
	for range 16 {
		all = append(all, messages[1])
	}
	g.deliver(t, all[16:])
	if n := g.count(clerk.Applied); n != 2 || g.count(clerk.WithoutEffect) != 30 {
		t.Errorf("receipts = %v, want 2 applied and 30 without effect", g.counts)
	}
	found, err := g.store.Find(t.Context(), testIssuer, u.ID)
	if err != nil {
		t.Fatal(err)
	}
	events, err := g.store.Events(t.Context(), found.ID, 0, 100)
	if err != nil || len(events) != 2 || events[0].Kind != users.UserCreated || events[1].Kind != users.SessionRevoked {
		t.Errorf("events = %+v, %v", events, err)
	}
}

func TestALateUpdateDoesNotRecreate(t *testing.T) {
	g := newRig(t)
	u := g.clerk.Create("Ann")
	g.clerk.Update(u.ID, func(u *testenv.ClerkUser) { u.FirstName = "Anna" })
	g.clerk.Delete(u.ID)
	m := g.clerk.Messages()
	for i, want := range []int{2, 1, 0} { // the deletion of a user who was never seen comes first
		g.deliver(t, m[want:want+1])
		found, err := g.store.Find(t.Context(), testIssuer, u.ID)
		if err != nil || found.Status != users.Deleted || found.Email != "" {
			t.Errorf("after %d messages: %+v, %v", i+1, found, err)
		}
	}
}

// TestAStoppedReconcileIsTakenUpAgain ends the context after each number of changes in turn.
func TestAStoppedReconcileIsTakenUpAgain(t *testing.T) {
	g := newRig(t)
	history(g.clerk, 70, rand.New(rand.NewPCG(7, 7)))
	g.clerk.Messages() // nothing is delivered
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := g.reconcile(ctx, t, clerk.ReconcileConfig{Progress: func(p clerk.Phase, done, _ int) {
			if p == clerk.PhaseApply && done == 7 {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error = %v, want the end of the context", err)
		}
	}
	if live, _ := rows(t, g.store); len(live) != 35 {
		t.Errorf("%d users after five runs of seven", len(live))
	}
	if d, err := g.reconcile(t.Context(), t, clerk.ReconcileConfig{}); err != nil || d.Applied != d.Missing {
		t.Errorf("%+v, %v", d, err)
	}
	g.same(t)
}
