package valkey_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/ratelimit/storetest"
	"github.com/gantryhq/gantry/ratelimit/valkey"
	driver "github.com/valkey-io/valkey-go"
	"go.uber.org/goleak"
)

// The driver closes the connections of a node that has left the cluster's map five seconds later, in a
// goroutine that nothing ends sooner.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valkey-io/valkey-go.(*clusterClient)._refresh.func2"))
}

// connect returns a client as an instance has it.
func connect(t testing.TB, change func(*driver.ClientOption), servers ...*testenv.Redis) driver.Client {
	t.Helper()
	var option driver.ClientOption
	for _, server := range servers {
		option.InitAddress = append(option.InitAddress, server.Addr)
	}
	if change != nil {
		change(&option)
	}
	client, err := driver.NewClient(valkey.Tuned(option))
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

func store(t testing.TB, client driver.Client, cfg valkey.Config) *valkey.Store {
	t.Helper()
	s, err := valkey.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// patient is a Config for tests of counting: the race detector on a busy machine is slower than a
// request may be.
var patient = valkey.Config{Timeout: 5 * time.Second}

func charge(policy, key string, limit int, window time.Duration) ratelimit.Charge {
	return ratelimit.Charge{Policy: policy, Key: key, Rate: ratelimit.Rate{Limit: limit, Window: window}}
}

// openAtClock returns an empty store on server whose clock is a key there.
func openAtClock(server *testenv.Redis, client driver.Client) func(*testing.T) storetest.Opened {
	return func(t *testing.T) storetest.Opened {
		server.Must("FLUSHALL")
		s, err := valkey.NewAtClock(client, "clock")
		if err != nil {
			t.Fatal(err)
		}
		const begin = 1_795_420_037_000_000 // a usual time: 16 digits must pass through the script whole
		set := func(d time.Duration) {
			if err := client.Do(context.Background(), client.B().Set().Key("clock").Value(strconv.FormatInt(begin+d.Microseconds(), 10)).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		set(0)
		return storetest.Opened{Store: s, Set: set}
	}
}

func TestValkeyObeysTheLaws(t *testing.T) {
	server := testenv.NewRedis(t)
	storetest.Run(t, openAtClock(server, connect(t, nil, server)))
}

func TestValkeyFollowsTheTraces(t *testing.T) {
	server := testenv.NewRedis(t)
	storetest.Traces(t, "../../../shared/vectors/gantry/ratelimit_traces.json", openAtClock(server, connect(t, nil, server)))
}

// TestNoWindowHoldsMoreThanTheLimit is R1: 64 clients over four stores, each with a connection of its
// own, for some windows. The admissions are what the server recorded, by its own clock.
func TestNoWindowHoldsMoreThanTheLimit(t *testing.T) {
	const limit, window = 100, time.Second
	server := testenv.NewRedis(t)
	stores := make([]*valkey.Store, 4)
	for i := range stores {
		stores[i] = store(t, connect(t, nil, server), patient)
	}
	var mu sync.Mutex
	var begun, ended []time.Time // of the admitted requests
	end := time.Now().Add(4200 * time.Millisecond)
	var group sync.WaitGroup
	for g := range 64 {
		group.Go(func() {
			for time.Now().Before(end) {
				before := time.Now()
				d, err := stores[g%4].Take(t.Context(), []ratelimit.Charge{charge("user", "u", limit, window), charge("global", "", 10_000, window)})
				if err != nil {
					t.Errorf("Take: %v", err)
					return
				}
				if d.Allowed {
					mu.Lock()
					begun, ended = append(begun, before), append(ended, time.Now())
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	// An admission lies between its begin and its end, so those that surely lie in one window are
	// those that began after its start and ended before its end.
	for _, start := range begun {
		inside := 0
		for i := range begun {
			if !begun[i].Before(start) && ended[i].Before(start.Add(window)) {
				inside++
			}
		}
		if inside > limit {
			t.Fatalf("%d admissions within a window, want %d at most", inside, limit)
		}
	}
	if got := len(begun); got != 5*limit {
		t.Errorf("%d were admitted in 4.2 windows, want %d: all of the limit at once in each", got, 5*limit)
	}
}

func TestEveryKeyExpiresWhateverHappensToTheClients(t *testing.T) {
	server := testenv.NewRedis(t)
	var group sync.WaitGroup
	for g := range 8 {
		s := store(t, connect(t, nil, server), valkey.Config{})
		group.Go(func() {
			for i := range 500 {
				_, _ = s.Take(t.Context(), []ratelimit.Charge{charge("user", fmt.Sprint(g, i), 5, time.Minute), charge("global", "", 100_000, time.Minute)})
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	// CLIENT KILL cuts connections in the middle, as the death of their processes does.
	for cutting := true; cutting; {
		select {
		case <-done:
			cutting = false
		case <-time.After(10 * time.Millisecond):
			server.Must("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		}
	}
	keys := strings.Split(server.Must("KEYS", "*"), "\n")
	for _, key := range keys {
		ttl, err := strconv.Atoi(server.Must("PTTL", key))
		if err != nil || ttl < 0 || ttl > 61_000 {
			t.Errorf("%s lives for %d ms, want 61000 at most", key, ttl)
		}
		if !strings.HasPrefix(key, "{gantry:rl}:") || len(key) > 64 {
			t.Errorf("a key of another form: %q", key)
		}
	}
	t.Logf("%d keys", len(keys))
}

func TestNoTimeAndNoSecretIsSent(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	server.Must("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "1000")
	for range 3 {
		if _, err := s.Take(t.Context(), []ratelimit.Charge{charge("user", "a.secret.token", 5, time.Minute)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	log := server.Must("SLOWLOG", "GET", "-1")
	if strings.Contains(log, "secret") || !strings.Contains(log, "{gantry:rl}:user:") {
		t.Errorf("sent:\n%s", log)
	}
	sent := strings.Split(log, "\n")
	scripts := 0
	for i, word := range sent {
		if word == "EVALSHA" {
			scripts++
			if args := sent[i+3 : i+7]; strings.HasPrefix(args[0], "{gantry:rl}:user:") && strings.Join(args[1:], " ") != "1 5 60000000" {
				t.Errorf("arguments = %q, want the order to record, limit and window alone", args)
			}
		}
	}
	if scripts < 6 {
		t.Errorf("%d scripts were sent, want 6:\n%s", scripts, log)
	}
}

func TestARefusalWritesNothing(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	charges := []ratelimit.Charge{charge("user", "a", 5, time.Minute), charge("global", "", 1, time.Minute)}
	for range 2 {
		if _, err := s.Take(t.Context(), charges); err != nil {
			t.Fatal(err)
		}
	}
	dirty := func() string {
		_, rest, _ := strings.Cut(server.Must("INFO", "persistence"), "rdb_changes_since_last_save:")
		return strings.SplitN(rest, "\r", 2)[0]
	}
	before := dirty()
	if d, err := s.Take(t.Context(), charges); err != nil || d.Allowed || dirty() != before {
		t.Errorf("a refusal: %+v, %v; changes %s, before %s", d, err, dirty(), before)
	}
}

func TestALogKeepsNoMoreThanItsWindow(t *testing.T) {
	server := testenv.NewRedis(t)
	o := openAtClock(server, connect(t, nil, server))(t)
	for second := range 50 {
		o.Set(time.Duration(second) * time.Second)
		if _, err := o.Store.Take(t.Context(), []ratelimit.Charge{charge("user", "a", 100, 10*time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Must("LLEN", server.Must("KEYS", "{gantry:rl}:user:*")); got != "10" {
		t.Errorf("after 50 seconds at one a second the log holds %s, want 10", got)
	}
}

// TestAClockThatWasPlainlyWrongBlocksNobody: stamps of a day ahead would hold all logs, the global one
// too, where they are for a day.
func TestAClockThatWasPlainlyWrongBlocksNobody(t *testing.T) {
	server := testenv.NewRedis(t)
	o := openAtClock(server, connect(t, nil, server))(t)
	charges := []ratelimit.Charge{charge("user", "a", 3, time.Minute), charge("global", "", 10, time.Minute)}
	admitted := func(n int) (in int) {
		for range n {
			d, err := o.Store.Take(t.Context(), charges)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				in++
			}
		}
		return in
	}
	for _, at := range []time.Duration{24 * time.Hour, 0, time.Minute, 2 * time.Minute} {
		o.Set(at)
		if got := admitted(10); got != 3 {
			t.Errorf("%d were admitted at %v, want 3", got, at)
		}
	}
}

func TestAServerThatForgotTheScriptIsToldAgain(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	for i := range 3 {
		server.Must("SCRIPT", "FLUSH")
		if d, err := s.Take(t.Context(), []ratelimit.Charge{charge("user", "a", 2, time.Minute)}); err != nil || d.Allowed != (i < 2) {
			t.Errorf("request %d: %+v, %v", i, d, err)
		}
	}
}

func TestACancelledRequestIsStillDecided(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := s.Take(ctx, []ratelimit.Charge{charge("user", "a", 1, time.Minute)}); err != nil || !d.Allowed {
		t.Errorf("Take = %+v, %v", d, err)
	}
}

func TestInstancesAreCounted(t *testing.T) {
	server := testenv.NewRedis(t)
	for i := range 4 {
		s := store(t, connect(t, nil, server), valkey.Config{})
		for range 2 {
			if n, err := s.Beat(t.Context()); err != nil || n != i+1 {
				t.Errorf("Beat of instance %d = %d, %v", i+1, n, err)
			}
		}
	}
	const set = "{gantry:rl}:instances"
	server.Must("ZADD", set, "1000000000", "long gone")
	if n, err := store(t, connect(t, nil, server), valkey.Config{}).Beat(t.Context()); err != nil || n != 5 {
		t.Errorf("with one that is gone: %d, %v, want 5", n, err)
	}
	if ttl, _ := strconv.Atoi(server.Must("PTTL", set)); ttl <= 0 || ttl > 15_000 {
		t.Errorf("the set lives for %d ms", ttl)
	}
}

// accessRule is the rule of the package comment.
const accessRule = "resetchannels ~{gantry:rl}:* +eval +evalsha +time +lindex +llen +ltrim +rpush +pexpire " +
	"+zadd +zremrangebyscore +zcard +expire +ping"

func TestTheDocumentedAccessRuleIsEnoughAndTight(t *testing.T) {
	server := testenv.NewRedis(t)
	login := func(o *driver.ClientOption) { o.Username, o.Password = "gantry", "password" }
	setUser := func(rule string) {
		server.Must(append([]string{"ACL", "SETUSER", "gantry", "reset", "on", ">password"}, strings.Fields(rule)...)...)
	}
	setUser(accessRule + " +cluster|slots +cluster|shards +info +config|get")
	s := store(t, connect(t, login, server), valkey.Config{})
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with the whole rule: %v", err)
	}
	setUser(accessRule)
	s = store(t, connect(t, func(o *driver.ClientOption) { login(o); o.ForceSingleClient = true }, server), valkey.Config{})
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check without the parts that may be left out: %v", err)
	}
	c := charge("user", "a", 1, time.Second)
	for i := range 2 {
		if d, err := s.Take(t.Context(), []ratelimit.Charge{c}); err != nil || d.Allowed != (i == 0) {
			t.Errorf("request %d: %+v, %v", i, d, err)
		}
	}
	// Each command is there for a reason: without it something fails.
	for _, command := range []string{"eval", "time", "lindex", "llen", "rpush", "pexpire", "zadd", "zremrangebyscore", "zcard", "expire"} {
		setUser(strings.Replace(accessRule, "+"+command+" ", "", 1) + " -" + command)
		server.Must("FLUSHALL")
		server.Must("SCRIPT", "FLUSH")
		first, second := s.Check(t.Context()), s.Check(t.Context())
		if (first == nil || !strings.Contains(first.Error(), "NOPERM") && !strings.Contains(strings.ToLower(first.Error()), "can't run this command")) && second == nil {
			t.Errorf("without %s: %v, %v; want NOPERM", command, first, second)
		}
	}
}

func TestItWorksOverTLS(t *testing.T) {
	server := testenv.NewTLSRedis(t)
	client := connect(t, func(o *driver.ClientOption) {
		o.TLSConfig = &tls.Config{RootCAs: server.CA, ServerName: "localhost"}
	}, server)
	s := store(t, client, valkey.Config{})
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestInAClusterAllKeysAreInOneSlot(t *testing.T) {
	nodes := testenv.NewRedisCluster(t)
	s := store(t, connect(t, nil, nodes...), patient)
	admitted := 0
	for i := range 150 {
		d, err := s.Take(t.Context(), []ratelimit.Charge{charge("user", fmt.Sprint(i%2), 60, time.Minute), charge("anonymous", "", 200, time.Minute), charge("global", "", 110, time.Minute)})
		if err != nil {
			t.Fatalf("Take: %v", err)
		}
		if d.Allowed {
			admitted++
		}
	}
	if admitted != 110 {
		t.Errorf("%d were admitted, want global's 110", admitted)
	}
	if _, err := s.Beat(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	holders := 0
	for _, node := range nodes {
		if node.Must("DBSIZE") != "0" {
			holders++
		}
	}
	if holders != 1 {
		t.Errorf("%d nodes hold keys, want 1", holders)
	}
}

func TestCheckFindsAServerThatEvicts(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
		server.Must("CONFIG", "SET", "maxmemory-policy", policy)
		if err := s.Check(t.Context()); !errors.Is(err, valkey.ErrEvicts) || !strings.Contains(err.Error(), policy) {
			t.Errorf("%s: Check = %v, want ErrEvicts", policy, err)
		}
	}
	server.Must("ACL", "SETUSER", "default", "-config")
	if err := s.Check(t.Context()); !errors.Is(err, valkey.ErrEvicts) {
		t.Errorf("without CONFIG: Check = %v, want ErrEvicts by INFO", err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	err := valkey.Config{Prefix: "{" + strings.Repeat("x", 100), Timeout: -1}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("Validate = %v, want three faults", err)
	}
	if _, err := valkey.New(nil, valkey.Config{}); err == nil {
		t.Error("New takes no client for one")
	}
}
