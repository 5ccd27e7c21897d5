package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/internal/testenv"
)

// backend is a client of c with pages of size.
func backend(t *testing.T, c *testenv.Clerk, size int) *clerk.Backend {
	t.Helper()
	b, err := clerk.NewBackend(c.SecretKey, clerk.BackendConfig{URL: c.URL, PageSize: size})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// populate makes n users and forgets the reports about them.
func populate(c *testenv.Clerk, n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, c.Create(fmt.Sprintf("U%04d", i)).ID)
	}
	c.Messages()
	return ids
}

// inBubble runs f with a client of c whose waits take no time.
func inBubble(t *testing.T, c *testenv.Clerk, size int, f func(context.Context, *clerk.Backend)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, err := clerk.NewBackend(c.SecretKey, clerk.BackendConfig{Transport: recorder{c}, PageSize: size})
		if err != nil {
			t.Fatal(err)
		}
		f(t.Context(), b)
	})
}

// listedQuickly is listed in a bubble.
func listedQuickly(t *testing.T, c *testenv.Clerk, size int) (ids []string, begun int, err error) {
	t.Helper()
	inBubble(t, c, size, func(ctx context.Context, b *clerk.Backend) { ids, begun, err = listed(ctx, b) })
	return ids, begun, err
}

// listed is everybody that List reports, in order, and how often it began.
func listed(ctx context.Context, b *clerk.Backend) (ids []string, begun int, err error) {
	err = b.List(ctx, func(int) { ids, begun = nil, begun+1 }, func(u clerk.User) { ids = append(ids, u.ID) })
	return ids, begun, err
}

func TestAListingIsComplete(t *testing.T) {
	c := testenv.NewClerk(t)
	for _, size := range []int{1, 2, 3, 10, 500} {
		for _, n := range []int{0, 1, 2, 3, 4, 10, 11} {
			for len(c.Users()) < n {
				populate(c, 1)
			}
			ids, begun, err := listedQuickly(t, c, size)
			if err != nil || begun != 1 || len(ids) != len(c.Users()) {
				t.Errorf("%d users in pages of %d: %d, begun %d times, %v", len(c.Users()), size, len(ids), begun, err)
			}
		}
		for id := range c.Users() {
			c.Delete(id)
		}
	}
}

