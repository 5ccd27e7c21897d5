package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
	rolloutpg "github.com/gantryhq/gantry/rollout/postgres"
	rolloutlite "github.com/gantryhq/gantry/rollout/sqlite"
	"github.com/gantryhq/gantry/users/postgres"
	"github.com/gantryhq/gantry/users/sqlite"
)

// openRollout follows the journal of launches in the users' database. From here on the traffic is where the journal
// has it, before the first request.
func (s *Server) openRollout(ctx context.Context) error {
	if s.traffic == nil {
		return nil // nothing to move
	}
	store, err := openJournal(ctx, s.store)
	if err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	s.fleet = fleet.New(ctx, store, s.traffic, fleet.Config{
		Base: s.traffic.configured, Requests: s.traffic.forwarded.Load, Seen: s.seenRollout, Logger: s.log,
	})
	s.work = append(s.work, s.fleet.Run)
	return nil
}

// openJournal keeps the journal where the users are, on the same connections.
func openJournal(ctx context.Context, users UserStore) (fleet.Store, error) {
	switch store := users.(type) {
	case *postgres.Store:
		err := store.Migrate(ctx, postgres.Schema{Files: rolloutpg.Migrations, Table: rolloutpg.Versions, Newest: rolloutpg.Schema})
		return rolloutpg.New(store.Pool()), err
	case *sqlite.Store:
		err := store.Migrate(ctx, sqlite.Schema{Files: rolloutlite.Migrations, Table: rolloutlite.Versions, Newest: rolloutlite.Schema})
		return rolloutlite.New(store.Pools()), err
	}
	return nil, fmt.Errorf("no journal can be kept in a %T", users)
}

// seenRollout counts what alerts are about, once among all instances.
func (s *Server) seenRollout(r rollout.Record, mine bool) {
	switch {
	case !mine:
	case r.Action == rollout.ActRollBack:
		s.meters.RolledBack()
	case r.Action == rollout.ActHold:
		s.meters.Held()
	}
}

// rolloutCheck says when everyone was sent to stable because the journal is unreadable, and when weights are frozen.
func (s *Server) rolloutCheck() health.Check {
	return warning("rollout", "journal", func() (health.Observation, error) {
		err := s.fleet.Fault()
		if err == nil {
			return health.Observation{}, nil
		}
		reason := "frozen"
		if errors.Is(err, rollout.ErrJournal) {
			reason = "unreadable"
		}
		return health.Observation{}, &health.Fault{Reason: reason, Warning: true, Err: err}
	})
}

// readWeight is telemetry.Sources.RolloutWeight: the share of the callers of this instance that each version has.
func (s *Server) readWeight(set func(float64, ...string)) {
	if s.traffic == nil || s.traffic.Launch().Phase == rollout.None {
		return
	}
	share := float64(s.traffic.Weight()) / float64(rollout.All)
	set(share, rollout.Candidate.String())
	set(1-share, rollout.Stable.String())
}

// readPhase is telemetry.Sources.RolloutPhase.
func (s *Server) readPhase(set func(float64, ...string)) {
	if s.traffic == nil {
		return
	}
	now := s.traffic.Launch().Phase
	for _, phase := range [...]rollout.Phase{
		rollout.Running, rollout.Paused, rollout.HeldShared, rollout.HeldWorse, rollout.HeldAlone, rollout.Inconclusive,
		rollout.Watching, rollout.Completed, rollout.RolledBack,
	} {
		set(number(phase == now), string(phase))
	}
}

// candidate checks the address of a candidate, and that it answers, before anything is moved. It returns the
// address as the journal has it, and what the candidate says of its health.
func (s *Server) candidate(ctx context.Context, address string) (at string, says []byte, err error) {
	u, err := url.Parse(strings.ToLower(address)) // there is nothing in it that tells capitals apart
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", nil, fmt.Errorf("%q is no address such as http://10.0.0.7:8080", address)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "", nil, errors.New("only a scheme, a host and a port belong into the address of a version")
	case s.isDoor(u):
		return "", nil, errors.New("that is this door itself")
	case origin(u) == s.fleet.Stable():
		return "", nil, errors.New("that is the stable version")
	case !strings.HasPrefix(s.fleet.Stable(), u.Scheme+"://"):
		return "", nil, fmt.Errorf("its scheme differs from that of stable, %s", s.fleet.Stable())
	}
	up, err := proxy.NewUpstream(u, s.traffic.cfg)
	if err != nil {
		return "", nil, err
	}
	defer up.Close()
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if says, err = up.Health(ctx, s.cfg.UpstreamHealthPath); err != nil {
		return "", nil, fmt.Errorf("it does not answer: %w", err)
	}
	return origin(u), says, nil
}

// reachTimeout is how long a candidate may take to answer before a launch.
const reachTimeout = 5 * time.Second

// isDoor is whether an address is the door's own port on this machine.
func (s *Server) isDoor(u *url.URL) bool {
	_, own, _ := net.SplitHostPort(s.mainPort.Addr().String())
	ip := net.ParseIP(u.Hostname())
	return u.Port() == own && (u.Hostname() == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()))
}
