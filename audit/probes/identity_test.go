package probes

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// backend is a tiny API: GET /me for whom identify lets in.
type backend struct {
	identify func(*http.Request) (claims map[string]any, err error)
	me       func(claims map[string]any) any // nil answers with the caller's id
	refuse   func(http.ResponseWriter)       // nil answers 401
	routes   map[string]http.HandlerFunc
	outer    func(http.Handler) http.Handler
}

func (b backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", b.private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
		if b.me != nil {
			reply(w, 200, b.me(claims))
			return
		}
		reply(w, 200, map[string]any{"id": claims["sub"], "plan": "free", "email": "a@example.com"})
	}))
	for pattern, h := range b.routes {
		mux.HandleFunc(pattern, h)
	}
	if b.outer != nil {
		return b.outer(mux)
	}
	return mux
}

func (b backend) private(h func(http.ResponseWriter, *http.Request, map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		identify := b.identify
		if identify == nil {
			identify = soundly
		}
		claims, err := identify(r)
		switch {
		case err == nil:
			h(w, r, claims)
		case b.refuse != nil:
			b.refuse(w)
		default:
			reply(w, 401, map[string]any{"error": "unauthorized"})
		}
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

var errRefused = errors.New("refused")

// soundly takes RS256 of the one key in its one spelling.
func soundly(r *http.Request) (map[string]any, error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return nil, errRefused
	}
	return soundToken(strings.TrimPrefix(values[0], "Bearer "))
}

func soundToken(raw string) (map[string]any, error) {
	t, err := jws.Parse(raw)
	if err != nil || t.Alg() != "RS256" || jws.Compact(t.Header, t.Payload, t.Signature) != raw || !verifies(&rsaKey().PublicKey, t) {
		return nil, errRefused
	}
	return t.Claims()
}

// holed lets in what hole says, and genuine tokens.
func holed(hole func(jws.Token) bool) func(*http.Request) (map[string]any, error) {
	return func(r *http.Request) (map[string]any, error) {
		if claims, err := soundly(r); err == nil {
			return claims, nil
		}
		t, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil || !hole(t) {
			return nil, errRefused
		}
		return t.Claims()
	}
}

func userToken(claims map[string]any) string {
	all := map[string]any{"sub": "user_a", "iss": "https://issuer.example", "iat": time.Now().Unix(), "plan": "free"}
	for k, v := range claims {
		all[k] = v
	}
	token, err := jws.Sign([]byte(`{"alg":"RS256","typ":"JWT","kid":"k1"}`), jws.With([]byte(`{}`), all), "RS256", rsaKey())
	if err != nil {
		panic(err)
	}
	return token
}

// askProbe runs one probe of the catalogue against a handler.
func askProbe(t *testing.T, id string, h http.Handler, adjust func(*audit.Target, *audit.Config)) audit.Finding {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	target, err := audit.ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	target.Token, target.ProtectedPaths = userToken(nil), []string{"/me"}
	config := audit.Config{Pace: 1000}
	if adjust != nil {
		adjust(target, &config)
	}
	p, found := Find(id)
	if !found {
		t.Fatalf("there is no probe %s", id)
	}
	report, err := audit.Run(t.Context(), target, []audit.Probe{p}, config)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := report.Find(id)
	return f
}

// trap is a server that a probe must judge rightly.
type trap struct {
	name   string
	probe  string
	server http.Handler
	adjust func(*audit.Target, *audit.Config)
	want   audit.Outcome
	as     audit.Severity // of a failure; zero is any
}

func checkTraps(t *testing.T, traps []trap) {
	for _, c := range traps {
		t.Run(c.probe+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			got := askProbe(t, c.probe, c.server, c.adjust)
			if got.Outcome != c.want || c.as != 0 && got.FailedAs != c.as {
				t.Errorf("%s as %s (%s), want %s as %s", got.Outcome, got.FailedAs, got.Message, c.want, c.as)
			}
			for _, e := range got.Evidence {
				if text := fmt.Sprint(e); strings.Contains(text, userToken(nil)) {
					t.Errorf("the evidence shows a token: %s", text)
				}
			}
		})
	}
}

