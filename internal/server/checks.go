package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/health"
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
		health.Disk(s.cfg.DataDir, minFreeBytes, minFreeInodes),
		health.Keys(s.keys),
	}
	if s.proxy != nil {
		checks = append(checks, health.Upstream(s.pingUpstream))
	}
	s.health, err = health.New(health.Config{Checks: checks, Details: s.mayKnow, Logger: s.log})
	return err
}

// isExhausted tells a pool without a free connection from a database that is down: waiting for one is
// all that a local file's ping can be late for.
func isExhausted(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

func (s *Server) pingUpstream(ctx context.Context) error {
	return s.proxy.Upstream().Ping(ctx, s.cfg.UpstreamHealthPath)
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