func TestAUserCarriesOnlyWhatIsKept(t *testing.T) {
	c := testenv.NewClerk(t)
	id := populate(c, 1)[0]
	c.Update(id, func(u *testenv.ClerkUser) { u.Unverified, u.FirstName, u.LastName, u.Username = true, "", "", "zoe" })
	err := backend(t, c, 0).List(t.Context(), func(int) {}, func(u clerk.User) {
		w := c.Users()[id]
		want := clerk.User{
			ID: id, Name: "zoe", Username: "zoe", ImageURL: w.ImageURL,
			CreatedAt: time.UnixMilli(w.CreatedAt).UTC(), UpdatedAt: time.UnixMilli(w.UpdatedAt).UTC(),
		}
		if u != want {
			t.Errorf("user = %+v, want %+v", u, want)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAListThatMovesIsReadAgain deletes a user of the first page just before the second is read, and
// makes another, so that the count alone would not tell.
func TestAListThatMovesIsReadAgain(t *testing.T) {
	c := testenv.NewClerk(t)
	ids := populate(c, 9)
	c.Break(func(n int, _ *http.Request) testenv.ClerkFault {
		if n == 2 {
			c.Delete(ids[0])
			populate(c, 1)
		}
		return testenv.ClerkHealthy
	})
	got, begun, err := listedQuickly(t, c, 3)
	if err != nil || begun != 2 || len(got) != 9 {
		t.Errorf("%d users, begun %d times, %v", len(got), begun, err)
	}
}

func TestAListThatNeverRestsIsGivenUp(t *testing.T) {
	c := testenv.NewClerk(t)
	ids := populate(c, 60)
	c.Break(func(_ int, r *http.Request) testenv.ClerkFault {
		if r.URL.Query().Get("offset") != "0" && strings.HasSuffix(r.URL.Path, "users") {
			c.Delete(ids[0])
			ids = ids[1:]
		}
		return testenv.ClerkHealthy
	})
	if _, begun, err := listedQuickly(t, c, 10); !errors.Is(err, clerk.ErrMoving) || begun != 5 {
		t.Errorf("begun %d times, %v", begun, err)
	}
}

// TestAnEmptyPageIsNotTheEnd is the worst of answers: it looks like one.
func TestAnEmptyPageIsNotTheEnd(t *testing.T) {
	c := testenv.NewClerk(t)
	populate(c, 9)
	for _, offset := range []string{"0", "2"} {
		c.Break(func(_ int, r *http.Request) testenv.ClerkFault {
			if r.URL.Query().Get("offset") == offset {
				return testenv.ClerkIsEmpty
			}
			return testenv.ClerkHealthy
		})
		if got, _, err := listedQuickly(t, c, 3); !errors.Is(err, clerk.ErrMoving) {
			t.Errorf("empty at %s: %d users, %v", offset, len(got), err)
		}
	}
}

// recorder answers requests in this goroutine, so that the time in them can be a bubble's.
type recorder struct{ http.Handler }

func (r recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w.Result(), q.Context().Err()
}

func TestTransientFaultsAreTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		fault testenv.ClerkFault
		times int
		least time.Duration // that it takes
		good  bool
	}{
		{testenv.ClerkBusy, 3, 3 * time.Second, true},
		{testenv.ClerkBusyMute, 3, 800 * time.Millisecond, true},
		{testenv.ClerkFails, 5, 3 * time.Second, true},
		{testenv.ClerkGateway, 1, 100 * time.Millisecond, true},
		{testenv.ClerkCutsShort, 1, 100 * time.Millisecond, true},
		{testenv.ClerkFails, 6, 3 * time.Second, false},
		{testenv.ClerkGateway, 1000, 3 * time.Second, false},
	} {
		c := testenv.NewClerk(t)
		populate(c, 3)
		c.Break(func(n int, _ *http.Request) testenv.ClerkFault {
			if n > 0 && n <= tt.times {
				return tt.fault
			}
			return testenv.ClerkHealthy
		})
		inBubble(t, c, 0, func(ctx context.Context, b *clerk.Backend) {
			began := time.Now()
			ids, _, err := listed(ctx, b)
			took := time.Since(began)
			if (err == nil) != tt.good || tt.good && len(ids) != 3 || took < tt.least || took > time.Minute {
				t.Errorf("fault %d %d times: %d users after %v, %v", tt.fault, tt.times, len(ids), took, err)
			}
			if !tt.good && !errors.Is(err, clerk.ErrBackend) {
				t.Errorf("error = %v", err)
			}
		})
	}
}

// status always answers the same.
func status(code int, header ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"errors":[{"message":"canary7f3a"}]}`)
	})
}

func TestWhatCannotGetBetterIsNotTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		answer http.Handler
		want   error
	}{
		{status(401), clerk.ErrBackendKey},
		{status(403), clerk.ErrBackendKey},
		{status(404), clerk.ErrBackend},
		{status(422), clerk.ErrBackend},
		{status(302, "Location", "https://elsewhere.example/"), clerk.ErrBackend},
		{status(429, "Retry-After", "86400"), clerk.ErrBackend},
	} {
		n := 0
		counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n++; tt.answer.ServeHTTP(w, r) })
		b, err := clerk.NewBackend("sk_live_canary7f3a", clerk.BackendConfig{Transport: recorder{counted}})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = listed(t.Context(), b)
		if !errors.Is(err, tt.want) || n != 1 || strings.Contains(err.Error(), "canary7f3a") {
			t.Errorf("%d requests, %v, want %v", n, err, tt.want)
		}
	}
}

func TestAFifthOfTheRateIsOurs(t *testing.T) {
	for kind, want := range map[string]time.Duration{"live": 50 * time.Millisecond, "test": 500 * time.Millisecond} {
		c := testenv.NewClerk(t)
		c.SecretKey = "sk_" + kind + "_x1"
		populate(c, 40)
		inBubble(t, c, 3, func(ctx context.Context, b *clerk.Backend) {
			if _, _, err := listed(ctx, b); err != nil {
				t.Fatal(err)
			}
			_, times := c.Requests()
			for i, at := range times[1:] {
				if gap := at.Sub(times[i]); gap < want {
					t.Errorf("%s: request %d came %v after the one before, want at least %v", kind, i+1, gap, want)
				}
			}
			if len(times) < 20 {
				t.Errorf("%d requests", len(times))
			}
		})
	}
}

func TestADrippingAnswerEnds(t *testing.T) {
	c := testenv.NewClerk(t)
	c.Break(func(int, *http.Request) testenv.ClerkFault { return testenv.ClerkDrips })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, _, err := listed(ctx, backend(t, c, 3)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestAnAnswerHasABound(t *testing.T) {
	c := testenv.NewClerk(t)
	c.Break(func(int, *http.Request) testenv.ClerkFault { return testenv.ClerkSendsHuge })
	if _, _, err := listed(t.Context(), backend(t, c, 3)); !errors.Is(err, clerk.ErrBackend) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error = %v", err)
	}
}

func TestTheSecretKeyGoesNowhereElse(t *testing.T) {
	for address, good := range map[string]bool{
		"": true, "https://api.example": true, "https://api.example/": true, "http://127.0.0.1:5": true, "http://[::1]:5": true, "http://localhost:5": true,
		"http://api.example": false, "http://127.0.0.1.example": false, "ftp://localhost": false, "api.example": false, "https://u:p@api.example": false,
		"https://api.example/v1": false, "https://api.example?x": false, "https://": false, "http://10.0.0.1": false,
	} {
		if _, err := clerk.NewBackend("sk_live_canary7f3a", clerk.BackendConfig{URL: address}); (err == nil) != good {
			t.Errorf("%q: %v, want accepted: %v", address, err, good)
		}
	}
	b, err := clerk.NewBackend("sk_live_canary7f3a", clerk.BackendConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, b); strings.Contains(text, "canary7f3a") {
			t.Errorf("%s prints %s", format, text)
		}
	}
	for _, key := range []string{"", "pk_live_x", "sk_live_", "sk_live_a b"} {
		if _, err := clerk.NewBackend(key, clerk.BackendConfig{}); !errors.Is(err, clerk.ErrSecretKey) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