// everything answers every path with the same.
func everything(status int, contentType, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func sayNo(w http.ResponseWriter) {
	reply(w, 200, map[string]any{"ok": false, "error": "unauthorized"})
}
func forbid(w http.ResponseWriter) { reply(w, 403, map[string]any{"error": "forbidden"}) }

func noToken(t *audit.Target, _ *audit.Config)    { t.Token = "" }
func undeclared(t *audit.Target, _ *audit.Config) { t.Token, t.ProtectedPaths = "", nil }

func TestMissingCredentialIsJudgedOnlyWhereItCanBe(t *testing.T) {
	checkTraps(t, []trap{
		{"sound", "ID-01", backend{}.handler(), nil, audit.Pass, 0},
		{"403 for 401", "ID-01", backend{refuse: forbid}.handler(), nil, audit.Pass, 0},
		{"error in a 200", "ID-01", backend{refuse: sayNo}.handler(), nil, audit.Pass, 0},
		{"error in a 200, no token known", "ID-01", backend{refuse: sayNo}.handler(), noToken, audit.Inconclusive, 0},
		{"catch-all page", "ID-01", everything(200, "text/html", "<h1>hello</h1>"), nil, audit.Inconclusive, 0},
		{"open path that was only found", "ID-01", backend{identify: openDoor}.handler(), undeclared, audit.Inconclusive, 0},
		{"open path that was declared", "ID-01", backend{identify: openDoor}.handler(), nil, audit.Fail, audit.Critical},
		{"open path that was declared, no token known", "ID-01", backend{identify: openDoor}.handler(), noToken, audit.Fail, audit.Critical},
		{"Bearer undefined", "ID-01", backend{identify: func(r *http.Request) (map[string]any, error) {
			if r.Header.Get("Authorization") == "Bearer undefined" {
				return map[string]any{"sub": "nobody"}, nil
			}
			return soundly(r)
		}}.handler(), nil, audit.Fail, audit.Critical},
		{"any token, by the canary", "ID-01", backend{identify: anyBearer}.handler(), func(t *audit.Target, _ *audit.Config) {
			t.Canary = regexp.MustCompile(`anybody`)
		}, audit.Fail, audit.Critical},
		{"any token, as far as can be seen", "ID-01", backend{identify: anyBearer}.handler(), nil, audit.Inconclusive, 0},
		{"a token unknown is no error", "ID-01", backend{identify: anyBearer}.handler(), func(t *audit.Target, _ *audit.Config) {
			t.Canary = regexp.MustCompile(`user_a`)
		}, audit.Inconclusive, 0},
		{"another page for those unknown", "ID-01", backend{refuse: func(w http.ResponseWriter) {
			w.Header().Set("Location", "/login")
			w.WriteHeader(302)
		}}.handler(), nil, audit.Pass, 0},
	})
}

// anyBearer looks whether there is a token, and not at it.
func anyBearer(r *http.Request) (map[string]any, error) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return nil, errors.New("no token")
	}
	return map[string]any{"sub": "anybody"}, nil
}

func openDoor(*http.Request) (map[string]any, error) { return map[string]any{"sub": "anybody"}, nil }

func described(ops ...audit.Operation) func(*audit.Target, *audit.Config) {
	return func(t *audit.Target, _ *audit.Config) { t.Operations = ops }
}

