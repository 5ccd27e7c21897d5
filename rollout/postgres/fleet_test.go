//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

// follow runs an instance until the test ends.
func follow(t *testing.T, url string, tick time.Duration) (*fleet.Fleet, *rollout.Splitter) {
	t.Helper()
	traffic := new(rollout.Splitter)
	f := fleet.New(t.Context(), open(t, url), traffic, fleet.Config{Base: "http://old", Tick: tick})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return f, traffic
}

func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("%s took more than %v", what, limit)
		}
	}
}

func share(s *rollout.Splitter) rollout.BasisPoints {
	if s.Tripped() != "" {
		return 0
	}
	return s.Launch().Weight
}

// With a pace of a minute only a NOTIFY can be so quick.
func TestADecisionIsNotPolledFor(t *testing.T) {
	p := testenv.NewPostgres(t)
	url := p.URL(p.NewDatabase())
	one, _ := follow(t, url, time.Minute)
	_, other := follow(t, url, time.Minute)
	within(t, 10*time.Second, "to listen", func() bool {
		return p.Exec("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'") == "2"
	})
	if _, err := one.Start(t.Context(), "http://new", rollout.Plan{}, "tester", ""); err != nil {
		t.Fatal(err)
	}
	within(t, 2*time.Second, "the weight on the other instance", func() bool { return share(other) == 1000 })
}

// A server that is there and does not answer is worse than one that is gone: every call waits for its time.
func TestAServerThatHangsKeepsNobodyFromLeavingABadCandidate(t *testing.T) {
	p := testenv.NewPostgres(t)
	url := p.URL(p.NewDatabase())
	one, traffic := follow(t, url, 200*time.Millisecond)
	_, other := follow(t, url, 200*time.Millisecond)
	if _, err := one.Start(t.Context(), "http://new", rollout.Plan{}, "tester", ""); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the weight on both", func() bool { return share(traffic) == 1000 && share(other) == 1000 })
	p.Freeze()
	within(t, 20*time.Second, "to see it", func() bool { return one.Fault() != nil })
	if share(traffic) != 1000 {
		t.Errorf("the weight is %v with the server away, want it frozen at 10 %%", share(traffic))
	}
	for range 6 {
		ticket := traffic.Choose("user")
		traffic.Done(ticket.Mark.On(rollout.Candidate), time.Millisecond, rollout.Outcome{Failed: true, Unreachable: true})
	}
	within(t, 2*time.Second, "to leave the candidate", func() bool { return share(traffic) == 0 })
	if _, err := one.Abort(t.Context(), "tester", "it hangs"); !errors.Is(err, fleet.ErrAway) {
		t.Errorf("Abort = %v, want ErrAway", err)
	}
	p.Thaw()
	within(t, 20*time.Second, "the others to follow", func() bool { return other.Launch().Phase == rollout.RolledBack && one.Fault() == nil })
}

// Connections that were used a moment ago are not asked whether they still lead anywhere.
func TestARestartOfTheServerFailsNoCall(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, p.URL(p.NewDatabase()))
	after := fleet.Place{}
	for i := range uint64(5) {
		for range 3 { // so that the pool has several
			group := make(chan error, 4)
			for range cap(group) {
				go func() {
					_, err := s.Read(t.Context(), fleet.Place{})
					group <- err
				}()
			}
			for range cap(group) {
				if err := <-group; err != nil {
					t.Fatalf("Read %d = %v", i, err)
				}
			}
		}
		p.Kill()
		p.Start()
		next := fleet.Place{Launch: 1, Revision: i + 1}
		if err := s.Append(t.Context(), after, fleet.Line{Place: next, Text: "x"}); err != nil {
			t.Fatalf("Append %d after a restart = %v", i, err)
		}
		after = next
	}
}
