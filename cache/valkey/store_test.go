package valkey_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/gantryhq/gantry/cache"
	"github.com/gantryhq/gantry/cache/valkey"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/internal/testenv"
)

func TestAThousandConcurrentMissesAreOneLoadOnEachInstance(t *testing.T) {
	var loads atomic.Int64
	gate := make(chan struct{})
	load := func(context.Context, string) (string, error) {
		loads.Add(1)
		<-gate
		return "v", nil
	}
	server := redis(t)
	patient := valkey.Config{Timeout: time.Second, Lease: time.Minute} // whatever else the machine does
	stores := []*valkey.Store{newPatient(t, server, at(server.Addr), patient), newStores(t, 1, at(server.Addr), patient)[0]}
	var all sync.WaitGroup
	for _, s := range stores {
		l := newLoader(t, load, cache.Config{Far: s})
		for range 1000 {
			all.Go(func() {
				if got, err := l.Get(t.Context(), "k"); got != "v" || err != nil {
					t.Errorf("Get = %q, %v", got, err)
				}
			})
		}
		await(t, "the callers", func() bool { return l.Stats().Misses == 1000 })
	}
	close(gate)
	all.Wait()
	if got := loads.Load(); got != 2 {
		t.Errorf("loads = %d, want one for each of two instances", got)
	}
}

