package probes

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/selftest"
)

// at serves text on a path.
func at(path, contentType, text string) func(*selftest.API) {
	return func(a *selftest.API) {
		a.Routes["GET "+path] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			fmt.Fprint(w, text)
		}
	}
}

// everywhere serves text with a status on every path but the protected one.
func everywhere(status int, contentType, text string) func(*selftest.API) {
	return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/me" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	})
}

const (
	djangoPage = "<code>Using the URLconf defined in</code> … because you have <code>DEBUG = True</code>"
	app        = "<!doctype html><html><body><div id=root></div><script src=/swagger-ui.js></script></body></html>"
	html       = "text/html; charset=utf-8"
	plain      = "text/plain; charset=utf-8"
)

func TestDebugPagesNeedTwoMarksInAnError(t *testing.T) {
	refusesAll := outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/me" && r.URL.RawQuery == "" && r.Header.Get("Content-Type") == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(403)
	})
	tryRuses(t, []ruse{
		{name: "sound", probe: "CFG-01", want: audit.Pass},
		{name: "two marks", probe: "CFG-01", server: everywhere(404, html, djangoPage), want: audit.Fail, as: audit.Critical, says: "Django"},
		{name: "two marks in a 200", probe: "CFG-01", server: everywhere(200, html, djangoPage), want: audit.Inconclusive},
		{name: "one mark", probe: "CFG-01", server: everywhere(404, html, "set DEBUG = True to see more"), want: audit.Pass},
		{name: "one mark within another", probe: "CFG-01", server: everywhere(404, plain, "Framework Trace: \"Framework Trace\""), want: audit.Pass},
		{name: "marks of two families", probe: "CFG-01", server: everywhere(404, plain, "DEBUG = True; Stack trace:"), want: audit.Pass},
		{name: "Express", probe: "CFG-01", server: everywhere(500, html, "<pre>Error: x<br> &nbsp; &nbsp;at Layer.handle [as handle_request] (/app/node_modules/express/lib/router/layer.js:95:5)</pre>"), want: audit.Fail, as: audit.Critical, says: "Express"},
		{name: "Express, in answer to a body only", probe: "CFG-01", server: func(a *selftest.API) {
			a.Routes["POST /orders"] = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(400)
				fmt.Fprint(w, "<pre>SyntaxError: x<br> &nbsp; &nbsp;at JSON.parse (&lt;anonymous&gt;)<br> &nbsp; &nbsp;at endReadableNT (node:internal/streams/readable:1698:12)</pre>")
			}
		}, knobs: func(_ *selftest.API, t *audit.Target, _ *audit.Config) { t.WritePath = "/orders" }, want: audit.Fail, as: audit.Critical, says: "Express"},
		{name: "Express, in answer to a path that is no text", probe: "CFG-01", server: outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if utf8.ValidString(r.URL.Path) {
				next.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(400)
			fmt.Fprint(w, "<pre>URIError: x<br> &nbsp; &nbsp;at decodeURIComponent (&lt;anonymous&gt;)<br> &nbsp; &nbsp;at Layer.match (/app/node_modules/express/lib/router/layer.js:123:27)</pre>")
		}), want: audit.Fail, as: audit.Critical, says: "Express"},
		{name: "Laravel in JSON", probe: "CFG-01", server: everywhere(404, "application/json", `{"exception":"Illuminate\\Database\\X","file":"\/var\/www\/vendor\/laravel\/framework\/src\/x.php","trace":[]}`), want: audit.Fail, as: audit.Critical, says: "Laravel"},
		{name: "a gateway refuses all", probe: "CFG-01", server: refusesAll, want: audit.Inconclusive},
		{name: "a described path", probe: "CFG-01", server: func(a *selftest.API) {
			a.Routes["GET /items/{id}"] = func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(500)
				fmt.Fprint(w, "Traceback (most recent call last):\n File starlette/middleware/errors.py")
			}
		}, knobs: func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
			t.Operations = []audit.Operation{{Method: "GET", Path: "/items/{id}"}}
		}, want: audit.Fail, as: audit.Critical, says: "Starlette"},
	})
}

