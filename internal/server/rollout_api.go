package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/problem"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

// RolloutOrder is the body of a POST below /api/rollout. Only a start takes a plan.
type RolloutOrder struct {
	To     string `json:"to,omitempty"`     // the candidate: scheme, host and port
	Actor  string `json:"actor,omitempty"`  // who does it; default "admin"
	Reason string `json:"reason,omitempty"` // why, for the journal
	// MigrationsCompatible says that stable can live with the migrations that the candidate's health answer calls pending.
	MigrationsCompatible bool `json:"migrations_compatible,omitempty"`
	rollout.Terms
}

// RolloutAnswer is what became of an order.
type RolloutAnswer struct {
	Record rollout.Record `json:"record"`
	// Warnings are what a person should know who starts a launch.
	Warnings []string `json:"warnings,omitempty"`
}

// RolloutJournal is a part of the journal of a launch.
type RolloutJournal struct {
	Records []rollout.Record `json:"records"`
	// More is that there may be records behind the last.
	More bool `json:"more"`
	// Unreadable is why the records end before the journal does.
	Unreadable string `json:"unreadable,omitempty"`
}

// RolloutHistory is what launches came to, the newest first.
type RolloutHistory struct {
	Launches []fleet.Past `json:"launches"`
}

// notUndone is said at every start.
const notUndone = "a roll back moves requests only: migrations of a database, and whatever else the candidate writes, are NOT undone by it; stable must be able to live with them"

// rolloutAPI answers below /api/rollout. Whoever wraps it has asked for ADMIN_TOKEN.
func (s *Server) rolloutAPI() http.Handler {
	if s.fleet == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			problem.Write(w, r, problem.NotFound.With("There is nothing to roll out without UPSTREAM_URL."))
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/rollout", func(w http.ResponseWriter, r *http.Request) { answer(w, s.fleet.Status(r.Context())) })
	mux.HandleFunc("GET /api/rollout/journal", s.rolloutJournal)
	mux.HandleFunc("GET /api/rollout/history", s.rolloutHistory)
	mux.HandleFunc("POST /api/rollout/start", s.startRollout)
	for name, do := range map[string]func(context.Context, string, string) (rollout.Record, error){
		"pause": s.fleet.Pause, "resume": s.fleet.Resume, "promote": s.fleet.Promote, "abort": s.fleet.Abort,
	} {
		mux.HandleFunc("POST /api/rollout/"+name, func(w http.ResponseWriter, r *http.Request) {
			obeyOrder(w, r, func(o RolloutOrder) (RolloutAnswer, error) {
				record, err := do(r.Context(), o.Actor, o.Reason)
				return RolloutAnswer{Record: record}, err
			})
		})
	}
	return sameOrigin(mux)
}

// obeyOrder reads an order, and answers with what became of it.
func obeyOrder(w http.ResponseWriter, r *http.Request, do func(RolloutOrder) (RolloutAnswer, error)) {
	o, refusal := readOrder(w, r)
	if refusal != nil {
		problem.Write(w, r, *refusal)
		return
	}
	done, err := do(o)
	if err != nil {
		problem.Write(w, r, rolloutRefusal(err))
		return
	}
	answer(w, done)
}

// Bounds of what an order says, in bytes.
const (
	maxActor  = 200
	maxReason = 2000
)

// readOrder reads a body, which may be missing.
func readOrder(w http.ResponseWriter, r *http.Request) (RolloutOrder, *problem.Details) {
	var o RolloutOrder
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChange))
	d.DisallowUnknownFields()
	err := d.Decode(&o)
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	_, large := errors.AsType[*http.MaxBytesError](err)
	o.Actor = cmp.Or(o.Actor, "admin")
	switch {
	case errors.Is(err, io.EOF):
		return o, nil
	case large || len(o.Actor) > maxActor || len(o.Reason) > maxReason:
		return o, &problem.TooLarge
	case media != "application/json":
		return o, &problem.UnsupportedMedia
	case err != nil:
		refusal := problem.BadRequest.With(`The body is JSON such as {"to": "http://10.0.0.7:8080", "steps": "10,50,100", "actor": "ada", "reason": "v2"}.`)
		return o, &refusal
	}
	return o, nil
}

func (s *Server) startRollout(w http.ResponseWriter, r *http.Request) {
	obeyOrder(w, r, func(o RolloutOrder) (RolloutAnswer, error) { return s.beginRollout(r.Context(), o) })
}

