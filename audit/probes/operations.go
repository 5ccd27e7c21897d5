package probes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func operations() []audit.Probe {
	return []audit.Probe{
		{
			ID: "ID-02", Title: "Every secured operation of the description without a valid credential", Severity: audit.Critical, Mode: audit.Safe,
			Category: audit.Identity, Confirms: true,
			Sends:        "each GET of the OpenAPI description that has a security requirement, without a token and with garbage; under --active every method but DELETE, with an empty body and made-up ids",
			Passes:       "401 or 403; a 404 when a made-up id gets the same",
			Fails:        "2xx (critical); an error that shows that the handler ran, such as one about a parameter (medium)",
			Inconclusive: "there is no description, or none of its operations can be judged",
			Guard:        "403 in place of 401 is no failure, a 429 is waited for; a 2xx that is a catch-all page, an error in a 200, or unlike the valid token's answer is not failed; paths that are public by nature (health, log-in, documentation) are left out",
			Knobs:        []string{"--openapi", "--token"},
			Refs:         []string{"OWASP API2:2023", "OWASP API5:2023", "ASVS 8.2.1"},
			Why:          "The description promises a lock, and one handler forgot it.",
			Fix:          "Attach the security requirement at router level, not per handler.",
			Run:          securedOperations,
		},
	}
}

// maxOperations are judged in one run.
const maxOperations = 100

// byNature are the last segments of paths that have to be public, whatever a global security requirement says.
var byNature = regexp.MustCompile(`(?i)(?:^|/)(?:health[a-z]*|live[a-z]*|ready[a-z]*|ping|status|version|metrics|docs|redoc|openapi(?:\.\w+)?|swagger[\w.-]*|log-?in|sign-?in|sign-?up|register|tokens?|refresh|jwks(?:\.json)?|robots\.txt)/?$|/\.well-known/`)

// survey is what came of the operations so far.
type survey struct {
	refused, skipped int
	last, odd        *audit.Exchange
	ran              *audit.Exchange // an error that shows that the handler ran, confirmed
}

func securedOperations(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	list := securedOf(s.Target().Operations, s.Allows(audit.Active))
	if len(list) == 0 {
		return audit.Unproven("no description of the API with secured operations is known").Unlock("--openapi"), nil
	}
	total := len(list)
	var v survey
	for _, op := range list[:min(total, maxOperations)] {
		bad, err := v.ask(ctx, s, op)
		if err != nil || bad != nil {
			if err != nil {
				return audit.Verdict{}, err
			}
			return audit.Failed("%s %s answers %d without a valid credential", op.Method, op.Path, bad.Status).With(bad), nil
		}
	}
	return v.verdict(total), nil
}

func (v *survey) verdict(total int) audit.Verdict {
	switch {
	case v.ran != nil:
		return audit.Failed("the handler runs before the credential is checked: %s", v.ran).With(v.ran).As(audit.Medium)
	case v.odd != nil:
		return audit.Unproven("answered neither with a refusal nor like a valid token: %s", v.odd).With(v.odd)
	case v.refused == 0:
		return audit.Unproven("none of %d secured operations could be judged: their paths need examples", total).
			Unlock("--openapi with examples of the path parameters")
	case v.refused+v.skipped < total:
		return audit.Unproven("the first %d of %d secured operations refuse", v.refused, total).With(v.last)
	case 2*v.skipped > total:
		return audit.Unproven("%d of %d secured operations refuse; the others' paths need examples", v.refused, total).With(v.last).
			Unlock("--openapi with examples of the path parameters")
	}
	skipped := ""
	if v.skipped > 0 {
		skipped = fmt.Sprintf("; %d could not be judged", v.skipped)
	}
	return audit.Passed("%d secured operations refuse a missing and a garbage credential%s", v.refused, skipped).With(v.last)
}

func securedOf(all []audit.Operation, active bool) []audit.Operation {
	var list []audit.Operation
	for _, op := range all {
		risky := op.Method != http.MethodGet
		if !op.Secured || byNature.MatchString(op.Path) || risky && (!active || op.Method == http.MethodDelete) {
			continue
		}
		list = append(list, op)
	}
	return list
}

// ask sends one operation without a credential and with garbage. It returns an answer that serves, confirmed.
func (v *survey) ask(ctx context.Context, s *audit.Session, op audit.Operation) (*audit.Exchange, error) {
	path, known := operationPath(op, s.Nonce(0), op.Method != http.MethodGet)
	skipped := false
	for _, token := range []string{"", "gantry.not.a-token"} {
		r := audit.Request{Method: op.Method, Path: path, Token: token, Label: "no credential"}
		if token != "" {
			r.Label = "garbage credential"
		}
		if op.Method != http.MethodGet {
			r.Body, r.Header = []byte("{}"), audit.Header("Content-Type", "application/json")
		}
		x, err := s.Do(ctx, r)
		if err != nil {
			return nil, err
		}
		if x, err = sameWithSlash(ctx, s, r, x); err != nil {
			return nil, err
		}
		a, err := v.judge(ctx, s, op, x, known)
		switch {
		case err != nil:
			return nil, err
		case a == served:
			return x, nil
		case a == unclear:
			skipped = true
		}
		v.last = x
	}
	if skipped {
		v.skipped++
	} else {
		v.refused++
	}
	return nil, nil
}

// sameWithSlash follows a redirect that only adds or removes the slash at the end.
func sameWithSlash(ctx context.Context, s *audit.Session, r audit.Request, x *audit.Exchange) (*audit.Exchange, error) {
	if x.Status < 301 || x.Status > 308 {
		return x, nil
	}
	next, err := url.Parse(x.Header.Get("Location"))
	path, query, _ := strings.Cut(r.Path, "?")
	base := s.Target().URL.EscapedPath()
	if err != nil || strings.TrimSuffix(next.EscapedPath(), "/") != strings.TrimSuffix(base+path, "/") {
		return x, nil
	}
	r.Path = strings.TrimPrefix(next.EscapedPath(), base)
	if query != "" {
		r.Path += "?" + query
	}
	return s.Do(ctx, r)
}

