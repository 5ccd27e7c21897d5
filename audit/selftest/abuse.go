package selftest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func abuseCases() []Case {
	return []Case{
		{Probe: "RL-01", Prepare: limited(bySubject), Break: func(a *API) {
			me := a.Routes["GET /me"]
			a.Routes["GET /me"] = func(w http.ResponseWriter, r *http.Request) {
				r.Header.Set("X-Limit-Mode", "report") // the switch of the first week, never turned
				me(w, r)
			}
		}},
		{Probe: "RL-02", With: []string{"RL-01"}, Prepare: limited(bySubject), Break: func(a *API) {
			limited(func(r *http.Request, claims map[string]any) string { // "the client's address, as the proxy says"
				if address := r.Header.Get("X-Forwarded-For"); address != "" {
					return address
				}
				return bySubject(r, claims)
			})(a)
		}},
		{Probe: "RL-03", With: []string{"RL-01"}, Prepare: limited(bySubject), Break: func(a *API) {
			a.Outer = append(a.Outer, withoutRetryAfter)
		}},
		{
			Probe: "RL-04", With: []string{"RL-01"}, Alone: true,
			Prepare: func(a *API) { limitRoute(a, newSliding(time.Second), bySubject) },
			Break:   func(a *API) { limitRoute(a, &racyLimiter{window: time.Second}, bySubject) },
			Knobs:   func(_ string, _ *API, _ *audit.Target, c *audit.Config) { c.Policy.RateWindow = time.Second },
		},
		{Probe: "RL-05", Prepare: loginRoute(5), Break: loginRoute(1 << 30), Knobs: func(_ string, _ *API, t *audit.Target, _ *audit.Config) {
			t.Recipes = map[string]audit.Recipe{
				"login":       {Method: "POST", Path: "/login", Body: `{"user":"{{marker}}","password":"{{password}}"}`},
				"login-other": {Method: "POST", Path: "/login", Body: `{"user":"b","password":"right"}`},
			}
		}},
	}
}

func bySubject(_ *http.Request, claims map[string]any) string {
	sub, _ := claims["sub"].(string)
	return sub
}

// allower counts a request of key, and says how long to wait when it is one too many.
type allower interface {
	allow(key string) (wait time.Duration)
}

// limited puts the sound limiter before the private route: so many in any window, for each key.
func limited(key func(*http.Request, map[string]any) string) func(*API) {
	return func(a *API) { limitRoute(a, newSliding(quick().RateWindow), key) }
}

func newSliding(window time.Duration) *slidingLimiter {
	return &slidingLimiter{window: window, at: map[string][]time.Time{}}
}

func limitRoute(a *API, l allower, key func(*http.Request, map[string]any) string) {
	a.Routes["GET /me"] = a.Private(func(w http.ResponseWriter, r *http.Request, claims map[string]any) {
		if wait := l.allow(key(r, claims)); wait > 0 && r.Header.Get("X-Limit-Mode") != "report" {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())+1))
			Refuse(w, 429, "too many requests")
			return
		}
		Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com", "plan": "free"})
	})
}

// slidingLimiter is exact: it remembers when each request of the window came.
type slidingLimiter struct {
	window time.Duration
	mu     sync.Mutex
	at     map[string][]time.Time
}

func (l *slidingLimiter) allow(key string) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.at[key]
	for len(list) > 0 && now.Sub(list[0]) >= l.window {
		list = list[1:]
	}
	l.at[key] = list
	if len(list) >= quick().RateLimit {
		return l.window - now.Sub(list[0])
	}
	l.at[key] = append(list, now)
	return 0
}

// racyLimiter reads its counter from a store, looks at it, and writes it back: two round trips, and nothing in between
// keeps another request from reading the same number.
type racyLimiter struct {
	window time.Duration
	mu     sync.Mutex
	count  int
	since  time.Time
}

func (l *racyLimiter) allow(string) time.Duration {
	count, since := l.get()
	if time.Since(since) >= l.window {
		count, since = 0, time.Now()
	}
	if count >= quick().RateLimit {
		return l.window - time.Since(since)
	}
	time.Sleep(2 * time.Millisecond) // the round trip
	l.set(count+1, since)
	return 0
}

func (l *racyLimiter) get() (int, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count, l.since
}

func (l *racyLimiter) set(count int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count, l.since = count, since
}

// withoutRetryAfter is a gateway whose error page replaces what the API said.
func withoutRetryAfter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&barePage{ResponseWriter: w}, r)
	})
}

type barePage struct {
	http.ResponseWriter
	replaced bool
}

func (p *barePage) WriteHeader(status int) {
	if p.replaced = status == 429; p.replaced {
		p.Header().Del("Retry-After")
		p.Header().Set("Content-Type", "text/html")
	}
	p.ResponseWriter.WriteHeader(status)
}

func (p *barePage) Write(b []byte) (int, error) {
	if p.replaced {
		p.ResponseWriter.Write([]byte("<h1>429 Too Many Requests</h1>"))
		return len(b), nil
	}
	return p.ResponseWriter.Write(b)
}

// loginRoute lets an account fail so many times.
func loginRoute(allowed int) func(*API) {
	return func(a *API) {
		var mu sync.Mutex
		wrong := map[string]int{}
		a.Routes["POST /login"] = func(w http.ResponseWriter, r *http.Request) {
			var in struct{ User, Password string }
			if json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in) != nil {
				Refuse(w, 400, "not a log-in")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case wrong[in.User] >= allowed:
				w.Header().Set("Retry-After", "60")
				Refuse(w, 429, "too many tries")
			case in.Password != "right":
				wrong[in.User]++
				Refuse(w, 401, "wrong user or password")
			default:
				Answer(w, 200, map[string]any{"token": a.Token(map[string]any{"sub": in.User})})
			}
		}
	}
}
