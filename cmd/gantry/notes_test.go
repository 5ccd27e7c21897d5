//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// notes is an upstream: a small sound application that leaves who calls, how often and how long to the door. It
// knows the caller by X-User-Id, and has a log-in whose sessions are Clerk's.
type notes struct {
	sessions *testenv.Issuer // Clerk's
	clerk    *testenv.Clerk
	door     func() string // where Clerk's reports go

	mu     sync.Mutex
	last   int
	kept   map[int]note
	of     map[string][]int // the ids of an owner's
	once   map[string]int   // idempotency key: id
	misses map[string]int   // wrong passwords by account
}

type note struct {
	ID    int    `json:"id"`
	Text  string `json:"text"`
	Link  string `json:"link,omitempty"`
	Likes int    `json:"likes"`
	owner string
}

const (
	notesPage    = 100 // the largest
	notesSeed    = 12_000
	rightPass    = "correct horse battery staple"
	longAnswer   = 700 * time.Millisecond
	lockedOut    = 5 // wrong passwords
	noteMax      = 1000
	notesVersion = "1.4.2"
)

// serveNotes starts the application with rows of user_a's and one of user_b's, and returns their addresses.
func serveNotes(t *testing.T, n *notes) (url string, ofA, ofB int) {
	t.Helper()
	n.kept, n.of, n.once, n.misses = map[int]note{}, map[string][]int{}, map[string]int{}, map[string]int{}
	for i := range notesSeed {
		ofA = n.add("user_a", note{Text: fmt.Sprintf("note %d", i)})
	}
	ofB = n.add("user_b", note{Text: "mine alone"})
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /notes": n.list, "POST /notes": n.create, "GET /notes/{id}": n.read, "DELETE /notes/{id}": n.remove,
		"POST /notes/{id}/likes": n.like, "POST /imports": n.batch, "POST /login": n.login, "POST /logout": n.logout,
		"GET /slow": slow, "GET /hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"GET /version": func(w http.ResponseWriter, _ *http.Request) { tell(w, 200, map[string]string{"version": notesVersion}) },
		"/":            func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "there is nothing here") },
	} {
		mux.HandleFunc(pattern, h)
	}
	for _, path := range []string{"/notes", "/notes/{id}", "/notes/{id}/likes", "/imports", "/login", "/logout", "/slow", "/hang", "/version"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, POST, DELETE")
			refuse(w, 405, "the method is not allowed here")
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, ofA, ofB
}

func slow(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(longAnswer):
		tell(w, 200, map[string]bool{"slow": true})
	case <-r.Context().Done():
	}
}

func tell(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "status": status, "title": http.StatusText(status), "detail": detail})
}

// take reads a JSON body strictly; not ok when it has answered.
func take(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		refuse(w, 415, "send application/json")
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		refuse(w, 400, "the body is not the JSON that is wanted here")
		return false
	}
	return true
}

func (n *notes) add(owner string, x note) int {
	n.last++
	x.ID, x.owner = n.last, owner
	n.kept[x.ID] = x
	n.of[owner] = append(n.of[owner], x.ID)
	return x.ID
}

// number reads a query parameter within bounds.
func number(r *http.Request, name string, otherwise, least, most int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	v, err := strconv.Atoi(text)
	return v, err == nil && v >= least && v <= most
}

