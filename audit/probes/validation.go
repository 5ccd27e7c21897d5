package probes

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func validation() []audit.Probe {
	return []audit.Probe{
		{
			ID: "VAL-01", Title: "Malformed request body", Severity: audit.High, Mode: audit.Safe, Category: audit.Validation, Confirms: true,
			Sends:        "POST with `{`, a truncated object, a string of invalid UTF-8, an empty body, `[]`, `null`, and XML under application/xml; nothing that could be stored",
			Passes:       "4xx each time: 400, 415 or 422",
			Fails:        "5xx, or 2xx: to a broken body always, to an empty or wrongly shaped one where the description requires fields",
			Inconclusive: "there is no path that takes POST, or it does not let the request in",
			Guard:        "401, 403, 404 and 405 are no refusal of a body; the same answer on a path that cannot exist is nobody's; a 200 that carries an error in its body counts as one. Repeated, with a control in between",
			Knobs:        []string{"--openapi", "--write-path"},
			Refs:         []string{"CWE-20", "ASVS 2.2.1", "RFC 9110 section 15.5.16"},
			Why:          "Every crawler and every broken client then fills your error log, and half-read bodies become half-written rows.",
			Fix:          "Validate the body against a schema before the handler sees it, and answer 400, 415 or 422.",
			Run:          malformedBody,
		},
		{
			ID: "VAL-02", Title: "Type and range negatives from the description", Severity: audit.High, Mode: audit.Safe, Category: audit.Validation, Confirms: true,
			Sends:        "GET of the described operations with one parameter at a time missing, empty, of another type, -1, 2^63, 1e400, null, 10,000 letters, NUL, right-to-left and emoji; seeded, 60 requests, 300 with --active",
			Passes:       "4xx, or a 2xx that the value may well have earned",
			Fails:        "5xx that comes back on repetition",
			Inconclusive: "there is no description, or no operation lets the request in",
			Guard:        "an operation that answers 5xx to its own example is left to ERR-03; a 2xx never fails, because any text may be a good string",
			Knobs:        []string{"--openapi"},
			Refs:         []string{"CWE-20", "CWE-1286"},
			Why:          "A value that one client sends by accident takes a worker down, and a stranger can send it all day.",
			Fix:          "Validate parameters at the edge, from the same description that clients read.",
			Run:          negatives,
		},
		{
			ID: "VAL-03", Title: "SQL and NoSQL injection", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Validation, Confirms: true,
			Sends:        "for each text parameter v: v twice, v', v'', v' AND '1'='1, v' AND '1'='2, the same pair as the start of a pattern (v%' AND '1%'='1), and v under the name `v[$ne]`",
			Passes:       "the answers differ no more than the same request does by itself",
			Fails:        "a database's syntax error in the answer, or the true form answered as v is and the false form otherwise, in two different pairs; or [$eq] and [$ne] both obeyed",
			Inconclusive: "v is answered differently each time, or no parameter lets the request in; or v' is an error of the server each time and v'' is none, and nothing else shows why",
			Guard:        "nothing is written, nothing is stacked, nothing is timed; errors about a value are no errors of syntax; two confirmations",
			Knobs:        []string{"--openapi", "--list-path"},
			Refs:         []string{"CWE-89", "CWE-943", "OWASP API8:2023"},
			Why:          "Whoever can change a query can read the whole database, other customers' rows first.",
			Fix:          "Bind parameters; never put a request's text into a query. Accept operators only from a list.",
			Run:          injection,
		},
		{
			ID: "VAL-04", Title: "Path traversal", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Validation, Confirms: true,
			Sends:        "path parameters, and parameters named like a file, as `..%2f..%2fetc%2fpasswd`, `%2e%2e/`, `....//` and `%2fetc%2fpasswd`",
			Passes:       "4xx, and no file",
			Fails:        "the first line of /etc/passwd in the body",
			Inconclusive: "no operation takes such a parameter, or none leads anywhere with its ordinary value",
			Guard:        "only the content counts, never the status, and not when the ordinary value shows it too; what the file holds is not kept",
			Knobs:        []string{"--openapi"},
			Refs:         []string{"CWE-22", "ASVS 5.3.2"},
			Why:          "The same request fetches the configuration, its secrets, and the source.",
			Fix:          "Look names up in a list, or open them below a root that cannot be left (os.Root); check after resolving.",
			Run:          traversal,
		},
	}
}