// judge one answer: refused, served, or unclear. What is neither a refusal nor plainly a failure is noted in v.
func (v *survey) judge(ctx context.Context, s *audit.Session, op audit.Operation, x *audit.Exchange, known bool) (answer, error) {
	switch {
	case x.Denied(), likeRefusal(s, x), logIn.MatchString(x.Header.Get("Location")):
		return refused, nil
	case x.OK():
		return v.judgeServed(ctx, s, x)
	case x.Status == http.StatusNotFound:
		return v.judgeAbsent(ctx, s, op, x, known)
	case x.Status == 405 || x.Status == 415 || x.Status == 406 || x.Status == 501:
		return unclear, nil // never came to the handler
	}
	return v.judgeBroken(ctx, s, op, x)
}

// judgeServed tells a 2xx that serves from a catch-all page and from an error in a 200.
func (v *survey) judgeServed(ctx context.Context, s *audit.Session, x *audit.Exchange) (answer, error) {
	if saysError(x) {
		return refused, nil
	}
	absent, err := s.Absent(ctx, x)
	if err != nil || absent {
		return unclear, err
	}
	if s.Calibration().Tells && x.Request.Method == http.MethodGet {
		y, err := s.Get(ctx, x.Request.Path)
		if err != nil {
			return unclear, err
		}
		if !like(x, y) {
			keep(&v.odd, x)
			return unclear, nil
		}
	}
	again, err := s.Repeats(ctx, x.Request, func(y *audit.Exchange) bool { return like(x, y) })
	if err != nil {
		return unclear, err
	}
	if !again {
		keep(&v.odd, x)
		return unclear, nil
	}
	return served, nil
}

// judgeAbsent accepts a 404 that hides what is there: a made-up id gets the same.
func (v *survey) judgeAbsent(ctx context.Context, s *audit.Session, op audit.Operation, x *audit.Exchange, known bool) (answer, error) {
	other, made := operationPath(op, s.Nonce(1), true)
	if !known || made || x.Request.Method != http.MethodGet {
		return unclear, nil // nobody knows whether there is something to hide
	}
	y, err := s.Do(ctx, audit.Request{Path: other, Token: x.Request.Token, Label: "control: a made-up id"})
	if err != nil {
		return unclear, err
	}
	if !like(x, y) || !s.Calibration().Tells {
		return unclear, nil
	}
	there, err := s.Get(ctx, x.Request.Path)
	if err != nil || !there.OK() {
		return unclear, err
	}
	return refused, nil
}

// judgeBroken looks for signs that the handler ran: its words about a parameter, or an error that only it can make.
func (v *survey) judgeBroken(ctx context.Context, s *audit.Session, op audit.Operation, x *audit.Exchange) (answer, error) {
	ran := x.Status >= 500 || (x.Status == 400 || x.Status == 422) && namesParameter(op, x)
	if x.Status == 0 || !ran {
		keep(&v.odd, x)
		return unclear, nil
	}
	again, err := s.Repeats(ctx, x.Request, func(y *audit.Exchange) bool { return y.Status == x.Status })
	if err != nil {
		return unclear, err
	}
	if again && x.Status < 500 {
		keep(&v.ran, x)
		return unclear, nil
	}
	if again && x.Request.Method == http.MethodGet && s.Calibration().Tells { // is it the missing user that breaks it?
		y, err := s.Get(ctx, x.Request.Path)
		if err != nil {
			return unclear, err
		}
		if y.OK() {
			keep(&v.ran, x)
			return unclear, nil
		}
	}
	keep(&v.odd, x)
	return unclear, nil
}

func namesParameter(op audit.Operation, x *audit.Exchange) bool {
	for _, p := range slices.Concat(op.Params, op.Body) {
		if len(p.Name) > 1 && p.In != "header" && strings.Contains(x.Text(), p.Name) {
			return true
		}
	}
	return false
}

// operationPath fills the template with the examples, and required query parameters too. Where there is no example, or
// made is set, it makes something up from the type; known says that every path parameter has an example.
func operationPath(op audit.Operation, nonce string, made bool) (path string, known bool) {
	path, known = op.Path, true
	query := url.Values{}
	for _, p := range op.Params {
		value, example := p.Example, p.Example != "" && !made
		if !example {
			value = madeUp(p, nonce)
		}
		switch {
		case p.In == "path":
			known = known && example
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		case p.In == "query" && p.Required:
			query.Set(p.Name, value)
		}
	}
	if strings.Contains(path, "{") { // a parameter that the description does not describe
		known = false
		path = templateParam.ReplaceAllString(path, nonce)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path, known
}

// logIn is where a browser is sent that has no session.
var logIn = regexp.MustCompile(`(?i)log-?in|sign-?in|sso|oauth|authori[sz]e`)

var templateParam = regexp.MustCompile(`\{[^{}]*\}`)

func madeUp(p audit.Param, nonce string) string {
	switch {
	case len(p.Enum) > 0:
		return p.Enum[0]
	case p.Type == "integer" || p.Type == "number":
		return "987654321"
	case p.Type == "boolean":
		return "true"
	case p.Format == "uuid":
		return "00000000-0000-4000-8000-000000000000"
	case p.Format == "date":
		return "2020-01-02"
	case p.Format == "date-time":
		return "2020-01-02T03:04:05Z"
	}
	return nonce
}
