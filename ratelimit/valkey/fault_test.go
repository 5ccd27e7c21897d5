package valkey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/ratelimit/valkey"
	driver "github.com/valkey-io/valkey-go"
)

// soon is when an answer must be there whatever has happened to the server: 100 ms on a machine of its
// own, where these tests log far less, and room for a busy one.
const soon = 500 * time.Millisecond

// instance is a limiter with everything of its own, as a process has it, running until the test ends.
func instance(t testing.TB, client driver.Client, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = store(t, client, valkey.Config{})
	}
	l, err := ratelimit.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx) // always nil
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func user(name string) ratelimit.Caller { return ratelimit.Caller{User: name} }

// ask makes one decision and reports how long it took.
func ask(t testing.TB, l *ratelimit.Limiter, c ratelimit.Caller) (ratelimit.Decision, time.Duration) {
	t.Helper()
	begin := time.Now()
	d, err := l.Allow(t.Context(), c)
	took := time.Since(begin)
	if err != nil {
		t.Fatalf("Allow: %v", err)
	}
	return d, took
}

// eventually polls until ok or patience is over, and returns how long it took.
func eventually(t testing.TB, patience time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func inForce(l *ratelimit.Limiter) func() bool {
	return func() bool { return l.Status().Mode == ratelimit.Shared }
}

var faults = []struct {
	name        string
	says        string // part of the failure that Status holds
	cause, heal func(*testing.T, *testenv.Redis)
}{
	{"killed and restarted empty", "", func(_ *testing.T, r *testenv.Redis) { r.Kill() }, func(_ *testing.T, r *testenv.Redis) { r.Start() }},
	{"stalled", "deadline", func(_ *testing.T, r *testenv.Redis) { r.Stall() }, func(_ *testing.T, r *testenv.Redis) { r.Continue() }},
	{
		"read-only", "READONLY",
		func(_ *testing.T, r *testenv.Redis) { r.Must("REPLICAOF", "127.0.0.1", "1") },
		func(_ *testing.T, r *testenv.Redis) { r.Must("REPLICAOF", "NO", "ONE") },
	},
	{
		"out of memory", "OOM",
		func(_ *testing.T, r *testenv.Redis) { r.Must("CONFIG", "SET", "maxmemory", "1") },
		func(_ *testing.T, r *testenv.Redis) { r.Must("CONFIG", "SET", "maxmemory", "0") },
	},
	{
		"not permitted", "",
		func(_ *testing.T, r *testenv.Redis) { r.Must("ACL", "SETUSER", "default", "-rpush", "-zadd") },
		func(_ *testing.T, r *testenv.Redis) { r.Must("ACL", "SETUSER", "default", "+@all") },
	},
	{"busy with another script", "", makeBusy, func(_ *testing.T, r *testenv.Redis) { r.Must("SCRIPT", "KILL") }},
	{
		"loading its data", "LOADING",
		func(_ *testing.T, r *testenv.Redis) {
			r.Must("DEBUG", "POPULATE", "20000")
			r.Must("SAVE")
			r.Kill()
			r.Start("--key-load-delay", "200", "--loading-process-events-interval-bytes", "1024")
		},
		func(t *testing.T, r *testenv.Redis) {
			eventually(t, 30*time.Second, "loading", func() bool { _, err := r.Do("PING"); return err == nil })
		},
	},
	{
		"without its slots", "CLUSTERDOWN",
		func(_ *testing.T, r *testenv.Redis) { r.Kill(); r.Start("--cluster-enabled", "yes") },
		func(_ *testing.T, r *testenv.Redis) { r.Kill(); r.Start() },
	},
}

func makeBusy(t *testing.T, r *testenv.Redis) {
	r.Must("CONFIG", "SET", "lua-time-limit", "5")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.Do("EVAL", "while true do end", "0") // killed
	}()
	t.Cleanup(func() { <-done })
	eventually(t, 5*time.Second, "busy", func() bool {
		_, err := r.Do("PING")
		return err != nil && strings.HasPrefix(err.Error(), "BUSY")
	})
}

