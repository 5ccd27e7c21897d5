package valkey_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"
	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/cache"
	"github.com/gantryhq/gantry/cache/valkey"
	"github.com/gantryhq/gantry/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is a configuration with which outages are over sooner.
var quick = valkey.Config{Lease: 400 * time.Millisecond}

func at(address string) valkeygo.ClientOption {
	return valkeygo.ClientOption{InitAddress: []string{address}}
}

func newStore(t testing.TB, options valkeygo.ClientOption, cfg valkey.Config) *valkey.Store {
	t.Helper()
	s, err := valkey.New(t.Context(), options, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newStores returns instances that share a server, and waits until they use it.
func newStores(t testing.TB, n int, options valkeygo.ClientOption, cfg valkey.Config) []*valkey.Store {
	t.Helper()
	stores := make([]*valkey.Store, n)
	for i := range stores {
		stores[i] = newStore(t, options, cfg)
	}
	awaitUse(t, stores...)
	return stores
}

// newPatient returns an instance with a long lease, in an epoch that another with a short grace began.
func newPatient(t testing.TB, server *testenv.Redis, options valkeygo.ClientOption, cfg valkey.Config) *valkey.Store {
	t.Helper()
	first := newStores(t, 1, at(server.Addr), quick)[0]
	s := newStores(t, 1, options, cfg)[0]
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	leases := server.Must("HGETALL", "gantry:cache:members")
	await(t, "a renewal without the first", func() bool { return server.Must("HGETALL", "gantry:cache:members") != leases })
	return s
}

func awaitUse(t testing.TB, stores ...*valkey.Store) {
	t.Helper()
	for _, s := range stores {
		await(t, "the shared cache to be used", func() bool { return inUse(t, s) })
	}
}

func inUse(t testing.TB, s *valkey.Store) bool {
	_, _, err := s.Look(t.Context(), "probe", time.Second)
	if err != nil && !errors.Is(err, cache.ErrAway) {
		t.Errorf("Look = %v, want ErrAway", err)
	}
	return err == nil
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}

func newLoader[K comparable, V any](t testing.TB, load func(context.Context, K) (V, error), cfg cache.Config) *cache.Loader[K, V] {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	l, err := cache.NewLoader(load, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// database is a table of versions by key, and what readers may be told: a version is committed first, and
// promised once the write has returned to its writer. From then on nobody may read an older one.
type database struct {
	committed, promised [8]atomic.Int64
	loads               atomic.Int64
	slow                func() // what a load does before and after it reads
}

func (d *database) load(_ context.Context, key int) (int64, error) {
	d.loads.Add(1)
	d.pause()
	version := d.committed[key].Load()
	d.pause()
	return version, nil
}

func (d *database) pause() {
	if d.slow != nil {
		d.slow()
	}
}

func (d *database) put(ctx context.Context, l *cache.Loader[int, int64], key int) {
	version := d.committed[key].Add(1)
	d.pause()
	l.Invalidate(ctx, key)
	for {
		old := d.promised[key].Load()
		if old >= version || d.promised[key].CompareAndSwap(old, version) {
			return
		}
	}
}

func (d *database) get(t testing.TB, l *cache.Loader[int, int64], key int) {
	least := d.promised[key].Load()
	got, err := l.Get(t.Context(), key)
	if most := d.committed[key].Load(); err != nil || got < least || got > most {
		t.Errorf("Get(%d) = version %d, %v; want from %d to %d", key, got, err, least, most)
	}
}

// upTo returns a pause of random length.
func upTo(d time.Duration) func() {
	return func() { time.Sleep(rand.N(d)) }
}

// pair is two instances with a cache each, before one database.
func (d *database) pair(t testing.TB, address string, cfg cache.Config) ([]*valkey.Store, []*cache.Loader[int, int64]) {
	t.Helper()
	stores := newStores(t, 2, at(address), quick)
	loaders := make([]*cache.Loader[int, int64], 2)
	for i, s := range stores {
		cfg.Far = s
		loaders[i] = newLoader(t, d.load, cfg)
	}
	return stores, loaders
}

// traffic is readers and writers of both instances, until stop is closed or each has had its rounds.
func (d *database) traffic(t testing.TB, loaders []*cache.Loader[int, int64], rounds int, stop <-chan struct{}) {
	var all sync.WaitGroup
	for who := range 8 {
		all.Go(func() {
			for i := 0; i < rounds && !t.Failed(); i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := rand.IntN(len(d.committed))
				if who < 2 && i%2 == 0 {
					d.put(t.Context(), loaders[who], key)
					d.get(t, loaders[1-who], key)
				}
				d.get(t, loaders[who%2], key)
			}
		})
	}
	all.Wait()
}

func redis(t testing.TB, args ...string) *testenv.Redis {
	t.Helper()
	return testenv.NewRedis(t, args...)
}
