package probes

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// counterServer is a counter behind POST /n and GET /n.
type counterServer struct {
	mu       sync.Mutex
	n        int
	inFlight int
	posts    int
}

func (c *counterServer) add(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += by
}

func (c *counterServer) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// enter counts those that are being served; the func leaves again.
func (c *counterServer) enter() (before int, leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight++
	c.posts++
	return c.inFlight - 1, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.inFlight--
	}
}

func TestLostUpdatesAreToldFromLateAndRefusedOnes(t *testing.T) {
	ok := func(w http.ResponseWriter) { answerJSON(w, 200, map[string]any{"ok": true}) }
	for _, c := range []struct {
		name string
		post func(*counterServer, http.ResponseWriter, *http.Request)
		read func(*counterServer) int
		want audit.Outcome
	}{
		{"counted at once", func(c *counterServer, w http.ResponseWriter, _ *http.Request) { c.add(1); ok(w) }, (*counterServer).get, audit.Pass},
		{"counted in fives, downwards", func(c *counterServer, w http.ResponseWriter, _ *http.Request) { c.add(-5); ok(w) }, (*counterServer).get, audit.Pass},
		{"counted a little later", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			time.AfterFunc(30*time.Millisecond, func() { c.add(1) })
			ok(w)
		}, (*counterServer).get, audit.Pass},
		{"refused when another is at work", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			before, leave := c.enter()
			defer leave()
			time.Sleep(time.Millisecond)
			if before > 20 {
				answerJSON(w, 409, map[string]any{"title": "try again"})
				return
			}
			c.add(1)
			ok(w)
		}, (*counterServer).get, audit.Pass},
		{"dropped when another is at work", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			before, leave := c.enter()
			defer leave()
			time.Sleep(5 * time.Millisecond)
			if before == 0 {
				c.add(1)
			}
			ok(w)
		}, (*counterServer).get, audit.Fail},
		{"done, but answered 500", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			before, leave := c.enter()
			defer leave()
			time.Sleep(time.Millisecond)
			c.add(1)
			if before > 20 {
				answerJSON(w, 500, map[string]any{"title": "the log is full"})
				return
			}
			ok(w)
		}, (*counterServer).get, audit.Pass},
		{"read from a cache", func(c *counterServer, w http.ResponseWriter, _ *http.Request) { c.add(1); ok(w) }, func(*counterServer) int { return 7 }, audit.Inconclusive},
		{"moved by others", func(c *counterServer, w http.ResponseWriter, _ *http.Request) { c.add(1); ok(w) }, func(c *counterServer) int { c.add(3); return c.get() }, audit.Inconclusive},
		{"down after a few", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			if c.get() > 4 {
				answerJSON(w, 503, map[string]any{"title": "down"})
				return
			}
			c.add(1)
			ok(w)
		}, (*counterServer).get, audit.Inconclusive},
		{"refused by a limit", func(c *counterServer, w http.ResponseWriter, _ *http.Request) {
			if c.get() >= 3 {
				w.Header().Set("Retry-After", "1")
				answerJSON(w, 429, map[string]any{"title": "slowly"})
				return
			}
			c.add(1)
			ok(w)
		}, (*counterServer).get, audit.Inconclusive},
		{"refused for good", func(_ *counterServer, w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 403, map[string]any{"title": "no"})
		}, (*counterServer).get, audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := &counterServer{}
			f := auditOf(t, api(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path != "/n":
					return false
				case r.Method == http.MethodPost:
					c.post(n, w, r)
				default:
					answerJSON(w, 200, map[string]any{"list": []any{map[string]any{"n": c.read(n)}}})
				}
				return true
			}), func(_ string, t *audit.Target, c *audit.Config) {
				c.Policy.RateLimit = 100
				t.Recipes = map[string]audit.Recipe{"counter": {Path: "/n", Read: "/n", Field: "list.0.n"}}
			}, "DAT-03")
			wantOutcome(t, f, c.want, 0)
		})
	}
}

// objectStore keeps what was posted, in the order in which it came.
type objectStore struct {
	mu   sync.Mutex
	list []map[string]any
	keys map[string]int
}

func (s *objectStore) put(text string) int {
	s.list = append(s.list, map[string]any{"id": len(s.list) + 1, "text": text})
	return len(s.list)
}

