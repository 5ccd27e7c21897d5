package probes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func errorAnswers() []audit.Probe {
	return []audit.Probe{
		{
			ID: "ERR-01", Title: "Stack traces, SQL, paths and secrets in errors", Severity: audit.High, Mode: audit.Passive, Category: audit.Errors,
			Sends:        "nothing: reads every answer of 400 and above that the other probes got",
			Passes:       "none of them shows the inside of the server",
			Fails:        "a stack trace of a known language, a database's own error, or a password in a URL; or two weaker marks together: SQL text, an absolute path of a source file, the class name of an exception",
			Inconclusive: "no error answer was seen",
			Guard:        "one exact mark, or two independent ones; what the request itself held does not count",
			Refs:         []string{"CWE-209", "ASVS 16.5.1"},
			Why:          "A trace tells a stranger the framework, its version, the file layout and often the query: the map for the next step.",
			Fix:          "Put a handler of last resort around everything: an id in the answer, the detail in the log under that id.",
			Run:          tracesInErrors,
		},
		{
			ID: "ERR-02", Title: "One error format, and the right status", Severity: audit.Medium, Mode: audit.Passive, Category: audit.Errors,
			Sends:        "nothing: compares the answers of 400, 401, 404, 405, 415, 422 and 429 that the other probes got",
			Passes:       "all in JSON with a member in common (problem+json best); what does not exist is 404, 405 has Allow, 401 has WWW-Authenticate",
			Fails:        "HTML or plain text where the API speaks JSON, a 200 for a path that cannot exist, formats without a common member, or a header missing",
			Inconclusive: "fewer than three kinds of error were seen, or nothing of what was seen is JSON",
			Guard:        "answers to malformed HTTP, to dots, NUL and encoded slashes in a path and to very long ones come from the server before the API, and do not count",
			Refs:         []string{"RFC 9457", "RFC 9110 section 15.5.6", "RFC 9110 section 11.6.1"},
			Why:          "Clients that cannot read an error retry it, hide it, or show HTML to the user.",
			Fix:          "Write errors in one place, as application/problem+json, also for routes and methods that do not exist.",
			Run:          oneErrorFormat,
		},
		{
			ID: "ERR-03", Title: "Server errors caused by clients", Severity: audit.High, Mode: audit.Passive, Category: audit.Errors, Confirms: true,
			Sends:  "nothing new: counts the 5xx that all gentle probes got, and repeats each once when that is harmless",
			Passes: "none",
			Fails:  "a 5xx that came back, or was seen twice, by path and status",
			Guard:  "503 with Retry-After, 504, 501 and 505, health paths, load and fault probes do not count",
			Refs:   []string{"CWE-755", "ASVS 16.5.4"},
			Why:    "Each one is an unhandled case; together they hide the outage that matters among errors that anybody can cause.",
			Fix:    "Treat every 5xx as a bug: alert on it, and turn what the client did wrong into a 4xx.",
			Run:    clientsMake5xx,
		},
	}
}

// mark is a piece of the inside of a server.
type mark struct {
	what  string
	exact bool // enough by itself
	shape *regexp.Regexp
}

var marks = []mark{
	{"a Python traceback", true, regexp.MustCompile(`Traceback \(most recent call last\)|File \\?"[^"]{1,200}\.py\\?", line \d+`)},
	{"a Go stack", true, regexp.MustCompile(`goroutine \d+ \[running\]|\.go:\d+ \+0x[0-9a-f]+`)},
	{"a Java stack", true, regexp.MustCompile(`\bat [\w.$]+\.[\w$<>]+\([\w$]+\.(?:java|kt|scala):\d+\)`)},
	{"a JavaScript stack", true, regexp.MustCompile(`\bat (?:[\w.<>$\[\] ]+ \()?(?:file://|node:|/|[A-Z]:\\)[^\s()]{1,300}:\d+:\d+\)?`)},
	{"a Ruby stack", true, regexp.MustCompile(`[\w/.-]+\.rb:\d+:in [\x60'"]`)},
	{"a PHP error", true, regexp.MustCompile(`(?:Fatal error|Warning|Notice|Parse error)(?:</b>)?: .{1,300} in (?:<b>)?/[^\s<]+\.php|#\d+ /[^\s(]+\.php\(\d+\)`)},
	{"a .NET stack", true, regexp.MustCompile(`\bat [\w.<>\x60]+\([^)]*\) in [^\s:]*:?[\\/][^\r\n]{1,200}:line \d+`)},
	{"a Rust panic", true, regexp.MustCompile(`panicked at [^\s]{1,200}\.rs:\d+`)},
	{"a database's error", true, regexp.MustCompile(`SQLSTATE\[|psycopg2?\.errors|sqlalchemy\.exc\.|django\.db\.utils\.|org\.hibernate\.|com\.mysql\.|PG::[A-Z]\w+|ORA-\d{5}|You have an error in your SQL syntax|pq: [a-z]|MongoServerError|SequelizeDatabaseError|PrismaClientKnownRequestError`)},
	{"a password in a URL", true, regexp.MustCompile(`\b(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|rediss|amqps?)://[^\s:/@"']{0,80}:[^\s@"'\[]{1,200}@`)},
	{"SQL text", false, regexp.MustCompile(`(?i)\b(?:SELECT .{1,300} FROM|INSERT INTO|UPDATE \S{1,80} SET|DELETE FROM) [\w"\x60.]+`)},
	{"the path of a source file", false, regexp.MustCompile(`(?:/(?:app|home|usr|var|srv|opt|root|Users|workspace|code|build)/|[A-Z]:\\)[\w./\\@-]{1,200}\.(?:py|js|ts|mjs|rb|php|go|java|cs|rs|jar)\b`)},
	{"the name of an exception", false, regexp.MustCompile(`\b(?:[a-z]\w*\.)+[A-Z]\w*(?:Error|Exception)\b|\b[A-Z][a-z]\w*(?:Error|Exception): `)},
}