func TestSecuredOperationsAreJudgedByWhatTheyServe(t *testing.T) {
	items := audit.Operation{Method: "GET", Path: "/items", Secured: true}
	item := audit.Operation{Method: "GET", Path: "/items/{id}", Secured: true, Params: []audit.Param{{Name: "id", In: "path", Type: "integer", Example: "7"}}}
	unknown := item
	unknown.Params = []audit.Param{{Name: "id", In: "path", Type: "integer"}}
	search := audit.Operation{Method: "GET", Path: "/items", Secured: true, Params: []audit.Param{{Name: "limit", In: "query", Required: true}}}
	make1 := audit.Operation{Method: "POST", Path: "/items", Secured: true}
	with := func(pattern string, h http.HandlerFunc) http.Handler {
		return backend{routes: map[string]http.HandlerFunc{pattern: h}}.handler()
	}
	private := func(pattern string, h func(http.ResponseWriter, *http.Request, map[string]any)) http.Handler {
		return with(pattern, backend{}.private(h))
	}
	list := func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, []any{map[string]any{"id": 7, "name": "x"}})
	}
	listFor := func(w http.ResponseWriter, r *http.Request, _ map[string]any) { list(w, r) }
	active := func(ops ...audit.Operation) func(*audit.Target, *audit.Config) {
		return func(t *audit.Target, c *audit.Config) { t.Operations, c.Active = ops, true }
	}
	busy := &atomic.Int64{}
	checkTraps(t, []trap{
		{"no description", "ID-02", backend{}.handler(), nil, audit.Inconclusive, 0},
		{"sound", "ID-02", private("GET /items", listFor), described(items), audit.Pass, 0},
		{"open", "ID-02", with("GET /items", list), described(items), audit.Fail, audit.Critical},
		{"open, no token known", "ID-02", with("GET /items", list), func(t *audit.Target, c *audit.Config) { described(items)(t, c); t.Token = "" }, audit.Fail, audit.Critical},
		{"error in a 200", "ID-02", backend{refuse: sayNo, routes: map[string]http.HandlerFunc{
			"GET /items": backend{refuse: sayNo}.private(listFor),
		}}.handler(), described(items), audit.Pass, 0},
		{"catch-all page", "ID-02", with("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<h1>hello</h1>") }), described(items), audit.Inconclusive, 0},
		{"empty list for strangers", "ID-02", with("GET /items", func(w http.ResponseWriter, r *http.Request) {
			if _, err := soundly(r); err != nil {
				reply(w, 200, []any{})
				return
			}
			list(w, r)
		}), described(items), audit.Inconclusive, 0},
		{"validation before identity", "ID-02", with("GET /items", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 422, map[string]any{"detail": "limit must be a number"})
		}), described(search), audit.Fail, audit.Medium},
		{"crash without a user", "ID-02", with("GET /items", func(w http.ResponseWriter, r *http.Request) {
			if _, err := soundly(r); err != nil {
				reply(w, 500, map[string]any{"error": "nil user"})
				return
			}
			list(w, r)
		}), described(items), audit.Fail, audit.Medium},
		{"crash for everybody", "ID-02", with("GET /items", func(w http.ResponseWriter, _ *http.Request) { reply(w, 500, nil) }), described(items), audit.Inconclusive, 0},
		{"hidden by 404", "ID-02", with("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
			if _, err := soundly(r); err != nil || r.PathValue("id") != "7" {
				reply(w, 404, map[string]any{"error": "not found"})
				return
			}
			list(w, r)
		}), described(item), audit.Pass, 0},
		{"not deployed", "ID-02", backend{}.handler(), described(items), audit.Inconclusive, 0},
		{"no example, refused all the same", "ID-02", private("GET /items/{id}", listFor), described(unknown), audit.Pass, 0},
		{"no example, 404", "ID-02", backend{}.handler(), described(unknown), audit.Inconclusive, 0},
		{"health under a global requirement", "ID-02", with("GET /health", list), described(audit.Operation{Method: "GET", Path: "/health", Secured: true}), audit.Inconclusive, 0},
		{"redirect to the log-in", "ID-02", with("GET /items", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }), described(items), audit.Pass, 0},
		{"redirect to the goods", "ID-02", with("GET /items", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://files.example/x", http.StatusFound)
		}), described(items), audit.Inconclusive, 0},
		{"slash added, then open", "ID-02", backend{routes: map[string]http.HandlerFunc{
			"GET /items": func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/items/", http.StatusMovedPermanently)
			},
			"GET /items/{$}": list,
		}}.handler(), described(items), audit.Fail, audit.Critical},
		{"429 in between", "ID-02", private("GET /items", func(w http.ResponseWriter, r *http.Request, _ map[string]any) {}), described(items), audit.Pass, 0},
		{"a limiter before identity", "ID-02", with("GET /items", func(w http.ResponseWriter, r *http.Request) {
			if busy.Add(1) == 1 {
				w.Header().Set("Retry-After", "1")
				reply(w, 429, nil)
				return
			}
			reply(w, 401, nil)
		}), described(items), audit.Pass, 0},
		{"an open POST, not asked by default", "ID-02", with("POST /items", list), described(make1), audit.Inconclusive, 0},
		{"an open POST, asked", "ID-02", with("POST /items", list), active(make1), audit.Fail, audit.Critical},
		{"a closed POST, asked", "ID-02", private("POST /items", listFor), active(make1), audit.Pass, 0},
	})
}

// notes is an API of two users' notes; may says who reads whose.
func notes(may func(r *http.Request, sub, owner string) bool, decorate func(map[string]any)) http.Handler {
	b := backend{}
	b.routes = map[string]http.HandlerFunc{"GET /notes/{id}": func(w http.ResponseWriter, r *http.Request) {
		claims, _ := soundly(r)
		sub, _ := claims["sub"].(string)
		owner := map[string]string{"1": "user_a", "2": "user_b"}[r.PathValue("id")]
		if owner == "" || !may(r, sub, owner) {
			reply(w, 404, map[string]any{"error": "not found"})
			return
		}
		note := map[string]any{"id": r.PathValue("id"), "text": "hello", "request_id": time.Now().UnixNano()}
		if decorate != nil {
			decorate(note)
		}
		reply(w, 200, note)
	}}
	return b.handler()
}

