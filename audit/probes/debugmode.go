package probes

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func debugMode() []audit.Probe {
	return []audit.Probe{
		{
			ID: "CFG-01", Title: "Debug mode", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Configuration,
			Sends:        "GET of a random path, of one that is no UTF-8, of broken queries, and of described paths with an identifier that is none; half a JSON object to the path that takes POST; other probes' answers are read too",
			Passes:       "no debug page among the errors",
			Fails:        "two marks of one framework's debug page in one answer: Django, Werkzeug, Starlette, Laravel, Symfony, Rails, ASP.NET, Spring, Express, PHP",
			Inconclusive: "nothing got an error out of the API: a gateway blocks, or every path is answered alike",
			Guard:        "two marks of one family, and only in answers of 400 and above",
			Knobs:        []string{"--openapi", "--write-path"},
			Refs:         []string{"CWE-489", "ASVS 13.4.2", "Django security.W018"},
			Why:          "Every error shows strangers the settings, the source and the local variables; some debug pages run what they type.",
			Fix:          "Set debug off from the environment, and refuse to boot with debug on a public bind.",
			Run:          debugPages,
		},
	}
}

// debugFamilies are the marks of each framework's debug page. Two must stand in one answer.
var debugFamilies = []struct {
	name  string
	marks []string
}{
	{"Django", []string{
		"seeing this error because you have", "DEBUG = True", "Using the URLconf defined in", "Django Version:", "Installed Applications:", "tried these URL patterns",
	}},
	{"Werkzeug", []string{
		"__debugger__", "Werkzeug Debugger", "The debugger caught an exception in your WSGI application", "EVALEX", "// Werkzeug",
	}},
	{"Starlette", []string{"Starlette Debugger", "traceback-container", "frame-filename", "starlette/middleware/errors.py", "Traceback (most recent call last)"}},
	{"Laravel", []string{
		"window.ignite", "laravel-ignition", "facade/ignition", "vendor/laravel/framework", `vendor\/laravel\/framework`, "Illuminate\\\\", "Whoops\\Exception", "Laravel Exceptions",
	}},
	{"Symfony", []string{"Symfony Exception", "symfony/http-kernel", `symfony\/http-kernel`, "sf-dump", "Symfony\\\\Component\\\\", "exception-message-wrapper"}},
	{"Rails", []string{
		"Action Controller: Exception caught", "Rails.root:", "Application Trace", "Framework Trace", "Full Trace", "web-console", `"Framework Trace"`, "actionpack (",
	}},
	{"ASP.NET", []string{
		"An unhandled exception occurred while processing the request", "Microsoft.AspNetCore.", "Server Error in '/'", "Microsoft .NET Framework Version:", "[HttpException", "   at System.",
	}},
	{"Spring", []string{`"trace":"`, "at org.springframework.", "at java.base/", "at jakarta.servlet.", "at javax.servlet.", "at org.apache.catalina."}},
	{"Express", []string{"node_modules/express/", "node_modules/router/", "at Layer.handle", "at Function.process_params", "node:internal/", "&nbsp;at ", "\\n    at "}},
	{"PHP", []string{"<b>Fatal error</b>", "<b>Warning</b>:", "Stack trace:", "thrown in <b>", "xdebug-error"}},
}

// debugMarks gives the family of which an answer has two marks.
func debugMarks(x *audit.Exchange) (family string, marks []string) {
	if x.Status < 400 {
		return "", nil
	}
	for _, f := range debugFamilies {
		var found []string
		for _, m := range f.marks {
			if bytes.Contains(x.Body, []byte(m)) && !slices.ContainsFunc(found, func(known string) bool { return strings.Contains(m, known) || strings.Contains(known, m) }) {
				found = append(found, m)
			}
		}
		if len(found) >= 2 {
			return f.name, found
		}
	}
	return "", nil
}

func debugPages(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	var erred *audit.Exchange
	for _, r := range provocations(s) {
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		if family, marks := debugMarks(x); family != "" {
			return debugFound(x, family, marks), nil
		}
		if answeredError(x) {
			erred = x
		}
	}
	for _, x := range s.History() {
		if family, marks := debugMarks(x); family != "" {
			return debugFound(x, family, marks), nil
		}
	}
	if erred == nil {
		return audit.Unproven("nothing got an error out of the API itself, so there was no page to judge"), nil
	}
	return audit.Passed("errors (%d) show no debug page", erred.Status).With(erred), nil
}

func debugFound(x *audit.Exchange, family string, marks []string) audit.Verdict {
	return audit.Failed("%s shows its debug page: %q and %q", family, marks[0], marks[1]).With(x)
}

// answeredError says whether an error came from the API's own code, as far as can be told: neither an authentication
// layer's refusal nor a gateway's.
func answeredError(x *audit.Exchange) bool {
	switch x.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		return true
	}
	return false
}

// provocations are reads that go wrong, and a write that cannot become one: where nothing is wrong with a GET, as in many an
// Express API, the body's parser still shows how errors are answered. The credential goes along, because a debug page may
// wait behind it.
func provocations(s *audit.Session) []audit.Request {
	token, path := s.Target().Token, s.FastPath()
	if !s.Calibration().Tells {
		token = ""
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	list := []audit.Request{
		{Path: "/" + s.Nonce(0), Label: "a path that does not exist"},
		{Path: "/" + s.Nonce(0), Token: token, Label: "a path that does not exist, with the credential"},
		{Path: "/%ff", Token: token, Label: "a path that is no text"},
		{Path: path + separator + "page=gantry&limit=%00&id[]=%ff", Token: token, Label: "a broken query"},
		{Path: path, Token: token, Header: audit.Header("Accept", "text/html", "Content-Type", "gantry/;"), Label: "a broken content type"},
	}
	if path := s.Target().WritePath; path != "" {
		list = append(list, audit.Request{
			Method: http.MethodPost, Path: path, Token: token, Header: audit.Header("Content-Type", "application/json"), Body: []byte("{"), Label: "half a JSON object",
		})
	}
	for _, op := range s.Target().Operations {
		if op.Method != http.MethodGet || !strings.Contains(op.Path, "{") || len(list) >= 12 {
			continue
		}
		list = append(list, audit.Request{Path: fillPath(op.Path, "gantry'x"), Token: token, Label: "an identifier that is none"})
	}
	return list
}

// fillPath puts value for every parameter of a template.
func fillPath(template, value string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{")
		b.WriteString(before)
		_, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			return b.String()
		}
		fmt.Fprint(&b, strings.ReplaceAll(value, "'", "%27"))
		template = after
	}
}
