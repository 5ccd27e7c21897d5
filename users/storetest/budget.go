package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantryhq/gantry/users"
)

// Statements hears of every statement that a store runs; give its Seen to the store's tracer.
type Statements struct {
	mu   sync.Mutex
	list []string
	all  map[string]bool
}

// All returns every statement that was ever seen, once, whole.
func (s *Statements) All() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// Seen takes one statement; what begins and ends transactions is not counted.
func (s *Statements) Seen(statement string) {
	whole := statement
	for _, line := range strings.Split(statement, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			statement = line
			break
		}
	}
	first, _, _ := strings.Cut(strings.ToLower(statement), " ")
	switch strings.TrimSuffix(first, ";") {
	case "begin", "commit", "rollback", "set", "start":
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, statement)
	if s.all == nil {
		s.all = make(map[string]bool)
	}
	s.all[whole] = true
}

// take returns what was seen, and begins anew.
func (s *Statements) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// budget is how many statements each request may run, in this order; ANN/ stands for the id of ann.
var budget = []struct {
	what, subject, method, path, body, key string
	status, statements                     int
}{
	{"the first sight of a user", "ann", "GET", "/v1/users/me", "", "", 200, 4},
	{"a known user", "ann", "GET", "/v1/users/me", "", "", 200, 1},
	{"a change", "ann", "PATCH", "/v1/users/me", `{"handle":"ann","bio":"x"}`, "", 200, 3},
	{"a change of nothing", "ann", "PATCH", "/v1/users/me", `{"bio":"x"}`, "", 200, 1},
	{"a change with a key", "ann", "PATCH", "/v1/users/me", `{"bio":"y"}`, "k1", 200, 5},
	{"its replay", "ann", "PATCH", "/v1/users/me", `{"bio":"y"}`, "k1", 200, 2},
	{"a change that is refused", "ann", "PATCH", "/v1/users/me", `{"bio":1}`, "", 422, 0},
	{"a public profile", "", "GET", "/v1/users/ann", "", "", 200, 1},
	{"a handle that cannot be", "", "GET", "/v1/users/ANN", "", "", 404, 0},
	{"an export", "ann", "GET", "/v1/users/me/export", "", "", 200, 3},
	{"a list of one", "admin", "GET", "/v1/users?limit=1", "", "", 200, 2},
	{"a list of a hundred", "admin", "GET", "/v1/users?limit=100", "", "", 200, 2},
	{"a list by status", "admin", "GET", "/v1/users?limit=100&status=active", "", "", 200, 2},
	{"a list by match", "admin", "GET", "/v1/users?limit=100&q=ann", "", "", 200, 2},
	{"a list of nobody", "admin", "GET", "/v1/users?q=nobody", "", "", 200, 1},
	{"a list for a stranger", "ann", "GET", "/v1/users", "", "", 403, 0},
	{"a suspension", "admin", "POST", "/v1/users/ANN/suspend", "", "", 200, 3},
	{"a suspended user", "ann", "GET", "/v1/users/me", "", "", 403, 1},
	{"a second suspension", "admin", "POST", "/v1/users/ANN/suspend", "", "", 200, 1},
	{"a reinstatement with a key", "admin", "POST", "/v1/users/ANN/reinstate", "", "k1", 200, 5},
	{"a plan", "admin", "PUT", "/v1/users/ANN/plan", `{"plan":"pro"}`, "", 200, 3},
	{"a deletion", "ann", "DELETE", "/v1/users/me", "", "", 204, 4},
	{"a deleted user", "ann", "GET", "/v1/users/me", "", "", 410, 1},
	{"a deletion with a key", "bob", "DELETE", "/v1/users/me", "", "k1", 204, 7},
	{"the documentation", "", "GET", "/v1/openapi.json", "", "", 200, 0},
	{"its page", "", "GET", "/v1/docs", "", "", 200, 0},
}

// Budget sends a request to every route, and fails when one needs more statements than the table
// says, or fewer: then the table is to be lowered. seen must hear of every statement of the store.
func Budget(t *testing.T, store users.Store, seen *Statements) {
	h := handler(t, store)
	ann := ""
	for i := range 120 {
		u := user(fmt.Sprint("filler_", i))
		create(t, store, u)
		update(t, store, u.ID, func(*users.User) {})
	}
	create(t, store, user("bob"))
	for _, b := range budget {
		r := httptest.NewRequest(b.method, strings.ReplaceAll(b.path, "ANN/", ann+"/"), strings.NewReader(b.body))
		r.Header.Set("Subject", b.subject)
		r.Header.Set("Content-Type", "application/json")
		if b.key != "" {
			r.Header.Set("Idempotency-Key", b.key)
		}
		w := httptest.NewRecorder()
		seen.take()
		h.ServeHTTP(w, r)
		if list := seen.take(); w.Code != b.status || len(list) != b.statements {
			t.Errorf("%s = %d in %d statements, want %d in %d: %s\n%s", b.what, w.Code, len(list), b.status, b.statements, w.Body, strings.Join(list, "\n"))
		}
		if ann == "" {
			var p users.Profile
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			ann = p.ID
		}
	}
}

type subjectKey struct{}

// handler takes the caller's subject from a header.
func handler(t *testing.T, store users.Store) http.Handler {
	t.Helper()
	caller := func(ctx context.Context) (users.Claims, bool) {
		subject, _ := ctx.Value(subjectKey{}).(string)
		return users.Claims{Issuer: issuer, Subject: subject}, subject != ""
	}
	h, err := users.NewHandler(users.NewService(store, users.Config{}), users.HandlerConfig{
		Caller: caller,
		Admin: func(ctx context.Context) bool {
			c, _ := caller(ctx)
			return c.Subject == "admin"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), subjectKey{}, r.Header.Get("Subject"))))
	})
}
