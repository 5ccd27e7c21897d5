package probes

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/gantryhq/gantry/audit"
)

// outcomes runs probes against a real server, in their order, and returns the report.
func outcomes(t *testing.T, h http.Handler, knobs func(*audit.Target), ids ...string) audit.Report {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	return outcomesAt(t, server.URL, knobs, ids...)
}

func outcomesAt(t *testing.T, url string, knobs func(*audit.Target), ids ...string) audit.Report {
	t.Helper()
	target, err := audit.ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	target.Token, target.ProtectedPaths = "valid", []string{"/me"}
	if knobs != nil {
		knobs(target)
	}
	report, err := audit.Run(t.Context(), target, All(), audit.Config{Only: ids, Pace: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// expect holds a finding to an outcome and, when it failed, to a severity.
func expect(t *testing.T, r audit.Report, id string, want audit.Outcome, severity audit.Severity) {
	t.Helper()
	f, ok := r.Find(id)
	if !ok || f.Outcome != want || f.FailedAs != severity {
		t.Errorf("%s is %s %v (%s), want %s %v", id, f.Outcome, f.FailedAs, f.Message, want, severity)
	}
	if ok && f.Outcome == audit.Pass && strings.Contains(f.Message, "%!") {
		t.Errorf("%s: the message is broken: %s", id, f.Message)
	}
}

// site is a small API: /me needs the token, everything else is given.
func site(routes map[string]http.HandlerFunc) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer valid" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answerJSON(w, 401, map[string]any{"title": "who are you?"})
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		answerJSON(w, 200, map[string]any{"id": "a"})
	})
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	return mux
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func always(status int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, status, v) }
}

// once answers 500 to the first request that is wrong in some way and 400 afterwards.
func once(wrong func(*http.Request) bool) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !wrong(r):
			answerJSON(w, 200, []any{})
		case n.Add(1) == 1:
			answerJSON(w, 500, map[string]any{"title": "a deadlock, this once"})
		default:
			answerJSON(w, 400, map[string]any{"title": "no"})
		}
	}
}

// abort closes the connection without an answer.
func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestMalformedBodies(t *testing.T) {
	parse := func(w http.ResponseWriter, r *http.Request) bool {
		var in map[string]any
		if json.NewDecoder(r.Body).Decode(&in) != nil || in == nil {
			return false
		}
		answerJSON(w, 201, in)
		return true
	}
	for _, c := range []struct {
		name     string
		post     http.HandlerFunc
		want     audit.Outcome
		severity audit.Severity
	}{
		{"refused", always(400, map[string]any{"title": "no"}), audit.Pass, 0},
		{"refused with 422", always(422, map[string]any{"title": "no"}), audit.Pass, 0},
		{"an error under 200", func(w http.ResponseWriter, r *http.Request) {
			if !parse(w, r) {
				answerJSON(w, 200, map[string]any{"success": false, "error": "invalid JSON"})
			}
		}, audit.Pass, 0},
		{"a crash", func(w http.ResponseWriter, r *http.Request) {
			if !parse(w, r) {
				answerJSON(w, 500, map[string]any{"title": "JSONDecodeError"})
			}
		}, audit.Fail, audit.High},
		{"taken unread", always(201, map[string]any{"id": 1}), audit.Fail, audit.High},
		{"an empty search is fine", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var in any
			if err != nil || len(body) > 0 && json.Unmarshal(body, &in) != nil {
				answerJSON(w, 400, map[string]any{"title": "no"})
				return
			}
			answerJSON(w, 200, []any{})
		}, audit.Inconclusive, 0},
		{"not this user", always(403, map[string]any{"title": "no"}), audit.Inconclusive, 0},
		{"not there", always(404, map[string]any{"title": "no"}), audit.Inconclusive, 0},
		{"a bad day", once(func(r *http.Request) bool { return r.Method == http.MethodPost }), audit.Inconclusive, 0},
		{"shedding", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			answerJSON(w, 503, map[string]any{"title": "busy"})
		}, audit.Inconclusive, 0},
		{"dying", abort, audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := outcomes(t, site(map[string]http.HandlerFunc{"POST /things": c.post}), func(t *audit.Target) { t.WritePath = "/things" }, "VAL-01")
			expect(t, r, "VAL-01", c.want, c.severity)
		})
	}
}