// serve answers POST /things by post, with the lock held, GET /things, GET /things/ID and DELETE.
func (s *objectStore) serve(post func(s *objectStore, w http.ResponseWriter, r *http.Request, body string), shows int) http.Handler {
	s.keys = map[string]int{}
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/things") {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		id := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/things"), "/")
		switch {
		case r.Method == http.MethodPost:
			post(s, w, r, string(body))
		case r.Method == http.MethodDelete:
			w.WriteHeader(204)
		case id == "":
			answerJSON(w, 200, map[string]any{"items": s.list[:min(len(s.list), shows)]})
		default:
			for _, thing := range s.list {
				if fmt.Sprint(thing["id"]) == id {
					answerJSON(w, 200, thing)
					return true
				}
			}
			answerJSON(w, 404, map[string]any{"title": "no such thing"})
		}
		return true
	})
}

func TestDoubleSubmitCountsObjectsAndNotAnswers(t *testing.T) {
	made := func(w http.ResponseWriter, id any) { answerJSON(w, 201, map[string]any{"id": id}) }
	stored := func(s *objectStore, w http.ResponseWriter, r *http.Request, body string) {
		key := r.Header.Get("Idempotency-Key")
		if s.keys[key] == 0 || key == "" {
			s.keys[key] = s.put(body)
		}
		made(w, s.keys[key])
	}
	once := func(answer func(s *objectStore, w http.ResponseWriter, first bool)) func(*objectStore, http.ResponseWriter, *http.Request, string) {
		return func(s *objectStore, w http.ResponseWriter, r *http.Request, body string) {
			key := r.Header.Get("Idempotency-Key")
			first := s.keys[key] == 0
			if first {
				s.keys[key] = s.put(body)
			}
			answer(s, w, first)
		}
	}
	for _, c := range []struct {
		name   string
		post   func(*objectStore, http.ResponseWriter, *http.Request, string)
		read   string
		unique bool
		want   audit.Outcome
	}{
		{"the stored answer, by list", stored, "/things", false, audit.Pass},
		{"the stored answer, by id", stored, "/things/{{id}}", false, audit.Pass},
		{"the stored answer, nothing to read", stored, "", false, audit.Pass},
		{"no second one, 409", once(func(s *objectStore, w http.ResponseWriter, first bool) {
			if !first {
				answerJSON(w, 409, map[string]any{"title": "once is enough"})
				return
			}
			made(w, len(s.list))
		}), "/things", false, audit.Pass},
		{"the key is ignored, by list", func(s *objectStore, w http.ResponseWriter, _ *http.Request, body string) { made(w, s.put(body)) }, "/things", false, audit.Fail},
		{"the key is ignored, by id", func(s *objectStore, w http.ResponseWriter, _ *http.Request, body string) { made(w, s.put(body)) }, "/things/{{id}}", false, audit.Fail},
		{"unique, but not without a key", stored, "/things", true, audit.Fail},
		{"the id is the request's, one object in the list", once(func(s *objectStore, w http.ResponseWriter, _ bool) {
			s.keys["n"]++
			made(w, fmt.Sprint("req-", s.keys["n"]))
		}), "/things", false, audit.Inconclusive},
		{"the id is the request's, and cannot be read", once(func(s *objectStore, w http.ResponseWriter, _ bool) {
			s.keys["n"]++
			made(w, fmt.Sprint("req-", s.keys["n"]))
		}), "/things/{{id}}", false, audit.Inconclusive},
		{"accepted for later", func(s *objectStore, w http.ResponseWriter, _ *http.Request, _ string) {
			s.keys["n"]++
			answerJSON(w, 202, map[string]any{"id": fmt.Sprint("job-", s.keys["n"])})
		}, "", false, audit.Inconclusive},
		{"no id and no list", once(func(_ *objectStore, w http.ResponseWriter, _ bool) { w.WriteHeader(204) }), "", false, audit.Inconclusive},
		{"all others break", once(func(s *objectStore, w http.ResponseWriter, first bool) {
			if !first {
				answerJSON(w, 500, map[string]any{"title": "duplicate key value"})
				return
			}
			made(w, len(s.list))
		}), "/things", false, audit.Inconclusive},
		{"refused", func(_ *objectStore, w http.ResponseWriter, _ *http.Request, _ string) {
			answerJSON(w, 403, map[string]any{"title": "no"})
		}, "/things", false, audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := auditOf(t, (&objectStore{}).serve(c.post, 1000), func(_ string, t *audit.Target, _ *audit.Config) {
				t.Recipes = map[string]audit.Recipe{"create": {Path: "/things", Body: `{"text":"{{marker}}"}`, Read: c.read, Delete: "/things/{{id}}", Unique: c.unique}}
			}, "DAT-04")
			wantOutcome(t, f, c.want, 0)
		})
	}
}