func TestSecretFilesAreKnownByTheirContent(t *testing.T) {
	dies := func() func(*selftest.API) {
		return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasPrefix(r.URL.Path, "/.s") {
				hangUp(w, r)
			}
			next.ServeHTTP(w, r)
		})
	}
	tryRuses(t, []ruse{
		{name: "single-page application", probe: "CFG-02", server: everywhere(200, html, app), want: audit.Pass},
		{name: "catch-all that looks like a file", probe: "CFG-02", server: everywhere(200, plain, "STATUS=ok\n"), want: audit.Pass},
		{name: "403 for all", probe: "CFG-02", server: everywhere(403, plain, "no"), want: audit.Pass},
		{name: "a public configuration", probe: "CFG-02", server: at("/config.json", "application/json", `{"apiUrl":"https://api.example","sentry":"https://1@o1.example/2","theme":"dark"}`), want: audit.Pass},
		{name: "a configuration with a password", probe: "CFG-02", server: at("/config.json", "application/json", `{"db":{"password":"hunter2-hunter2"}}`), want: audit.Fail, as: audit.Critical, says: "/config.json"},
		{name: "git", probe: "CFG-02", server: at("/.git/HEAD", plain, "ref: refs/heads/main\n"), want: audit.Fail, as: audit.Critical, says: "/.git/HEAD"},
		{name: "a log-in page in place of git", probe: "CFG-02", server: at("/.git/HEAD", html, app), want: audit.Pass},
		{name: "a dump", probe: "CFG-02", server: at("/backup.sql", plain, "-- MySQL dump 10.13\nCREATE TABLE `users` (\n"), want: audit.Fail, as: audit.Critical, says: "/backup.sql"},
		{name: "connections closed", probe: "CFG-02", server: dies(), want: audit.Inconclusive, says: "got no answer"},
	})
	const password = "n0b0dy-sh0uld-see-th1s"
	_, report := ruse{probe: "CFG-02", server: at("/.env", plain, "PGPASS="+password+"\n")}.run(t)
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), password) {
		t.Error("the report shows what was in the file")
	}
}

func TestOperationalEndpointsAreKnownByTheirContent(t *testing.T) {
	graph := at("/graphql", "application/json", `{"data":{"__schema":{"queryType":{"name":"Query"}}}}`)
	django := func(a *selftest.API) {
		a.Routes["GET /admin/"] = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/admin/login/?next="+r.URL.Path, http.StatusFound)
		}
		at("/admin/login/{$}", html, `<title>Log in | Django site admin</title><form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="x"></form>`)(a)
	}
	tryRuses(t, []ruse{
		{name: "sound", probe: "CFG-04", want: audit.Pass},
		{name: "single-page application", probe: "CFG-04", server: everywhere(200, html, app), want: audit.Pass},
		{name: "catch-all that looks like one", probe: "CFG-04", server: everywhere(200, plain, "/debug/pprof/ Types of profiles available"), want: audit.Pass},
		{name: "401 for all", probe: "CFG-04", server: everywhere(401, plain, "no"), want: audit.Pass},
		{name: "environment", probe: "CFG-04", server: at("/actuator/env", "application/json", `{"activeProfiles":[],"propertySources":[{"name":"systemEnvironment"}]}`), want: audit.Fail, as: audit.Critical, says: "/actuator/env"},
		{name: "heap dump", probe: "CFG-04", server: at("/actuator/heapdump", "application/octet-stream", "JAVA PROFILE 1.0.2\x00"+strings.Repeat("x", 1<<20)), want: audit.Fail, as: audit.Critical, says: "heapdump"},
		{name: "server status", probe: "CFG-04", server: at("/server-status", html, "<h1>Apache Server Status for x</h1><dt>Server uptime: 1 day"), want: audit.Fail, as: audit.High},
		{name: "introspection", probe: "CFG-04", server: graph, want: audit.Fail, as: audit.High, says: "/graphql"},
		{name: "introspection declared", probe: "CFG-04", server: graph, knobs: func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
			t.Declared = map[string]string{"CFG-04": "a public schema"}
		}, want: audit.Pass},
		{name: "a log-in page", probe: "CFG-04", server: django, want: audit.Fail, as: audit.Medium, says: "/admin/"},
	})
}

