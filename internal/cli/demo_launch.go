package cli

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/demo"
	"github.com/gantryhq/gantry/internal/server"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

const (
	demoUsers    = 300
	demoRate     = 80   // requests a second
	demoFailing  = 0.15 // of the next version's answers
	demoPatience = time.Minute
)

// tellLaunch sends users through the door, gives them a bad next version, and shows how it goes.
func tellLaunch(ctx context.Context, p Process, bad *demo.API, d *auditDoor) error {
	next, err := demo.StartRelease(ctx, bad.URL, demoFailing)
	if err != nil {
		return err
	}
	defer next.Close()
	door, err := url.Parse("http://" + d.server.AdminAddr())
	if err != nil {
		return err
	}
	admin := &adminClient{base: door, token: config.Secret{}, client: http.DefaultClient}
	var users crowd
	ctx, stop := context.WithTimeout(ctx, demoPatience)
	defer stop()
	go users.visit(ctx, bad, "http://"+d.server.Addr()+"/api/me")
	fmt.Fprintf(p.Stdout, "\nTHE NEXT VERSION  %s  in which %.0f %% of all answers are errors; %d users send %d requests a second\n\n  $ gantry rollout start --to %[1]s\n", next.URL, 100*demoFailing, demoUsers, demoRate)
	var done server.RolloutAnswer
	if err := admin.do(ctx, http.MethodPost, server.RolloutOrder{To: next.URL, Actor: "demo"}, &done, "api", "rollout", "start"); err != nil {
		return err
	}
	end, err := watchLaunch(ctx, p.Stdout, admin)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "\n  %s by itself after %v: %d of %d requests failed for users, and nobody was woken\n",
		end.Launch.Phase, end.Launch.EpochAt.Sub(end.Launch.StartedAt).Round(100*time.Millisecond), users.failed.Load(), users.sent.Load())
	return nil
}

// watchLaunch prints a line a second until the launch is over.
func watchLaunch(ctx context.Context, w io.Writer, admin *adminClient) (s fleet.Status, err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := admin.do(ctx, http.MethodGet, nil, &s, "api", "rollout"); err != nil {
			return s, err
		}
		l := s.Launch
		seen := fmt.Sprintf("%d requests, %d failed", s.Candidate.Requests, s.Candidate.Failed)
		if l.Phase.Over() {
			seen = l.Reason
		}
		fmt.Fprintf(w, "  %4.0fs  %5v on the next version  %-12s %s\n", s.Now.Sub(l.StartedAt).Seconds(), l.Weight, l.Phase, seen)
		if l.Phase.Over() {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s, fmt.Errorf("the launch is %s, and was to be %s", l.Phase, rollout.RolledBack)
		}
	}
}

// crowd is users who read.
type crowd struct{ sent, failed atomic.Int64 }

func (c *crowd) visit(ctx context.Context, bad *demo.API, path string) {
	tokens := make([]string, demoUsers)
	for i := range tokens {
		tokens[i], _ = bad.Token(fmt.Sprintf("user_%d", i+1))
	}
	tick := time.NewTicker(time.Second / demoRate)
	defer tick.Stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		select {
		case <-tick.C:
			open.Go(func() { c.request(ctx, path, tokens[rand.IntN(len(tokens))]) })
		case <-ctx.Done():
			return
		}
	}
}

func (c *crowd) request(ctx context.Context, path, token string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if ctx.Err() != nil {
		return
	}
	c.sent.Add(1)
	if err != nil || res.StatusCode >= 500 {
		c.failed.Add(1)
	}
	if err == nil {
		res.Body.Close()
	}
}
