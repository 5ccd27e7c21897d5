package probes

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func login() []audit.Probe {
	return []audit.Probe{{
		ID: "RL-05", Title: "Brute force of a log-in", Severity: audit.High, Mode: audit.Active, Category: audit.Abuse, Confirms: true,
		Sends:        "20 log-ins of a throw-away account with wrong passwords, by the recipe `login`, whose body holds {{password}} where the password stands",
		Passes:       "by try 10 a 429, a lock or a growing delay; afterwards another identity still gets in",
		Fails:        "20 plain refusals at full speed",
		Inconclusive: "no recipe, a wrong password that is not refused, a limit from try 11 on only, or one that locks everybody out",
		Guard:        "throw-away account only (its name must carry {{marker}}); stops at the first sign of a limit and at 20 tries",
		Knobs:        []string{"recipe login", "recipe login-other: a right log-in of somebody else"},
		Refs:         []string{"CWE-307", "OWASP API2:2023", "ASVS 6.3.1"},
		Why:          "Lists of leaked passwords are tried against every log-in on the internet; the one without a limit gives its accounts away.",
		Fix:          "Limit tries for each account and for each address, and back off; do not lock others out.",
		Run:          bruteForce,
	}}
}

const (
	tries     = 20 // wrong passwords in all
	triesFree = 10 // by then something must slow them
)

func bruteForce(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	recipe, ok := s.Target().Recipes["login"]
	switch {
	case !ok:
		return audit.Unproven("no recipe says how to log in").Unlock("a recipe login in gantry.yaml"), nil
	case !strings.Contains(recipe.Body, "{{password}}"):
		return audit.Unproven("the recipe login has no {{password}} in its body").Unlock("a recipe login with {{password}}"), nil
	}
	var first *audit.Exchange
	var quick time.Duration
	marker := "gantry-" + random(6) // not of the seed: an account that the last run had locked would tell nothing
	for n := 1; n <= tries; n++ {
		x, err := s.Do(ctx, wrongPassword(s, recipe, marker, n))
		if err != nil {
			return audit.Verdict{}, err
		}
		if first == nil {
			first, quick = x, x.Took
			if !plainRefusal(x) {
				return audit.Unproven("a wrong password is not refused in a way that can be told from a log-in: %s", x).With(x), nil
			}
		}
		if sign := slowed(x, first, quick); sign != "" {
			return limitedLogin(ctx, s, x, n, sign)
		}
		if x.Status == 0 || x.Status >= 500 {
			return audit.Unproven("try %d: %s", n, x).With(x), nil
		}
		quick = min(quick, x.Took)
	}
	return audit.Failed("%d wrong passwords in a row were refused plainly and at full speed", tries).With(first), nil
}

// plainRefusal: a 4xx that speaks of the log-in, not of the path or of a limit that was there before.
func plainRefusal(x *audit.Exchange) bool {
	return x.Status >= 400 && x.Status < 500 &&
		!slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLocked, http.StatusTooManyRequests}, x.Status)
}

func wrongPassword(s *audit.Session, recipe audit.Recipe, marker string, n int) audit.Request {
	fill := strings.NewReplacer("{{password}}", fmt.Sprintf("wrong-%s-%d", marker, n), "{{marker}}", marker, "{{n}}", fmt.Sprint(n))
	r := loginRequest(recipe, fill)
	r.Label, r.Expect429, r.Timeout = fmt.Sprintf("wrong password %d", n), true, 2*s.Policy().Deadline
	return r
}

func loginRequest(recipe audit.Recipe, fill *strings.Replacer) audit.Request {
	method := recipe.Method
	if method == "" {
		method = http.MethodPost
	}
	return audit.Request{
		Method: method, Path: fill.Replace(recipe.Path), Body: []byte(fill.Replace(recipe.Body)),
		Header: audit.Header("Content-Type", bodyType(recipe.Body)),
	}
}

// bodyType of a template: JSON, or a form.
func bodyType(body string) string {
	if strings.HasPrefix(strings.TrimSpace(body), "{") {
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// lockWords in a refusal that the first did not have. "3 attempts left" is no lock yet.
var lockWords = regexp.MustCompile(`(?i)\block(ed)?\b|too many|try again (later|in)|captcha|temporarily|suspended`)

// slowed names the sign that tries are limited, or is empty.
func slowed(x, first *audit.Exchange, quick time.Duration) string {
	switch {
	case x.Status == http.StatusTooManyRequests:
		return "429"
	case x.Status == http.StatusLocked:
		return "423, locked"
	case x == first || x.Status == 0 || x.Status >= 500:
		return ""
	case x.Status != first.Status && !x.OK():
		return fmt.Sprintf("%d in place of %d", x.Status, first.Status)
	case lockWords.Match(x.Body) && !lockWords.Match(first.Body):
		return "a refusal that speaks of a lock"
	case x.Took > 5*quick && x.Took > quick+time.Second:
		return fmt.Sprintf("a delay of %s", x.Took.Round(100*time.Millisecond))
	}
	return ""
}

// limitedLogin judges when the limit came, and whether it hits others.
func limitedLogin(ctx context.Context, s *audit.Session, x *audit.Exchange, n int, sign string) (audit.Verdict, error) {
	if n > triesFree {
		return audit.Unproven("wrong passwords are slowed, but only at try %d (%s); %d is the most that is asked for", n, sign, triesFree).With(x), nil
	}
	other, err := anotherIdentity(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if other == nil {
		return audit.Unproven("wrong passwords meet %s at try %d; nothing shows that others still get in", sign, n).With(x).
			Unlock("a recipe login-other, or --token and --protected-path"), nil
	}
	if !other.OK() {
		return audit.Unproven("wrong passwords meet %s at try %d, and another identity no longer gets in: %s", sign, n, other).With(x, other), nil
	}
	return audit.Passed("wrong passwords meet %s at try %d, and another identity still gets in", sign, n).With(x, other), nil
}

// anotherIdentity logs in rightly by the recipe login-other, or else uses the valid token; nil when there is neither.
func anotherIdentity(ctx context.Context, s *audit.Session) (*audit.Exchange, error) {
	if recipe, ok := s.Target().Recipes["login-other"]; ok {
		r := loginRequest(recipe, strings.NewReplacer())
		r.Label, r.Expect429 = "another identity, right password", true
		return s.Do(ctx, r)
	}
	if c := s.Calibration(); c.Tells {
		return s.Do(ctx, audit.Request{Path: c.Path, Token: s.Target().Token, Label: "another identity", Expect429: true})
	}
	return nil, nil
}
