//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// audience is 500 users who send 50 requests a second to all doors of a fleet, four reads to a write.
type audience struct {
	fleet *fleet
	users []http.Header

	mu     sync.Mutex
	visits []visit
}

type visit struct {
	at      time.Time
	read    bool
	status  int // 0 without an answer
	took    time.Duration
	version string
}

func newAudience(f *fleet) *audience {
	a := &audience{fleet: f, users: make([]http.Header, 500)}
	for i := range a.users {
		a.users[i] = f.token(fmt.Sprintf("user_%d", i))
	}
	return a
}

// run sends until ctx ends.
func (a *audience) run(ctx context.Context) {
	every(ctx, time.Second/50, func(i int) { a.visit(a.fleet.doors[i%len(a.fleet.doors)]) })
}

// every calls f on time until ctx ends, whatever the calls take, and returns when all have.
func every(ctx context.Context, pause time.Duration, f func(i int)) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var open sync.WaitGroup
	defer open.Wait()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			open.Go(func() { f(i) })
		case <-ctx.Done():
			return
		}
	}
}

func (a *audience) visit(d *door) {
	v := visit{at: time.Now(), read: rand.IntN(5) > 0}
	method := http.MethodPost
	if v.read {
		method = http.MethodGet
	}
	if res, _ := d.try(method, "/work", a.users[rand.IntN(len(a.users))], nil); res != nil {
		v.status, v.version = res.StatusCode, res.Header.Get("Gantry-Version")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.visits = append(a.visits, v)
}

// harm is what the users saw.
type harm struct {
	requests, reads, writes int           // reads and writes failed
	lasted                  time.Duration // from the first failure to the last
}

func (a *audience) harm() (h harm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var first, last time.Time
	for _, v := range a.visits {
		h.requests++
		if v.status > 0 && v.status < 500 {
			continue
		}
		if v.read {
			h.reads++
		} else {
			h.writes++
		}
		if first.IsZero() || v.at.Before(first) {
			first = v.at
		}
		if v.at.After(last) {
			last = v.at
		}
	}
	h.lasted = last.Sub(first)
	return h
}

// versions says how many answers were of each version, of those sent since.
func (a *audience) versions(since time.Time) map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := make(map[string]int)
	for _, v := range a.visits {
		if v.at.After(since) {
			n[v.version]++
		}
	}
	return n
}

// scenario is a release and how its launch must end.
type scenario struct {
	name    string
	release flaws
	plan    []string
	// during is what happens once the candidate has traffic.
	during func(*launchTest)
	ends   string // the phase
}

type launchTest struct {
	*fleet
	audience  *audience
	candidate *process
	backing   *backing
}

// rollout runs a rollout command against the first door.
func (f *fleet) rollout(args ...string) (string, int) {
	return f.doors[0].command(append([]string{"rollout", args[0], "--admin", f.doors[0].admin}, args[1:]...)...)
}

// launch is what `gantry rollout status --json` says.
type launch struct {
	Launch struct {
		Phase  string `json:"phase"`
		Reason string `json:"reason"`
		Weight int    `json:"weight"`
	} `json:"launch"`
}

func (f *fleet) status() (l launch) {
	f.t.Helper()
	text, _ := f.rollout("status", "--json")
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		f.t.Fatalf("status: %v: %s", err, text)
	}
	return l
}

func (l *launchTest) until(limit time.Duration, phases ...string) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if slices.Contains(phases, l.status().Launch.Phase) {
			return true
		}
	}
	return false
}

// quick is a plan that a test has time for: its limit needs 59 clean requests to be proven.
var quick = []string{"--steps", "20,50,100", "--hold", "2s", "--watch", "8s", "--max-errors", "5%"}

func TestLaunchesEndAsTheyShould(t *testing.T) {
	t.Parallel()
	parent := t
	stable := startProcess(t, flaws{})
	f := startFleet(t, 4, "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000", "UPSTREAM_URL="+stable.url, "UPSTREAM_HEALTH_PATH=/healthy")
	for _, sc := range []scenario{
		{name: "good release", ends: "completed"},
		{name: "refuses connections", during: func(l *launchTest) { l.candidate.kill() }, ends: "rolled-back"},
		{name: "5 % errors", release: flaws{Errors: 0.05}, plan: []string{"--max-errors", "0.1%"}, ends: "rolled-back"},
	} {
		t.Run(sc.name, func(t *testing.T) {
			sc.plan = append(quick[:len(quick):len(quick)], sc.plan...)
			h := sc.run(t, &launchTest{fleet: f, candidate: startProcess(parent, sc.release)}) // it may be stable for the next
			t.Logf("%d requests, failed for users: %d reads, %d writes, over %v", h.requests, h.reads, h.writes, h.lasted.Round(100*time.Millisecond))
			if sc.name == "refuses connections" && h.reads > 0 {
				t.Errorf("%d reads failed, want none: they are shielded", h.reads)
			}
		})
	}
}

// run is one launch under traffic from begin to end.
func (sc scenario) run(t *testing.T, l *launchTest) harm {
	t.Helper()
	l.audience = newAudience(l.fleet)
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() { l.audience.run(ctx) })
	defer sending.Wait()
	defer stop()
	if text, code := l.rollout(append([]string{"start", "--to", l.candidate.url}, sc.plan...)...); code != 0 {
		t.Fatalf("start: exit %d: %s", code, text)
	}
	if sc.during != nil {
		l.within(20*time.Second, "traffic on the candidate", func() bool { return l.audience.versions(time.Time{})["candidate"] > 0 })
		sc.during(l)
	}
	if !l.until(10*time.Minute, "completed", "rolled-back") || l.status().Launch.Phase != sc.ends {
		why, _ := l.rollout("why")
		t.Errorf("launch is %+v, want %s\n%s", l.status().Launch, sc.ends, why)
	}
	stop()
	sending.Wait()
	return l.audience.harm()
}
