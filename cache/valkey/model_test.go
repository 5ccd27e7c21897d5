package valkey_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gantryhq/gantry/cache"
)

// Ten thousand operations of eight clients on two instances and eight keys meet in random ways: loads that
// take up to a millisecond, and writers that take as long between commit and invalidation.
func TestWhoHasWrittenIsReadOnEveryInstance(t *testing.T) {
	for name, cfg := range map[string]cache.Config{
		"entries live long":                 {TTL: time.Minute},
		"entries go stale and are dropped":  {TTL: 5 * time.Millisecond, Stale: 20 * time.Millisecond, MaxEntries: 4},
		"nothing is kept near for any time": {TTL: time.Minute, MaxEntries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := &database{slow: upTo(time.Millisecond)}
			_, loaders := d.pair(t, redis(t).Addr, cfg)
			d.traffic(t, loaders, 10_000/8, nil)
			for i, l := range loaders {
				s := l.Stats()
				t.Logf("instance %d: %+v", i, s)
				if s.Hits+s.Stale+s.Received == 0 {
					t.Error("nothing came from a cache")
				}
			}
		})
	}
}

// The server is killed and comes back empty, hangs, forgets everything, and refuses writes, in random order and for
// random times, some shorter and some longer than a lease.
func TestWhoHasWrittenIsReadOnEveryInstanceWhileTheServerFails(t *testing.T) {
	d := &database{slow: upTo(2 * time.Millisecond)}
	server := redis(t)
	stores, loaders := d.pair(t, server.Addr, cache.Config{TTL: time.Minute})
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for round := range 15 {
			hold := upTo(900 * time.Millisecond)
			switch round % 5 {
			case 0:
				server.Kill()
				hold()
				server.Start()
			case 1, 2:
				server.Stall()
				hold()
				server.Continue()
			case 3:
				server.Must("FLUSHALL")
			case 4:
				server.Must("REPLICAOF", "127.0.0.1", "1")
				hold()
				server.Must("REPLICAOF", "NO", "ONE")
			}
			if rand.IntN(3) > 0 { // else the next fault meets the recovery from this one
				awaitUse(t, stores...)
				upTo(200 * time.Millisecond)()
			}
		}
	}()
	d.traffic(t, loaders, 1<<40, stop)
	<-stop
	for i, l := range loaders {
		t.Logf("instance %d: %+v", i, l.Stats())
	}
}
