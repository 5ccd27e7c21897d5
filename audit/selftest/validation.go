package selftest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gantryhq/gantry/audit"
)

func validationCases() []Case {
	return []Case{
		{Probe: "VAL-01", Prepare: notebook, Knobs: notebookKnobs, Break: func(a *API) {
			a.Routes["POST /notes"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
				var in struct{ Title string }
				json.NewDecoder(r.Body).Decode(&in) // nobody looked at the error
				Answer(w, 201, map[string]any{"id": 1, "title": in.Title})
			})
		}},
		{Probe: "VAL-02", Prepare: notebook, Knobs: notebookKnobs, Break: uncheckedLimit},
		{Probe: "VAL-03", Prepare: notebook, Knobs: notebookKnobs, Break: func(a *API) {
			a.Routes["GET /notes"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
				found, err := textQuery(r.URL.Query().Get("tag"))
				if err != nil {
					Refuse(w, 400, "the filter is not valid") // the database's words stay inside, and the hole remains
					return
				}
				Answer(w, 200, found)
			})
		}},
		{Probe: "VAL-04", Prepare: files, Knobs: filesKnobs, Break: func(a *API) {
			a.Routes["GET /files"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
				text, found := disk[path.Join("/srv/files", r.URL.Query().Get("name"))] // the join resolves the dots
				if !found {
					Refuse(w, 404, "no such file")
					return
				}
				w.Header().Set("Content-Type", "text/plain")
				io.WriteString(w, text)
			})
		}},
		{Probe: "ERR-01", Break: func(a *API) {
			a.Routes["GET /me"] = func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if v := recover(); v != nil { // helpful in development
						http.Error(w, fmt.Sprintf("%v\n%s", v, debug.Stack()), 500)
					}
				}()
				claims, _ := a.Identify(r)
				Answer(w, 200, map[string]any{"id": claims["sub"].(string)})
			}
		}},
		{Probe: "ERR-02", Prepare: notebook, Knobs: notebookKnobs, With: []string{"VAL-01", "VAL-02"}, Break: func(a *API) {
			a.Routes["GET /notes/{id}"] = func(w http.ResponseWriter, _ *http.Request) { // the framework's own page
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				w.WriteHeader(404)
				io.WriteString(w, "<!doctype html><h1>Not Found</h1>")
			}
		}},
		{Probe: "ERR-03", Prepare: notebook, Knobs: notebookKnobs, With: []string{"VAL-02"}, Break: uncheckedLimit},
	}
}

// note is what the notes' routes keep.
type note struct {
	ID    int    `json:"id"`
	Title string `json:"title"`
	Tag   string `json:"tag"`
}

var allNotes = []note{{1, "milk", "home"}, {2, "bread", "home"}, {3, "deploy", "work"}}

// notebook gives the API a small collection whose inputs are all checked.
func notebook(a *API) {
	a.Routes["GET /notes"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		limit := 10
		if text, given := r.URL.Query()["limit"]; given {
			n, err := strconv.Atoi(text[0])
			if err != nil || n < 1 || n > 100 {
				Refuse(w, 400, "limit must be from 1 to 100")
				return
			}
			limit = n
		}
		found := tagged(r.URL.Query().Get("tag"))
		Answer(w, 200, found[:min(limit, len(found))])
	})
	a.Routes["GET /notes/{id}"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		id, err := strconv.Atoi(r.PathValue("id"))
		i := slices.IndexFunc(allNotes, func(n note) bool { return n.ID == id })
		if err != nil || i < 0 {
			Refuse(w, 404, "no such note")
			return
		}
		Answer(w, 200, allNotes[i])
	})
	a.Routes["POST /notes"] = a.Private(writeNote)
}

func writeNote(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		Refuse(w, 415, "send application/json")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	var in struct{ Title *string }
	if err != nil || !utf8.Valid(body) || json.Unmarshal(body, &in) != nil {
		Refuse(w, 400, "the body is not a JSON object")
		return
	}
	if in.Title == nil || *in.Title == "" {
		Refuse(w, 422, "title is required")
		return
	}
	Answer(w, 201, note{ID: 4, Title: *in.Title})
}

func tagged(tag string) []note {
	found := []note{}
	for _, n := range allNotes {
		if tag == "" || n.Tag == tag {
			found = append(found, n)
		}
	}
	return found
}

// uncheckedLimit is a slice cut at what the client said.
func uncheckedLimit(a *API) {
	a.Routes["GET /notes"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		defer func() {
			if recover() != nil {
				Refuse(w, 500, "something went wrong")
			}
		}()
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		Answer(w, 200, allNotes[:limit])
	})
}

func notebookKnobs(_ string, _ *API, t *audit.Target, c *audit.Config) {
	least, most := 1.0, 100.0
	c.Active = false
	t.WritePath = "/notes"
	t.Operations = []audit.Operation{
		{Method: "GET", Path: "/notes", Secured: true, Params: []audit.Param{
			{Name: "limit", In: "query", Type: "integer", Example: "2", Minimum: &least, Maximum: &most}, {Name: "tag", In: "query", Type: "string", Example: "home"},
		}},
		{Method: "GET", Path: "/notes/{id}", Secured: true, Params: []audit.Param{{Name: "id", In: "path", Type: "integer", Required: true, Example: "1"}}},
		{Method: "POST", Path: "/notes", Secured: true, Example: `{"title":"gantry"}`, Body: []audit.Param{{Name: "title", In: "body", Type: "string", Required: true}}},
	}
}

// textQuery is a query put together from text, and a database that understands just enough of it: conditions on quoted
// text, joined by AND.
func textQuery(tag string) ([]note, error) {
	where := "tag = '" + tag + "'"
	found := []note{}
	for _, n := range allNotes {
		holds := true
		for condition := range strings.SplitSeq(where, " AND ") {
			left, right, ok := strings.Cut(condition, "=")
			a, errLeft := operand(left, n)
			b, errRight := operand(right, n)
			if !ok || errLeft != nil || errRight != nil {
				return nil, fmt.Errorf("syntax error near %q", condition)
			}
			holds = holds && a == b
		}
		if holds {
			found = append(found, n)
		}
	}
	return found, nil
}

// operand is the column, or a text in quotes in which a doubled one stands for itself.
func operand(text string, n note) (string, error) {
	text = strings.TrimSpace(text)
	if text == "tag" {
		return n.Tag, nil
	}
	if len(text) < 2 || text[0] != '\'' || text[len(text)-1] != '\'' {
		return "", io.ErrUnexpectedEOF
	}
	inner := strings.ReplaceAll(text[1:len(text)-1], "''", "\x00")
	if strings.Contains(inner, "'") {
		return "", io.ErrUnexpectedEOF
	}
	return strings.ReplaceAll(inner, "\x00", "'"), nil
}

// disk is a machine's file system, as far as it matters.
var disk = map[string]string{
	"/srv/files/terms.txt": "Be kind.\n",
	"/etc/passwd":          "root:x:0:0:root:/root:/bin/sh\napi:x:1000:1000::/srv:/bin/false\n",
}

// files serves what is on a list.
func files(a *API) {
	a.Routes["GET /files"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		if r.URL.Query().Get("name") != "terms.txt" {
			Refuse(w, 404, "no such file")
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, disk["/srv/files/terms.txt"])
	})
}

func filesKnobs(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Operations = []audit.Operation{
		{Method: "GET", Path: "/files", Secured: true, Params: []audit.Param{{Name: "name", In: "query", Type: "string", Required: true, Example: "terms.txt"}}},
	}
}
