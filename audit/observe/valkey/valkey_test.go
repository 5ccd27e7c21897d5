package valkey_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"
	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/valkey"
	"github.com/gantryhq/gantry/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) *valkey.Observer {
	t.Helper()
	o, err := valkey.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return o
}

func connect(t *testing.T, server *testenv.Redis) valkeygo.Client {
	t.Helper()
	client, err := newClient(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func newClient(server *testenv.Redis) (valkeygo.Client, error) {
	return valkeygo.NewClient(valkeygo.ClientOption{
		InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1,
	})
}

// serve is a real server in front of handle, whose error becomes a 500.
func serve(t *testing.T, handle func(ctx context.Context) error) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handle(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s.URL
}

func get(t *testing.T, url string, n int) {
	t.Helper()
	for range n {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %d, %v", url, resp.StatusCode, err)
		}
	}
}

func begin(t *testing.T, o *valkey.Observer) *valkey.Window {
	t.Helper()
	w, err := o.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// during is what a window observed in which n requests were sent.
func during(t *testing.T, o *valkey.Observer, url string, n int) valkey.Observation {
	t.Helper()
	w := begin(t, o)
	get(t, url, n)
	obs, err := w.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", obs)
	return obs
}

func wantOutcome(t *testing.T, got observe.Verdict, want observe.Outcome) {
	t.Helper()
	t.Logf("%+v", got)
	if got.Outcome != want {
		t.Errorf("outcome = %v, want %v: %s", got.Outcome, want, got.Reason)
	}
	if got.Reason == "" || (got.Outcome != observe.Pass) != (got.Fix != "") {
		t.Errorf("a verdict of %v with reason %q and fix %q", got.Outcome, got.Reason, got.Fix)
	}
}

func TestRepeatedReadsThatAreNotFoundAreNotCached(t *testing.T) {
	server := testenv.NewRedis(t)
	client := connect(t, server)
	look := func(key func() string) string {
		return serve(t, func(ctx context.Context) error {
			k := key()
			err := client.Do(ctx, client.B().Get().Key(k).Build()).Error()
			if valkeygo.IsValkeyNil(err) {
				err = client.Do(ctx, client.B().Set().Key(k).Value("v").ExSeconds(60).Build()).Error()
			}
			return err
		})
	}
	n := 0
	never := look(func() string { n++; return fmt.Sprint("now:", n) })
	always := look(func() string { return "orders" })
	nowhere := serve(t, func(context.Context) error { return nil })
	o := open(t, "redis://"+server.Addr)

	obs := during(t, o, never, 20)
	wantOutcome(t, valkey.HitRatioVerdict(obs, 20), observe.Fail)
	if obs.Commands != 40 || obs.KeyspaceMisses != 20 || obs.HitRatio != 0 || obs.UsedMemory <= 0 {
		t.Errorf("observed %+v, want 40 commands and 20 misses", obs)
	}
	get(t, always, 1)
	obs = during(t, o, always, 20)
	wantOutcome(t, valkey.HitRatioVerdict(obs, 20), observe.Pass)
	if obs.Commands != 20 || len(obs.ByName) != 1 || obs.ByName[0].Name != "get" || obs.ByName[0].Calls != 20 ||
		obs.KeyspaceHits != 20 || obs.HitRatio != 1 || obs.Connections != 0 {
		t.Errorf("observed %+v, want 20 GETs that hit, and nothing of ours", obs)
	}
	obs = during(t, o, nowhere, 20)
	wantOutcome(t, valkey.HitRatioVerdict(obs, 20), observe.Unknown)
	wantOutcome(t, valkey.CommandsVerdict(obs, 20), observe.Unknown)
	wantOutcome(t, valkey.PoolVerdict(obs, 20), observe.Unknown)
}

func TestEvictionsAreCounted(t *testing.T) {
	server := testenv.NewRedis(t, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
	client := connect(t, server)
	value := strings.Repeat("v", 200<<10)
	n := 0
	url := serve(t, func(ctx context.Context) error {
		n++
		return client.Do(ctx, client.B().Set().Key(fmt.Sprint(n)).Value(value).Build()).Error()
	})
	if obs := during(t, open(t, "redis://"+server.Addr), url, 20); obs.Evicted == 0 {
		t.Errorf("observed %+v, want evictions", obs)
	}
}

func TestManyRoundTripsForOneRequestFailAndOnePipelineDoesNot(t *testing.T) {
	server := testenv.NewRedis(t)
	client := connect(t, server)
	const keys = 50
	loop := serve(t, func(ctx context.Context) error {
		for i := range keys {
			if err := client.Do(ctx, client.B().Exists().Key(fmt.Sprint(i)).Build()).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	pipeline := serve(t, func(ctx context.Context) error {
		var all valkeygo.Commands
		for i := range keys {
			all = append(all, client.B().Exists().Key(fmt.Sprint(i)).Build())
		}
		for _, r := range client.DoMulti(ctx, all...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		return nil
	})
	script := valkeygo.NewLuaScript(`for i = 1, 50 do redis.call("EXISTS", KEYS[1]) end return 1`)
	scripted := serve(t, func(ctx context.Context) error { return script.Exec(ctx, client, []string{"a"}, nil).Error() })
	list := serve(t, func(ctx context.Context) error {
		return client.Do(ctx, client.B().Keys().Pattern("*").Build()).Error()
	})
	o := open(t, "redis://"+server.Addr)
	obs := during(t, o, loop, 10)
	v := valkey.CommandsVerdict(obs, 10)
	wantOutcome(t, v, observe.Fail)
	if obs.Commands != 500 || len(v.Evidence) != 1 || v.Evidence[0] != "exists: 50 a request" {
		t.Errorf("%d commands, evidence %q; want 500, 50 a request", obs.Commands, v.Evidence)
	}
	wantOutcome(t, valkey.CommandsVerdict(during(t, o, pipeline, 10), 10), observe.Pass)
	wantOutcome(t, valkey.CommandsVerdict(during(t, o, scripted, 10), 10), observe.Pass)
	wantOutcome(t, valkey.CommandsVerdict(during(t, o, list, 10), 10), observe.Fail)
}

func TestAConnectionForEveryRequestIsFound(t *testing.T) {
	server := testenv.NewRedis(t)
	ping := func(ctx context.Context, c valkeygo.Client) error { return c.Do(ctx, c.B().Ping().Build()).Error() }
	var kept []valkeygo.Client
	own := func(end func(valkeygo.Client)) string {
		return serve(t, func(ctx context.Context) error {
			client, err := newClient(server)
			if err != nil {
				return err
			}
			defer end(client)
			return ping(ctx, client)
		})
	}
	client := connect(t, server)
	shared := serve(t, func(ctx context.Context) error { return ping(ctx, client) })
	o := open(t, "redis://"+server.Addr)
	obs := during(t, o, own(valkeygo.Client.Close), 10)
	wantOutcome(t, valkey.PoolVerdict(obs, 10), observe.Fail)
	if obs.Connections != 10 {
		t.Errorf("%d connections, want 10", obs.Connections)
	}
	wantOutcome(t, valkey.PoolVerdict(during(t, o, shared, 10), 10), observe.Pass)
	wantOutcome(t, valkey.PoolVerdict(during(t, o, own(func(c valkeygo.Client) { kept = append(kept, c) }), 10), 10), observe.Unknown)
	for _, c := range kept {
		c.Close()
	}
}

func TestAUserThatMayNotAskIsNamed(t *testing.T) {
	server := testenv.NewRedis(t)
	server.Must("ACL", "SETUSER", "mute", "on", ">secret", "+hello", "+client", "+ping")
	o := open(t, "redis://mute:secret@"+server.Addr)
	c := o.Capabilities()
	if len(c) != 1 || c[0].Available || !strings.Contains(c[0].Fix, "+info") {
		t.Errorf("capabilities = %+v, want INFO to be missing", c)
	}
	if _, err := o.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "+info") {
		t.Errorf("Begin = %v, want what is missing", err)
	}
	server.Must("ACL", "SETUSER", "mute", "+info")
	if c := open(t, "redis://mute:secret@"+server.Addr).Capabilities(); !c[0].Available {
		t.Errorf("capabilities = %+v, want all", c)
	}
}

func TestThePasswordIsInNoError(t *testing.T) {
	server := testenv.NewRedis(t)
	const password = "hunter2secret"
	for _, url := range []string{
		"redis://nobody:" + password + "@" + server.Addr, "redis://:" + password + "@127.0.0.1:1", "redis://:#" + password + "@" + server.Addr,
		"redis://:%" + password + "@" + server.Addr, "redis://a:" + password + "/x@" + server.Addr, password,
	} {
		_, err := valkey.Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), password) || !strings.HasPrefix(err.Error(), "observe valkey: ") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestTLSIsSpoken(t *testing.T) {
	server := testenv.NewTLSRedis(t)
	if _, err := valkey.Open(t.Context(), "rediss://"+server.Addr); err == nil {
		t.Error("an unknown certificate was accepted")
	}
	if c := open(t, "rediss://"+server.Addr+"?skip_verify=true").Capabilities(); !c[0].Available {
		t.Errorf("capabilities = %+v, want all", c)
	}
}

func TestOneWindowAtATime(t *testing.T) {
	server := testenv.NewRedis(t)
	o := open(t, "redis://"+server.Addr)
	w := begin(t, o)
	if _, err := o.Begin(t.Context()); !errors.Is(err, valkey.ErrBusy) {
		t.Errorf("a second window: %v, want ErrBusy", err)
	}
	if _, err := w.End(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.End(t.Context()); !errors.Is(err, valkey.ErrClosed) {
		t.Errorf("ended twice: %v, want ErrClosed", err)
	}
	w = begin(t, o)
	if err := o.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.End(t.Context()); !errors.Is(err, valkey.ErrClosed) {
		t.Errorf("ended after Close: %v, want ErrClosed", err)
	}
	if _, err := o.Begin(t.Context()); !errors.Is(err, valkey.ErrClosed) {
		t.Errorf("begun after Close: %v, want ErrClosed", err)
	}
}

func TestAServerThatRestartsSpoilsOneWindowOnly(t *testing.T) {
	server := testenv.NewRedis(t)
	client := connect(t, server)
	o := open(t, "redis://"+server.Addr)
	w := begin(t, o)
	server.Kill()
	server.Start()
	if obs, err := w.End(t.Context()); err == nil {
		t.Errorf("a window over a restart observed %+v", obs)
	}
	url := serve(t, func(ctx context.Context) error { return client.Do(ctx, client.B().Ping().Build()).Error() })
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := client.Do(t.Context(), client.B().Ping().Build()).Error(); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if obs := during(t, o, url, 3); obs.Commands != 3 {
		t.Errorf("%d commands after the restart, want 3", obs.Commands)
	}
	w = begin(t, o)
	server.Must("CONFIG", "RESETSTAT")
	get(t, url, 100) // more than before the reset
	if obs, err := w.End(t.Context()); err == nil {
		t.Errorf("a window over a reset observed %+v", obs)
	}
}

func TestAStalledServerDoesNotHoldTheAudit(t *testing.T) {
	server := testenv.NewRedis(t)
	w := begin(t, open(t, "redis://"+server.Addr))
	server.Stall()
	defer server.Continue()
	began := time.Now()
	if _, err := w.End(t.Context()); err == nil {
		t.Error("a stalled server was observed")
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("End took %v", took)
	}
}

func TestNothingSeenNeverPasses(t *testing.T) {
	var none valkey.Observation
	for name, verdict := range map[string]func(valkey.Observation, int) observe.Verdict{
		"hits": valkey.HitRatioVerdict, "commands": valkey.CommandsVerdict, "pool": valkey.PoolVerdict,
	} {
		t.Run(name, func(t *testing.T) {
			wantOutcome(t, verdict(none, 50), observe.Unknown)
			wantOutcome(t, verdict(valkey.Observation{Known: true, Commands: 1}, 1), observe.Unknown)
		})
	}
}