func tracesInErrors(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	seen := 0
	var found []*audit.Exchange
	whats, paths := []string{}, map[string]bool{}
	for _, x := range s.History() {
		if x.Status < 400 || x.Request.Method == "TLS" {
			continue
		}
		seen++
		what := marksIn(x)
		if what == "" || paths[x.Request.Method+pathOnly(x)] {
			continue
		}
		paths[x.Request.Method+pathOnly(x)] = true
		if !slices.Contains(whats, what) {
			whats = append(whats, what)
		}
		found = append(found, x.Noted("shows %s", what))
	}
	switch {
	case len(found) > 0:
		return audit.Failed("%d of %d error answers show %s", len(found), seen, strings.Join(whats, ", ")).With(found[:min(len(found), 4)]...), nil
	case seen == 0:
		return audit.Unproven("no error answer was seen"), nil
	}
	return audit.Passed("%d error answers show nothing of the inside", seen).Measured("answers", seen), nil
}

// marksIn names what an answer shows; empty when it is nothing, or a single weak mark.
func marksIn(x *audit.Exchange) string {
	sent := x.Request.Path + "\n" + string(x.Request.Body)
	if plain, err := url.QueryUnescape(x.Request.Path); err == nil {
		sent += "\n" + plain
	}
	var weak []string
	for _, m := range marks {
		hit := m.shape.Find(x.Body)
		if hit == nil || strings.Contains(sent, string(hit)) {
			continue
		}
		if m.exact {
			return m.what
		}
		weak = append(weak, m.what)
	}
	if len(weak) < 2 {
		return ""
	}
	return strings.Join(weak, " and ")
}

// errorKinds that are compared.
var errorKinds = []int{400, 401, 404, 405, 415, 422, 429}

func oneErrorFormat(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	kinds := map[int]*audit.Exchange{}
	var soft *audit.Exchange
	speaksJSON := false
	for _, x := range s.History() {
		speaksJSON = speaksJSON || x.Status != 0 && isJSON(x)
		if x.Request.Label == audit.ControlAbsent && x.OK() && soft == nil {
			soft = x
		}
		if slices.Contains(errorKinds, x.Status) && fromTheAPI(x) && (kinds[x.Status] == nil || len(kinds[x.Status].Body) == 0) {
			kinds[x.Status] = x
		}
	}
	if soft != nil {
		return audit.Failed("a path that cannot exist is answered %d", soft.Status).With(soft), nil
	}
	var faults []string
	var evidence []*audit.Exchange
	for _, status := range slices.Sorted(maps.Keys(kinds)) {
		x := kinds[status]
		evidence = append(evidence, x)
		if fault := errorFault(x); fault != "" {
			faults = append(faults, fault)
		}
	}
	if fault := mixedErrors(kinds); fault != "" {
		faults = append(faults, fault)
	}
	switch {
	case !speaksJSON:
		return audit.Unproven("no answer of any kind was JSON: this may be no JSON API").With(evidence...).Unlock("--token, --openapi or --protected-path"), nil
	case len(kinds) < 3:
		return audit.Unproven("only %d kinds of error were seen", len(kinds)).With(evidence...).Unlock("--openapi or --write-path"), nil
	case len(faults) > 0:
		return audit.Failed("%s", strings.Join(faults, "; ")).With(evidence...), nil
	}
	return audit.Passed("%d kinds of error share one format", len(kinds)).With(evidence...), nil
}