func TestCancellingTheFirstCallerFailsOnlyIt(t *testing.T) {
	gate := make(chan struct{})
	l := newLoader(t, func(ctx context.Context, _ string) (string, error) {
		select {
		case <-gate:
			return "v", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, cache.Config{Far: newStores(t, 1, at(redis(t).Addr), quick)[0]})
	first, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := l.Get(first, "k")
		failed <- err
	}()
	await(t, "the load", func() bool { return l.Stats().Loads == 1 })
	other := make(chan error, 1)
	go func() {
		_, err := l.Get(t.Context(), "k")
		other <- err
	}()
	await(t, "the second caller", func() bool { return l.Stats().Misses == 2 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled caller got %v, want context.Canceled", err)
	}
	close(gate)
	if err := <-other; err != nil {
		t.Errorf("the other caller got %v, want nil", err)
	}
}

// counter is a source that says how often each key was loaded.
func counter(loads *atomic.Int64) func(context.Context, string) (string, error) {
	return func(_ context.Context, key string) (string, error) {
		return fmt.Sprint(key, " ", loads.Add(1)), nil
	}
}

func wantGet(t *testing.T, l *cache.Loader[string, string], key, want string) {
	t.Helper()
	if got, err := l.Get(t.Context(), key); got != want || err != nil {
		t.Errorf("Get(%s) = %q, %v; want %q", key, got, err, want)
	}
}

func TestWhatOneInstanceLoadedTheOtherNeedNot(t *testing.T) {
	var loads atomic.Int64
	stores := newStores(t, 2, at(redis(t).Addr), quick)
	a := newLoader(t, counter(&loads), cache.Config{Far: stores[0]})
	b := newLoader(t, counter(&loads), cache.Config{Far: stores[1]})
	for range 3 {
		wantGet(t, a, "k", "k 1")
		wantGet(t, b, "k", "k 1")
	}
	b.Invalidate(t.Context(), "k")
	wantGet(t, a, "k", "k 2")
	wantGet(t, b, "k", "k 2")
}

func TestAbsenceIsKeptByEachInstanceAndEndsWithTheWrite(t *testing.T) {
	errAbsent := errors.New("no such user")
	var loads atomic.Int64
	var there atomic.Bool
	load := func(context.Context, string) (string, error) {
		loads.Add(1)
		if there.Load() {
			return "v", nil
		}
		return "", errAbsent
	}
	stores := newStores(t, 2, at(redis(t).Addr), quick)
	absent := func(err error) bool { return errors.Is(err, errAbsent) }
	a := newLoader(t, load, cache.Config{Far: stores[0], Absent: absent})
	b := newLoader(t, load, cache.Config{Far: stores[1], Absent: absent})
	for range 3 {
		for _, l := range []*cache.Loader[string, string]{a, b} {
			if _, err := l.Get(t.Context(), "k"); !errors.Is(err, errAbsent) {
				t.Errorf("Get = %v, want absence", err)
			}
		}
	}
	if got := loads.Load(); got != 2 {
		t.Errorf("loads = %d, want 2", got)
	}
	there.Store(true)
	a.Invalidate(t.Context(), "k")
	wantGet(t, b, "k", "v")
}

func TestValuesThatGoStaleAreGivenAndRefreshed(t *testing.T) {
	var loads atomic.Int64
	s := newStores(t, 1, at(redis(t).Addr), quick)[0]
	l := newLoader(t, counter(&loads), cache.Config{Far: s, TTL: 50 * time.Millisecond, Stale: time.Minute})
	wantGet(t, l, "k", "k 1")
	await(t, "a stale value", func() bool {
		_, err := l.Get(t.Context(), "k")
		return err == nil && l.Stats().Stale > 0
	})
	await(t, "the refreshed value", func() bool {
		got, _ := l.Get(t.Context(), "k")
		return got != "k 1"
	})
	if s := l.Stats(); s.Misses != 1 {
		t.Errorf("Stats = %+v, want one miss: stale values are given at once", s)
	}
}

func TestWhatIsLoadedTogetherDoesNotExpireTogether(t *testing.T) {
	server := redis(t)
	var loads atomic.Int64
	l := newLoader(t, counter(&loads), cache.Config{Far: newStores(t, 1, at(server.Addr), quick)[0], TTL: 1000 * time.Second})
	for i := range 50 {
		if _, err := l.Get(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	least, most := "~", ""
	for _, key := range strings.Split(server.Must("KEYS", "*test:*"), "\n") {
		ttl := server.Must("PTTL", key)
		if len(ttl) < 7 {
			ttl = "0" + ttl
		}
		least, most = min(least, ttl), max(most, ttl)
	}
	if least < "0890000" || most > "1100000" || most[:3] == least[:3] {
		t.Errorf("lifetimes from %s to %s ms, want them spread from 900 to 1,100 s", least, most)
	}
}

type tenantKey struct{ tenant, id string }

func TestKeysAndLoadersDoNotMeet(t *testing.T) {
	stores := newStores(t, 2, at(redis(t).Addr), quick)
	keys := []tenantKey{{"a", "1"}, {"b", "1"}, {"a", "2"}, {"a1", ""}, {"", "a1"}, {"a;1:1", ""}, {"a", "1;"}, {strings.Repeat("x", 300), "1"}, {strings.Repeat("x", 300), "2"}}
	for _, s := range stores {
		for _, name := range []string{"one", "two", "one:1"} {
			l := newLoader(t, func(_ context.Context, k tenantKey) (string, error) { return name + k.tenant + "/" + k.id, nil }, cache.Config{Far: s, Name: name})
			for _, k := range keys {
				if got, err := l.Get(t.Context(), k); got != name+k.tenant+"/"+k.id || err != nil {
					t.Errorf("%s: Get(%v) = %q, %v", name, k, got, err)
				}
			}
		}
	}
}

func TestAProgramWithAnotherValueReadsNothing(t *testing.T) {
	type old struct{ Name string }
	type changed struct{ Name, Plan string }
	s := newStores(t, 1, at(redis(t).Addr), quick)[0]
	a := newLoader(t, func(context.Context, string) (old, error) { return old{"n"}, nil }, cache.Config{Far: s})
	b := newLoader(t, func(context.Context, string) (changed, error) { return changed{"n", "p"}, nil }, cache.Config{Far: s})
	for range 2 {
		if got, err := a.Get(t.Context(), "k"); got.Name != "n" || err != nil {
			t.Errorf("Get = %+v, %v", got, err)
		}
		if got, err := b.Get(t.Context(), "k"); got.Plan != "p" || err != nil {
			t.Errorf("Get = %+v, %v; want what was loaded", got, err)
		}
	}
}

// Each fault lasts while a thousand reads and a few writes pass.
func TestAnOutageIsSlowerNotWrongAndNoError(t *testing.T) {
	faults := map[string]struct{ begin, end func(*testenv.Redis) }{
		"down":  {(*testenv.Redis).Kill, func(r *testenv.Redis) { r.Start() }},
		"hangs": {(*testenv.Redis).Stall, (*testenv.Redis).Continue},
		"read-only": {
			func(r *testenv.Redis) { r.Must("REPLICAOF", "127.0.0.1", "1") },
			func(r *testenv.Redis) { r.Must("REPLICAOF", "NO", "ONE") },
		},
		"out of memory": {
			func(r *testenv.Redis) { r.Must("CONFIG", "SET", "maxmemory", "1") },
			func(r *testenv.Redis) { r.Must("CONFIG", "SET", "maxmemory", "0") },
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			d := &database{}
			server := redis(t)
			stores, loaders := d.pair(t, server.Addr, cache.Config{TTL: time.Minute})
			d.traffic(t, loaders, 50, nil)
			fault.begin(server)
			slowestRead, slowestWrite := time.Duration(0), time.Duration(0)
			begun := time.Now()
			for i := range 1000 {
				took := lasts(func() { d.get(t, loaders[i%2], i%8) })
				slowestRead = max(slowestRead, took)
				if i%100 == 0 {
					took = lasts(func() { d.put(t.Context(), loaders[i/100%2], i%8) })
					slowestWrite = max(slowestWrite, took)
				}
			}
			t.Logf("1,000 reads and 10 writes took %v; slowest read %v, slowest write %v", time.Since(begun), slowestRead, slowestWrite)
			if slowestRead > time.Second || slowestWrite > 3*time.Second {
				t.Error("that is too slow")
			}
			fault.end(server)
			back := lasts(func() { awaitUse(t, stores...) })
			d.traffic(t, loaders, 50, nil)
			t.Logf("in use again after %v", back)
		})
	}
}

func lasts(do func()) time.Duration {
	begun := time.Now()
	do()
	return time.Since(begun)
}

func TestWithoutAServerFromTheStartEverythingIsLoaded(t *testing.T) {
	server := redis(t)
	server.Kill()
	d := &database{}
	s := newStore(t, at(server.Addr), quick)
	l := newLoader(t, d.load, cache.Config{Far: s})
	for i := range 100 {
		d.put(t.Context(), l, i%8)
		d.get(t, l, i%8)
	}
	if err := s.Set(t.Context(), "k", nil, time.Second); err == nil {
		t.Error("Set = nil, want an error that says so")
	}
	server.Start()
	awaitUse(t, s)
	d.get(t, l, 0)
}

// After five failures within a second requests do not even try, until a renewal has succeeded.
func TestRequestsDoNotWaitForAServerThatHangs(t *testing.T) {
	server := redis(t)
	slow := valkey.Config{Timeout: 200 * time.Millisecond, Lease: time.Minute} // so that the lease does not help
	s := newPatient(t, server, at(server.Addr), slow)
	d := &database{}
	l := newLoader(t, d.load, cache.Config{Far: s})
	d.get(t, l, 0)
	server.Stall()
	defer server.Continue()
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { d.get(t, l, 0) })
	}
	all.Wait()
	await(t, "the breaker", func() bool { return !inUse(t, s) })
	if took := lasts(func() {
		for range 100 {
			d.get(t, l, 0)
		}
	}); took > 200*time.Millisecond {
		t.Errorf("100 reads took %v, want none to wait", took)
	}
	server.Continue()
	awaitUse(t, s)
}

// A snapshot has what was invalidated since, under the generation it had.
func TestAServerRestartedFromASnapshotGivesNothingOld(t *testing.T) {
	server := redis(t)
	d := &database{}
	stores, loaders := d.pair(t, server.Addr, cache.Config{TTL: time.Minute})
	d.put(t.Context(), loaders[0], 1)
	d.get(t, loaders[1], 1)
	server.Must("SAVE")
	d.put(t.Context(), loaders[0], 1)
	server.Kill()
	server.Start()
	if got := server.Must("KEYS", "*test:1"); got == "" {
		t.Fatal("the snapshot was not loaded")
	}
	for range 500 {
		d.get(t, loaders[1], 1)
	}
	awaitUse(t, stores...)
	d.get(t, loaders[1], 1)
}

func TestAReplicaThatMissedAnInvalidationGivesNothingOldWhenPromoted(t *testing.T) {
	server, replica := redis(t), redis(t)
	host, port, _ := strings.Cut(server.Addr, ":")
	replica.Must("REPLICAOF", host, port)
	link := newProxy(t, server.Addr)
	d := &database{}
	stores, loaders := d.pair(t, link.Addr, cache.Config{TTL: time.Minute})
	d.put(t.Context(), loaders[0], 1)
	d.get(t, loaders[1], 1)
	await(t, "replication", func() bool { return strings.Contains(replica.Must("KEYS", "*"), "test:1") })
	replica.Must("REPLICAOF", "NO", "ONE")
	d.put(t.Context(), loaders[0], 1) // the replica does not hear of it
	server.Kill()
	link.To(replica.Addr)
	for range 500 {
		d.get(t, loaders[1], 1)
	}
	awaitUse(t, stores...)
	d.get(t, loaders[1], 1)
}

// One instance alone loses the server. Its write returns only when the other has stopped giving what was kept.
func TestAWriterThatAloneIsCutOffWaitsUntilNobodyTrustsTheCache(t *testing.T) {
	server := redis(t)
	link := newProxy(t, server.Addr)
	cut, whole := newStore(t, at(link.Addr), quick), newStore(t, at(server.Addr), quick)
	awaitUse(t, cut, whole)
	d := &database{}
	a, b := newLoader(t, d.load, cache.Config{Far: cut}), newLoader(t, d.load, cache.Config{Far: whole})
	d.get(t, b, 1)
	link.Cut()
	d.put(t.Context(), a, 1)
	d.get(t, b, 1)
	awaitUse(t, whole)
	d.get(t, b, 1)

	d.put(t.Context(), a, 1) // now alone, and not waited for: the limit
	link.Heal()
	awaitUse(t, cut)
	d.get(t, b, 1) // which ends when it is back
	d.get(t, a, 1)
}

// An instance that dies has the others begin a new epoch when its lease has lapsed; one that closes does not.
func TestAnInstanceThatClosesDoesNotDisturbTheOthers(t *testing.T) {
	server := redis(t)
	usual := valkey.Config{Lease: time.Second}
	stores := newStores(t, 2, at(server.Addr), usual)
	epoch := func() string { return server.Must("HGET", "gantry:cache:members", "epoch") }
	before := epoch()
	if err := stores[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < 2*usual.Lease; <-time.After(10 * time.Millisecond) {
		if now := epoch(); now != before {
			t.Fatalf("a new epoch %s after %s, because another instance has closed", now, before)
		}
	}
	awaitUse(t, stores[1])
}

// The hash of members says how many epochs there were.
func TestALapsedLeaseBeginsANewEpoch(t *testing.T) {
	server := redis(t)
	link := newProxy(t, server.Addr)
	dead, alive := newStore(t, at(link.Addr), quick), newStore(t, at(server.Addr), quick)
	awaitUse(t, dead, alive)
	before := server.Must("HGET", "gantry:cache:members", "epoch")
	link.Cut()
	await(t, "a new epoch", func() bool { return server.Must("HGET", "gantry:cache:members", "epoch") != before })
	if inUse(t, alive) {
		t.Error("a new epoch is used at once, want after the grace")
	}
	awaitUse(t, alive)
}

func TestTheHealthCheckFindsWhatAPingDoesNot(t *testing.T) {
	server := redis(t)
	s := newStores(t, 1, at(server.Addr), quick)[0]
	check := health.Cache(s)
	for _, c := range []struct {
		command []string
		want    string
	}{
		{[]string{"PING"}, ""},
		{[]string{"CONFIG", "SET", "maxmemory", "1"}, "out-of-memory"},
		{[]string{"CONFIG", "SET", "maxmemory", "0"}, ""},
		{[]string{"REPLICAOF", "127.0.0.1", "1"}, "read-only"},
		{[]string{"REPLICAOF", "NO", "ONE"}, ""},
	} {
		server.Must(c.command...)
		reason := ""
		// A server that has just become a replica closes the connection.
		await(t, fmt.Sprintf("%v to be %q", c.command, c.want), func() bool {
			_, err := check.Run(t.Context())
			reason = ""
			if fault := (*health.Fault)(nil); errors.As(err, &fault) {
				reason = fault.Reason
			}
			return reason == c.want
		})
	}
}

// acl is the rule of the package comment.
const acl = `on >secret ~gantry:cache:* resetchannels -@all +hello +auth +ping +client|tracking ` +
	`+client|setname +select +info +time +eval +evalsha +get +set +getrange +del +pttl +pexpire +hgetall +hset +hdel`

func TestAUserWithTheDocumentedRuleIsEnough(t *testing.T) {
	server := redis(t)
	server.Must(append([]string{"ACL", "SETUSER", "gantry"}, strings.Fields(acl)...)...)
	server.Must("ACL", "SETUSER", "default", "off")
	options, err := valkey.ParseURL("redis://gantry:secret@" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	shares(t, options)
}

func TestItSpeaksTLS(t *testing.T) {
	server := testenv.NewTLSRedis(t)
	options := at(server.Addr)
	options.TLSConfig = &tls.Config{RootCAs: server.CA, ServerName: "127.0.0.1"}
	shares(t, options)
}

func TestItWorksInACluster(t *testing.T) {
	nodes := testenv.NewRedisCluster(t)
	shares(t, valkeygo.ClientOption{InitAddress: []string{nodes[0].Addr, nodes[1].Addr}})
}

// shares checks that two instances share values, invalidations and messages, over keys in many slots.
func shares(t *testing.T, options valkeygo.ClientOption) {
	t.Helper()
	stores := newStores(t, 2, options, quick)
	for _, s := range stores { // let them connect to each node
		for i := range 50 {
			await(t, "each node", func() bool {
				_, _, err := s.Look(t.Context(), fmt.Sprint("node", i), time.Second)
				return err == nil
			})
		}
	}
	for _, relaxed := range []bool{false, true} {
		var loads atomic.Int64
		cfg := cache.Config{Name: fmt.Sprint("relaxed-", relaxed), Relaxed: relaxed}
		cfg.Far = stores[0]
		a := newLoader(t, counter(&loads), cfg)
		cfg.Far = stores[1]
		b := newLoader(t, counter(&loads), cfg)
		for i := range 30 {
			key := fmt.Sprint("key", i)
			first := fmt.Sprint(key, " ", loads.Load()+1)
			wantGet(t, a, key, first)
			wantGet(t, b, key, first)
			wantGet(t, b, key, first)
			a.Invalidate(t.Context(), key)
			await(t, "the invalidation", func() bool {
				got, err := b.Get(t.Context(), key)
				return err == nil && (got != first || !relaxed && !fails(t, "strict read is old"))
			})
		}
		// In a relaxed loader the message of a value's being stored may end it.
		if s := b.Stats(); s.Received < 30 || s.Hits < 30 && !relaxed || s.Hits == 0 {
			t.Errorf("Stats = %+v, want 30 values received and hit", s)
		}
	}
	ctx := t.Context()
	if err := stores[0].Set(ctx, "k", []byte("v"), time.Minute); err != nil {
		t.Errorf("Set = %v", err)
	}
	if got, found, err := stores[1].Get(ctx, "k"); string(got) != "v" || !found || err != nil {
		t.Errorf("Get = %q, %t, %v; want v", got, found, err)
	}
	if err := stores[1].Del(ctx, "k"); err != nil {
		t.Errorf("Del = %v", err)
	}
	if _, found, err := stores[0].Get(ctx, "k"); found || err != nil {
		t.Errorf("Get = %t, %v; want nothing", found, err)
	}
}

func fails(t *testing.T, why string) bool {
	t.Error(why)
	return false
}

func TestRelaxedHitsNeedNoServerAndEndWithTheMessage(t *testing.T) {
	server := redis(t)
	patient := valkey.Config{Lease: time.Minute, Timeout: time.Second}
	stores := []*valkey.Store{newPatient(t, server, at(server.Addr), patient), newStores(t, 1, at(server.Addr), patient)[0]}
	var loads atomic.Int64
	a := newLoader(t, counter(&loads), cache.Config{Far: stores[0], Relaxed: true})
	b := newLoader(t, counter(&loads), cache.Config{Far: stores[1], Relaxed: true})
	wantGet(t, a, "k", "k 1")
	hear(t, stores[1])
	wantGet(t, b, "k", "k 1")
	server.Stall()
	if took := lasts(func() {
		for range 1000 {
			wantGet(t, b, "k", "k 1")
		}
	}); took > 500*time.Millisecond {
		t.Errorf("1,000 hits took %v while the server hangs, want them not to ask it", took)
	}
	server.Continue()
	for i := range 100 {
		old := fmt.Sprint("k ", i+1)
		a.Invalidate(t.Context(), "k")
		wantGet(t, a, "k", fmt.Sprint("k ", i+2)) // the writer itself never reads the old one
		await(t, "the message", func() bool {
			got, err := b.Get(t.Context(), "k")
			return err == nil && got != old
		})
	}
}

// hear lets a store take in the messages that the server has sent it so far, that of another instance's
// first value among them: an answer comes after them on the same connection.
func hear(t *testing.T, s *valkey.Store) {
	t.Helper()
	if _, _, err := s.Get(t.Context(), "anything"); err != nil {
		t.Fatal(err)
	}
}

func TestALostConnectionEndsEverythingNear(t *testing.T) {
	server := redis(t)
	link := newProxy(t, server.Addr)
	var loads atomic.Int64
	s := newPatient(t, server, at(link.Addr), valkey.Config{Lease: time.Minute, Timeout: 100 * time.Millisecond})
	l := newLoader(t, counter(&loads), cache.Config{Far: s, Relaxed: true})
	wantGet(t, l, "k", "k 1")
	wantGet(t, l, "k", "k 1")
	link.Cut()
	await(t, "the loss to be noticed", func() bool { return !inUse(t, s) })
	wantGet(t, l, "k", "k 2")                            // from the source
	wantGet(t, l, "k", "k 3")                            // each time
	server.Must("DEL", server.Must("KEYS", "*test:1:k")) // of which nobody can be told
	link.Heal()
	awaitUse(t, s)
	wantGet(t, l, "k", "k 4")
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := valkey.New(t.Context(), valkeygo.ClientOption{AlwaysRESP2: true}, valkey.Config{Timeout: 1, Lease: -1, MaxValue: -1})
	for _, want := range []string{"Timeout: ", "Lease: ", "MaxValue: ", "InitAddress: ", "AlwaysRESP2: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to name %s", err, want)
		}
	}
	if _, err := valkey.ParseURL("redis://u:topsecret@[bad"); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Errorf("ParseURL = %v, want an error without the password", err)
	}
}