func (s *Server) beginRollout(ctx context.Context, o RolloutOrder) (done RolloutAnswer, err error) {
	plan, err := o.Plan()
	if err != nil {
		return done, err
	}
	if st := s.fleet.Status(ctx); !st.Corrupt && !st.Launch.Phase.Over() {
		return done, fmt.Errorf("%w: %s", fleet.ErrPending, st.Launch.ID)
	}
	to, says, err := s.candidate(ctx, o.To)
	if err != nil {
		return done, &rollout.TermError{Term: "to", Err: err}
	}
	if err := s.acceptMigrations(&o, says); err != nil {
		return done, err
	}
	done.Warnings = append([]string{notUndone}, s.fleet.Status(ctx).Enough(plan)...)
	if done.Record, err = s.fleet.Start(ctx, to, plan, o.Actor, o.Reason); err == nil {
		s.log.Warn("rollout: "+notUndone, "launch", done.Record.Launch)
	}
	return done, err
}

// acceptMigrations wants somebody to have thought about migrations that wait, and notes that in the reason.
func (s *Server) acceptMigrations(o *RolloutOrder, says []byte) error {
	where := health.PendingMigrations(says)
	switch {
	case where == "":
	case !o.MigrationsCompatible:
		return &rollout.TermError{Term: "migrations_compatible", Err: fmt.Errorf("its %s says that migrations are pending (%q): applied once, they are not undone by a roll back. "+
			"If stable can live with them, start with --migrations-compatible", s.cfg.UpstreamHealthPath, where)}
	default:
		o.Reason = strings.TrimPrefix(o.Reason+"; pending migrations taken as compatible", "; ")
	}
	return nil
}

// rolloutRefusal says no to who runs the door: with the reason, whatever it is.
func rolloutRefusal(err error) problem.Details {
	faults := termFaults(err)
	switch {
	case len(faults) > 0:
		d := problem.Unprocessable
		d.Faults = faults
		return d
	case errors.Is(err, fleet.ErrAway):
		return problem.StoreDown.With(err.Error())
	case errors.Is(err, rollout.ErrJournal):
		return problem.Conflict.With("The journal is unreadable and everyone is on stable; abort puts it aside, and a start begins a new one. " + err.Error())
	case errors.Is(err, fleet.ErrPending), errors.Is(err, rollout.ErrPhase), errors.Is(err, fleet.ErrConflict):
		return problem.Conflict.With(err.Error())
	}
	return problem.Unprocessable.With(err.Error())
}

// termFaults are the faults of terms in an error, each with its place in the body.
func termFaults(err error) (faults []problem.Fault) {
	if one, ok := err.(*rollout.TermError); ok {
		pointer := "/" + one.Term
		if one.Term == "plan" {
			pointer = ""
		}
		return []problem.Fault{{Pointer: pointer, Detail: strings.ReplaceAll(one.Error(), "\n", "; ")}}
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			faults = append(faults, termFaults(e)...)
		}
	}
	return faults
}

func (s *Server) rolloutJournal(w http.ResponseWriter, r *http.Request) {
	launch, err1 := queried(r, "launch", 0)
	after, err2 := queried(r, "after", 0)
	if err := errors.Join(err1, err2); err != nil {
		problem.Write(w, r, problem.BadRequest.With(err.Error()))
		return
	}
	records, err := s.fleet.Journal(r.Context(), int64(launch), after)
	if err != nil && !errors.Is(err, rollout.ErrJournal) {
		problem.Write(w, r, rolloutRefusal(err))
		return
	}
	journal := RolloutJournal{Records: records, More: len(records) == fleet.PageSize}
	if err != nil {
		journal.Unreadable = err.Error()
	}
	answer(w, journal)
}

func (s *Server) rolloutHistory(w http.ResponseWriter, r *http.Request) {
	n, err := queried(r, "n", fleet.Kept)
	if err != nil {
		problem.Write(w, r, problem.BadRequest.With(err.Error()))
		return
	}
	past, err := s.fleet.History(r.Context(), int(min(n, fleet.Kept)))
	if err != nil {
		problem.Write(w, r, rolloutRefusal(err))
		return
	}
	answer(w, RolloutHistory{past})
}

// queried is a parameter of a query, which may be missing.
func queried(r *http.Request, name string, missing uint64) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%s must be a number", name)
	}
	return n, nil
}
