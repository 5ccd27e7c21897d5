package users_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
)

type callerKey struct{}

// service is the handler over a real store; the caller's subject comes in a header of the test, and
// "admin" is one.
func service(t testing.TB) (http.Handler, *sqlite.Store) {
	t.Helper()
	store := openStore(t)
	return handlerOf(t, users.NewService(store, users.Config{})), store
}

func openStore(t testing.TB) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "users.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func handlerOf(t testing.TB, s *users.Service) http.Handler {
	t.Helper()
	caller := func(ctx context.Context) (users.Claims, bool) {
		c, ok := ctx.Value(callerKey{}).(users.Claims)
		return c, ok
	}
	h, err := users.NewHandler(s, users.HandlerConfig{Caller: caller, Admin: func(ctx context.Context) bool {
		c, _ := caller(ctx)
		return c.Subject == "admin"
	}})
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subject := r.Header.Get("Subject"); subject != "" {
			r = r.WithContext(context.WithValue(r.Context(), callerKey{}, claims(subject)))
		}
		h.ServeHTTP(w, r)
	})
}

func claims(subject string) users.Claims {
	return users.Claims{Issuer: "https://i.example", Subject: subject, Email: "a@example.com", Name: "Ann"}
}

func call(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Subject", "user_1")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestFirstSightMakesTheUser(t *testing.T) {
	h, _ := service(t)
	var ids sync.Map
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			w := call(h, "GET", "/v1/users/me/", "")
			var p users.Profile
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 || p.Email != "a@example.com" || p.DisplayName != "Ann" {
				t.Errorf("answer = %d %s", w.Code, w.Body)
			}
			ids.Store(p.ID, true)
		})
	}
	all.Wait()
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d users were made, want 1", n)
	}
	if w := call(h, "GET", "/v1/users/me", ""); w.Code != 200 || w.Header().Get("ETag") != `"v1"` {
		t.Errorf("without the slash = %d %v", w.Code, w.Header())
	}
}

func TestWithoutACallerItIs401(t *testing.T) {
	h, _ := service(t)
	if w := call(h, "GET", "/v1/users/me/", "", "Subject", ""); w.Code != 401 || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer = %d %s %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
}

func TestPatchChangesAndClears(t *testing.T) {
	h, store := service(t)
	w := call(h, "PATCH", "/v1/users/me/", `{"display_name":"  Zoe\u0308 ","locale":"pt-BR","timezone":"Europe/Berlin","image_url":"https://x.example/a.png","bio":"a\nb"}`)
	var p users.Profile
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 {
		t.Fatalf("answer = %d %s", w.Code, w.Body)
	}
	if p.DisplayName != "Zoë" || p.Locale != "pt-BR" || p.Bio != "a\nb" || p.Version != 2 {
		t.Errorf("profile = %+v", p)
	}
	w = call(h, "PATCH", "/v1/users/me/", `{"bio":null}`)
	if !strings.Contains(w.Body.String(), `"bio":""`) || !strings.Contains(w.Body.String(), `"locale":"pt-BR"`) {
		t.Errorf("null clears and absent stays: %s", w.Body)
	}
	if w = call(h, "PATCH", "/v1/users/me/", `{}`); w.Header().Get("ETag") != `"v3"` {
		t.Errorf("an empty patch made %s of v3", w.Header().Get("ETag"))
	}
	log, err := store.Events(t.Context(), p.ID, 0, 10)
	if err != nil || len(log) != 3 || fmt.Sprint(log[2].Fields) != "[bio]" || log[0].Kind != users.UserCreated {
		t.Errorf("events = %+v, %v", log, err)
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	h, _ := service(t)
	w := call(h, "PATCH", "/v1/users/me/", `{"display_name":"a\u0000b","locale":"!!","timezone":"Mars/Base","image_url":"http://x","bio":"`+strings.Repeat("x", 1001)+`"}`)
	if w.Code != 422 || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answer = %d %s", w.Code, w.Body)
	}
	for _, pointer := range []string{"/display_name", "/locale", "/timezone", "/image_url", "/bio"} {
		if !strings.Contains(w.Body.String(), `"pointer":"`+pointer+`"`) {
			t.Errorf("%s is not named: %s", pointer, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "Mars") {
		t.Errorf("the value is echoed: %s", w.Body)
	}
}

func TestBadBodies(t *testing.T) {
	h, _ := service(t)
	for _, tt := range []struct {
		body, kind string
		want       int
	}{
		{`{"unknown":"x"}`, "", 422},
		{`{"bio":5}`, "", 422},
		{`{"bio":`, "", 400},
		{`[]`, "", 422},
		{``, "", 400},
		{`{"bio":"a","bio":"b"}`, "", 400},
		{`{"bio":"a"}`, "text/plain", 415},
		{`{"bio":"` + strings.Repeat("x", 70<<10) + `"}`, "", 413},
	} {
		headers := []string{}
		if tt.kind != "" {
			headers = []string{"Content-Type", tt.kind}
		}
		w := call(h, "PATCH", "/v1/users/me/", tt.body, headers...)
		if w.Code != tt.want || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40s: %d %s %s, want %d", tt.body, w.Code, w.Header().Get("Content-Type"), w.Body, tt.want)
		}
	}
	if w := call(h, "PUT", "/v1/users/me/", ""); w.Code != 405 || w.Header().Get("Allow") != "DELETE, GET, HEAD, PATCH" || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("PUT = %d %v, want 405", w.Code, w.Header())
	}
}

