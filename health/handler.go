package health

import (
	"net/http"
	"strconv"

	"github.com/gantryhq/gantry/problem"
)

// Middleware answers the health paths itself and passes everything else to next. It belongs in front
// of the pipeline: probes carry no token, come from addresses of their own, name the machine in Host,
// and must be answered when everything behind is busy.
func (h *Health) Middleware(next http.Handler) http.Handler {
	health, live, ready := h.Health(), h.Live(), h.Ready()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch pathOf(r) {
		case "/health":
			health.ServeHTTP(w, r)
		case "/health/live", "/livez":
			live.ServeHTTP(w, r)
		case "/health/ready", "/readyz":
			ready.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// pathOf is the path, and nothing where it was spelt with needless percent-encoding.
func pathOf(r *http.Request) string {
	if r.URL.RawPath != "" {
		return ""
	}
	return r.URL.Path
}

// Health answers 200 while no check of the endpoint fails, by results at most Config.StaleAfter old,
// and 503 otherwise.
func (h *Health) Health() http.Handler {
	return probe(func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, h.currentHealth()) })
}

// Live answers 200: the process runs and can answer. It looks at nothing else, because restarting a
// process does not mend its database.
func (h *Health) Live() http.Handler {
	alive := []byte(`{"status":"pass"}` + "\n")
	return probe(func(w http.ResponseWriter, r *http.Request) { write(w, r, Pass, alive) })
}

// Ready answers 200 while traffic should come here and 503 otherwise: before [Health.Open] and the
// first success of every check that can fail it, after Config.FailAfter failures in a row of one of
// them, and from [Health.Drain] on.
func (h *Health) Ready() http.Handler {
	return probe(func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, h.currentReady()) })
}

// probe lets GET and HEAD through.
func probe(answer http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem.Write(w, r, problem.MethodNotAllowed)
			return
		}
		answer(w, r)
	})
}

func (h *Health) serve(w http.ResponseWriter, r *http.Request, v view) {
	if h.cfg.Details(r) {
		v.body = encode(v.report, true)
	}
	write(w, r, v.report.Status, v.body)
}

// write sends 200 for pass and warn, 503 for fail (draft-inadarei-api-health-check-06 section 3.1).
func write(w http.ResponseWriter, r *http.Request, status Status, body []byte) {
	header := w.Header()
	header.Set("Content-Type", ContentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	code := http.StatusOK
	if status == Fail {
		code = http.StatusServiceUnavailable
	}
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