func TestHalfABatchIsToldFromAListThatIsOld(t *testing.T) {
	for _, c := range []struct {
		name  string
		batch func(s *objectStore, w http.ResponseWriter, body string)
		shows int
		want  audit.Outcome
	}{
		{"nothing kept", func(_ *objectStore, w http.ResponseWriter, _ string) { answerJSON(w, 422, nil) }, 100, audit.Pass},
		{"a part kept", func(s *objectStore, w http.ResponseWriter, body string) { s.put(body); answerJSON(w, 422, nil) }, 100, audit.Fail},
		{"a part kept, and 500", func(s *objectStore, w http.ResponseWriter, body string) { s.put(body); answerJSON(w, 500, nil) }, 100, audit.Fail},
		{"a part kept, and 200", func(s *objectStore, w http.ResponseWriter, body string) { s.put(body); answerJSON(w, 200, nil) }, 100, audit.Fail},
		{"taken back a little later", func(s *objectStore, w http.ResponseWriter, body string) {
			s.put(body)
			time.AfterFunc(30*time.Millisecond, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.list = s.list[1:]
			})
			answerJSON(w, 422, nil)
		}, 100, audit.Pass},
		{"all kept: it was valid", func(s *objectStore, w http.ResponseWriter, body string) {
			s.put(body)
			s.put(body)
			answerJSON(w, 201, nil)
		}, 100, audit.Inconclusive},
		{"one by one by design", func(s *objectStore, w http.ResponseWriter, body string) { s.put(body); answerJSON(w, 207, nil) }, 100, audit.Inconclusive},
		{"accepted, and nothing kept", func(_ *objectStore, w http.ResponseWriter, _ string) { answerJSON(w, 200, nil) }, 100, audit.Inconclusive},
		{"broke, and nothing kept", func(_ *objectStore, w http.ResponseWriter, _ string) { answerJSON(w, 500, nil) }, 100, audit.Inconclusive},
		{"there is no such path", func(_ *objectStore, w http.ResponseWriter, _ string) { answerJSON(w, 404, nil) }, 100, audit.Inconclusive},
		{"the list shows nothing new", func(s *objectStore, w http.ResponseWriter, body string) { s.put(body); answerJSON(w, 422, nil) }, 0, audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			post := func(s *objectStore, w http.ResponseWriter, r *http.Request, body string) {
				if r.URL.Path == "/things/batch" {
					c.batch(s, w, body)
					return
				}
				answerJSON(w, 201, map[string]any{"id": s.put(body)})
			}
			f := auditOf(t, (&objectStore{}).serve(post, c.shows), func(_ string, t *audit.Target, _ *audit.Config) {
				t.Recipes = map[string]audit.Recipe{
					"create": {Path: "/things", Body: `{"text":"{{marker}}"}`},
					"batch":  {Path: "/things/batch", Body: `[{"text":"{{marker}}"},{"text":"{{marker}}","bad":true}]`, Read: "/things"},
				}
			}, "DAT-05")
			wantOutcome(t, f, c.want, 0)
		})
	}
}

func TestRecipesAreNeededToWrite(t *testing.T) {
	for _, id := range []string{"DAT-03", "DAT-04", "DAT-05"} {
		f := auditOf(t, api(func(http.ResponseWriter, *http.Request) bool { return false }), nil, id)
		wantOutcome(t, f, audit.Inconclusive, 0)
		if !strings.Contains(f.Hint, "audit.recipes") {
			t.Errorf("%s: the hint is %q", id, f.Hint)
		}
	}
}