func TestOnlyRealSecretsInAnswersCount(t *testing.T) {
	answers := func(text string) func(*selftest.API) { return everywhere(404, plain, text) }
	const body = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1"
	genuine := "ghp_" + body + base62(crc32.ChecksumIEEE([]byte(body)))
	with := func(a *selftest.API, t *audit.Target, c *audit.Config) { c.Only = append(c.Only, "CFG-01") }
	echo := outer(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { fmt.Fprint(w, r.URL.Path, r.Header) })
	sends := func(a *selftest.API, t *audit.Target, c *audit.Config) {
		with(a, t, c)
		t.Token = genuine
	}
	ruses := []ruse{
		{name: "none", want: audit.Pass},
		{name: "what was sent", server: echo, knobs: sends, want: audit.Pass},
		{name: "the documentation's AWS key", server: answers("AKIAIOSFODNN7EXAMPLE"), want: audit.Pass},
		{name: "a placeholder for Stripe", server: answers("sk_live_xxxxxxxxxxxxxxxxxxxxxxxx"), want: audit.Pass},
		{name: "GitHub, wrong checksum", server: answers(genuine[:39] + "0"), want: audit.Pass},
		{name: "GitHub", server: answers(genuine), want: audit.Fail, as: audit.High, says: "GitHub token: ghp_… (40 characters)"},
		{name: "a documented connection", server: answers("use postgres://user:password@localhost/db or redis://u:s3cr3tvalue@cache.example.com/0"), want: audit.Pass},
		{name: "a connection", server: answers("could not connect: postgres://api:Tr0ub4dor@db.internal:5432/api"), want: audit.Fail, as: audit.High, says: "connection string"},
		{name: "the head of a key", server: answers("-----BEGIN PRIVATE KEY-----\nMIIE…\n-----END PRIVATE KEY-----"), want: audit.Pass},
		{name: "a private address of a local target", server: answers("upstream 10.1.2.3:8080 refused"), want: audit.Pass},
	}
	for i := range ruses {
		ruses[i].probe = "CFG-05"
		if ruses[i].knobs == nil {
			ruses[i].knobs = with
		}
	}
	tryRuses(t, ruses)
	_, report := ruse{probe: "CFG-05", server: answers(genuine), knobs: with}.run(t)
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), genuine[4:20]) {
		t.Error("the report shows the token")
	}
}

func TestBannersAndDocumentationCountUnlessMeant(t *testing.T) {
	says := func(header, value string) func(*selftest.API) {
		return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set(header, value)
			next.ServeHTTP(w, r)
		})
	}
	docs := at("/openapi.json", "application/json", `{"openapi":"3.1.0","paths":{}}`)
	described := func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
		t.Operations = []audit.Operation{{Method: "GET", Path: "/me"}}
	}
	declared := func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
		t.Declared = map[string]string{"CFG-06": "public documentation"}
	}
	tryRuses(t, []ruse{
		{name: "sound", probe: "CFG-06", want: audit.Pass},
		{name: "a name alone", probe: "CFG-06", server: says("X-Powered-By", "Express"), want: audit.Pass},
		{name: "a version", probe: "CFG-06", server: says("X-Powered-By", "PHP/8.1.2"), want: audit.Fail, as: audit.Low},
		{name: "documentation", probe: "CFG-06", server: docs, want: audit.Fail, as: audit.Low, says: "/openapi.json"},
		{name: "documentation given", probe: "CFG-06", server: docs, knobs: described, want: audit.Pass},
		{name: "documentation declared", probe: "CFG-06", server: docs, knobs: declared, want: audit.Pass},
		{name: "single-page application", probe: "CFG-06", server: everywhere(200, html, app), want: audit.Pass},
		{name: "documentation out of order", probe: "CFG-06", server: everywhere(503, plain, "no"), want: audit.Inconclusive},
	})
}
