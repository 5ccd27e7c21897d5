package ratelimit

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestExactlyTheLimitOfManyAtOnceIsAdmitted(t *testing.T) {
	m, _ := NewMemory(MemoryConfig{})
	r := Rate{1000, time.Hour}
	var in atomic.Int64
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			for range 500 {
				d, _ := m.Take(context.Background(), []Charge{{Policy: "user", Key: fmt.Sprint(g % 2), Rate: r}, {Policy: "global", Rate: r}})
				if d.Allowed {
					in.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if in.Load() != 1000 {
		t.Fatal(in.Load())
	}
}

func TestAMillionKeysStayUnder64MiB(t *testing.T) {
	names := make([]string, 1_000_000)
	for i := range names {
		names[i] = fmt.Sprint("key-", i)
	}
	m, _ := NewMemory(MemoryConfig{})
	var a, z runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&a)
	for _, n := range names {
		if d, _ := m.Take(context.Background(), []Charge{{Policy: "address", Key: n, Rate: Rate{100, time.Hour}}}); !d.Allowed {
			t.Fatal("refused")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&z)
	t.Logf("%+v heap growth %.1f MiB", m.Stats(), float64(z.HeapAlloc-a.HeapAlloc)/(1<<20))
	runtime.KeepAlive(m)
	runtime.KeepAlive(names)
}

func bench(b *testing.B, par bool) {
	m, _ := NewMemory(MemoryConfig{})
	var id atomic.Int64
	mk := func() []Charge {
		return []Charge{{Policy: "user", Key: fmt.Sprint("user_", id.Add(1)), Rate: Rate{100, time.Second}}, {Policy: "global", Rate: Rate{10000, time.Second}, Hidden: true}}
	}
	b.ReportAllocs()
	if par {
		b.RunParallel(func(p *testing.PB) {
			c := mk()
			for p.Next() {
				m.Take(context.Background(), c)
			}
		})
		return
	}
	c := mk()
	for b.Loop() {
		m.Take(context.Background(), c)
	}
}
func BenchmarkTake(b *testing.B)         { bench(b, false) }
func BenchmarkTakeParallel(b *testing.B) { bench(b, true) }
