package probes

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

const (
	injectionParams = 6 // ten requests each
	injectionActive = 20
)

// syntaxErrors are what databases say of a query that does not parse. An error about a value (invalid input syntax for
// type integer) is what a bound parameter gives, and stands not here.
var syntaxErrors = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`unterminated quoted string`, `syntax error at or near`, `You have an error in your SQL syntax`, `unrecognized token: ?\\?["']`,
	`near \\?"[^"]{0,40}": syntax error`, `Unclosed quotation mark after the character string`, `Incorrect syntax near`, `quoted string not properly terminated`,
	`ORA-0(?:0933|1756|0907|0936)`, `SQLSTATE\[?\s*42`, `SQL command not properly ended`, `PG::SyntaxError`, `sqlite3\.OperationalError`, `SQLITE_ERROR`,
	`unknown (?:top level )?operator: \$`, `Cast to \w+ failed for value .{0,80}\$ne`, `unknown query operator`,
}, "|"))

// spot is a text parameter of an operation, and a value that it has.
type spot struct {
	op    audit.Operation
	param audit.Param
	value string
	known bool // the operator or the description named the parameter
}

func injection(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	spots := injectionSpots(s)
	if len(spots) == 0 {
		if len(s.Target().Operations) > 0 {
			return audit.DoesNotApply("no GET operation of the description takes text"), nil
		}
		return audit.Unproven("no parameter is known").Unlock("--openapi or --list-path"), nil
	}
	var t injectionTally
	for _, at := range spots {
		v, err := injectAt(ctx, s, at, &t)
		if err != nil || v.Outcome == audit.Fail {
			return v, err
		}
	}
	return t.verdict(len(spots)), nil
}

// injectionTally is what became of the parameters that did not fail.
type injectionTally struct {
	tested, dynamic, closed, blocked int
	last                             *audit.Exchange
	suspect                          *audit.Exchange // broke on one quote, and not on two
}

func (t injectionTally) verdict(all int) audit.Verdict {
	var v audit.Verdict
	switch {
	case t.suspect != nil:
		t.last = t.suspect
		v = audit.Unproven("one quote breaks the API and two do not, as in a query put together from text, yet no condition was obeyed: %s", t.suspect)
	case t.dynamic > 0:
		v = audit.Unproven("%d of %d parameters are answered differently each time", t.dynamic, all)
	case t.blocked > 0:
		v = audit.Unproven("something in front of the API blocks every quote (%s); what is behind it was not reached", t.last)
	case t.tested == 0:
		v = audit.Unproven("none of %d parameters lets its own value in; the last answered %s", all, t.last).Unlock("--token, or examples in the description")
	default:
		v = audit.Passed("%d of %d parameters answer quotes, conditions and operators as plain text", t.tested, all)
	}
	if t.last != nil {
		v = v.With(t.last)
	}
	return v.Measured("tested", t.tested)
}

func injectionSpots(s *audit.Session) []spot {
	var list []spot
	t := s.Target()
	for _, op := range reads(t.Operations) {
		if risky.MatchString(op.Path) {
			continue
		}
		known := matchTemplate(op.Path, t.ObjectA)
		for _, p := range takes(op) {
			if isText(p) {
				list = append(list, spot{op, p, cmp.Or(known[p.Name], sampleOf(p)), true})
			}
		}
	}
	if len(list) == 0 && t.ListPath != "" && len(t.Operations) == 0 {
		list = listSpots(t)
	}
	slices.SortStableFunc(list, func(a, b spot) int { return cmp.Compare(len(a.param.Enum), len(b.param.Enum)) })
	limit := injectionParams
	if s.Allows(audit.Active) {
		limit = injectionActive
	}
	return list[:min(len(list), limit)]
}

// isText says that a query might be put together from the parameter: no number, no fixed form.
func isText(p audit.Param) bool {
	switch p.Type {
	case "integer", "number", "boolean", "array", "object":
		return false
	}
	return !slices.Contains([]string{"uuid", "date", "date-time", "ipv4", "ipv6"}, p.Format)
}

