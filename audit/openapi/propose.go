package openapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// The words by which operations are recognised. They stand between boundaries of a path or an operation id.
var (
	loginWords   = words("log-?in", "sign-?in", "authenticate", "sessions?", "tokens?", "auth")
	logoutWords  = words("log-?out", "sign-?out", "revoke", "sessions?")
	counterWords = words("increments?", "decrements?", "add", "deposits?", "withdraw(?:als?)?", "transfers?", "votes?", "likes?", "counters?", "stock")
	batchWords   = words("batch(?:es)?", "bulk", "import", "many")
	actionWords  = words("log-?in", "log-?out", "sign-?in", "sign-?out", "sign-?up", "register", "auth", "authenticate", "sessions?", "tokens?",
		"password", "refresh", "revoke", "reset", "verify", "confirm", "search", "query", "graphql", "webhooks?", "upload", "payments?", "checkout", "emails?", "notify", "send", "batch", "bulk", "import")
	adminWords  = words("admin(?:istration)?", "staff", "internal", "manage(?:ment)?", "superuser")
	endWords    = words("log-?out", "sign-?out", "revoke")
	healthWords = words("health[a-z]*", "ready[a-z]*", "readiness", "live(?:z|ness)", "ping", "status", "up")
)

// The names of body properties: of a number that is counted, and of text that a client is free to choose.
var (
	countedNames = regexp.MustCompile(`(?i)count|total|balance|stock|quantity|amount|votes|likes`)
	freeText     = regexp.MustCompile(`(?i)^(name|title|label|slug|username|description|text|note|comment)$`)
)

