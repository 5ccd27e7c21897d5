package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
)

// Least room in the data directory before it counts as full.
const (
	minFreeBytes  = 100 << 20
	minFreeInodes = 1000
)

// openHealth lists what must work: the document's three, and what the door itself needs.
func (s *Server) openHealth(context.Context) (err error) {
	checks := []health.Check{
		health.Database(s.store.Ping, isExhausted),
		health.Cache(s.cache),
		s.diskCheck(),
		health.Keys(s.keys),
		s.standingCheck(),
		s.limitsCheck(),
	}
	if s.silence != nil {
		checks = append(checks, s.webhookCheck())
	}
	if s.proxy != nil {
		checks = append(checks, health.Upstream(s.pingUpstream), s.rolloutCheck())
	}
	if s.health, err = health.New(health.Config{Checks: checks, Details: s.mayKnow, Logger: s.log}); err != nil {
		return err
	}
	s.work = append(s.work, s.health.Run)
	return nil
}

// isExhausted tells a pool without a free connection from a database that is down.
func isExhausted(err error) bool { return errors.Is(err, users.ErrExhausted) }

// standingMaxAge is how old the knowledge of who may not come in may get before it is worth a warning: every
// door should know of a suspension within two seconds.
const standingMaxAge = 10 * time.Second

func (s *Server) standingCheck() health.Check {
	return warning("standing", "age", func() (health.Observation, error) {
		age := s.standing.Age()
		if age > standingMaxAge {
			return seconds(age), &health.Fault{Reason: "stale", Warning: true, Err: fmt.Errorf("suspensions were last read %v ago", age.Round(time.Second))}
		}
		return seconds(age), nil
	})
}

// limitsCheck says when the limits are not shared: they are in force, with each instance's part of them.
func (s *Server) limitsCheck() health.Check {
	return warning("limits", "mode", func() (health.Observation, error) {
		st := s.policy.Load().limiter.Status()
		if st.Mode != ratelimit.Shared {
			return seconds(time.Since(st.Since)), &health.Fault{Reason: st.Mode.String(), Warning: true, Err: st.Err}
		}
		return health.Observation{}, nil
	})
}

// webhookCheck is the silence alarm: Clerk reports nothing for a day while users sign in.
func (s *Server) webhookCheck() health.Check {
	return warning("webhooks", "age", func() (health.Observation, error) {
		if s.silence.Alarm() {
			return seconds(s.silence.Quiet()), &health.Fault{Reason: "silent", Warning: true, Err: errors.New("no webhook from Clerk although users sign in: is its endpoint enabled, and its URL right?")}
		}
		return seconds(s.silence.Quiet()), nil
	})
}

// warning is a check that looks at what this process knows, and never makes it unready.
func warning(name, measurement string, look func() (health.Observation, error)) health.Check {
	return health.Check{
		Name: name, Measurement: measurement, Health: health.Warns, Ready: health.Warns,
		Run: func(context.Context) (health.Observation, error) { return look() },
	}
}

// diskCheck also notes how much is free, for the metrics: only a check may wait for a disk.
func (s *Server) diskCheck() health.Check {
	check := health.Disk(s.cfg.DataDir, minFreeBytes, minFreeInodes)
	look := check.Run
	check.Run = func(ctx context.Context) (health.Observation, error) {
		if share, err := health.FreeShare(ctx, s.cfg.DataDir); err == nil {
			s.diskFree.Store(&share)
		}
		return look(ctx)
	}
	return check
}

func seconds(d time.Duration) health.Observation {
	return health.Observation{Value: d.Seconds(), Unit: "s"}
}

func (s *Server) pingUpstream(ctx context.Context) error {
	return s.traffic.serving().Ping(ctx, s.cfg.UpstreamHealthPath)
}

// keys says how old the oldest issuer's keys are.
func (s *Server) keys() (oldest time.Duration, err error) {
	for _, st := range s.verifier.Status() {
		oldest = max(oldest, st.Age)
		switch {
		case st.Keys == 0:
			return oldest, &health.Fault{Reason: "no-keys", Err: fmt.Errorf("%s: no usable keys (%s)", st.Issuer, st.LastError)}
		case st.Stale:
			err = &health.Fault{Reason: "stale", Warning: true, Err: fmt.Errorf("%s: keys were last fetched %v ago", st.Issuer, st.Age)}
		}
	}
	return oldest, err
}

// asAdmin marks requests that came in on the admin port.
func asAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), adminKey{}, true)))
	})
}