// listSpots makes do with the list's own query, its page parameters and the usual names.
func listSpots(t *audit.Target) []spot {
	path, query, _ := strings.Cut(t.ListPath, "?")
	op := audit.Operation{Method: http.MethodGet, Path: path}
	given, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	var list []spot
	add := func(name, value string, known bool) {
		if name != "" && !slices.ContainsFunc(op.Params, func(p audit.Param) bool { return p.Name == name }) {
			op.Params = append(op.Params, audit.Param{Name: name, In: "query", Type: "string", Example: value, Required: given.Has(name)})
			list = append(list, spot{param: op.Params[len(op.Params)-1], value: value, known: known})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		add(name, given.Get(name), true)
	}
	add(t.PageParam, "1", true)
	add(t.PageNumber, "1", true)
	for _, name := range []string{"q", "search", "sort"} {
		add(name, "gantry", false)
	}
	for i := range list {
		list[i].op = op
	}
	return list
}

// shot sends one value for the spot.
func (at spot) shot(s *audit.Session, value, suffix, label string) audit.Request {
	in := input{param: at.param, escaped: escapedFor(at.param, value), suffix: suffix}
	return requestOf(s.Target(), at.op, in, at.param.Name+suffix+" = "+label)
}

// volley sends several, and stops at the first error.
func volley(ctx context.Context, s *audit.Session, list ...audit.Request) ([]*audit.Exchange, error) {
	var out []*audit.Exchange
	for _, r := range list {
		x, err := s.Do(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func injectAt(ctx context.Context, s *audit.Session, at spot, t *injectionTally) (audit.Verdict, error) {
	if err := at.learn(ctx, s); err != nil {
		return audit.Verdict{}, err
	}
	plain := at.shot(s, at.value, "", "v")
	got, err := volley(ctx, s, plain, plain, at.shot(s, at.value+"'", "", "v'"), at.shot(s, at.value+"''", "", "v''"))
	if err != nil {
		return audit.Verdict{}, err
	}
	v, again, quote := got[0], got[1], got[2]
	t.last = quote
	if v, err := speaksSQL(ctx, s, v, quote); err != nil || v.Outcome == audit.Fail {
		return v, err
	}
	switch {
	case !v.OK():
		t.closed++
		t.last = v
		return audit.Verdict{}, nil
	case !alikeAnswers(v, again):
		t.dynamic++
		return audit.Verdict{}, nil
	case quote.Status == 403 || quote.Status == 406 || quote.Status == 429:
		t.blocked++
		return audit.Verdict{}, nil
	}
	if v, err := at.obeysConditions(ctx, s, v); err != nil || v.Outcome == audit.Fail {
		return v, err
	}
	verdict, err := at.obeysOperators(ctx, s, v)
	if err != nil || verdict.Outcome == audit.Fail {
		return verdict, err
	}
	if at.known {
		t.tested++
	}
	return verdict, t.doubt(ctx, s, quote, got[3])
}

// doubt keeps the probe from passing an API on which one quote is an error of the server and two are none, each time.
func (t *injectionTally) doubt(ctx context.Context, s *audit.Session, one, two *audit.Exchange) error {
	if one.Status < 500 || !two.OK() {
		return nil
	}
	got, err := volley(ctx, s, one.Request, two.Request)
	if err == nil && got[0].Status >= 500 && got[1].OK() {
		t.suspect = got[0]
	}
	return err
}

// learn takes a value that the API itself shows under the parameter's name: conditions on a value that nothing has
// cannot be told apart.
func (at *spot) learn(ctx context.Context, s *audit.Session) error {
	if at.param.Example != "" || len(at.param.Enum) > 0 || at.param.In != "query" || at.param.Required {
		return nil
	}
	x, err := s.Do(ctx, requestOf(s.Target(), at.op, input{param: at.param, absent: true}, "without "+at.param.Name))
	if err != nil {
		return err
	}
	var body any
	if x.OK() && json.Unmarshal(x.Body, &body) == nil {
		at.value = cmp.Or(shown(body, at.param.Name, 5), at.value)
	}
	return nil
}

// shown is the first short text under a name.
func shown(v any, name string, depth int) string {
	if depth == 0 {
		return ""
	}
	switch v := v.(type) {
	case map[string]any:
		if text, ok := v[name].(string); ok && text != "" && len(text) <= 60 {
			return text
		}
		for _, inner := range v {
			if text := shown(inner, name, depth-1); text != "" {
				return text
			}
		}
	case []any:
		for _, item := range v[:min(len(v), 20)] {
			if text := shown(item, name, depth-1); text != "" {
				return text
			}
		}
	}
	return ""
}

// speaksSQL looks for a syntax error that the quote alone brings about, twice.
func speaksSQL(ctx context.Context, s *audit.Session, v, quote *audit.Exchange) (audit.Verdict, error) {
	says := func(x *audit.Exchange) bool { return syntaxErrors.Match(x.Body) }
	if says(v) || !says(quote) {
		return audit.Verdict{}, nil
	}
	again, err := s.Repeats(ctx, quote.Request, says)
	if err != nil || !again {
		return audit.Verdict{}, err
	}
	plain, err := s.Do(ctx, v.Request)
	if err != nil || says(plain) {
		return audit.Verdict{}, err
	}
	return audit.Failed("a quote in %s of %s reaches the query: the answer says %q", quote.Request.Label, pathOnly(quote), syntaxErrors.Find(quote.Body)).
		With(quote.Noted("with the quote"), v.Noted("without it")), nil
}

// conditions are pairs of a true and a false one for where a value may stand in a query: as itself, and at the start of a
// pattern (LIKE '%v%'), as in most searches. Each place has the pairs in two senses, and the first once more.
var conditions = [][][2]string{
	{{"' AND '1'='1", "' AND '1'='2"}, {"' AND '2'='2", "' AND '2'='1"}, {"' AND '1'='1", "' AND '1'='2"}},
	{{"%' AND '1%'='1", "%' AND '1%'='2"}, {"%' AND '2%'='2", "%' AND '2%'='1"}, {"%' AND '1%'='1", "%' AND '1%'='2"}},
}

// obeysConditions asks with conditions for each place.
func (at spot) obeysConditions(ctx context.Context, s *audit.Session, v *audit.Exchange) (audit.Verdict, error) {
	for _, pairs := range conditions {
		verdict, err := at.obeys(ctx, s, v, pairs)
		if err != nil || verdict.Outcome == audit.Fail {
			return verdict, err
		}
	}
	return audit.Verdict{}, nil
}

// obeys asks with pairs of a true and a false condition. A search engine that splits the text into words may tell one
// pair apart, but not both pairs in the same sense: whatever matches 1 and 2 matches the pair of them.
func (at spot) obeys(ctx context.Context, s *audit.Session, v *audit.Exchange, pairs [][2]string) (audit.Verdict, error) {
	var evidence []*audit.Exchange
	for _, pair := range pairs {
		got, err := volley(ctx, s, at.shot(s, at.value+pair[0], "", "v"+pair[0]), at.shot(s, at.value+pair[1], "", "v"+pair[1]))
		if err != nil {
			return audit.Verdict{}, err
		}
		yes, no := got[0], got[1]
		if !alikeAnswers(v, yes) || alikeAnswers(v, no) || !(no.OK() || no.Status == http.StatusNotFound) {
			return audit.Verdict{}, nil
		}
		evidence = []*audit.Exchange{v.Noted("the plain value"), yes.Noted("a true condition: the same"), no.Noted("a false condition: another answer")}
		if err := s.Control(ctx); err != nil {
			return audit.Verdict{}, err
		}
	}
	return audit.Failed("%s of %s is part of the query: v%s is answered like v, v%s is not", at.param.Name, at.op.Path, pairs[0][0], pairs[0][1]).With(evidence...), nil
}

// obeysOperators asks whether a MongoDB operator in the parameter's name reaches the query: [$eq] must do what the plain
// name does for a value that is there and for one that is not, and [$ne] the contrary. Neither is so when the name is
// simply unknown.
func (at spot) obeysOperators(ctx context.Context, s *audit.Session, v *audit.Exchange) (audit.Verdict, error) {
	if at.param.In != "query" || strings.Contains(at.param.Name, "[") {
		return audit.Verdict{}, nil
	}
	other, err := s.Do(ctx, at.shot(s, at.value, "[$ne]", "v"))
	if err != nil {
		return audit.Verdict{}, err
	}
	if v, err := speaksSQL(ctx, s, v, other); err != nil || v.Outcome == audit.Fail {
		return v, err
	}
	if !other.OK() || alikeAnswers(v, other) {
		return audit.Verdict{}, nil
	}
	for range 2 {
		nobody := s.Nonce(0)
		got, err := volley(ctx, s, at.shot(s, at.value, "[$eq]", "v"), at.shot(s, nobody, "", "a value that nothing has"),
			at.shot(s, nobody, "[$eq]", "a value that nothing has"), at.shot(s, nobody, "[$ne]", "a value that nothing has"))
		if err != nil {
			return audit.Verdict{}, err
		}
		eq, none, eqNone, neNone := got[0], got[1], got[2], got[3]
		if !alikeAnswers(v, eq) || alikeAnswers(v, none) || !alikeAnswers(none, eqNone) || alikeAnswers(neNone, eqNone) {
			return audit.Verdict{}, nil
		}
		if err := s.Control(ctx); err != nil {
			return audit.Verdict{}, err
		}
	}
	return audit.Failed("operators in %s of %s reach the query: [$eq] and [$ne] are obeyed", at.param.Name, at.op.Path).
		With(v.Noted("the plain value"), other.Noted("everything else")), nil
}

func pathOnly(x *audit.Exchange) string {
	path, _, _ := strings.Cut(x.Request.Path, "?")
	return path
}

// alikeAnswers compares two answers without their values: status, shape, and how many values there are.
func alikeAnswers(a, b *audit.Exchange) bool {
	if a.Shape().Similarity(b.Shape()) < 0.9 {
		return false
	}
	var x, y any
	if json.Unmarshal(a.Body, &x) != nil || json.Unmarshal(b.Body, &y) != nil {
		return true
	}
	return valuesIn(x, 20) == valuesIn(y, 20)
}

func valuesIn(v any, depth int) int {
	n := 1
	if depth == 0 {
		return n
	}
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			n += valuesIn(inner, depth-1)
		}
	case []any:
		for _, inner := range v {
			n += valuesIn(inner, depth-1)
		}
	}
	return n
}
