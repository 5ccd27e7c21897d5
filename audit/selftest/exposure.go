package selftest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
)

func exposureCases() []Case {
	return []Case{
		{Probe: "CFG-01", Break: func(a *API) { a.Routes["/"] = djangoDebug }},
		{Probe: "CFG-02", Break: func(a *API) { // the static file server has the project's folder for its root
			a.Routes["GET /.env"] = func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, "DEBUG=false\nDATABASE_URL=postgres://api:", rand.Text(), "@db:5432/api\n")
			}
		}},
		{Probe: "CFG-03", With: []string{"CFG-01"}, Prepare: signedSession(rand.Text()), Break: signedSession("keyboard cat")},
		{Probe: "CFG-04", Break: func(a *API) { a.Routes["GET /debug/pprof/"] = pprof.Index }},
		{Probe: "CFG-05", With: []string{"CFG-01"}, Break: func(a *API) {
			key := "sk_live_" + rand.Text()
			a.Routes["GET /me"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
				Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com", "plan": "free", "tenant": map[string]any{"billing_key": key}})
			})
		}},
		{Probe: "CFG-06", With: []string{"CFG-01"}, Break: func(a *API) { a.Outer = append(a.Outer, banner("Werkzeug/2.3.7 Python/3.11.4")) }},
	}
}

// djangoDebug answers an unknown path as Django does with DEBUG left on.
func djangoDebug(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, `<!DOCTYPE html><html lang="en"><head><title>Page not found at %s</title></head><body>
<p>Using the URLconf defined in <code>api.urls</code>, Django tried these URL patterns, in this order:</p>
<p>You’re seeing this error because you have <code>DEBUG = True</code> in your Django settings file.</p></body></html>`,
		url.PathEscape(r.URL.Path))
}

// signedSession sets a session cookie as express-session signs it.
func signedSession(secret string) func(*API) {
	return func(a *API) {
		a.Outer = []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id := rand.Text()
				mac := hmac.New(sha256.New, []byte(secret))
				mac.Write([]byte(id))
				value := url.QueryEscape("s:" + id + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
				w.Header().Set("Set-Cookie", "connect.sid="+value+"; Path=/; HttpOnly; Secure; SameSite=Lax")
				next.ServeHTTP(w, r)
			})
		}}
	}
}

func banner(server string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", server)
			next.ServeHTTP(w, r)
		})
	}
}