// settings answers every logged-in user, whatever the path, with one member and who asks.
func settings(name, value string) http.Handler {
	return backend{routes: map[string]http.HandlerFunc{
		"GET /notes/{id}": backend{}.private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
			body := map[string]any{name: value}
			if name == "org_id" {
				body["text"] = claims["sub"]
			}
			reply(w, 200, body)
		}),
	}}.handler()
}

// words answers every logged-in user with the text that belongs to the path.
func words(texts map[string]string) http.Handler {
	return backend{routes: map[string]http.HandlerFunc{
		"GET /notes/{id}": backend{}.private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
			reply(w, 200, map[string]any{"text": texts[r.PathValue("id")]})
		}),
	}}.handler()
}

func bothUsers(t *audit.Target, _ *audit.Config) {
	t.TokenB = userToken(map[string]any{"sub": "user_b"})
	t.ObjectA, t.ObjectB = "/notes/1", "/notes/2"
}

func TestOthersObjectsAreJudgedByTheirOwners(t *testing.T) {
	own := func(_ *http.Request, sub, owner string) bool { return sub == owner }
	loggedIn := func(_ *http.Request, sub, _ string) bool { return sub != "" }
	without := func(change func(*audit.Target)) func(*audit.Target, *audit.Config) {
		return func(t *audit.Target, c *audit.Config) { bothUsers(t, c); change(t) }
	}
	checkTraps(t, []trap{
		{"sound", "AZ-01", notes(own, nil), bothUsers, audit.Pass, 0},
		{"anybody logged in", "AZ-01", notes(loggedIn, nil), bothUsers, audit.Fail, audit.Critical},
		{"one direction only", "AZ-01", notes(func(_ *http.Request, sub, owner string) bool { return sub == owner || sub == "user_b" }, nil), bothUsers, audit.Fail, audit.Critical},
		{"volatile body", "AZ-01", notes(loggedIn, func(n map[string]any) { n["now"] = time.Now().String() }), bothUsers, audit.Fail, audit.Critical},
		{"public", "AZ-01", notes(func(*http.Request, string, string) bool { return true }, nil), bothUsers, audit.Inconclusive, 0},
		{"the caller's own instead", "AZ-01", backend{routes: map[string]http.HandlerFunc{
			"GET /notes/{id}": backend{}.private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
				reply(w, 200, map[string]any{"id": claims["sub"], "text": "mine"})
			}),
		}}.handler(), bothUsers, audit.Inconclusive, 0},
		{"the caller's own instead, of the same organisation", "AZ-01", settings("org_id", "org-1"), bothUsers, audit.Inconclusive, 0},
		{"the same for everybody, and no id", "AZ-01", settings("theme", "dark"), bothUsers, audit.Inconclusive, 0},
		{"no id, and the owner's words", "AZ-01", words(map[string]string{"1": "one", "2": "two"}), bothUsers, audit.Fail, audit.Critical},
		{"no second user", "AZ-01", notes(own, nil), without(func(t *audit.Target) { t.TokenB = "" }), audit.Inconclusive, 0},
		{"one object", "AZ-01", notes(own, nil), without(func(t *audit.Target) { t.ObjectA = "" }), audit.Inconclusive, 0},
		{"one object, the hole shows", "AZ-01", notes(loggedIn, nil), without(func(t *audit.Target) { t.ObjectA = "" }), audit.Fail, audit.Critical},
		{"the same user twice", "AZ-01", notes(own, nil), without(func(t *audit.Target) { t.TokenB = userToken(map[string]any{"x": 1}) }), audit.Inconclusive, 0},
		{"B's token is dead", "AZ-01", notes(own, nil), without(func(t *audit.Target) { t.TokenB += "x" }), audit.Inconclusive, 0},
		{"A's token is dead", "AZ-01", notes(own, nil), without(func(t *audit.Target) { t.Token += "x"; t.ObjectA = "" }), audit.Inconclusive, 0},
		{"error of the server", "AZ-01", backend{routes: map[string]http.HandlerFunc{
			"GET /notes/{id}": func(w http.ResponseWriter, r *http.Request) {
				claims, _ := soundly(r)
				if claims["sub"] == "user_"+map[string]string{"1": "a", "2": "b"}[r.PathValue("id")] {
					reply(w, 200, map[string]any{"id": r.PathValue("id")})
					return
				}
				reply(w, 500, nil)
			},
		}}.handler(), bothUsers, audit.Inconclusive, 0},
	})
}