func words(list ...string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:^|[/._-])(?:` + strings.Join(list, "|") + `)(?:$|[/._:?-])`)
}

var templated = regexp.MustCompile(`\{[^{}/]*\}`)

// Propose finds how to write to an API without harm: the recipes create, update, counter, batch, login and logout, as
// far as the operations show them. They are proposals: a person reads them before they are used.
func Propose(ops []audit.Operation) map[string]audit.Recipe {
	out := map[string]audit.Recipe{}
	created, ok := creation(ops)
	if ok {
		out["create"] = recipeOf(created, ops)
		if op, found := onOne(ops, created, http.MethodPatch, http.MethodPut); found {
			out["update"] = writing(op, created, ops)
		}
		if op, found := counting(ops, created); found {
			out["counter"] = op
		}
	}
	for _, p := range []struct {
		name string
		is   func(audit.Operation) bool
		body func(string) string
	}{
		{"batch", isBatch, marked},
		{"login", isLogin, asGiven}, // credentials are the operator's to fill in
		{"logout", isLogout, asGiven},
	} {
		if i := slices.IndexFunc(ops, p.is); i >= 0 {
			out[p.name] = audit.Recipe{Method: ops[i].Method, Path: ops[i].Path, Body: p.body(ops[i].Example)}
		}
	}
	return out
}

// creation is the POST on a collection whose objects can be read and, better still, deleted.
func creation(ops []audit.Operation) (audit.Operation, bool) {
	var best audit.Operation
	most := 0
	for _, op := range ops {
		if op.Method != http.MethodPost || op.Example == "" || strings.Contains(op.Path, "{") || actionWords.MatchString(op.Path) {
			continue
		}
		worth := 1
		if _, ok := onOne(ops, op, http.MethodGet); ok {
			worth += 2
		}
		if _, ok := onOne(ops, op, http.MethodDelete); ok {
			worth += 4
		}
		if worth > most {
			best, most = op, worth
		}
	}
	return best, most >= 3 // what cannot be read back proves nothing
}

// onOne is the operation on one object of a collection: its path and one parameter more.
func onOne(ops []audit.Operation, collection audit.Operation, methods ...string) (audit.Operation, bool) {
	for _, method := range methods {
		for _, op := range ops {
			rest, ok := strings.CutPrefix(op.Path, strings.TrimSuffix(collection.Path, "/")+"/")
			if ok && op.Method == method && templated.ReplaceAllString(strings.TrimSuffix(rest, "/"), "") == "" {
				return op, true
			}
		}
	}
	return audit.Operation{}, false
}

func recipeOf(op audit.Operation, ops []audit.Operation) audit.Recipe {
	r := audit.Recipe{Method: op.Method, Path: op.Path, Body: marked(op.Example), Field: "id"}
	if one, ok := onOne(ops, op, http.MethodGet); ok {
		r.Read = withID(one.Path)
	}
	if one, ok := onOne(ops, op, http.MethodDelete); ok {
		r.Delete = withID(one.Path)
	}
	return r
}

// writing is a recipe for an operation on the object that create makes.
func writing(op, created audit.Operation, ops []audit.Operation) audit.Recipe {
	r := audit.Recipe{Method: op.Method, Path: withID(op.Path), Body: marked(op.Example), Read: withID(op.Path)}
	if one, ok := onOne(ops, created, http.MethodDelete); ok {
		r.Delete = withID(one.Path)
	}
	return r
}

// counting is an operation below a created object that adds to a number of it.
func counting(ops []audit.Operation, created audit.Operation) (audit.Recipe, bool) {
	prefix := strings.TrimSuffix(created.Path, "/") + "/"
	for _, op := range ops {
		rest, below := strings.CutPrefix(op.Path, prefix)
		if !below || op.Method == http.MethodGet || op.Method == http.MethodDelete || !counterWords.MatchString(rest) || strings.Count(rest, "{") != 1 {
			continue
		}
		r := audit.Recipe{Method: op.Method, Path: withID(op.Path), Body: op.Example}
		if one, ok := onOne(ops, created, http.MethodGet); ok {
			r.Read, r.Field = withID(one.Path), countedField(created)
		}
		if one, ok := onOne(ops, created, http.MethodDelete); ok {
			r.Delete = withID(one.Path)
		}
		return r, true
	}
	return audit.Recipe{}, false
}

// countedField is the number of an object that looks counted: by its name, else the first.
func countedField(op audit.Operation) string {
	first := ""
	for _, p := range op.Body {
		if p.Type != "integer" && p.Type != "number" {
			continue
		}
		if countedNames.MatchString(p.Name) {
			return p.Name
		}
		first = cmp.Or(first, p.Name)
	}
	return cmp.Or(first, "count")
}

func isBatch(op audit.Operation) bool {
	return op.Method == http.MethodPost && !strings.Contains(op.Path, "{") &&
		(batchWords.MatchString(op.Path) || strings.HasPrefix(op.Example, "["))
}

func isLogin(op audit.Operation) bool {
	return op.Method == http.MethodPost && !strings.Contains(op.Path, "{") && loginWords.MatchString(op.Path) &&
		slices.ContainsFunc(op.Body, func(p audit.Param) bool { return strings.Contains(strings.ToLower(p.Name), "pass") })
}

func isLogout(op audit.Operation) bool {
	if strings.Contains(op.Path, "{") || isLogin(op) {
		return false
	}
	return op.Method == http.MethodPost && endWords.MatchString(op.Path) ||
		op.Method == http.MethodDelete && logoutWords.MatchString(op.Path)
}

func withID(path string) string { return templated.ReplaceAllString(path, "{{id}}") }

func asGiven(example string) string { return example }

// marked puts {{marker}} into the free text of an example body: what it makes is found again by it, and is unique.
func marked(example string) string {
	var body map[string]any
	if json.Unmarshal([]byte(example), &body) != nil {
		return example
	}
	for key, v := range body {
		text, ok := v.(string)
		switch {
		case !ok:
		case strings.Contains(text, "@"):
			body[key] = "{{marker}}@example.com"
		case strings.HasPrefix(text, "gantry") && !strings.Contains(strings.ToLower(key), "pass"):
			body[key] = "{{marker}}"
		case freeText.MatchString(key):
			body[key] = "{{marker}}"
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return example
	}
	return string(text)
}
