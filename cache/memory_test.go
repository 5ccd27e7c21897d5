package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gantryhq/gantry/cache"
)

func newMemory(t testing.TB, cfg cache.MemoryConfig) *cache.Memory {
	t.Helper()
	m, err := cache.NewMemory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fakeTime is a clock that tests move.
type fakeTime struct{ now time.Time }

func (f *fakeTime) Now() time.Time { return f.now }

func TestMemoryBehavesAsAMapWithExpiry(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := &fakeTime{time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}
		m := newMemory(t, cache.MemoryConfig{Now: clock.Now})
		type kept struct {
			value string
			until time.Time
		}
		model := map[string]kept{}
		keys := rapid.SampledFrom([]string{"", "a", "b", "c", "gantry:health:x"})
		ctx := t.Context()
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				key, value := keys.Draw(rt, "key"), rapid.String().Draw(rt, "value")
				ttl := time.Duration(rapid.IntRange(1, 100).Draw(rt, "ttl")) * time.Second
				if err := m.Set(ctx, key, []byte(value), ttl); err != nil {
					rt.Fatalf("Set = %v", err)
				}
				model[key] = kept{value, clock.now.Add(ttl)}
			},
			"del": func(rt *rapid.T) {
				key := keys.Draw(rt, "key")
				if err := m.Del(ctx, key); err != nil {
					rt.Fatalf("Del = %v", err)
				}
				delete(model, key)
			},
			"wait": func(rt *rapid.T) {
				clock.now = clock.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(rt, "seconds")) * time.Second)
			},
			"": func(rt *rapid.T) {
				for _, key := range []string{"", "a", "b", "c", "gantry:health:x"} {
					got, found, err := m.Get(ctx, key)
					want, ok := model[key]
					ok = ok && clock.now.Before(want.until)
					if err != nil || found != ok || ok && string(got) != want.value {
						rt.Fatalf("Get(%q) = %q, %t, %v; want %q, %t", key, got, found, err, want.value, ok)
					}
				}
			},
		})
	})
}

func TestMemoryKeepsACopy(t *testing.T) {
	m := newMemory(t, cache.MemoryConfig{})
	value := []byte("value")
	if err := m.Set(t.Context(), "k", value, time.Minute); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	if got, _, _ := m.Get(t.Context(), "k"); string(got) != "value" {
		t.Errorf("Get = %q, want value", got)
	}
}

func TestMemoryRefusesWhatIsTooLargeAndForgetsWhatWasThere(t *testing.T) {
	m := newMemory(t, cache.MemoryConfig{MaxBytes: 1 << 20})
	if err := m.Set(t.Context(), "k", []byte("old"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(t.Context(), "k", make([]byte, 1<<16), time.Minute); !errors.Is(err, cache.ErrTooLarge) {
		t.Errorf("Set = %v, want ErrTooLarge", err)
	}
	if got, found, _ := m.Get(t.Context(), "k"); found {
		t.Errorf("Get = %q, want nothing", got)
	}
	for _, ttl := range []time.Duration{0, -1} {
		if err := m.Set(t.Context(), "k", nil, ttl); err == nil {
			t.Errorf("Set with ttl %v = nil, want an error", ttl)
		}
	}
}

func TestMemoryIsBoundedInEntriesAndBytes(t *testing.T) {
	for _, c := range []struct{ maxBytes, maxEntries, valueSize int }{
		{1 << 20, 100, 10},
		{1 << 20, 100_000, 10},
		{1 << 20, 100_000, 1000},
		{1 << 20, 100_000, 30_000},
		{64 << 10, 16, 0},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			m := newMemory(t, cache.MemoryConfig{MaxBytes: c.maxBytes, MaxEntries: c.maxEntries})
			for i := range 6000 {
				key := strconv.Itoa(i)
				if err := m.Set(t.Context(), key, make([]byte, c.valueSize), time.Hour); err != nil {
					t.Fatal(err)
				}
				if n := m.Len(); n > c.maxEntries || n*c.valueSize > c.maxBytes {
					t.Fatalf("after %d: %d entries of %d bytes", i, n, c.valueSize)
				}
			}
			if m.Len() == 0 {
				t.Error("nothing is kept")
			}
		})
	}
}

// A full cache may drop a new entry at once. One that is written again has a better claim each time: the
// health check tries three times.
func TestAFullMemoryKeepsAnEntryThatIsWrittenThreeTimes(t *testing.T) {
	m := newMemory(t, cache.MemoryConfig{MaxBytes: 256 << 10})
	for i := range 10_000 {
		key := strconv.Itoa(i)
		if err := m.Set(t.Context(), key, []byte(key), time.Hour); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 && !survives(t, m, "gantry:health") {
			t.Fatalf("gone three times, after %d entries", i)
		}
	}
}

func survives(t *testing.T, m *cache.Memory, key string) bool {
	for range 3 {
		if err := m.Set(t.Context(), key, []byte("v"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, found, _ := m.Get(t.Context(), key); found {
			return m.Del(t.Context(), key) == nil
		}
	}
	return false
}

// Heap use is near enough to MaxBytes for MaxBytes to mean something.
func TestMemoryUsesAboutTheBytesItIsAllowed(t *testing.T) {
	for _, valueSize := range []int{0, 100, 2000} {
		t.Run(strconv.Itoa(valueSize), func(t *testing.T) {
			const maxBytes = 4 << 20
			before := heap()
			m := newMemory(t, cache.MemoryConfig{MaxBytes: maxBytes, MaxEntries: 1 << 30})
			for i := range 30_000 {
				if err := m.Set(t.Context(), "some:prefix:"+strconv.Itoa(i), make([]byte, valueSize), time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			used := heap() - before
			t.Logf("%d entries, %.1f MiB of %d MiB", m.Len(), float64(used)/(1<<20), maxBytes>>20)
			if used > maxBytes*5/4 {
				t.Errorf("heap grew by %d bytes, want at most a quarter over %d", used, maxBytes)
			}
			runtime.KeepAlive(m)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestMemoryServesManyAtOnce(t *testing.T) {
	m := newMemory(t, cache.MemoryConfig{MaxBytes: 256 << 10})
	var all sync.WaitGroup
	for who := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(who), 0))
			for range 5000 {
				key := strconv.Itoa(r.IntN(2000))
				switch r.IntN(4) {
				case 0:
					if err := m.Set(context.Background(), key, []byte(key), time.Duration(1+r.IntN(1000))*time.Microsecond); err != nil {
						t.Error(err)
					}
				case 1:
					_ = m.Del(context.Background(), key)
				default:
					if got, found, _ := m.Get(context.Background(), key); found && !bytes.Equal(got, []byte(key)) {
						t.Errorf("Get(%s) = %q", key, got)
					}
				}
			}
		})
	}
	all.Wait()
}

func TestMemoryConfigReportsEveryFault(t *testing.T) {
	_, err := cache.NewMemory(cache.MemoryConfig{MaxBytes: 1, MaxEntries: -1})
	want := "MaxBytes: must be from 65536 to 34359738368\nMaxEntries: must be at least 16"
	if err == nil || err.Error() != want {
		t.Errorf("NewMemory = %v\nwant %s", err, want)
	}
}

func BenchmarkMemory(b *testing.B) {
	m := newMemory(b, cache.MemoryConfig{})
	ctx, value := b.Context(), []byte("value")
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Set(ctx, "gantry:health", value, 10*time.Second)
		_, _, _ = m.Get(ctx, "gantry:health")
		_ = m.Del(ctx, "gantry:health")
	}
}