func TestAdministratorsPathsAreJudgedByWhatIsKnownOfThem(t *testing.T) {
	at := func(pattern string, admins bool) http.Handler {
		return backend{routes: map[string]http.HandlerFunc{
			pattern: backend{}.private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
				if admins && claims["role"] != "admin" {
					forbid(w)
					return
				}
				reply(w, 200, map[string]any{"users": []string{"a"}, "total": 1})
			}),
		}}.handler()
	}
	given := func(admin bool, paths ...string) func(*audit.Target, *audit.Config) {
		return func(t *audit.Target, _ *audit.Config) {
			t.AdminPaths = paths
			if admin {
				t.AdminToken = userToken(map[string]any{"sub": "root", "role": "admin"})
			}
		}
	}
	found := func(admin bool, path string) func(*audit.Target, *audit.Config) {
		return func(t *audit.Target, c *audit.Config) {
			given(admin)(t, c)
			t.Operations = []audit.Operation{{Method: "GET", Path: path, Secured: true}}
		}
	}
	checkTraps(t, []trap{
		{"none known", "AZ-02", backend{}.handler(), nil, audit.Inconclusive, 0},
		{"sound", "AZ-02", at("GET /admin/users", true), given(true, "/admin/users"), audit.Pass, 0},
		{"sound, no administrator", "AZ-02", at("GET /admin/users", true), given(false, "/admin/users"), audit.Pass, 0},
		{"open, given", "AZ-02", at("GET /admin/users", false), given(false, "/admin/users"), audit.Fail, audit.Critical},
		{"open, given with administrator", "AZ-02", at("GET /admin/users", false), given(true, "/admin/users"), audit.Fail, audit.Critical},
		{"open, found, no administrator", "AZ-02", at("GET /admin/users", false), found(false, "/admin/users"), audit.Inconclusive, 0},
		{"open, found, with administrator", "AZ-02", at("GET /admin/users", false), found(true, "/admin/users"), audit.Fail, audit.Critical},
		{"everybody manages a profile", "AZ-02", at("GET /manage-profile", false), found(true, "/manage-profile"), audit.Inconclusive, 0},
		{"not there", "AZ-02", backend{}.handler(), given(false, "/admin/users"), audit.Inconclusive, 0},
		{"not there for the administrator either", "AZ-02", backend{}.handler(), given(true, "/admin/users"), audit.Inconclusive, 0},
		{"catch-all for those logged in", "AZ-02", at("/", false), given(false, "/admin/users"), audit.Inconclusive, 0},
		{"error in a 200", "AZ-02", backend{routes: map[string]http.HandlerFunc{
			"GET /admin/users": func(w http.ResponseWriter, _ *http.Request) { sayNo(w) },
		}}.handler(), given(false, "/admin/users"), audit.Inconclusive, 0},
		{"token is dead", "AZ-02", at("GET /admin/users", true), func(t *audit.Target, c *audit.Config) {
			given(false, "/admin/users")(t, c)
			t.Token = ""
		}, audit.Inconclusive, 0},
	})
}