// TestEveryFaultOfTheServerHasADefinedAnswerInTime is R8, R10 and R11: whatever the server does, each request
// has an answer within 100 ms, of no more than this instance's share, and the shared limit is in
// force within 2 s of the server's return. The log has one line for each change.
func TestEveryFaultOfTheServerHasADefinedAnswerInTime(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			server := testenv.NewRedis(t)
			single := func(o *driver.ClientOption) { o.ForceSingleClient = true }
			var log safeBuffer
			l := instance(t, connect(t, single, server), ratelimit.Config{PerUser: ratelimit.Rate{Limit: 40, Window: time.Minute}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			other := store(t, connect(t, single, server), valkey.Config{})
			if _, err := other.Beat(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, 5*time.Second, "the other instance is seen", func() bool { return l.Status().Instances == 2 })

			fault.cause(t, server)
			admitted, slowest := 0, time.Duration(0)
			for range 200 {
				d, took := ask(t, l, user("u"))
				if slowest = max(slowest, took); d.Allowed {
					admitted++
				}
				if d.Mode != ratelimit.Local {
					t.Fatalf("answered by %v", d.Mode)
				}
			}
			status := l.Status()
			if slowest > soon || admitted != 20 || status.Mode != ratelimit.Local || !strings.Contains(fmt.Sprint(status.Err), fault.says) {
				t.Errorf("slowest %v, %d admitted (want 20), status %+v", slowest, admitted, status)
			}

			fault.heal(t, server)
			back := eventually(t, 2*time.Second, "the shared limit", inForce(l))
			if d, _ := ask(t, l, user("v")); d.Mode != ratelimit.Shared || d.Quotas()[0].Rate.Limit != 40 {
				t.Errorf("after the return: %+v", d)
			}
			if lines := strings.Count(log.String(), "\n"); lines != 2 {
				t.Errorf("%d lines, want 2:\n%s", lines, log.String())
			}
			t.Logf("slowest answer %v, %v", slowest, status.Err)
			t.Logf("in force %v after the return", back)
		})
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestANodeThatSendsElsewhereHasADefinedAnswer(t *testing.T) {
	moved := 0
	for _, node := range testenv.NewRedisCluster(t) {
		client := connect(t, func(o *driver.ClientOption) { o.ForceSingleClient = true }, node)
		l := instance(t, client, ratelimit.Config{})
		d, took := ask(t, l, user("u"))
		if !d.Allowed || took > soon {
			t.Errorf("answer: %+v after %v", d, took)
		}
		if d.Mode == ratelimit.Local && strings.Contains(fmt.Sprint(l.Status().Err), "MOVED") {
			moved++
		}
	}
	if moved != 2 {
		t.Errorf("%d nodes sent elsewhere, want 2 of 3", moved)
	}
}

// TestAnInstanceMayStartWhileTheServerIsDown: with ForceSingleClient the driver returns a client together
// with the error, and that client connects when it can.
func TestAnInstanceMayStartWhileTheServerIsDown(t *testing.T) {
	server := testenv.NewRedis(t)
	server.Kill()
	client, err := driver.NewClient(valkey.Tuned(driver.ClientOption{InitAddress: []string{server.Addr}, ForceSingleClient: true}))
	if err == nil || client == nil {
		t.Fatalf("client = %v, %v; want both", client, err)
	}
	t.Cleanup(client.Close)
	l := instance(t, client, ratelimit.Config{Instances: 4})
	d, took := ask(t, l, user("u"))
	if !d.Allowed || d.Mode != ratelimit.Local || d.Quotas()[0].Rate.Limit != 25 || took > soon {
		t.Errorf("without the server: %+v after %v", d, took)
	}
	server.Start()
	eventually(t, 2*time.Second, "the shared limit", inForce(l))
	if d, _ := ask(t, l, user("u")); d.Mode != ratelimit.Shared {
		t.Errorf("with the server: %+v", d)
	}
}

// TestCutConnectionsAreAnsweredLocally covers resets: the server stays, its connections do not.
func TestCutConnectionsAreAnsweredLocally(t *testing.T) {
	server := testenv.NewRedis(t)
	l := instance(t, connect(t, nil, server), ratelimit.Config{PerUser: ratelimit.Rate{Limit: 1000, Window: time.Minute}})
	admitted := 0
	for range 30 {
		server.Must("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		for range 20 {
			d, took := ask(t, l, user("u"))
			if took > soon {
				t.Errorf("an answer took %v", took)
			}
			if d.Allowed {
				admitted++
			}
		}
	}
	eventually(t, 2*time.Second, "the shared limit", inForce(l))
	if admitted != 600 {
		t.Errorf("%d of 600 below the limit were admitted", admitted)
	}
}

// TestAnOutageCostsLittleAndAdmitsLittle is R9 with four instances and 64 clients: what one user gets
// in the outage, and how long requests take when the breaker is open.
func TestAnOutageCostsLittleAndAdmitsLittle(t *testing.T) {
	const limit = 100
	server := testenv.NewRedis(t)
	limiters := make([]*ratelimit.Limiter, 4)
	for i := range limiters {
		client := connect(t, nil, server)
		limiters[i] = instance(t, client, ratelimit.Config{Store: store(t, client, patient)})
	}
	for _, l := range limiters {
		eventually(t, 5*time.Second, "all instances are counted", func() bool { return l.Status().Instances == 4 })
	}
	before, _ := storm(t, limiters, 20)
	if before != limit {
		t.Errorf("%d before the outage, want %d", before, limit)
	}
	server.Kill()
	during, _ := storm(t, limiters, 20)
	again, took := storm(t, limiters, 200)
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	if during+again > limit || p99 > 50*time.Millisecond {
		t.Errorf("%d in the outage, want %d at most; p99 %v: somebody waits for the store", during+again, limit, p99)
	}
	server.Start()
	for _, l := range limiters {
		back := eventually(t, 2*time.Second, "the shared limit", inForce(l))
		t.Logf("in force after %v", back)
	}
	after, _ := storm(t, limiters, 20)
	if after != limit {
		t.Errorf("%d after a restart that lost the logs, want %d", after, limit)
	}
	t.Logf("one user: %d before, %d in the outage, %d after; p99 %v with the breaker open", before, during+again, after, p99)
}

// storm lets 64 clients of one user ask n times each, over all instances.
func storm(t *testing.T, limiters []*ratelimit.Limiter, n int) (admitted int, took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	for g := range 64 {
		group.Go(func() {
			for range n {
				begin := time.Now()
				d, err := limiters[g%len(limiters)].Allow(t.Context(), user("u"))
				mu.Lock()
				if took = append(took, time.Since(begin)); d.Allowed {
					admitted++
				}
				mu.Unlock()
				if err != nil {
					t.Errorf("Allow: %v", err)
				}
			}
		})
	}
	group.Wait()
	return admitted, took
}

// TestAStallHoldsNoRequestUp is R10 under a crowd that is larger than the driver's queue: without a bound
// on what is under way, requests would wait there whatever their time.
func TestAStallHoldsNoRequestUp(t *testing.T) {
	server := testenv.NewRedis(t)
	s := store(t, connect(t, nil, server), valkey.Config{})
	c := []ratelimit.Charge{charge("user", "u", 100, time.Minute)}
	var group sync.WaitGroup
	for range 64 { // the driver queues once requests meet
		group.Go(func() { _, _ = s.Take(t.Context(), c) })
	}
	group.Wait()
	server.Stall()
	var slowest atomic.Int64
	for range 1500 {
		group.Go(func() {
			begin := time.Now()
			if _, err := s.Take(t.Context(), c); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Take = %v, want its time to run out", err)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
		})
	}
	group.Wait()
	if got := time.Duration(slowest.Load()); got > time.Second {
		t.Errorf("the last of 1500 was answered after %v", got)
	}
	t.Logf("all of 1500 were answered within %v", time.Duration(slowest.Load()))
	server.Continue()
	eventually(t, 5*time.Second, "answers", func() bool { _, err := s.Take(t.Context(), c); return err == nil })
}

// TestHeadersOverTheSharedStore is R12 and R13: the fields are structured, r falls by one, t stays in
// the window, and who waits as long as Retry-After says is admitted.
func TestHeadersOverTheSharedStore(t *testing.T) {
	server := testenv.NewRedis(t)
	l := instance(t, connect(t, nil, server), ratelimit.Config{PerUser: ratelimit.Rate{Limit: 3, Window: 2 * time.Second}})
	var refused http.Header
	for i := range 4 {
		w := httptest.NewRecorder()
		l.Admit(w, httptest.NewRequest("GET", "/", nil), user("u"))
		h := w.Result().Header
		list, err := httpsfv.UnmarshalList(h.Values("RateLimit"))
		if err != nil || len(list) != 1 {
			t.Fatalf("RateLimit = %q: %v", h.Values("RateLimit"), err)
		}
		params := list[0].(httpsfv.Item).Params
		left, _ := params.Get("r")
		reset, _ := params.Get("t")
		if left != int64(max(0, 2-i)) || reset.(int64) < 1 || reset.(int64) > 2 || (w.Code == http.StatusTooManyRequests) != (i == 3) {
			t.Errorf("request %d: %d, r=%v t=%v", i, w.Code, left, reset)
		}
		refused = h
	}
	wait, err := strconv.Atoi(refused.Get("Retry-After"))
	if err != nil || wait < 1 || wait > 2 {
		t.Fatalf("Retry-After = %q", refused.Get("Retry-After"))
	}
	<-time.After(time.Duration(wait) * time.Second)
	if d, _ := ask(t, l, user("u")); !d.Allowed || d.Mode != ratelimit.Shared {
		t.Errorf("who waited %d s is refused: %+v", wait, d)
	}
}
