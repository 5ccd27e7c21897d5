package dashboard

import (
	"net/http"
	"slices"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// longestSilence is what the page allows; what should be quiet for longer is a wrong rule.
const longestSilence = 7 * 24 * time.Hour

func (d *Dashboard) silence(w http.ResponseWriter, r *http.Request) {
	length, err := time.ParseDuration(r.PostFormValue("for"))
	if err != nil || length < 0 || length > longestSilence {
		d.refuse(w, "A silence lasts from 1s to 168h; 0s ends it.")
		return
	}
	name := r.PostFormValue("alert")
	d.done(w, r, "alerts", "silence", name, d.actions.Silence(r.Context(), name, length))
}

func (d *Dashboard) acknowledge(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("alert")
	d.done(w, r, "alerts", "acknowledge", name, d.actions.Acknowledge(r.Context(), name, "dashboard"))
}

func (d *Dashboard) rollout(w http.ResponseWriter, r *http.Request) {
	verb := Verb(r.PathValue("verb"))
	if !slices.Contains([]Verb{Start, Pause, Resume, Promote, Abort}, verb) {
		problem.Write(w, r, problem.NotFound)
		return
	}
	d.done(w, r, "rollout", string(verb), r.PostFormValue("to"), d.actions.Rollout(r.Context(), verb, r.PostFormValue("to")))
}

// done shows the page as it is after an action, or why nothing was done.
func (d *Dashboard) done(w http.ResponseWriter, r *http.Request, section, action, what string, err error) {
	if err != nil {
		d.log.Warn("dashboard action refused", "action", action, "what", plain(what), "error", err)
		d.refuse(w, plain(err.Error()))
		return
	}
	d.log.Info("dashboard action", "action", action, "what", plain(what), "address", peer(r))
	d.mu.Lock()
	d.last = nil // the next page must show it
	d.mu.Unlock()
	http.Redirect(w, r, "/#"+section, http.StatusSeeOther)
}

func (d *Dashboard) refuse(w http.ResponseWriter, why string) {
	d.say(w, http.StatusConflict, plainPage{Title: "Not done", Text: why})
}