func TestVariantsAreBypassesOnlyWhenTheyServeTheSame(t *testing.T) {
	// prefixed guards by comparing the path with a list, and routes after cleaning it.
	prefixed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := soundly(r); err != nil && r.URL.Path == "/me" {
			reply(w, 401, nil)
			return
		}
		if strings.Trim(r.URL.Path, "/") == "me" {
			reply(w, 200, map[string]any{"id": "user_a", "email": "a@example.com"})
			return
		}
		reply(w, 404, nil)
	})
	before := func(f func(r *http.Request)) http.Handler {
		return backend{outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(r); next.ServeHTTP(w, r) })
		}}.handler()
	}
	trusted := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+userToken(nil)) }
	checkTraps(t, []trap{
		{"sound", "AZ-03", backend{}.handler(), nil, audit.Pass, 0},
		{"error in a 200", "AZ-03", backend{refuse: sayNo}.handler(), nil, audit.Pass, 0},
		{"catch-all page", "AZ-03", backend{routes: map[string]http.HandlerFunc{
			"/": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<h1>hello</h1>") },
		}}.handler(), nil, audit.Pass, 0},
		{"a doubled slash", "AZ-03", prefixed, nil, audit.Fail, audit.Critical},
		{"an identity header", "AZ-03", before(func(r *http.Request) {
			if r.Header.Get("X-Forwarded-User") != "" {
				trusted(r)
			}
		}), nil, audit.Fail, audit.Critical},
		{"an inner address", "AZ-03", before(func(r *http.Request) {
			if r.Header.Get("X-Forwarded-For") == "127.0.0.1" {
				trusted(r)
			}
		}), nil, audit.Fail, audit.Critical},
		{"the path in a header", "AZ-03", before(func(r *http.Request) {
			if p := r.Header.Get("X-Original-URL"); p != "" && r.URL.Path == "/" { // the proxy checked "/"
				r.URL.Path = p
				trusted(r)
			}
		}), nil, audit.Fail, audit.Critical},
		{"OPTIONS turned into GET", "AZ-03", before(func(r *http.Request) {
			if r.Method == "OPTIONS" && r.Header.Get("X-HTTP-Method-Override") != "" {
				r.Method = r.Header.Get("X-HTTP-Method-Override")
				trusted(r)
			}
		}), nil, audit.Fail, audit.Critical},
		{"HEAD", "AZ-03", before(func(r *http.Request) {
			if r.Method == "HEAD" {
				trusted(r)
			}
		}), nil, audit.Fail, audit.Critical},
		{"HEAD without a length", "AZ-03", backend{outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "HEAD" {
					w.WriteHeader(200)
					return
				}
				next.ServeHTTP(w, r)
			})
		}}.handler(), nil, audit.Inconclusive, 0},
	})
}

var signatureProbes = []string{
	"JWT-01", "JWT-02", "JWT-03", "JWT-04", "JWT-05", "JWT-07", "JWT-08", "JWT-09", "JWT-10", "JWT-11", "JWT-12", "JWT-13", "JWT-24", "JWT-25", "JWT-26", "JWT-27",
}

// published adds the key set.
func published(t *testing.T) map[string]http.HandlerFunc {
	set := jwksOf(t, &rsaKey().PublicKey, map[string]any{"kid": "k1", "use": "sig"})
	return map[string]http.HandlerFunc{"GET /.well-known/jwks.json": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) }}
}

func TestSoundVerifiersPassHoweverTheyAnswer(t *testing.T) {
	servers := map[string]func(count *atomic.Int64) backend{
		"plain":          func(*atomic.Int64) backend { return backend{} },
		"403 for 401":    func(*atomic.Int64) backend { return backend{refuse: forbid} },
		"error in a 200": func(*atomic.Int64) backend { return backend{refuse: sayNo} },
		"volatile body": func(count *atomic.Int64) backend {
			return backend{me: func(claims map[string]any) any {
				return map[string]any{"id": claims["sub"], "now": time.Now().String(), "served": count.Add(1)}
			}}
		},
		"text": func(*atomic.Int64) backend { return backend{me: func(c map[string]any) any { return c["sub"] }} },
		"400 without a body": func(*atomic.Int64) backend {
			return backend{refuse: func(w http.ResponseWriter) { w.WriteHeader(400) }}
		},
		"redirect to a log-in": func(*atomic.Int64) backend { return backend{refuse: toLogIn} },
	}
	var traps []trap
	for name, make := range servers {
		for _, id := range signatureProbes {
			b := make(&atomic.Int64{})
			b.routes = published(t)
			want := audit.Pass
			if id == "JWT-24" {
				want = audit.Inconclusive // its key is for signatures
			}
			traps = append(traps, trap{name, id, b.handler(), nil, want, 0})
		}
	}
	checkTraps(t, traps)
}

func toLogIn(w http.ResponseWriter) {
	w.Header().Set("Location", "/login")
	w.WriteHeader(302)
}

