package cache_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/cache"
)

// truth is a table of versions by key, and what readers may be told. A version is committed first
// and promised once the write has returned to its writer: from then on nobody may read an older one.
type truth struct {
	committed, promised [3]atomic.Int64
}

// load reads at some moment within a slow load.
func (tr *truth) load(rng func(int) time.Duration) func(context.Context, int) (int64, error) {
	return func(_ context.Context, key int) (int64, error) {
		time.Sleep(rng(20))
		version := tr.committed[key].Load()
		time.Sleep(rng(20))
		return version, nil
	}
}

// put commits the next version and invalidates, some time later.
func (tr *truth) put(l *cache.Loader[int, int64], key int, between time.Duration) {
	version := tr.committed[key].Add(1)
	time.Sleep(between)
	l.Invalidate(context.Background(), key)
	for {
		old := tr.promised[key].Load()
		if old >= version || tr.promised[key].CompareAndSwap(old, version) {
			return
		}
	}
}

func (tr *truth) get(t *testing.T, l *cache.Loader[int, int64], key int) {
	least := tr.promised[key].Load()
	got, err := l.Get(t.Context(), key)
	if most := tr.committed[key].Load(); err != nil || got < least || got > most {
		t.Errorf("Get(%d) = version %d, %v; want from %d to %d", key, got, err, least, most)
	}
}

// milliseconds returns a source of random pauses; it may be shared.
func milliseconds(seed uint64) func(int) time.Duration {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func(n int) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(r.IntN(n)) * time.Millisecond
	}
}

func TestWhoHasWrittenReadsItInTenThousandInterleavings(t *testing.T) {
	interleavings := uint64(10_000)
	if testing.Short() {
		interleavings = 500
	}
	for seed := range interleavings {
		synctest.Test(t, func(t *testing.T) { interleave(t, milliseconds(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// interleave lets readers and writers meet on few keys, with entries that go stale and expire meanwhile.
func interleave(t *testing.T, rng func(int) time.Duration) {
	tr := &truth{}
	l, err := cache.NewLoader(tr.load(rng), cache.Config{TTL: 15 * time.Millisecond, Stale: 30 * time.Millisecond, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for who := range 5 {
		all.Go(func() {
			for range 5 {
				key := int(rng(3) / time.Millisecond)
				time.Sleep(rng(15))
				if who < 2 {
					tr.put(l, key, rng(10))
				}
				tr.get(t, l, key)
			}
		})
	}
	all.Wait()
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhoHasWrittenReadsItInRealTime(t *testing.T) {
	tr := &truth{}
	l, err := cache.NewLoader(func(_ context.Context, key int) (int64, error) {
		return tr.committed[key].Load(), nil
	}, cache.Config{TTL: time.Millisecond, Stale: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for who := range 8 {
		all.Go(func() {
			for i := range 3000 {
				key := (who + i) % 3
				if i%4 == 0 {
					tr.put(l, key, 0)
				}
				tr.get(t, l, key)
			}
		})
	}
	all.Wait()
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
