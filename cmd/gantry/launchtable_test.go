//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// backing is what both versions need and a test can take away: a port that accepts.
type backing struct {
	addr string
	port net.Listener
}

func newBacking(t *testing.T) *backing {
	b := &backing{addr: "127.0.0.1:0"}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// start listens where it did before.
func (b *backing) start() {
	port, err := net.Listen("tcp", b.addr)
	if err != nil {
		panic(err)
	}
	b.port, b.addr = port, port.Addr().String()
	go func() {
		for {
			conn, err := port.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
}

func (b *backing) stop() { _ = b.port.Close() }

// outage takes the database away for a time.
func (b *backing) outage(d time.Duration) {
	b.stop()
	time.Sleep(d)
	b.start()
}

// tablePlan goes through the document's steps in minutes: a limit of 1 % is proven by 299 clean requests.
var tablePlan = struct {
	weights     []float64
	hold, watch time.Duration
	errors      float64
	slow        time.Duration
}{[]float64{0.1, 0.5, 1}, 30 * time.Second, time.Minute, 0.01, 500 * time.Millisecond}

func tableScenarios() []scenario {
	return []scenario{
		{name: "good", ends: "completed"},
		{name: "5 % errors", release: flaws{Errors: 0.05}, ends: "rolled-back"},
		{name: "20 % slow answers", release: flaws{Slow: 0.2}, ends: "rolled-back"},
		{name: "leaks memory and dies", release: flaws{Dies: 200}, ends: "rolled-back"},
		{name: "refuses connections", during: func(l *launchTest) { l.candidate.kill() }, ends: "rolled-back"},
		{name: "fails for one user", release: flaws{User: "user_7"}, ends: "completed"},
		{name: "fails 30 s after 100 %", release: flaws{Errors: 0.5, Later: true}, ends: "rolled-back", during: func(l *launchTest) {
			l.until(10*time.Minute, "watching")
			time.Sleep(tablePlan.watch / 2)
			l.candidate.fallIll()
		}},
		{name: "database away for 20 s, both fail", ends: "completed", during: func(l *launchTest) { l.backing.outage(20 * time.Second) }},
	}
}

// TestTableOfLaunches prints the table of docs/launch.md when GANTRY_LAUNCH_TABLE is set; it takes some ten minutes:
//
//	GANTRY_LAUNCH_TABLE=1 go test ./cmd/gantry -run TestTableOfLaunches -timeout 30m -v
func TestTableOfLaunches(t *testing.T) {
	if os.Getenv("GANTRY_LAUNCH_TABLE") == "" {
		t.Skip("only when GANTRY_LAUNCH_TABLE is set: it takes some ten minutes")
	}
	list := tableScenarios()
	rows := make([]string, len(list))
	t.Run("all", func(t *testing.T) {
		for i, sc := range list {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				door, rule := sc.behindTheDoor(t), sc.underAPlainRule(t)
				rows[i] = fmt.Sprintf("| %s | %s | %s |", sc.name, door, rule)
			})
		}
	})
	fmt.Println("| release | Gantry: ends, failed reads and writes, from the first to the last | error rate or p95 of the last minute, looked at every 10 s |\n|---|---|---|\n" + strings.Join(rows, "\n"))
}

func (sc scenario) behindTheDoor(t *testing.T) string {
	l := &launchTest{backing: newBacking(t)}
	stable := startProcess(t, flaws{Database: l.backing.addr})
	sc.release.Database = l.backing.addr
	l.candidate = startProcess(t, sc.release)
	l.fleet = startFleet(t, 4, "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000", "UPSTREAM_URL="+stable.url, "UPSTREAM_HEALTH_PATH=/healthy")
	sc.plan = []string{"--steps", "10,50,100", "--hold", tablePlan.hold.String(), "--watch", tablePlan.watch.String(), "--max-errors", "1%"}
	h := sc.run(t, l)
	return h.describe(sc.ends)
}

func (h harm) describe(ends string) string {
	return fmt.Sprintf("%s; %d, %d; %v", ends, h.reads, h.writes, h.lasted.Round(100*time.Millisecond))
}

// plainRule is what a balancer with weights and a threshold does: it picks a version for each request by chance, looks at the
// candidate's last minute every ten seconds, and goes on when the time of the step is over.
type plainRule struct {
	audience *audience
	urls     map[string]string // by version

	mu     sync.Mutex
	weight float64
	ended  string
}

func (sc scenario) underAPlainRule(t *testing.T) string {
	l := &launchTest{backing: newBacking(t), fleet: &fleet{t: t}}
	sc.release.Database = l.backing.addr
	l.candidate = startProcess(t, sc.release)
	stable := startProcess(t, flaws{Database: l.backing.addr})
	rule := &plainRule{audience: new(audience), urls: map[string]string{"stable": stable.url, "candidate": l.candidate.url}}
	l.audience = rule.audience
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sending sync.WaitGroup
	sending.Go(func() { every(ctx, time.Second/50, func(int) { rule.visit() }) })
	if sc.during != nil {
		go rule.befall(sc, l)
	}
	rule.judge(ctx)
	for range int(tablePlan.watch / time.Second) { // what comes after is the users' as well
		time.Sleep(time.Second)
	}
	stop()
	sending.Wait()
	return rule.audience.harm().describe(rule.ended)
}

// befall does to the candidate what befalls it behind the door; 100 % is reached by time alone here.
func (p *plainRule) befall(sc scenario, l *launchTest) {
	for p.audience.versions(time.Time{})["candidate"] == 0 {
		time.Sleep(100 * time.Millisecond)
	}
	if !sc.release.Later {
		sc.during(l)
		return
	}
	time.Sleep(2*tablePlan.hold + tablePlan.watch/2)
	l.candidate.fallIll()
}

func (p *plainRule) visit() {
	p.mu.Lock()
	v := visit{at: time.Now(), read: rand.IntN(5) > 0, version: "stable"}
	if rand.Float64() < p.weight {
		v.version = "candidate"
	}
	p.mu.Unlock()
	method := http.MethodPost
	if v.read {
		method = http.MethodGet
	}
	req, _ := http.NewRequest(method, p.urls[v.version]+"/work", nil)
	req.Header.Set("X-User-Id", fmt.Sprintf("user_%d", rand.IntN(500)))
	if res, err := http.DefaultClient.Do(req); err == nil {
		v.status = res.StatusCode
		res.Body.Close()
	}
	v.took = time.Since(v.at)
	p.audience.mu.Lock()
	defer p.audience.mu.Unlock()
	p.audience.visits = append(p.audience.visits, v)
}

func (p *plainRule) judge(ctx context.Context) {
	for _, w := range tablePlan.weights {
		p.set(w, "completed")
		for range tablePlan.hold / (10 * time.Second) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Second):
			}
			if p.isOver() {
				p.set(0, "rolled-back")
				return
			}
		}
	}
}

func (p *plainRule) set(weight float64, ended string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weight, p.ended = weight, ended
}

// isOver says whether the candidate's last minute is over one of the limits.
func (p *plainRule) isOver() bool {
	p.audience.mu.Lock()
	defer p.audience.mu.Unlock()
	var took []time.Duration
	failed := 0
	for _, v := range p.audience.visits {
		if v.version == "candidate" && time.Since(v.at) < time.Minute {
			took = append(took, v.took)
			if v.status == 0 || v.status >= 500 {
				failed++
			}
		}
	}
	if len(took) == 0 {
		return false
	}
	slices.Sort(took)
	return float64(failed)/float64(len(took)) > tablePlan.errors || took[len(took)*95/100] > tablePlan.slow
}