// fromTheAPI says that the API itself answered, and not the HTTP server below it.
func fromTheAPI(x *audit.Exchange) bool {
	return x.Request.Method != "RAW" && x.Request.Method != "TLS" && x.Request.Method != http.MethodHead && x.Err == nil &&
		len(x.Request.Path) < 2000 && !serverRefuses.MatchString(x.Request.Path)
}

// serverRefuses is what many servers refuse in a path before any handler sees it.
var serverRefuses = regexp.MustCompile(`(?i)%00|%2f|%5c|%ff|\.\.|%2e`)

func errorFault(x *audit.Exchange) string {
	switch {
	case len(bytes.TrimSpace(x.Body)) > 0 && !isJSON(x):
		media, _, _ := mime.ParseMediaType(x.Header.Get("Content-Type"))
		return fmt.Sprintf("%d is %s and not JSON", x.Status, mediaName(media))
	case x.Status == http.StatusMethodNotAllowed && x.Header.Get("Allow") == "":
		return "405 has no Allow"
	case x.Status == http.StatusUnauthorized && x.Header.Get("WWW-Authenticate") == "":
		return "401 has no WWW-Authenticate"
	}
	return ""
}

func isJSON(x *audit.Exchange) bool {
	media, _, _ := mime.ParseMediaType(x.Header.Get("Content-Type"))
	return strings.HasSuffix(media, "json")
}

func mediaName(media string) string {
	if media == "" {
		return "of no media type"
	}
	return media
}

// mixedErrors compares the members of the JSON errors: one that all have makes them one format.
func mixedErrors(kinds map[int]*audit.Exchange) string {
	var common map[string]bool
	for _, status := range slices.Sorted(maps.Keys(kinds)) {
		var body map[string]any
		if json.Unmarshal(kinds[status].Body, &body) != nil {
			continue
		}
		if common == nil {
			common = map[string]bool{}
			for key := range body {
				common[key] = true
			}
		}
		maps.DeleteFunc(common, func(key string, _ bool) bool { _, has := body[key]; return !has })
		if len(common) == 0 {
			return fmt.Sprintf("the JSON of %d has no member in common with the errors before it", status)
		}
	}
	return ""
}

const maxRepeated5xx = 6

func clientsMake5xx(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	all, count := 0, map[string]int{}
	first := map[string]*audit.Exchange{}
	var order []string
	for _, x := range s.History() {
		if x.Status == 0 || !gentle(s, x) {
			continue
		}
		all++
		if !serverFault(x) {
			continue
		}
		key := fmt.Sprintf("%s %s %d", x.Request.Method, pathOnly(x), x.Status)
		if count[key]++; first[key] == nil {
			first[key] = x
			order = append(order, key)
		}
	}
	if all == 0 {
		return audit.Unproven("no other probe sent anything"), nil
	}
	var confirmed []*audit.Exchange
	for _, key := range order[:min(len(order), maxRepeated5xx)] {
		again, err := cameBack(ctx, s, first[key])
		if err != nil {
			return audit.Verdict{}, err
		}
		if again || count[key] > 1 {
			confirmed = append(confirmed, first[key].Noted("%d times", count[key]))
		}
	}
	switch {
	case len(confirmed) > 0:
		x := confirmed[0]
		return audit.Failed("%d of %d answers were 5xx, on %d paths; the first: %s %s → %d", sum(count), all, len(order), x.Request.Method, shortPath(x), x.Status).
			With(confirmed[:min(len(confirmed), 5)]...).Measured("answers", all).Measured("serverErrors", sum(count)), nil
	case len(order) > 0:
		return audit.Unproven("%s was seen once and did not come back", order[0]).With(first[order[0]]), nil
	}
	return audit.Passed("none of %d answers was a 5xx", all).Measured("answers", all), nil
}

// gentle says that a 5xx on this exchange would be the target's own fault: it was not under load, nothing was broken
// on purpose, and it is not a health path, which says 503 in a 5xx's place.
func gentle(s *audit.Session, x *audit.Exchange) bool {
	f, known := s.Finding(x.Probe)
	if known && (f.Mode == audit.Load || f.Mode == audit.Fault) {
		return false
	}
	if x.Request.Method == "RAW" || x.Request.Method == "TLS" || strings.HasPrefix(x.Probe, "HLT-") {
		return false
	}
	health := s.HealthPath()
	return health == "" || pathOnly(x) != health
}

// cameBack repeats a 5xx once, when the request only read or held no more than a malformed body.
func cameBack(ctx context.Context, s *audit.Session, x *audit.Exchange) (bool, error) {
	method := x.Request.Method
	if method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions && x.Probe != "VAL-01" {
		return false, nil
	}
	return s.Repeats(ctx, x.Request, func(y *audit.Exchange) bool { return y.Status == x.Status })
}

func sum(count map[string]int) int {
	n := 0
	for _, c := range count {
		n += c
	}
	return n
}
