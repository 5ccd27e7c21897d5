//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/rollout"
	instances "github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/users/sqlite"
)

// release is an upstream that can be told to fail.
type release struct {
	*httptest.Server
	failing atomic.Bool
}

func newRelease(t *testing.T) *release {
	v := new(release)
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v.failing.Load() && r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(v.Close)
	return v
}

// launchSite is doors that share a database, in front of two versions.
type launchSite struct {
	t                 *testing.T
	stable, candidate *release
	doors             []*door
	env               []string
}

func newLaunchSite(t *testing.T, n int, env ...string) *launchSite {
	t.Helper()
	s := &launchSite{t: t, stable: newRelease(t), candidate: newRelease(t)}
	s.env = append([]string{
		"UPSTREAM_URL=" + s.stable.URL, "UPSTREAM_HEALTH_PATH=/healthz", "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000", "DRAIN_DELAY=0s",
	}, env...)
	for range n {
		// Ports that a door keeps over a restart.
		ports := []string{"LISTEN=" + testenv.FreeAddress(t), "ADMIN_LISTEN=" + testenv.FreeAddress(t)}
		s.doors = append(s.doors, start(t, append(ports, s.env...)...))
	}
	return s
}

// ask is a GET on a door's admin port.
func ask(t *testing.T, d *door, path string, into any) error {
	t.Helper()
	res, err := d.client.Get(d.admin + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s %s", path, res.Status, text)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

func (s *launchSite) status(d *door) (st instances.Status) {
	s.t.Helper()
	if err := ask(s.t, d, "/api/rollout", &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *launchSite) rollout(d *door, args ...string) string {
	s.t.Helper()
	text, code := d.command(append([]string{"rollout", args[0], "--admin", d.admin}, args[1:]...)...)
	if code != 0 {
		s.t.Fatalf("gantry rollout %s: exit %d: %s", strings.Join(args, " "), code, text)
	}
	return text
}

// start begins a launch that takes fourteen clean requests a step.
func (s *launchSite) start(d *door, flags ...string) {
	s.t.Helper()
	s.rollout(d, append([]string{"start", "--to", s.candidate.URL, "--max-errors", "20%", "--max-slow", "20%@5s"}, flags...)...)
}

// at waits until every door that runs has the weight in force, by its own traffic, and says how long it took.
func (s *launchSite) at(want rollout.BasisPoints, doors ...*door) time.Duration {
	s.t.Helper()
	began := time.Now()
	for _, d := range doors {
		d.until(func() bool {
			_, series := d.metrics()
			share, known := series[`gantry_rollout_weight_ratio{version="candidate"}`]
			return known && share == float64(want)/float64(rollout.All)
		})
	}
	return time.Since(began)
}

// traffic sends requests of a hundred users over the doors until the returned func is called.
func (s *launchSite) traffic(every time.Duration) (stop func()) {
	var all sync.WaitGroup
	end := make(chan struct{})
	tokens := make([]http.Header, 100)
	for i := range tokens {
		tokens[i] = s.doors[0].token(fmt.Sprint("user_", i))
	}
	for n, d := range s.doors {
		client, url := &http.Client{Timeout: 10 * time.Second}, d.url
		all.Go(func() {
			defer client.CloseIdleConnections()
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i := n; ; i++ {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				req, err := http.NewRequest("GET", url+"/anything", nil)
				if err != nil {
					s.t.Error(err)
					return
				}
				req.Header = tokens[i%len(tokens)]
				if res, err := client.Do(req); err == nil { // a door may be dead
					res.Body.Close()
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(end)
		all.Wait()
	})
}

// journal reads the whole journal of the launch and replays it.
func (s *launchSite) journal(d *door) []rollout.Record {
	s.t.Helper()
	var part struct{ Records []rollout.Record }
	if err := ask(s.t, d, "/api/rollout/journal", &part); err != nil {
		s.t.Fatal(err)
	}
	if _, err := rollout.Replay(part.Records); err != nil {
		s.t.Errorf("the journal cannot be replayed: %v", err)
	}
	return part.Records
}

// judge is the door that judges.
func (s *launchSite) judge(among ...*door) *door {
	s.t.Helper()
	var found *door
	among[0].until(func() bool {
		name := s.status(among[0]).Judge
		i := slices.IndexFunc(among, func(d *door) bool { return strings.HasSuffix(name, fmt.Sprint("/", d.cmd.Process.Pid)) })
		if i >= 0 {
			found = among[i]
		}
		return i >= 0
	})
	return found
}

// Requirement 4 of a launch: whatever is killed at whatever step, no weight is wrong and no decision lost.
func TestALaunchSurvivesTheDeathOfEachOfItsParts(t *testing.T) {
	t.Parallel()
	p := testenv.NewPostgres(t, "max_connections=200", "fsync=on")
	s := newLaunchSite(t, 3, "DATABASE_URL="+p.URL(p.NewDatabase()), "DB_POOL_MAX=4")
	one := s.doors[0]
	stop := s.traffic(20 * time.Millisecond)
	defer stop()
	s.start(one, "--hold", "1h")
	if took := s.at(1000, s.doors...); took > 2*time.Second {
		t.Errorf("10 %% was in force everywhere after %v, want 2 s at most", took)
	}

	judge := s.judge(s.doors...)
	judge.stop()
	rest := slices.DeleteFunc(slices.Clone(s.doors), func(d *door) bool { return d == judge })
	heir := s.judge(rest...)
	t.Logf("the judge of 10 %% was killed, door %d took over", slices.Index(s.doors, heir))
	judge.run()
	s.at(1000, s.doors...)

	for _, weight := range []rollout.BasisPoints{5000, rollout.All} {
		s.rollout(rest[0], "promote", "--by", "test")
		if took := s.at(weight, s.doors...); took > 2*time.Second {
			t.Errorf("%v was in force everywhere after %v, want 2 s at most", weight, took)
		}
		p.Kill()
		rest[0].until(func() bool { return s.status(rest[0]).Frozen })
		s.at(weight, s.doors...)
		rest[1].stop() // and an instance, which cannot start without its database
		p.Start()
		rest[1].run()
		s.at(weight, s.doors...)
		rest[0].until(func() bool { st := s.status(rest[0]); return !st.Frozen && st.Fault == "" })
	}

	s.candidate.failing.Store(true)
	began := time.Now()
	s.at(0, s.doors...)
	t.Logf("a candidate that fails at 100 %% was left by all after %v", time.Since(began))
	one.until(func() bool { return s.status(one).Launch.Phase == rollout.RolledBack }) // each has left before that was written
	t.Logf("and that was recorded after %v", time.Since(began))
	stop()
	var decided []rollout.Action
	for _, r := range s.journal(one) {
		if r.Action != rollout.ActLook {
			decided = append(decided, r.Action)
		}
	}
	if want := []rollout.Action{rollout.ActStart, rollout.ActPromote, rollout.ActPromote, rollout.ActRollBack}; !slices.Equal(decided, want) {
		t.Errorf("decided %v, want %v", decided, want)
	}
	if text, code := one.command("rollout", "status", "--admin", one.admin); code != 1 || !strings.Contains(text, "rolled-back") {
		t.Errorf("gantry rollout status = %d, %s; want 1 and rolled-back", code, text)
	}
}

// What was acknowledged is in the journal, and the journal can be read, whenever the process is killed.
func TestAKilledDoorLosesNoAcknowledgedDecision(t *testing.T) {
	t.Parallel()
	s := newLaunchSite(t, 1)
	d := s.doors[0]
	s.start(d, "--hold", "1h")
	acknowledged := make(map[string]bool)
	for round := range 6 {
		over := make(chan struct{})
		var mu sync.Mutex
		go func() {
			defer close(over)
			for i := 0; ; i++ {
				reason := fmt.Sprintf("round %d order %d", round, i)
				body, verb := fmt.Sprintf(`{"reason":%q}`, reason), []string{"pause", "resume"}[i%2]
				res, err := d.client.Post(d.admin+"/api/rollout/"+verb, "application/json", strings.NewReader(body))
				if err != nil {
					return
				}
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					mu.Lock()
					acknowledged[reason] = true
					mu.Unlock()
				}
			}
		}()
		d.until(func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) > 20*(round+1)
		})
		d.stop()
		<-over
		d.run()
		if st := s.status(d); st.Corrupt || st.Launch.Weight != 1000 {
			t.Fatalf("round %d: corrupt %v, weight %v: %s", round, st.Corrupt, st.Launch.Weight, st.Fault)
		}
	}
	written := make(map[string]bool)
	for _, r := range s.journal(d) {
		written[r.Reason] = true
	}
	for reason := range acknowledged {
		if !written[reason] {
			t.Errorf("%s was acknowledged and is not in the journal", reason)
		}
	}
}

func TestABadPlanIsRefusedBeforeOneRequestMoves(t *testing.T) {
	t.Parallel()
	s := newLaunchSite(t, 1)
	d := s.doors[0]
	gone := newRelease(t)
	gone.Close()
	ill := newRelease(t)
	ill.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	behind := newRelease(t)
	behind.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"pass","pending_migrations":2}`)
	})
	good := []string{"--to", s.candidate.URL}
	for _, c := range []struct {
		says string
		args []string
	}{
		{"is not above", append(good, "--steps", "50,10,100")},
		{"must be 100 %", append(good, "--steps", "10,50")},
		{"must be above 0", append(good, "--max-errors", "0")},
		{"is no time", append(good, "--hold", "soon")},
		{"is not pause", append(good, "--on-inconclusive", "hope")},
		{"is the stable version", []string{"--to", s.stable.URL}},
		{"is the stable version", []string{"--to", s.stable.URL + "/"}},
		{"is this door itself", []string{"--to", d.url}},
		{"does not answer", []string{"--to", gone.URL}},
		{"status 503", []string{"--to", ill.URL}},
		{"its scheme differs", []string{"--to", strings.Replace(s.candidate.URL, "http:", "https:", 1)}},
		{"is no address", []string{"--to", "ftp://127.0.0.1"}},
		{`("pending_migrations"): applied once`, []string{"--to", behind.URL}},
		{"only a scheme, a host and a port", []string{"--to", s.candidate.URL + "/v2"}},
	} {
		text, code := d.command(append([]string{"rollout", "start", "--admin", d.admin}, c.args...)...)
		if code != 1 || !strings.Contains(text, c.says) {
			t.Errorf("start %v = exit %d, %s; want 1 and %q", c.args, code, text, c.says)
		}
	}
	if text := s.rollout(d, "history"); !strings.Contains(text, "no launch yet") {
		t.Errorf("after refusals the history is %s", text)
	}
	text := s.rollout(d, "start", "--to", s.candidate.URL)
	for _, want := range []string{"NOT undone", "there was no traffic of late", "10 % of the callers"} {
		if !strings.Contains(text, want) {
			t.Errorf("start says %s; want %q in it", text, want)
		}
	}
	if text, code := d.command("rollout", "start", "--admin", d.admin, "--to", s.candidate.URL); code != 1 || !strings.Contains(text, "under way") {
		t.Errorf("a second start = exit %d, %s", code, text)
	}
	s.rollout(d, "abort", "--reason", "enough")
	if text := s.rollout(d, "why"); !strings.Contains(text, "enough") || strings.Count(text, "\n") != 2 {
		t.Errorf("why = %s", text)
	}
	s.rollout(d, "start", "--to", behind.URL, "--migrations-compatible", "--reason", "v2")
	if text := s.rollout(d, "why"); !strings.Contains(text, "v2; pending migrations taken as compatible") {
		t.Errorf("why = %s", text)
	}
}

func TestAnUnreadableJournalIsToldLoudlyAndPutAside(t *testing.T) {
	t.Parallel()
	s := newLaunchSite(t, 1)
	d := s.doors[0]
	s.start(d, "--hold", "1h")
	s.rollout(d, "promote")
	d.stop()
	damage(t, filepath.Join(d.dir, "var", "gantry.db"))
	d.run()
	s.at(0, d)
	if _, text := d.do("GET", "/health", nil, nil); !strings.Contains(text, `"rollout:journal":[{"status":"warn"`) {
		t.Errorf("/health = %s, want a warning", text)
	}
	if !strings.Contains(d.log.String(), "everyone is on stable") {
		t.Error("the log does not say so")
	}
	if text, code := d.command("rollout", "status", "--admin", d.admin); code != 1 || !strings.Contains(text, "WARNING") {
		t.Errorf("status = exit %d, %s", code, text)
	}
	s.rollout(d, "abort")
	if st := s.status(d); st.Corrupt || st.Fault != "" {
		t.Errorf("after the abort: corrupt %v, %s", st.Corrupt, st.Fault)
	}
	s.start(d)
	s.at(1000, d)
}

// damage changes one character of a line in the file of a door that does not run.
func damage(t *testing.T, path string) {
	t.Helper()
	file, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write, _ := file.Pools()
	if _, err := write.Exec("UPDATE rollout_journal SET line = replace(line, '\"weight\":5000', '\"weight\":9000') WHERE revision = 2"); err != nil {
		t.Fatal(err)
	}
}

// A door whose clock is an hour ahead writes the database's time, and its judgement is worth as much.
func TestALaunchKnowsTheStoresTimeOnly(t *testing.T) {
	t.Parallel()
	path, err := skewed()
	if err != nil {
		t.Fatal(err)
	}
	p := testenv.NewPostgres(t)
	s := newLaunchSite(t, 0, "DATABASE_URL="+p.URL(p.NewDatabase()))
	ahead := newDoor(t, s.env...)
	ahead.shareKey()
	ahead.wrap = []string{"sh", "-c", `shift; exec "$0" "$@"`, path}
	ahead.run()
	began := time.Now()
	s.start(ahead, "--hold", "2s", "--watch", "1h")
	s.judge(ahead)
	s.doors = []*door{start(t, s.env...)}
	stop := s.traffic(10 * time.Millisecond)
	defer stop()
	s.at(rollout.All, ahead, s.doors[0])
	stop()
	for _, r := range s.journal(ahead) {
		if off := r.At.Sub(began); off < -time.Second || off > time.Minute {
			t.Errorf("revision %d is of %v, %v after the start", r.Revision, r.At, off)
		}
	}
}
