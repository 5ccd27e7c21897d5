package server

import (
	"net/http"
	"strconv"

	"github.com/gantryhq/gantry/problem"
)

// How many requests a list has.
const (
	usualRequests = 20
	mostRequests  = 500
)

// showRequest says what is known of a request, by its id.
func (s *Server) showRequest(w http.ResponseWriter, r *http.Request) {
	found, ok := s.recorder.Find(r.PathValue("id"))
	if !ok {
		problem.Write(w, r, problem.NotFound)
		return
	}
	answer(w, found)
}

// listRequests are the last requests, the newest first: ?limit=N of them, with ?refused=1 only those that
// were refused or failed.
func (s *Server) listRequests(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || n < 1 {
		n = usualRequests
	}
	refused, _ := strconv.ParseBool(r.FormValue("refused"))
	answer(w, s.recorder.Last(min(n, mostRequests), refused))
}