func TestCatchAllPageReadsNoBody(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>app</title>")
	}
	r := outcomes(t, site(map[string]http.HandlerFunc{"/": page}), func(t *audit.Target) { t.WritePath = "/api/things" }, "VAL-01")
	expect(t, r, "VAL-01", audit.Inconclusive, 0)
}

func TestRateLimitInBetweenIsSatOut(t *testing.T) {
	var n atomic.Int64
	post := func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 3 {
			w.Header().Set("Retry-After", "1")
			answerJSON(w, 429, map[string]any{"title": "slowly"})
			return
		}
		answerJSON(w, 400, map[string]any{"title": "no"})
	}
	r := outcomes(t, site(map[string]http.HandlerFunc{"POST /things": post}), func(t *audit.Target) { t.WritePath = "/things" }, "VAL-01")
	expect(t, r, "VAL-01", audit.Pass, 0)
}

// listing describes GET /things with one parameter.
func listing(p audit.Param) func(*audit.Target) {
	return func(t *audit.Target) {
		t.Operations = []audit.Operation{{Method: "GET", Path: "/things", Params: []audit.Param{p}}}
	}
}

var (
	limitParam = audit.Param{Name: "limit", In: "query", Type: "integer", Example: "10"}
	tagParam   = audit.Param{Name: "tag", In: "query", Type: "string", Example: "home"}
)

func TestNegativesFromTheDescription(t *testing.T) {
	var turn atomic.Int64
	odd := func(r *http.Request) bool { return r.URL.Query().Get("limit") != "10" && r.URL.RawQuery != "" }
	for _, c := range []struct {
		name     string
		get      http.HandlerFunc
		param    audit.Param
		want     audit.Outcome
		severity audit.Severity
	}{
		{"any text is a good string", always(200, []any{}), tagParam, audit.Pass, 0},
		{"a crash that comes back", func(w http.ResponseWriter, r *http.Request) {
			if odd(r) {
				answerJSON(w, 500, map[string]any{"title": "ValueError"})
				return
			}
			answerJSON(w, 200, []any{})
		}, limitParam, audit.Fail, audit.High},
		{"a crash that does not", once(odd), limitParam, audit.Inconclusive, 0},
		{"broken from the start", always(500, map[string]any{}), limitParam, audit.Inconclusive, 0},
		{"not let in", always(401, map[string]any{}), limitParam, audit.Inconclusive, 0},
		{"refused whatever it is", always(400, map[string]any{}), limitParam, audit.Inconclusive, 0},
		{"shedding", func(w http.ResponseWriter, r *http.Request) {
			if odd(r) {
				w.Header().Set("Retry-After", "1")
				answerJSON(w, 503, map[string]any{})
				return
			}
			answerJSON(w, 200, []any{})
		}, limitParam, audit.Pass, 0},
		{"dying", func(w http.ResponseWriter, r *http.Request) {
			if odd(r) {
				abort(w, r)
			}
			answerJSON(w, 200, []any{})
		}, limitParam, audit.Inconclusive, 0},
		{"a connection lost now and then", func(w http.ResponseWriter, r *http.Request) {
			if odd(r) && turn.Add(1)%3 != 0 {
				abort(w, r)
			}
			answerJSON(w, 200, []any{})
		}, limitParam, audit.Pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := outcomes(t, site(map[string]http.HandlerFunc{"GET /things": c.get}), listing(c.param), "VAL-02")
			expect(t, r, "VAL-02", c.want, c.severity)
		})
	}
}

