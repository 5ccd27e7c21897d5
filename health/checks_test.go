package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/health"
)

// wantFault runs the check once, as the runner would, and compares the reason; "" is a pass.
func wantFault(t *testing.T, c health.Check, limit time.Duration, reason string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := c.Run(ctx)
	got := ""
	if fault, ok := errors.AsType[*health.Fault](err); ok {
		got = fault.Reason
	} else if err != nil {
		got = "no fault"
	}
	if got != reason {
		t.Errorf("reason = %q (%v), want %q", got, err, reason)
	}
	return err
}

// connections is a pool of n connections in which a statement takes as long as the database takes.
type connections struct {
	free chan struct{}
	db   dependency
}

func newConnections(n int) *connections {
	p := &connections{free: make(chan struct{}, n)}
	for range n {
		p.free <- struct{}{}
	}
	return p
}

var errNoneFree = errors.New("no connection became free")

func (p *connections) ping(ctx context.Context) error {
	select {
	case <-p.free:
		defer func() { p.free <- struct{}{} }()
		return p.db.ping(ctx)
	case <-ctx.Done():
		return errors.Join(errNoneFree, ctx.Err())
	}
}

func exhausted(err error) bool { return errors.Is(err, errNoneFree) }

func TestAFullPoolIsToldApartFromADatabaseThatIsDownOrSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newConnections(2)
		check := health.Database(pool.ping, exhausted)
		wantFault(t, check, time.Second, "")
		pool.db.set(errDown)
		wantFault(t, check, time.Second, "down")
		pool.db.set(nil)
		pool.db.takes = time.Hour
		wantFault(t, check, time.Second, "timeout")
		pool.db.takes = 0
		<-pool.free
		<-pool.free
		begun := time.Now()
		wantFault(t, check, time.Second, "exhausted")
		if took := time.Since(begun); took != time.Second {
			t.Errorf("the check waited %v for a connection, want the limit of 1s", took)
		}
		wantFault(t, health.Database(pool.ping, nil), time.Second, "timeout")
	})
}

func TestAFullPoolStillSaysSoThroughTheWholeMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := newConnections(0)
		h := start(t, health.Config{Checks: []health.Check{health.Database(pool.ping, exhausted)}})
		after(time.Second)
		if got := h.HealthReport().Findings[0].Last.Reason; got != "exhausted" {
			t.Errorf("reason = %q, want exhausted, not the runner's timeout", got)
		}
	})
}

// memory is a cache that can be made to fail the way Valkey does.
type memory struct {
	mu            sync.Mutex
	values        map[string][]byte
	set, get, del error
	evict         int // how many of the next writes are forgotten at once
	ttl           time.Duration
}

func (m *memory) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ttl = ttl
	if m.set != nil {
		return m.set
	}
	if m.evict > 0 {
		m.evict--
		delete(m.values, key)
		return nil
	}
	m.values[key] = value
	return nil
}

func (m *memory) Get(_ context.Context, key string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, found := m.values[key]
	return value, found, m.get
}

func (m *memory) Del(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return m.del
}

func TestTheCacheCheckWritesReadsAndDeletes(t *testing.T) {
	m := &memory{values: map[string][]byte{}}
	check := health.Cache(m)
	wantFault(t, check, time.Second, "")
	if len(m.values) != 0 {
		t.Errorf("left behind: %v", m.values)
	}
	if m.ttl <= 0 || m.ttl > time.Minute {
		t.Errorf("ttl = %v, want a short one", m.ttl)
	}
	for reason, broken := range map[string]*memory{
		"read-only":     {set: errors.New("READONLY You can't write against a read only replica.")},
		"out-of-memory": {set: errors.New("OOM command not allowed when used memory > 'maxmemory'.")},
		"down":          {set: errors.New("dial tcp 127.0.0.1:6379: connect: connection refused")},
		"wrong-value":   {evict: 3},
	} {
		broken.values = map[string][]byte{}
		wantFault(t, health.Cache(broken), time.Second, reason)
	}
	wantFault(t, health.Cache(&memory{values: map[string][]byte{}, get: errDown}), time.Second, "down")
	wantFault(t, health.Cache(&memory{values: map[string][]byte{}, del: errDown}), time.Second, "down")
}

func TestAnEvictionDuringTheCacheCheckIsForgiven(t *testing.T) {
	wantFault(t, health.Cache(&memory{values: map[string][]byte{}, evict: 2}), time.Second, "")
}

func TestInstancesThatShareACacheUseKeysOfTheirOwn(t *testing.T) {
	m := &memory{values: map[string][]byte{}}
	var all sync.WaitGroup
	for range 8 {
		check := health.Cache(m)
		all.Go(func() {
			for range 200 {
				wantFault(t, check, time.Minute, "")
			}
		})
	}
	all.Wait()
}

func TestKeysAgeAndWarn(t *testing.T) {
	var err error
	check := health.Keys(func() (time.Duration, error) { return 90 * time.Minute, err })
	if seen, err := check.Run(t.Context()); err != nil || seen.Value != 5400 || seen.Unit != "s" {
		t.Errorf("Run = %v, %v; want 5400 s", seen, err)
	}
	err = &health.Fault{Reason: "old", Err: errors.New("last fetched 90 minutes ago"), Warning: true}
	wantFault(t, check, time.Second, "old")
	if check.Ready != health.Fails || check.Health != health.Warns {
		t.Errorf("impacts = %v, %v; want Warns on health and Fails on ready", check.Health, check.Ready)
	}
}

func TestAnUpstreamThatFailsComesWithAGuess(t *testing.T) {
	backend := httptest.NewServer(http.NotFoundHandler())
	ping := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, backend.URL, nil)
		if err != nil {
			return err
		}
		resp, err := backend.Client().Do(r)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	wantFault(t, health.Upstream(ping), time.Second, "")
	backend.Close()
	wantGuess(t, wantFault(t, health.Upstream(ping), time.Second, "down"), "on this port?")

	hung := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	wantGuess(t, wantFault(t, health.Upstream(hung), time.Millisecond, "timeout"), "firewall")
	unknown := func(context.Context) error {
		return fmt.Errorf("get: %w", &net.DNSError{Err: "no such host", Name: "backend", IsNotFound: true})
	}
	wantGuess(t, wantFault(t, health.Upstream(unknown), time.Second, "down"), "spelt right")
	refused := errors.New("status 500")
	if err := wantFault(t, health.Upstream(func(context.Context) error { return refused }), time.Second, "down"); !errors.Is(err, refused) {
		t.Errorf("error = %v, want the cause inside", err)
	}
}

func wantGuess(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("error = %v, want a guess with %q", err, words)
	}
}
