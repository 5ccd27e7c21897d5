package valkey_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/ratelimit"
)

// BenchmarkTake is what a request costs: the user's log and everybody's, 256 requests at once.
func BenchmarkTake(b *testing.B) {
	server := testenv.NewRedis(b)
	s := store(b, connect(b, nil, server), patient)
	global := charge("global", "", ratelimit.MaxLimit, time.Second)
	var users atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(128)
	before := server.CPU()
	b.RunParallel(func(p *testing.PB) {
		name := fmt.Sprint("user_", users.Add(1))
		for p.Next() {
			if _, err := s.Take(context.Background(), []ratelimit.Charge{charge("user", name, 100, time.Second), global}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N), "server-ns/op")
}
