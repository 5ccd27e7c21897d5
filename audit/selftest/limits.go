package selftest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func limitCases() []Case {
	return []Case{
		{
			Probe: "LIM-01", Prepare: slowRoute(200 * time.Millisecond), Break: slowRoute(time.Minute),
			Knobs: func(_ string, _ *API, t *audit.Target, c *audit.Config) {
				t.SlowPath, c.Policy.Deadline, c.Policy.Grace = "/report", 300*time.Millisecond, 300*time.Millisecond
			},
		},
		{
			Probe: "LIM-02", Knobs: notesKnobs(func(c *audit.Config) { c.Policy.SlowClient = time.Second }),
			Prepare: func(a *API) {
				notesRoute(1 << 20)(a)
				a.Serve = serveWith(a, &http.Server{ReadHeaderTimeout: 300 * time.Millisecond, ReadTimeout: 400 * time.Millisecond})
			},
			Break: func(a *API) { a.Serve = serveWith(a, &http.Server{}) }, // what http.ListenAndServe does
		},
		{Probe: "LIM-04", Knobs: notesKnobs(nil), Prepare: notesRoute(1 << 20), Break: func(a *API) {
			a.Routes["POST /notes"] = func(w http.ResponseWriter, r *http.Request) { // straight into the store
				n, err := io.Copy(io.Discard, r.Body)
				if err != nil {
					Refuse(w, 400, "the body broke off")
					return
				}
				Answer(w, 201, map[string]any{"bytes": n})
			}
		}},
		{
			Probe: "LIM-05",
			Prepare: func(a *API) {
				a.Serve = serveWith(a, &http.Server{ReadHeaderTimeout: time.Second, MaxHeaderBytes: 8 << 10})
			},
			Break: func(a *API) {
				a.Serve = serveWith(a, &http.Server{})
				a.Outer = append(a.Outer, accessTable)
			},
		},
		{Probe: "LIM-06", Knobs: notesKnobs(nil), Prepare: notesRoute(1 << 20), Break: func(a *API) {
			a.Routes["POST /notes"] = recursiveNotes
		}},
	}
}

// slowRoute is a report that takes a minute, unless the deadline ends it.
func slowRoute(deadline time.Duration) func(*API) {
	return func(a *API) {
		a.Routes["GET /report"] = func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(deadline)
			defer timer.Stop()
			select {
			case <-timer.C:
				Refuse(w, 504, "the report took too long")
			case <-r.Context().Done():
			}
		}
	}
}

func notesKnobs(policy func(*audit.Config)) func(string, *API, *audit.Target, *audit.Config) {
	return func(_ string, _ *API, t *audit.Target, c *audit.Config) {
		t.WritePath = "/notes"
		if policy != nil {
			policy(c)
		}
	}
}

// notesRoute takes a JSON object of at most so many bytes.
func notesRoute(most int64) func(*API) {
	return func(a *API) {
		a.Routes["POST /notes"] = func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
			var over *http.MaxBytesError
			var note map[string]any
			switch {
			case errors.As(err, &over):
				Refuse(w, 413, "the body is too long")
			case err != nil:
				Refuse(w, 400, "the body broke off")
			case json.Unmarshal(body, &note) != nil:
				Refuse(w, 400, "the body is not a JSON object")
			default:
				Answer(w, 201, map[string]any{"bytes": len(body)})
			}
		}
	}
}

// recursiveNotes parses as a language with a small stack does: what nests too deep is an exception that nobody expected.
func recursiveNotes(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	depth := strings.Count(string(body), "[")
	switch {
	case err != nil:
		Refuse(w, 400, "the body broke off")
	case depth > 1000:
		Refuse(w, 500, "RecursionError: maximum recursion depth exceeded")
	default:
		Refuse(w, 400, "the body is not a note")
	}
}

// accessTable keeps the URL and the headers of each request in columns of 8 KiB, and answers 500 when they do not fit.
func accessTable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := len(r.URL.RequestURI())
		for name, values := range r.Header {
			size += len(name) + len(strings.Join(values, ""))
		}
		if size > 8<<10 {
			Refuse(w, 500, "value too long for type character varying(8192)")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serveWith serves with the timeouts and limits of a template.
func serveWith(a *API, template *http.Server) func(net.Listener, http.Handler) {
	return func(ln net.Listener, h http.Handler) {
		s := &http.Server{
			Handler: h, ReadHeaderTimeout: template.ReadHeaderTimeout, ReadTimeout: template.ReadTimeout,
			MaxHeaderBytes: template.MaxHeaderBytes,
		}
		a.OnClose(func() { s.Close() })
		s.Serve(ln)
	}
}