func TestNegativesKeepToTheirBudget(t *testing.T) {
	var n atomic.Int64
	mux := site(map[string]http.HandlerFunc{"GET /t/": func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		answerJSON(w, 200, []any{})
	}})
	r := outcomes(t, mux, func(t *audit.Target) {
		for i := range 40 {
			t.Operations = append(t.Operations, audit.Operation{Method: "GET", Path: fmt.Sprintf("/t/%d", i), Params: []audit.Param{limitParam, tagParam}})
		}
	}, "VAL-02")
	expect(t, r, "VAL-02", audit.Pass, 0)
	if n.Load() != negativeBudget {
		t.Errorf("%d requests were sent, want %d", n.Load(), negativeBudget)
	}
}

// shelf is a table in a real database.
func shelf(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "shelf.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(`CREATE TABLE things (id INTEGER, tag TEXT); INSERT INTO things VALUES (1,'home'),(2,'home'),(3,'work')`); err != nil {
		t.Fatal(err)
	}
	return db
}

func rowsOf(db *sql.DB, query string, args ...any) ([]map[string]any, error) {
	rows, err := db.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []map[string]any{}
	for rows.Next() {
		var id int
		var tag string
		if err := rows.Scan(&id, &tag); err != nil {
			return nil, err
		}
		out = append(out, map[string]any{"id": id, "tag": tag})
	}
	return out, rows.Err()
}

func TestInjectionAgainstARealDatabase(t *testing.T) {
	db := shelf(t)
	within := func(before, after string, onError func(http.ResponseWriter, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			query := "SELECT id, tag FROM things"
			if tag := r.URL.Query().Get("tag"); tag != "" {
				query += " WHERE tag " + before + tag + after
			}
			found, err := rowsOf(db, query)
			if err != nil {
				onError(w, err)
				return
			}
			answerJSON(w, 200, found)
		}
	}
	pasted := func(onError func(http.ResponseWriter, error)) http.HandlerFunc { return within("= '", "'", onError) }
	mute := func(w http.ResponseWriter, _ error) { answerJSON(w, 500, map[string]any{"title": "internal error"}) }
	bound := func(w http.ResponseWriter, r *http.Request) {
		found, err := rowsOf(db, "SELECT id, tag FROM things WHERE tag = ?", r.URL.Query().Get("tag"))
		if err != nil {
			answerJSON(w, 500, map[string]any{"title": err.Error()})
			return
		}
		answerJSON(w, 200, found)
	}
	unknown := tagParam
	unknown.Example = ""
	for _, c := range []struct {
		name     string
		get      http.HandlerFunc
		param    audit.Param
		want     audit.Outcome
		severity audit.Severity
	}{
		{"pasted, and the database talks", pasted(func(w http.ResponseWriter, err error) { answerJSON(w, 500, map[string]any{"title": err.Error()}) }), tagParam, audit.Fail, audit.Critical},
		{"pasted, and errors are hidden", pasted(func(w http.ResponseWriter, _ error) { answerJSON(w, 200, []any{}) }), tagParam, audit.Fail, audit.Critical},
		{"pasted, the value learnt from the list", pasted(func(w http.ResponseWriter, _ error) { answerJSON(w, 400, map[string]any{}) }), unknown, audit.Fail, audit.Critical},
		{"pasted into a pattern, and errors are mute", within("LIKE '%", "%'", mute), tagParam, audit.Fail, audit.Critical},
		{"pasted into the start of a pattern", within("LIKE '", "%'", mute), tagParam, audit.Fail, audit.Critical},
		{"pasted where no condition can stand", within("= lower('", "')", mute), tagParam, audit.Inconclusive, 0},
		{"bound", bound, tagParam, audit.Pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := outcomes(t, site(map[string]http.HandlerFunc{"GET /things": c.get}), listing(c.param), "VAL-03")
			expect(t, r, "VAL-03", c.want, c.severity)
		})
	}
}