func TestPreconditions(t *testing.T) {
	h, _ := service(t)
	call(h, "GET", "/v1/users/me/", "")
	for _, tt := range []struct {
		method, header, value string
		want                  int
	}{
		{"GET", "If-None-Match", `"v1"`, 304},
		{"GET", "If-None-Match", `"v9"`, 200},
		{"PATCH", "If-Match", `"v9"`, 412},
		{"PATCH", "If-Match", `W/"v1"`, 412},
		{"PATCH", "If-Match", `"v1"`, 200},
		{"PATCH", "If-Match", `"v1"`, 412},
		{"PATCH", "If-Match", `*`, 200},
	} {
		body := ""
		if tt.method == "PATCH" {
			body = fmt.Sprintf(`{"bio":"change for %d %d"}`, tt.want, len(tt.value))
		}
		if w := call(h, tt.method, "/v1/users/me/", body, tt.header, tt.value); w.Code != tt.want {
			t.Errorf("%s %s: %s = %d, want %d: %s", tt.method, tt.header, tt.value, w.Code, tt.want, w.Body)
		}
	}
}

func TestLostUpdatesAreRefused(t *testing.T) {
	h, _ := service(t)
	call(h, "GET", "/v1/users/me/", "")
	var all sync.WaitGroup
	codes := make(chan int, 10)
	for i := range 10 {
		all.Go(func() {
			codes <- call(h, "PATCH", "/v1/users/me/", fmt.Sprintf(`{"bio":"%d"}`, i), "If-Match", `"v1"`).Code
		})
	}
	all.Wait()
	close(codes)
	good := 0
	for code := range codes {
		if code == 200 {
			good++
		} else if code != 412 {
			t.Errorf("status = %d", code)
		}
	}
	if good != 1 {
		t.Errorf("%d writes on one version succeeded, want 1", good)
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	h, _ := service(t)
	w := call(h, "GET", "/v1/openapi.json", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"openapi":"3.1`) || !strings.Contains(w.Body.String(), "/v1/users/me") {
		t.Errorf("answer = %d %.200s", w.Code, w.Body)
	}
}

func FuzzPatch(f *testing.F) {
	for _, s := range []string{`{"bio":"x"}`, `{"bio":null}`, `{`, `[]`, `{"bio":"a","bio":"b"}`, `{"timezone":"UTC"}`} {
		f.Add(s)
	}
	h, _ := service(f)
	f.Fuzz(func(t *testing.T, body string) {
		w := call(h, "PATCH", "/v1/users/me/", body)
		if w.Code >= 500 || w.Code != 200 && w.Header().Get("Content-Type") != "application/problem+json" {
			text, _ := io.ReadAll(w.Body)
			t.Errorf("%q: %d %s", body, w.Code, text)
		}
	})
}

func BenchmarkGetMe(b *testing.B) {
	h, _ := service(b)
	call(h, "GET", "/v1/users/me/", "")
	b.ReportAllocs()
	for b.Loop() {
		if w := call(h, "GET", "/v1/users/me/", ""); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