func TestNothingIsConcludedFromOpaqueTokensDeadTokensAndDeadTargets(t *testing.T) {
	var traps []trap
	for _, id := range signatureProbes {
		if id != "JWT-27" { // takes any token
			opaque := backend{identify: func(r *http.Request) (map[string]any, error) {
				if r.Header.Get("Authorization") != "Bearer 0123456789abcdef" {
					return nil, errRefused
				}
				return map[string]any{"sub": "a"}, nil
			}}.handler()
			traps = append(traps, trap{"opaque", id, opaque, func(t *audit.Target, _ *audit.Config) { t.Token = "0123456789abcdef" }, audit.Inconclusive, 0})
		}
		traps = append(
			traps,
			trap{"the token dies", id, after(9, func(w http.ResponseWriter) { reply(w, 401, map[string]any{"error": "unauthorized"}) }), nil, audit.Inconclusive, 0},
			trap{"the target dies", id, after(10, func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }), nil, audit.Inconclusive, 0},
			trap{"the target breaks", id, after(10, func(w http.ResponseWriter) { w.WriteHeader(502) }), nil, audit.Inconclusive, 0},
		)
	}
	checkTraps(t, traps)
}

// after n requests (calibration takes nine) the sound API answers everything in one way.
func after(n int64, then func(http.ResponseWriter)) http.Handler {
	sound, count := backend{}.handler(), &atomic.Int64{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count.Add(1) > n {
			then(w)
			return
		}
		sound.ServeHTTP(w, r)
	})
}

func TestForgedTokensAreFoundWhereverTheyAreBelieved(t *testing.T) {
	echo := func(claims map[string]any) any { return claims }
	crash := func(when func(jws.Token) bool) http.Handler {
		return backend{outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if t, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err == nil && when(t) {
					w.WriteHeader(500)
					return
				}
				next.ServeHTTP(w, r)
			})
		}}.handler()
	}
	long := func(t jws.Token) bool { return len(t.Header) > 8<<10 }
	known := func(users ...any) http.Handler { // decodes only, and looks the user up
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			claims, err := holed(func(jws.Token) bool { return true })(r)
			switch {
			case err != nil:
				reply(w, 401, nil)
			case !slices.Contains(users, claims["sub"]):
				reply(w, 404, nil)
			default:
				reply(w, 200, map[string]any{"id": claims["sub"]})
			}
		})
	}
	all := func(jws.Token) bool { return true }
	checkTraps(t, []trap{
		{"decodes only", "JWT-01", backend{identify: holed(all)}.handler(), nil, audit.Fail, audit.Critical},
		{"decodes only and echoes every claim", "JWT-01", backend{identify: holed(all), me: echo}.handler(), nil, audit.Fail, audit.Critical},
		{"decodes only and looks the user up", "JWT-01", known("user_a"), nil, audit.Fail, audit.Critical},
		{"a 404 for the forged user", "JWT-01", backend{routes: map[string]http.HandlerFunc{}, outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				t, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
				if err == nil && jws.Member(t.Payload, "sub") != "user_a" {
					w.WriteHeader(404)
					return
				}
				next.ServeHTTP(w, r)
			})
		}}.handler(), nil, audit.Inconclusive, 0},
		{"decodes only", "JWT-02", backend{identify: holed(all)}.handler(), nil, audit.Fail, audit.Critical},
		{"breaks on a short signature", "JWT-02", crash(func(t jws.Token) bool { return len(t.Signature) < 4 }), nil, audit.Pass, 0},
		{"decodes only", "JWT-03", backend{identify: holed(all)}.handler(), nil, audit.Fail, audit.Critical},
		{"null is none", "JWT-03", backend{identify: holed(func(t jws.Token) bool { return t.Alg() == "" && jws.Has(t.Header, "alg") })}.handler(), nil, audit.Fail, audit.Critical},
		{"decodes only", "JWT-07", backend{identify: holed(all)}.handler(), nil, audit.Fail, audit.Critical},
		{"an unexpected algorithm breaks it", "JWT-13", crash(func(t jws.Token) bool { return t.Alg() == "" }), nil, audit.Fail, audit.High},
		{"a long header breaks it", "JWT-13", crash(long), nil, audit.Pass, 0},
		{"a long algorithm breaks it", "JWT-13", crash(func(t jws.Token) bool { return len(t.Alg()) > 8<<10 }), nil, audit.Fail, audit.High},
		{"a long header loses the connection at first", "JWT-13", backend{outer: func(next http.Handler) http.Handler {
			var turn atomic.Int64
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if len(r.Header.Get("Authorization")) > 8<<10 && turn.Add(1) <= 2 {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
		}}.handler(), nil, audit.Pass, 0},
		{"a quote breaks it", "JWT-09", crash(func(t jws.Token) bool { return strings.Count(t.Kid(), "'")%2 == 1 }), nil, audit.Fail, audit.Critical},
		{"any unknown key id breaks it", "JWT-09", crash(func(t jws.Token) bool { return t.Kid() != "k1" }), nil, audit.Pass, 0},
		{"a path breaks it", "JWT-09", crash(func(t jws.Token) bool { return strings.Contains(t.Kid(), "/") }), nil, audit.Inconclusive, 0},
		{"a firewall dislikes quotes", "JWT-09", backend{outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if t, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err == nil && strings.Contains(t.Kid(), "'") {
					w.WriteHeader(403)
					return
				}
				next.ServeHTTP(w, r)
			})
		}}.handler(), nil, audit.Pass, 0},
		{"spare bits", "JWT-26", backend{identify: holed(func(t jws.Token) bool { return verifies(&rsaKey().PublicKey, t) })}.handler(), nil, audit.Fail, audit.Low},
		{"?token=", "JWT-27", backend{identify: func(r *http.Request) (map[string]any, error) {
			if claims, err := soundToken(r.URL.Query().Get("token")); err == nil {
				return claims, nil
			}
			return soundly(r)
		}}.handler(), nil, audit.Fail, audit.Medium},
	})
}