var things = []map[string]any{{"id": 1, "tag": "home"}, {"id": 2, "tag": "home"}, {"id": 3, "tag": "work"}}

// matching are the things for which f holds.
func matching(f func(tag string) bool) []map[string]any {
	out := []map[string]any{}
	for _, x := range things {
		if f(x["tag"].(string)) {
			out = append(out, x)
		}
	}
	return out
}

func TestInjectionIsNotWhatOnlyLooksLikeIt(t *testing.T) {
	var turn atomic.Int64
	for _, c := range []struct {
		name string
		get  http.HandlerFunc
		want audit.Outcome
	}{
		{"an echo", func(w http.ResponseWriter, r *http.Request) {
			answerJSON(w, 200, map[string]any{"query": r.URL.RawQuery, "hits": matching(func(tag string) bool { return tag == r.URL.Query().Get("tag") })})
		}, audit.Pass},
		{"another answer each time", func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, things[:turn.Add(1)%3])
		}, audit.Inconclusive},
		{"a search by words, any of them", func(w http.ResponseWriter, r *http.Request) {
			words := strings.FieldsFunc(r.URL.Query().Get("tag"), func(r rune) bool { return strings.ContainsRune("' =", r) })
			answerJSON(w, 200, matching(func(tag string) bool {
				for _, word := range words {
					if word == tag || word == "2" && tag == "work" { // "2" stands in another document
						return true
					}
				}
				return false
			}))
		}, audit.Pass},
		{"a search by words, all of them", func(w http.ResponseWriter, r *http.Request) {
			words := strings.FieldsFunc(r.URL.Query().Get("tag"), func(r rune) bool { return strings.ContainsRune("' =", r) })
			answerJSON(w, 200, matching(func(tag string) bool {
				for _, word := range words {
					if word == "2" { // "1" and "AND" stand in all documents, "2" in none
						return false
					}
				}
				return len(words) > 0 && tag == words[0]
			}))
		}, audit.Pass},
		{"a firewall", func(w http.ResponseWriter, r *http.Request) {
			if strings.ContainsAny(r.URL.Query().Get("tag"), "'") {
				answerJSON(w, 403, map[string]any{"title": "blocked"})
				return
			}
			answerJSON(w, 200, things)
		}, audit.Inconclusive},
		{"an error about a value", func(w http.ResponseWriter, r *http.Request) {
			if tag := r.URL.Query().Get("tag"); strings.Contains(tag, "'") {
				answerJSON(w, 400, map[string]any{"title": fmt.Sprintf("invalid input syntax for type integer: %q", tag)})
				return
			}
			answerJSON(w, 200, things)
		}, audit.Pass},
		{"documented operators without $eq", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			switch {
			case q.Has("tag[$ne]"):
				answerJSON(w, 200, matching(func(tag string) bool { return tag != q.Get("tag[$ne]") }))
			case q.Has("tag"):
				answerJSON(w, 200, matching(func(tag string) bool { return tag == q.Get("tag") }))
			case r.URL.RawQuery != "":
				answerJSON(w, 400, map[string]any{"title": "unknown parameter"})
			default:
				answerJSON(w, 200, things)
			}
		}, audit.Pass},
		{"unknown names are ignored", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			answerJSON(w, 200, matching(func(tag string) bool { return !q.Has("tag") || tag == q.Get("tag") }))
		}, audit.Pass},
		{"a parameter without effect", always(200, things), audit.Pass},
		{"not let in", always(401, map[string]any{}), audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := outcomes(t, site(map[string]http.HandlerFunc{"GET /things": c.get}), listing(tagParam), "VAL-03")
			expect(t, r, "VAL-03", c.want, 0)
		})
	}
}