// malformedBodies; a broken one is wrong for whatever takes JSON, the others only where fields are required.
var malformedBodies = []struct {
	label, media, body string
	broken             bool
}{
	{"an opening brace alone", "application/json", "{", true},
	{"a truncated object", "application/json", `{"gantry": "tru`, true},
	{"a string of invalid UTF-8", "application/json", "\"gantry \xc3\x28\"", false},
	{"an empty body", "application/json", "", false},
	{"an array: []", "application/json", "[]", false},
	{"null", "application/json", "null", false},
	{"XML under application/xml", "application/xml", "<gantry/>", false},
}

// writable is a path that takes POST, and whether its body is described with fields that must be there.
type writable struct {
	path   string
	strict bool
}

func malformedBody(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	targets := writables(s.Target())
	if len(targets) == 0 {
		return audit.Unproven("no path is known that takes POST").Unlock("--openapi or --write-path"), nil
	}
	var best audit.Verdict
	for _, to := range targets {
		v, err := malformedAt(ctx, s, to)
		if err != nil || v.Outcome == audit.Fail {
			return v, err
		}
		if best.Message == "" || best.Outcome == audit.Inconclusive && v.Outcome == audit.Pass {
			best = v
		}
	}
	return best, nil
}

// writables: the declared one, and two from the description whose body has required fields. What ends or sends
// something is left alone, because it might not look at its body at all.
func writables(t *audit.Target) []writable {
	var list []writable
	if t.WritePath != "" {
		list = append(list, writable{path: t.WritePath})
	}
	for _, op := range t.Operations {
		strict := op.Method == http.MethodPost && requiresFields(op)
		switch {
		case strict && op.Path == t.WritePath:
			list[0].strict = true
		case strict && !strings.Contains(op.Path, "{") && !risky.MatchString(op.Path) && len(list) < 3:
			list = append(list, writable{op.Path, true})
		}
	}
	return list
}

func requiresFields(op audit.Operation) bool {
	for _, p := range op.Body {
		if p.Required {
			return true
		}
	}
	return false
}

func malformedAt(ctx context.Context, s *audit.Session, to writable) (audit.Verdict, error) {
	refused, unclear := []*audit.Exchange(nil), []*audit.Exchange(nil)
	for _, m := range malformedBodies {
		r := audit.Request{
			Method: http.MethodPost, Path: to.path, Token: s.Target().Token, Label: m.label,
			Header: audit.Header("Content-Type", m.media, "Accept", "application/json"), Body: []byte(m.body),
		}
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		switch {
		case serverFault(x), x.OK() && !saysError(x) && (m.broken || to.strict):
			again, err := isHandlers(ctx, s, r, x)
			if err != nil {
				return audit.Verdict{}, err
			}
			if again {
				return audit.Failed("POST %s answers %d to %s", to.path, x.Status, m.label).With(x), nil
			}
			unclear = append(unclear, x)
		case x.OK() && saysError(x), x.Status >= 400 && x.Status < 500 && x.Status != http.StatusNotFound && !unreached(x):
			refused = append(refused, x)
		default:
			unclear = append(unclear, x)
		}
	}
	if len(unclear) > 0 {
		v := audit.Unproven("POST %s: %d of %d malformed bodies were refused; it answers %s", to.path, len(refused), len(malformedBodies), unclear[0])
		return v.With(unclear[0]).Unlock("--openapi, or --write-path with a path that takes JSON from this user"), nil
	}
	return audit.Passed("POST %s refuses %d malformed bodies (%s)", to.path, len(refused), statusList(refused)).With(refused[0], refused[len(refused)-1]), nil
}

// isHandlers says that an answer comes back, and that it is the path's own: what answers any path alike (a catch-all page)
// has no handler behind it that could have read the body.
func isHandlers(ctx context.Context, s *audit.Session, r audit.Request, x *audit.Exchange) (bool, error) {
	again, err := s.Repeats(ctx, r, sameClass(x))
	if err != nil || !again {
		return false, err
	}
	path, _, _ := strings.Cut(r.Path, "?")
	elsewhere := r
	elsewhere.Path, elsewhere.Label = path[:strings.LastIndexByte(path, '/')+1]+s.Nonce(0), "control: the same to a path that cannot exist"
	other, err := s.Do(ctx, elsewhere)
	if err != nil {
		return false, err
	}
	return x.Shape().Similarity(other.Shape()) < 0.9, nil
}

// statusList names the statuses of answers, each once, in the order seen.
func statusList(list []*audit.Exchange) string {
	var names []string
	seen := map[int]bool{}
	for _, x := range list {
		if !seen[x.Status] {
			seen[x.Status] = true
			names = append(names, fmt.Sprint(x.Status))
		}
	}
	return strings.Join(names, ", ")
}