func TestTokenInTheQueryIsNotShown(t *testing.T) {
	const opaque = "se+cret/token=="
	known := func(r *http.Request) (map[string]any, error) {
		if r.Header.Get("Authorization") == "Bearer "+opaque || r.URL.Query().Get("jwt") == opaque {
			return map[string]any{"sub": "a"}, nil
		}
		return nil, errRefused
	}
	got := askProbe(t, "JWT-27", backend{identify: known}.handler(), func(target *audit.Target, _ *audit.Config) { target.Token = opaque })
	if got.Outcome != audit.Fail {
		t.Fatalf("%s (%s), want fail", got.Outcome, got.Message)
	}
	if text := fmt.Sprint(got); strings.Contains(text, "cret") {
		t.Errorf("the finding shows the token: %s", text)
	}
}

func TestKeyConfusionTriesEveryEncoding(t *testing.T) {
	public := &rsaKey().PublicKey
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	own, err := newOwnKey("RS256", rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	set := strings.Replace(jwksOf(t, public, map[string]any{"kid": "k1"}), `"kid"`, fmt.Sprintf(`"x5c":[%q],"kid"`, pemBody(own.certificate)), 1)
	plain := func(h http.Handler) http.Handler { return h }
	var traps []trap
	for name, secret := range map[string]string{
		"SPKI":                          file("PUBLIC KEY", spki),
		"SPKI, no final newline":        strings.TrimSpace(file("PUBLIC KEY", spki)),
		"SPKI, leading newline":         "\n" + file("PUBLIC KEY", spki),
		"SPKI, CRLF":                    strings.ReplaceAll(file("PUBLIC KEY", spki), "\n", "\r\n"),
		"SPKI, one line":                strings.ReplaceAll(file("PUBLIC KEY", spki), "\n", ""),
		"PKCS#1":                        file("RSA PUBLIC KEY", pkcs1),
		"PKCS#1, no final newline":      strings.TrimSpace(file("RSA PUBLIC KEY", pkcs1)),
		"certificate":                   file("CERTIFICATE", own.certificate),
		"certificate, no final newline": strings.TrimSpace(file("CERTIFICATE", own.certificate)),
		"DER":                           string(spki),
		"modulus":                       string(public.N.Bytes()),
	} {
		b := backend{
			identify: holed(func(t jws.Token) bool {
				input := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
				return t.Alg() == "HS256" && string(jws.HS256([]byte(secret), []byte(input))) == string(t.Signature)
			}),
			routes: map[string]http.HandlerFunc{"GET /.well-known/jwks.json": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) }},
		}
		traps = append(traps, trap{name, "JWT-04", plain(b.handler()), nil, audit.Fail, audit.Critical})
	}
	stranger := jwksOf(t, &mustFresh(t).PublicKey, map[string]any{"kid": "k1"})
	traps = append(
		traps,
		trap{"no key is published", "JWT-04", backend{}.handler(), nil, audit.Inconclusive, 0},
		trap{"another key is published", "JWT-04", backend{routes: map[string]http.HandlerFunc{
			"GET /.well-known/jwks.json": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, stranger) },
		}}.handler(), nil, audit.Inconclusive, 0},
		trap{"the staging key is given", "JWT-04", backend{}.handler(), func(t *audit.Target, _ *audit.Config) {
			t.JWTKey = file("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
		}, audit.Pass, 0},
	)
	checkTraps(t, traps)
}