func TestOperatorsThatReachTheQueryAreFound(t *testing.T) {
	get := func(w http.ResponseWriter, r *http.Request) { // what a parser of nested queries hands to the driver
		q := r.URL.Query()
		answerJSON(w, 200, matching(func(tag string) bool {
			return (!q.Has("tag") || tag == q.Get("tag")) && (!q.Has("tag[$ne]") || tag != q.Get("tag[$ne]")) && (!q.Has("tag[$eq]") || tag == q.Get("tag[$eq]"))
		}))
	}
	r := outcomes(t, site(map[string]http.HandlerFunc{"GET /things": get}), listing(tagParam), "VAL-03")
	expect(t, r, "VAL-03", audit.Fail, audit.Critical)
}

func TestTraversal(t *testing.T) {
	const file = "root:x:0:0:root:/root:/bin/sh\n"
	name := audit.Param{Name: "file", In: "query", Type: "string", Example: "a.txt"}
	for _, c := range []struct {
		name     string
		get      http.HandlerFunc
		want     audit.Outcome
		severity audit.Severity
	}{
		{"an echo", func(w http.ResponseWriter, r *http.Request) {
			answerJSON(w, 400, map[string]any{"title": r.URL.RawQuery})
		}, audit.Pass, 0},
		{"a page about Unix", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<pre>"+file+"</pre>") }, audit.Pass, 0},
		{"the file", func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(filepath.Clean("/srv/"+r.URL.Query().Get("file")), "/etc/passwd") {
				io.WriteString(w, file+"secret-user:x:1000:1000::/:/bin/sh\n")
				return
			}
			answerJSON(w, 200, map[string]any{"file": "an empty one"})
		}, audit.Fail, audit.Critical},
		{"nothing there", always(404, map[string]any{}), audit.Inconclusive, 0},
		{"not let in", always(401, map[string]any{}), audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := outcomes(t, site(map[string]http.HandlerFunc{"GET /things": c.get}), listing(name), "VAL-04")
			expect(t, r, "VAL-04", c.want, c.severity)
			text, err := json.Marshal(r)
			if err != nil || strings.Contains(string(text), "secret-user") {
				t.Errorf("the report holds the file (%v)", err)
			}
		})
	}
}

func TestUnknownNameIsAnAnswerWhereTheDescriptionFits(t *testing.T) {
	h := site(map[string]http.HandlerFunc{"GET /things": always(200, []any{}), "GET /files/{name}": always(404, map[string]any{})})
	r := outcomes(t, h, func(t *audit.Target) {
		listing(limitParam)(t)
		t.Operations = append(t.Operations, audit.Operation{
			Method: "GET", Path: "/files/{name}", Params: []audit.Param{{Name: "name", In: "path", Type: "string", Required: true}},
		})
	}, "VAL-02", "VAL-04")
	expect(t, r, "VAL-04", audit.Pass, 0)
}

func TestPathParametersGoOverTheWireAsWritten(t *testing.T) {
	var seen atomic.Value
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), "/f/..") {
			seen.CompareAndSwap(nil, r.RequestURI)
		}
		answerJSON(w, 400, map[string]any{})
	})
	r := outcomes(t, h, func(t *audit.Target) {
		t.Operations = []audit.Operation{{Method: "GET", Path: "/f/{name}", Params: []audit.Param{{Name: "name", In: "path", Type: "string", Required: true}}}}
	}, "VAL-04")
	expect(t, r, "VAL-04", audit.Pass, 0)
	if got, want := seen.Load(), "/f/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd"; got != want {
		t.Errorf("sent %v, want %s", got, want)
	}
}

func TestValidationProbesSayWhatTheyWouldNeed(t *testing.T) {
	r := outcomes(t, site(nil), nil, "VAL-01", "VAL-02", "VAL-03", "VAL-04")
	for _, id := range []string{"VAL-01", "VAL-02", "VAL-03", "VAL-04"} {
		expect(t, r, id, audit.Inconclusive, 0)
		if f, _ := r.Find(id); !strings.Contains(f.Hint, "--openapi") {
			t.Errorf("%s hints %q, want --openapi", id, f.Hint)
		}
	}
}