func (n *notes) list(w http.ResponseWriter, r *http.Request) {
	limit, ok := number(r, "limit", 20, 1, notesPage)
	offset, ok2 := number(r, "offset", 0, 0, 1_000_000)
	if !ok || !ok2 {
		refuse(w, 400, "limit is 1 to 100, offset 0 or more")
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	mine := n.of[r.Header.Get("X-User-Id")]
	if q := r.URL.Query().Get("q"); q != "" {
		mine = slices.DeleteFunc(slices.Clone(mine), func(id int) bool { return !strings.Contains(n.kept[id].Text, q) })
	}
	page := []note{}
	for i := len(mine) - 1 - offset; i >= 0 && len(page) < limit; i-- { // the newest first
		page = append(page, n.kept[mine[i]])
	}
	tell(w, 200, map[string]any{"notes": page})
}

type newNote struct {
	Text string `json:"text"`
	Link string `json:"link"`
}

func (x newNote) fault() string {
	if x.Text == "" || len(x.Text) > noteMax || len(x.Link) > noteMax {
		return "text has 1 to 1000 bytes, link at most 1000"
	}
	return ""
}

func (n *notes) create(w http.ResponseWriter, r *http.Request) {
	var in newNote
	if !take(w, r, &in) {
		return
	}
	if fault := in.fault(); fault != "" {
		refuse(w, 422, fault)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	owner, key := r.Header.Get("X-User-Id"), r.Header.Get("Idempotency-Key")
	id, known := n.once[owner+" "+key]
	if key == "" || !known {
		id = n.add(owner, note{Text: in.Text, Link: in.Link})
		n.once[owner+" "+key] = id
	}
	w.Header().Set("Location", fmt.Sprintf("/notes/%d", id))
	tell(w, 201, n.kept[id])
}

// find the caller's note; nil when it has answered. n.mu is held.
func (n *notes) find(w http.ResponseWriter, r *http.Request) *note {
	id, err := strconv.Atoi(r.PathValue("id"))
	x, ok := n.kept[id]
	if err != nil || !ok || x.owner != r.Header.Get("X-User-Id") {
		refuse(w, 404, "there is no such note")
		return nil
	}
	return &x
}

func (n *notes) read(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.find(w, r); x != nil {
		tell(w, 200, x)
	}
}

func (n *notes) remove(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.find(w, r); x != nil {
		delete(n.kept, x.ID)
		n.of[x.owner] = slices.DeleteFunc(n.of[x.owner], func(id int) bool { return id == x.ID })
		w.WriteHeader(http.StatusNoContent)
	}
}

func (n *notes) like(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.find(w, r); x != nil {
		x.Likes++
		n.kept[x.ID] = *x
		tell(w, 200, x)
	}
}

// batch keeps all or none.
func (n *notes) batch(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Notes []newNote `json:"notes"`
	}
	if !take(w, r, &in) {
		return
	}
	for _, x := range in.Notes {
		if fault := x.fault(); fault != "" {
			refuse(w, 422, fault)
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := []int{}
	for _, x := range in.Notes {
		ids = append(ids, n.add(r.Header.Get("X-User-Id"), note{Text: x.Text, Link: x.Link}))
	}
	tell(w, 201, map[string]any{"ids": ids})
}

// login begins a session of Clerk's. An account is closed for a while after five wrong passwords.
func (n *notes) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name, Password string }
	if !take(w, r, &in) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.misses[in.Name] >= lockedOut:
		w.Header().Set("Retry-After", "60")
		refuse(w, 429, "too many wrong passwords; try again later")
	case in.Password != rightPass:
		n.misses[in.Name]++
		refuse(w, 401, "name or password is wrong")
	default:
		token := n.sessions.Mint(map[string]any{
			"sub": "clerk_" + in.Name, "sid": "sess_" + in.Name, "azp": auditedParty, "exp": time.Now().Add(time.Minute).Unix(),
		})
		tell(w, 200, map[string]string{"access_token": token})
	}
}

// logout ends the caller's session at Clerk, who reports that to the door.
func (n *notes) logout(w http.ResponseWriter, r *http.Request) {
	n.clerk.EndSession("ended", r.Header.Get("X-Session-Id"), r.Header.Get("X-User-Id"))
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	for _, m := range n.clerk.Messages() {
		if _, err := n.clerk.Send(ctx, http.DefaultClient, n.door()+"/v1/webhooks/clerk", m); err != nil {
			refuse(w, 502, "the report did not arrive")
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// describe adds the application's routes to the door's own description.
func describe(door []byte, ofA int) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(door, &doc); err != nil {
		return nil, err
	}
	text := map[string]any{"type": "string", "minLength": 1, "maxLength": noteMax, "example": "a note"}
	body := map[string]any{"required": true, "content": map[string]any{"application/json": map[string]any{"schema": map[string]any{
		"type": "object", "required": []string{"text"}, "properties": map[string]any{"text": text},
	}}}}
	id := map[string]any{"name": "id", "in": "path", "required": true, "schema": map[string]any{"type": "integer"}, "example": ofA}
	query := func(name string, example, most int) map[string]any {
		return map[string]any{"name": name, "in": "query", "schema": map[string]any{"type": "integer", "minimum": 0, "maximum": most}, "example": example}
	}
	search := map[string]any{"name": "q", "in": "query", "schema": map[string]any{"type": "string", "maxLength": noteMax}, "example": "note"}
	operation := func(add map[string]any) map[string]any {
		op := map[string]any{"security": []any{map[string]any{"bearer": []string{}}}, "responses": map[string]any{"200": map[string]any{"description": "as asked"}}}
		for k, v := range add {
			op[k] = v
		}
		return op
	}
	paths, ok := doc["paths"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the door's description has no paths")
	}
	paths["/notes"] = map[string]any{
		"get":  operation(map[string]any{"parameters": []any{query("limit", 10, notesPage), query("offset", 0, 1_000_000), search}}),
		"post": operation(map[string]any{"requestBody": body}),
	}
	paths["/notes/{id}"] = map[string]any{"get": operation(map[string]any{"parameters": []any{id}})}
	return json.Marshal(doc)
}
