package users_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

// read turns an answer into a value.
func read[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("answer %d %s: %v", w.Code, w.Body, err)
	}
	return v
}

// want is the code of the problem, or "" for a good answer.
func want(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	if w.Code != status || code != "" && !strings.Contains(w.Body.String(), `"code":"`+code+`"`) {
		t.Errorf("answer = %d %s, want %d %s", w.Code, w.Body, status, code)
	}
}

func me(t *testing.T, h http.Handler, subject string) users.Profile {
	t.Helper()
	return read[users.Profile](t, call(h, "GET", "/v1/users/me", "", "Subject", subject))
}

func TestDeleteErasesAndLeavesATombstone(t *testing.T) {
	h, store := service(t)
	p := me(t, h, "user_1")
	w := call(h, "PATCH", "/v1/users/me", `{"handle":"ann_lee","bio":"secret bio"}`, "Idempotency-Key", "k1")
	want(t, w, 200, "")
	want(t, call(h, "DELETE", "/v1/users/me", "", "If-Match", `"v1"`), 412, "precondition-failed")
	want(t, call(h, "DELETE", "/v1/users/me/", "", "If-Match", `"v2"`, "Idempotency-Key", "k2"), 204, "")
	u, err := store.Find(t.Context(), "https://i.example", "user_1")
	if err != nil {
		t.Fatal(err)
	}
	wantUser := users.User{
		ID: p.ID, Issuer: u.Issuer, Subject: "user_1", Status: users.Deleted, Version: 3, Events: 3,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, Head: u.Head,
	}
	if diff := cmp.Diff(wantUser, u); diff != "" {
		t.Errorf("the tombstone: %s", diff)
	}
	want(t, call(h, "GET", "/v1/users/me", ""), 410, "account-deleted")
	want(t, call(h, "GET", "/v1/users/me/export", ""), 410, "account-deleted")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"x"}`), 410, "account-deleted")
	want(t, call(h, "DELETE", "/v1/users/me", ""), 410, "account-deleted")
	want(t, call(h, "GET", "/v1/users/ann_lee", ""), 404, "not-found")
	// The first key's answer, which held the bio, is forgotten; the delete's own is not.
	want(t, call(h, "PATCH", "/v1/users/me", `{"handle":"ann_lee","bio":"secret bio"}`, "Idempotency-Key", "k1"), 410, "account-deleted")
	w = call(h, "DELETE", "/v1/users/me/", "", "If-Match", `"v2"`, "Idempotency-Key", "k2")
	if want(t, w, 204, ""); w.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("headers = %v, want a replay", w.Header())
	}
	want(t, call(h, "PATCH", "/v1/users/me", `{"handle":"ann_lee"}`, "Subject", "user_2"), 200, "")
}

func TestExportIsEverything(t *testing.T) {
	store := openStore(t)
	s := users.NewService(store, users.Config{})
	h := handlerOf(t, s)
	me(t, h, "user_1")
	for i := range 3 {
		call(h, "PATCH", "/v1/users/me", fmt.Sprintf(`{"bio":"%d"}`, i))
	}
	if _, err := s.RevokeSession(t.Context(), users.Revocation{Issuer: "https://i.example", Subject: "user_1", SessionID: "sess_1"}, "msg_1"); err != nil {
		t.Fatal(err)
	}
	w := call(h, "GET", "/v1/users/me/export/", "")
	e := read[users.Export](t, w)
	if len(e.Events) != 5 || e.Events[4].Kind != users.SessionRevoked || e.Events[4].Hash != e.User.Head || len(e.Sessions) != 1 || e.Sessions[0].SessionID != "sess_1" {
		t.Errorf("export = %s", w.Body)
	}
	if e.User.Bio != "2" || e.User.Status != users.Active || e.User.Issuer == "" || e.User.Version != 4 {
		t.Errorf("user = %+v", e.User)
	}
	if w.Header().Get("Cache-Control") != "private, no-store" {
		t.Errorf("headers = %v", w.Header())
	}
}

func TestAMessageRevokesOnce(t *testing.T) {
	store := openStore(t)
	s := users.NewService(store, users.Config{})
	h := handlerOf(t, s)
	p := me(t, h, "user_1")
	r := users.Revocation{Issuer: "https://i.example", Subject: "user_1", SessionID: "sess_1"}
	for range 2 {
		if _, err := s.RevokeSession(t.Context(), r, "msg_1"); err != nil {
			t.Fatal(err)
		}
	}
	if log, err := store.Events(t.Context(), p.ID, 0, 10); err != nil || len(log) != 2 {
		t.Errorf("%d events, %v; want 2", len(log), err)
	}
	if got := me(t, h, "user_1"); got.Version != 1 {
		t.Errorf("version = %d; a revoked session is no change of the user", got.Version)
	}
	r.SessionID = "a b"
	if _, err := s.RevokeSession(t.Context(), r, ""); err == nil {
		t.Error("a session id with a space was taken")
	}
	r.SessionID, r.Subject = "sess_2", "stranger"
	if _, err := s.RevokeSession(t.Context(), r, ""); err != nil {
		t.Errorf("a session of a stranger: %v", err)
	}
}

func TestPublicProfileShowsOnlyWhatIsPublic(t *testing.T) {
	h, _ := service(t)
	p := me(t, h, "user_1")
	call(h, "PATCH", "/v1/users/me", `{"handle":"ann_lee","bio":"hi"}`)
	w := call(h, "GET", "/v1/users/ann_lee/", "", "Subject", "")
	if want(t, w, 200, ""); w.Body.String() != `{"handle":"ann_lee","display_name":"Ann","image_url":"","bio":"hi"}`+"\n" {
		t.Errorf("profile = %s", w.Body)
	}
	for _, path := range []string{"/v1/users/nobody", "/v1/users/ANN_LEE", "/v1/users/a%00b", "/v1/users/ann_lee/x", "/v1/users/"} {
		if w := call(h, "GET", path, "", "Subject", ""); w.Code != 404 && w.Code != 401 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s = %d %s", path, w.Code, w.Body)
		}
	}
	want(t, call(h, "POST", "/v1/users/"+p.ID+"/suspend", "", "Subject", "admin"), 200, "")
	want(t, call(h, "GET", "/v1/users/ann_lee", ""), 404, "not-found")
}

func TestHandlesAreCheckedAndUnique(t *testing.T) {
	h, _ := service(t)
	for body, status := range map[string]int{
		`{"handle":"ann"}`: 200, `{"handle":"a_9"}`: 200, `{"handle":null}`: 200, `{"handle":""}`: 200,
		`{"handle":"ab"}`: 422, `{"handle":"Ann"}`: 422, `{"handle":"ann lee"}`: 422, `{"handle":"änn"}`: 422, `{"handle":"аnn"}`: 422,
		`{"handle":"me"}`: 422, `{"handle":"admin"}`: 422, `{"handle":"export"}`: 422, `{"handle":"openapi"}`: 422,
		`{"handle":"` + strings.Repeat("a", 31) + `"}`: 422,
	} {
		if w := call(h, "PATCH", "/v1/users/me", body); w.Code != status {
			t.Errorf("%s = %d %s, want %d", body, w.Code, w.Body, status)
		}
	}
	want(t, call(h, "PATCH", "/v1/users/me", `{"handle":"ann"}`), 200, "")
	want(t, call(h, "PATCH", "/v1/users/me", `{"handle":"ann"}`, "Subject", "user_2"), 409, "handle-taken")
}

func TestAllFaultsOfAPatchAreToldAtOnce(t *testing.T) {
	h, _ := service(t)
	w := call(h, "PATCH", "/v1/users/me", `{"a/b~":1,"bio":5,"locale":"!!","handle":"X"}`, "Idempotency-Key", "a b")
	want(t, w, 422, "invalid-content")
	for _, p := range []string{"/a~1b~0", "/bio", "/locale", "/handle", "header/Idempotency-Key"} {
		if !strings.Contains(w.Body.String(), `"pointer":"`+p+`"`) {
			t.Errorf("%s is not named: %s", p, w.Body)
		}
	}
	w = call(h, "GET", "/v1/users?limit=0&status=x&strange=1", "", "Subject", "admin")
	for _, p := range []string{"query/limit", "query/status", "query/strange"} {
		if w.Code != 422 || !strings.Contains(w.Body.String(), `"pointer":"`+p+`"`) {
			t.Errorf("%s is not named: %d %s", p, w.Code, w.Body)
		}
	}
}

func TestAdminRoutesAreForAdmins(t *testing.T) {
	h, _ := service(t)
	p := me(t, h, "user_1")
	for _, r := range [][3]string{
		{"GET", "/v1/users", ""},
		{"GET", "/v1/users?limit=nonsense", ""},
		{"POST", "/v1/users/" + p.ID + "/suspend", ""},
		{"POST", "/v1/users/" + p.ID + "/reinstate", ""},
		{"PUT", "/v1/users/" + p.ID + "/plan", `{"plan":"pro"}`},
	} {
		want(t, call(h, r[0], r[1], r[2], "Subject", ""), 401, "unauthenticated")
		want(t, call(h, r[0], r[1], r[2]), 403, "forbidden")
	}
}

func TestAdminsSuspendReinstateAndSetPlans(t *testing.T) {
	h, store := service(t)
	p := me(t, h, "user_1")
	path := "/v1/users/" + p.ID
	admin := func(method, path, body string) *httptest.ResponseRecorder {
		return call(h, method, path, body, "Subject", "admin", "Content-Type", "application/json")
	}
	w := admin("POST", path+"/suspend", "")
	if v := read[users.StandingView](t, w); w.Code != 200 || v.Status != users.Suspended || v.Version != 2 {
		t.Errorf("suspend = %d %s", w.Code, w.Body)
	}
	want(t, admin("POST", path+"/suspend", ""), 200, "")
	want(t, call(h, "GET", "/v1/users/me", ""), 403, "account-suspended")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"x"}`), 403, "account-suspended")
	want(t, admin("POST", path+"/reinstate/", ""), 200, "")
	want(t, admin("PUT", path+"/plan", `{"plan":"u:pro"}`), 200, "")
	want(t, admin("PUT", path+"/plan", `{"plan":"no spaces"}`), 422, "invalid-content")
	want(t, admin("PUT", path+"/plan", `{"plan":"pro","x":1}`), 422, "invalid-content")
	want(t, admin("PUT", path+"/plan", `{}`), 422, "invalid-content")
	want(t, admin("POST", "/v1/users/usr_nobody/suspend", ""), 404, "not-found")
	if got := me(t, h, "user_1"); got.Plan != "u:pro" || got.Version != 4 {
		t.Errorf("user = %+v", got)
	}
	log, err := store.Events(t.Context(), p.ID, 0, 10)
	var kinds []string
	for _, e := range log {
		kinds = append(kinds, string(e.Kind)+" by "+e.Actor)
	}
	wantKinds := []string{"user.created by user_1", "user.suspended by admin", "user.reinstated by admin", "user.plan_changed by admin"}
	if diff := cmp.Diff(wantKinds, kinds); diff != "" || err != nil {
		t.Errorf("events: %v %s", err, diff)
	}
	call(h, "DELETE", "/v1/users/me", "")
	want(t, admin("POST", path+"/reinstate", ""), 410, "account-deleted")
}

