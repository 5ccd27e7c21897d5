package ratelimit_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/ratelimit/storetest"
)

func openMemory(t *testing.T) storetest.Opened {
	t.Helper()
	var clock atomic.Int64
	m, err := ratelimit.NewMemory(ratelimit.MemoryConfig{Now: func() time.Time { return time.Unix(0, clock.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	return storetest.Opened{Store: m, Set: func(d time.Duration) { clock.Store(int64(d)) }}
}

func TestMemoryObeysTheLaws(t *testing.T) { storetest.Run(t, openMemory) }

func TestMemoryFollowsTheTraces(t *testing.T) {
	storetest.Traces(t, "../../shared/vectors/gantry/ratelimit_traces.json", openMemory)
}
