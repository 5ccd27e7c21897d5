package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/problem"
)

// AlertBook is the part of an [alert.Engine] that people work with.
type AlertBook interface {
	// Alerts returns where every rule stands.
	Alerts() []alert.Alert
	// Silence keeps a rule's messages back for a time; Unsilence ends that. Acknowledge says who is at it. Their errors
	// are alert.ErrUnknown, alert.ErrNotFiring and alert.ErrDuration.
	Silence(name string, d time.Duration, by string) error
	Unsilence(name string) error
	Acknowledge(name, by string) error
}

// alertChange is the body of a change: {"for": "2h", "by": "ada"}.
type alertChange struct {
	For string `json:"for"` // a Go duration, for a silence
	By  string `json:"by"`  // who does it; default "admin"
}

const maxChange = 4 << 10 // bytes of a body

// AlertsAPI answers below /api/alerts. A rule is named as in its file, or by its anchor: "high-latency". Whoever wraps
// it has asked for ADMIN_TOKEN.
func AlertsAPI(book AlertBook) http.Handler {
	a := alertsHandler{book}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/alerts", a.list)
	mux.HandleFunc("POST /api/alerts/{name}/silence", a.change(func(name string, c alertChange) error {
		d, err := time.ParseDuration(c.For)
		if err != nil {
			return alert.ErrDuration
		}
		return book.Silence(name, d, c.By)
	}))
	mux.HandleFunc("DELETE /api/alerts/{name}/silence", a.change(func(name string, _ alertChange) error { return book.Unsilence(name) }))
	mux.HandleFunc("POST /api/alerts/{name}/acknowledge", a.change(func(name string, c alertChange) error { return book.Acknowledge(name, c.By) }))
	return sameOrigin(mux)
}

// sameOrigin refuses what a page of another origin sends: without a token the admin port is open to this machine,
// and so to every page that its browser shows.
func sameOrigin(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.Forbidden.With("A page of another origin has sent this."))
	}))
	return cross.Handler(next)
}

type alertsHandler struct{ book AlertBook }

func (a alertsHandler) list(w http.ResponseWriter, _ *http.Request) {
	answer(w, struct {
		Alerts []alert.Alert `json:"alerts"`
	}{a.book.Alerts()})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // whoever has gone needs no answer
}

// change does one thing to the alert that the path names, and answers with where it stands then.
func (a alertsHandler) change(do func(name string, c alertChange) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, refusal := readChange(w, r)
		if refusal != nil {
			problem.Write(w, r, *refusal)
			return
		}
		before, ok := a.find(r.PathValue("name"))
		if !ok {
			problem.Write(w, r, problem.NotFound.With(alert.ErrUnknown.Error()))
			return
		}
		if err := do(before.Rule.Name, c); err != nil {
			problem.Write(w, r, refusalOf(err))
			return
		}
		after, _ := a.find(before.Rule.Name)
		answer(w, after)
	}
}

func (a alertsHandler) find(name string) (alert.Alert, bool) {
	for _, one := range a.book.Alerts() {
		if one.Rule.Name == name || alert.Anchor(one.Rule.Name) == name {
			return one, true
		}
	}
	return alert.Alert{}, false
}

// readChange reads a body, which may be missing.
func readChange(w http.ResponseWriter, r *http.Request) (alertChange, *problem.Details) {
	var c alertChange
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChange))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	c.By = cmp.Or(c.By, "admin")
	if errors.Is(err, io.EOF) {
		return c, nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return c, &problem.TooLarge
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return c, &problem.UnsupportedMedia
	}
	if err != nil {
		refusal := problem.BadRequest.With(`The body is {"for": "2h", "by": "NAME"}.`)
		return c, &refusal
	}
	return c, nil
}

func refusalOf(err error) problem.Details {
	switch {
	case errors.Is(err, alert.ErrUnknown):
		return problem.NotFound.With(err.Error())
	case errors.Is(err, alert.ErrNotFiring):
		return problem.Conflict.With(err.Error())
	case errors.Is(err, alert.ErrDuration):
		d := problem.Unprocessable
		d.Faults = []problem.Fault{{Pointer: "/for", Detail: fmt.Sprint(err)}}
		return d
	}
	return problem.Internal
}