func TestAKeyMakesAWriteHappenOnce(t *testing.T) {
	h, store := service(t)
	p := me(t, h, "user_1")
	bodies := make([]string, 10)
	var all sync.WaitGroup
	for i := range bodies {
		all.Go(func() {
			w := call(h, "PATCH", "/v1/users/me", `{"bio":"once"}`, "Idempotency-Key", "k1")
			bodies[i] = fmt.Sprint(w.Code, w.Header().Get("ETag"), w.Body)
		})
	}
	all.Wait()
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("two answers to one key: %s and %s", bodies[0], b)
		}
	}
	call(h, "PATCH", "/v1/users/me", `{"bio":"later"}`)
	w := call(h, "PATCH", "/v1/users/me", `{"bio":"once"}`, "Idempotency-Key", "k1")
	if w.Header().Get("Idempotent-Replayed") != "true" || fmt.Sprint(w.Code, w.Header().Get("ETag"), w.Body) != bodies[0] {
		t.Errorf("the replay = %d %v %s, want %s", w.Code, w.Header(), w.Body, bodies[0])
	}
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"other"}`, "Idempotency-Key", "k1"), 422, "idempotency-key-reused")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"once"}`, "Idempotency-Key", "k1", "If-Match", `"v1"`), 422, "idempotency-key-reused")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"once"}`, "Idempotency-Key", "k1", "Subject", "user_2"), 200, "")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"x"}`, "Idempotency-Key", strings.Repeat("k", 256)), 422, "invalid-content")
	if log, err := store.Events(t.Context(), p.ID, 0, 10); err != nil || len(log) != 3 {
		t.Errorf("%d events, %v; want 3", len(log), err)
	}
	path := "/v1/users/" + p.ID + "/suspend"
	first := call(h, "POST", path, "", "Subject", "admin", "Idempotency-Key", "k1")
	again := call(h, "POST", path, "", "Subject", "admin", "Idempotency-Key", "k1")
	if first.Code != 200 || again.Header().Get("Idempotent-Replayed") != "true" || again.Body.String() != first.Body.String() {
		t.Errorf("an admin's key: %d %s, then %v %s", first.Code, first.Body, again.Header(), again.Body)
	}
	// A refusal is not kept: it had no effect.
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"y"}`, "Idempotency-Key", "k3"), 403, "account-suspended")
	call(h, "POST", "/v1/users/"+p.ID+"/reinstate", "", "Subject", "admin")
	want(t, call(h, "PATCH", "/v1/users/me", `{"bio":"y"}`, "Idempotency-Key", "k3"), 200, "")
}

func TestListPagesByASignedCursor(t *testing.T) {
	store := openStore(t)
	old, current := []byte("the old key, which still verifies"), []byte("the current key, which signs")
	h := handlerOf(t, users.NewService(store, users.Config{CursorKeys: [][]byte{current, old}}))
	before := handlerOf(t, users.NewService(store, users.Config{CursorKeys: [][]byte{old}}))
	strange := handlerOf(t, users.NewService(store, users.Config{}))
	for i := range 5 {
		me(t, h, fmt.Sprint("user_", i))
	}
	admin := func(h http.Handler, query string) *httptest.ResponseRecorder {
		return call(h, "GET", "/v1/users?"+query, "", "Subject", "admin")
	}
	var subjects []string
	for query := "limit=2"; ; {
		l := read[users.UserList](t, admin(h, query))
		for _, u := range l.Users {
			subjects = append(subjects, u.Subject)
			if len(u.Recent) != 1 {
				t.Errorf("%s has events %+v", u.Subject, u.Recent)
			}
		}
		if l.Next == "" {
			break
		}
		query = "limit=2&cursor=" + l.Next
	}
	if diff := cmp.Diff([]string{"user_4", "user_3", "user_2", "user_1", "user_0"}, subjects); diff != "" {
		t.Error(diff)
	}
	cursor := read[users.UserList](t, admin(before, "limit=2")).Next
	want(t, admin(h, "cursor="+cursor), 200, "")
	tampered := "B" + cursor[1:]
	for name, w := range map[string]*httptest.ResponseRecorder{
		"of another filter": admin(h, "status=active&cursor="+cursor),
		"tampered with":     admin(h, "cursor="+tampered),
		"cut":               admin(h, "cursor="+cursor[:10]),
		"of another key":    admin(strange, "cursor="+cursor),
		"too long":          admin(h, "cursor="+strings.Repeat("A", 513)),
	} {
		if w.Code != 422 || !strings.Contains(w.Body.String(), `"pointer":"query/cursor"`) {
			t.Errorf("a cursor %s = %d %s", name, w.Code, w.Body)
		}
	}
	if l := read[users.UserList](t, admin(h, "q=user_3&status=active")); len(l.Users) != 1 || l.Users[0].Subject != "user_3" {
		t.Errorf("q = %+v", l)
	}
	if l := admin(h, "q=nobody"); !strings.Contains(l.Body.String(), `"users":[]`) {
		t.Errorf("no match = %s", l.Body)
	}
}

func TestDocsLoadNothing(t *testing.T) {
	h, _ := service(t)
	w := call(h, "GET", "/v1/docs", "", "Subject", "")
	text := w.Body.String()
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-") {
		t.Errorf("answer = %d %v", w.Code, w.Header())
	}
	for _, bad := range []string{"<script", "src=", "<link", "http://", "https://", "@import", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %s", bad)
		}
	}
	for _, id := range []string{"get-me", "patch-me", "delete-me", "export-me", "get-public", "list-users", "suspend-user", "reinstate-user", "set-plan"} {
		if !strings.Contains(text, `<article id="`+id+`">`) {
			t.Errorf("%s is not described", id)
		}
	}
	for _, field := range []string{"display_name", "recent_events", "Idempotency-Key"} {
		if !strings.Contains(text, field) {
			t.Errorf("%s is not described", field)
		}
	}
}

func FuzzCursor(f *testing.F) {
	h, _ := service(f)
	for _, s := range []string{"", "AAAA", strings.Repeat("A", 80), "a b", "%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		r := httptest.NewRequest("GET", "/v1/users", nil)
		q := r.URL.Query()
		q.Set("cursor", cursor)
		w := call(h, "GET", "/v1/users?"+q.Encode(), "", "Subject", "admin")
		if cursor == "" && w.Code != 200 || cursor != "" && w.Code != 422 {
			t.Errorf("%q = %d %s", cursor, w.Code, w.Body)
		}
	})
}

func TestEveryRefusalNamesTheRequest(t *testing.T) {
	h, store := service(t)
	ask := func(method, path, body string) string {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Subject", "user_1")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		w.Header().Set("X-Request-Id", "the-request")
		h.ServeHTTP(w, r)
		return fmt.Sprint(w.Code, " ", w.Body)
	}
	for _, tt := range []struct{ method, path, body, status string }{
		{"GET", "/v1/users/nobody_here", "", "404"},
		{"PATCH", "/v1/users/me", `{"bio":5}`, "422"},
		{"PATCH", "/v1/users/me", `{`, "400"},
		{"GET", "/v1/users", "", "403"},
	} {
		if got := ask(tt.method, tt.path, tt.body); !strings.HasPrefix(got, tt.status) || !strings.Contains(got, `"instance":"the-request"`) {
			t.Errorf("%s %s = %s, want %s with the request's id", tt.method, tt.path, got, tt.status)
		}
	}
	store.Close()
	if got := ask("GET", "/v1/users/me", ""); !strings.HasPrefix(got, "5") || !strings.Contains(got, `"instance":"the-request"`) {
		t.Errorf("with the store closed: %s, want the request's id", got)
	}
}
