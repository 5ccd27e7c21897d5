package server

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/testenv"
)

// A load of the cache ends long before the request does that waits for it.
func TestADatabaseThatHangsIsUnavailable(t *testing.T) {
	t.Parallel()
	p := testenv.NewPostgres(t)
	s := open(t, slog.New(slog.DiscardHandler), "DATABASE_URL="+p.URL(p.NewDatabase()))
	ask := func(user string) *httptest.ResponseRecorder {
		token, err := s.dev.Mint(devissuer.Claims{Subject: user})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/v1/users/me/", nil)
		r.Host = "localhost"
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.main.Handler.ServeHTTP(w, r)
		return w
	}
	if w := ask("user_1"); w.Code != 200 {
		t.Fatalf("before: %d %s", w.Code, w.Body)
	}
	p.Freeze()
	defer p.Thaw()
	began := time.Now()
	if w := ask("user_2"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d after %v: %s; want 503 with Retry-After", w.Code, time.Since(began), w.Body)
	}
}
