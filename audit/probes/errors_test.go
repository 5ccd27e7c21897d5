package probes

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantryhq/gantry/audit"
)

func TestMarksOfTheInside(t *testing.T) {
	for _, c := range []struct{ name, body, sent, want string }{
		{"Python", "Traceback (most recent call last):\n  File \"/app/a.py\", line 3, in f", "", "a Python traceback"},
		{"Python in JSON", `{"trace":"File \"/app/a.py\", line 3, in f"}`, "", "a Python traceback"},
		{"Go", "goroutine 7 [running]:\nmain.main()\n\t/src/main.go:12 +0x1d", "", "a Go stack"},
		{"Java", "\tat com.example.Shop.buy(Shop.java:41)", "", "a Java stack"},
		{"JavaScript", "TypeError: x\n    at Object.<anonymous> (/app/index.js:3:9)", "", "a JavaScript stack"},
		{"Ruby", "app/models/user.rb:12:in `find'", "", "a Ruby stack"},
		{"PHP", "<b>Fatal error</b>: Uncaught Error in /var/www/index.php on line 3", "", "a PHP error"},
		{".NET", "   at Shop.Api.Buy(Int32 id) in C:\\src\\Api.cs:line 41", "", "a .NET stack"},
		{"a driver", `{"detail":"psycopg2.errors.UndefinedTable: relation \"x\""}`, "", "a database's error"},
		{"a password", "could not reach postgres://api:hunter2@db:5432/shop", "", "a password in a URL"},
		{"two weak ones", "KeyError: 'id' in /app/views/things.py", "", "the path of a source file and the name of an exception"},
		{"one weak one", "ValidationError: title is required", "", ""},
		{"advice with SQL words", "select a plan from the list", "", ""},
		{"what was sent", "cannot parse: Traceback (most recent call last)", "/?q=Traceback%20(most%20recent%20call%20last)", ""},
		{"a documentation link", "see https://docs.example.com/errors/index.js and call us at 12:30", "", ""},
		{"a URL without a password", "redis://cache:6379", "", ""},
	} {
		x := &audit.Exchange{Status: 500, Body: []byte(c.body), Request: audit.Request{Path: c.sent}}
		if got := marksIn(x); got != c.want {
			t.Errorf("%s: %q shows %q, want %q", c.name, c.body, got, c.want)
		}
	}
}

// kindsOfErrors describes an API on which VAL-01 and VAL-02 meet 400, 401 and 404.
func kindsOfErrors(t *audit.Target) {
	t.WritePath = "/things"
	t.Operations = []audit.Operation{
		{Method: "GET", Path: "/things/{id}", Params: []audit.Param{{Name: "id", In: "path", Type: "integer", Required: true, Example: "1"}}},
	}
}

func TestErrorFormats(t *testing.T) {
	details := func(key string) map[string]any { return map[string]any{key: "no", "title": "no"} }
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(404)
		io.WriteString(w, "<h1>Not Found</h1>")
	}
	for _, c := range []struct {
		name      string
		post, get http.HandlerFunc
		want      audit.Outcome
	}{
		{"one format", always(400, details("a")), always(404, details("b")), audit.Pass},
		{"HTML", always(400, details("a")), html, audit.Fail},
		{"nothing in common", always(400, map[string]any{"error": "no"}), always(404, details("b")), audit.Fail},
		{"405 without Allow", always(405, details("a")), always(404, details("b")), audit.Fail},
		{"two kinds only", always(404, details("a")), always(404, details("b")), audit.Inconclusive},
		{"an empty body says nothing either way", always(400, details("a")), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, audit.Pass},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := site(map[string]http.HandlerFunc{"POST /things": c.post, "GET /things/{id}": c.get})
			severity := audit.Severity(0)
			if c.want == audit.Fail {
				severity = audit.Medium
			}
			expect(t, outcomes(t, h, kindsOfErrors, "VAL-01", "VAL-02", "ERR-02"), "ERR-02", c.want, severity)
		})
	}
}

func TestErrorsOfASiteAreNotThoseOfAJSONAPI(t *testing.T) {
	page := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		switch {
		case r.Method == http.MethodPost:
			w.Header().Set("Allow", "GET")
			w.WriteHeader(405)
		case r.URL.Path != "/me":
			w.WriteHeader(404)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(401)
		}
		io.WriteString(w, "<h1>Shop</h1>")
	}
	expect(t, outcomes(t, http.HandlerFunc(page), kindsOfErrors, "VAL-01", "VAL-02", "ERR-02"), "ERR-02", audit.Inconclusive, 0)
}

func TestServerErrors(t *testing.T) {
	var flaky atomic.Int64
	strange := func(r *http.Request) bool { return r.URL.Path != "/things/1" }
	for _, c := range []struct {
		name string
		get  http.HandlerFunc
		want audit.Outcome
	}{
		{"none", always(404, map[string]any{}), audit.Pass},
		{"every time", func(w http.ResponseWriter, r *http.Request) {
			if strange(r) {
				answerJSON(w, 500, map[string]any{})
				return
			}
			answerJSON(w, 200, map[string]any{"id": 1})
		}, audit.Fail},
		{"once", func(w http.ResponseWriter, r *http.Request) {
			if strange(r) && flaky.Add(1) == 1 {
				answerJSON(w, 500, map[string]any{})
				return
			}
			answerJSON(w, 200, map[string]any{"id": 1})
		}, audit.Inconclusive},
		{"shedding and deadlines", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "null") {
				answerJSON(w, 504, map[string]any{})
				return
			}
			w.Header().Set("Retry-After", "1")
			answerJSON(w, 503, map[string]any{})
		}, audit.Pass},
		{"methods it does not know", always(501, map[string]any{}), audit.Pass},
	} {
		t.Run(c.name, func(t *testing.T) {
			severity := audit.Severity(0)
			if c.want == audit.Fail {
				severity = audit.High
			}
			h := site(map[string]http.HandlerFunc{"GET /things/{id}": c.get})
			expect(t, outcomes(t, h, kindsOfErrors, "VAL-02", "ERR-03"), "ERR-03", c.want, severity)
		})
	}
}

func TestHealthThatSaysNoIsNoServerError(t *testing.T) {
	h := site(map[string]http.HandlerFunc{"GET /things/{id}": always(503, map[string]any{"status": "starting"})})
	r := outcomes(t, h, func(t *audit.Target) {
		kindsOfErrors(t)
		t.HealthPath = "/things/1"
	}, "VAL-02", "ERR-03")
	expect(t, r, "ERR-03", audit.Pass, 0)
}

func TestPassiveProbesNeedSomethingToLookAt(t *testing.T) {
	r := outcomes(t, always(200, map[string]any{}), nil, "ERR-01", "ERR-02", "TRN-04")
	for _, id := range []string{"ERR-01", "ERR-02", "TRN-04"} {
		expect(t, r, id, audit.Inconclusive, 0)
	}
}
