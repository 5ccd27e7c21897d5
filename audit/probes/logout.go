package probes

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func logout() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-29", Title: "Token after its session has ended", Severity: audit.High, Mode: audit.Active, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:        "the log-in recipe for a session of its own, the log-out recipe with that session's token, then the token again, at once and a moment later",
			Passes:       "refused",
			Fails:        "accepted both times",
			Inconclusive: "there is no recipe to log in and out, or it does not work; or how long a token outlives its session is declared",
			Guard:        "only the throw-away session is ended; its token must be accepted before",
			Knobs:        []string{"recipes.login (recipes.login-other where that one holds {{password}})", "recipes.logout"},
			Refs:         []string{"CWE-613", "ASVS 7.4.1"},
			Why:          "Logging out, or being dismissed, does not take anything away from whoever holds the token.",
			Fix:          "Short tokens, and a deny-list or a session version that is looked at.",
			Run:          endedSession,
		},
	}
}

func endedSession(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if newWriter(s, "login") == nil || newWriter(s, "logout") == nil {
		return audit.Unproven("there is no recipe to log in and out").Unlock("audit.recipes.login and audit.recipes.logout in gantry.yaml"), nil
	}
	token, err := beginSession(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	before, err := minted{label: "the session's token, before log-out", token: token}.send(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !s.Accepted(before) {
		return audit.Unproven("the token of the log-in recipe is not accepted (%d)", before.Status).With(before), nil
	}
	ended, err := follow(ctx, s, "logout", "log-out", token)
	if err != nil {
		return audit.Verdict{}, err
	}
	if ended.Status < 200 || ended.Status >= 400 {
		return audit.Unproven("the log-out recipe is answered %d", ended.Status).With(ended), nil
	}
	return outlives(ctx, s, minted{label: "the session's token, after log-out", token: token}, ended)
}

// outlives asks at once and again after the policy's grace: a deny-list may take a moment to reach every instance.
func outlives(ctx context.Context, s *audit.Session, t minted, ended *audit.Exchange) (audit.Verdict, error) {
	for range 2 {
		x, err := t.send(ctx, s)
		if err != nil {
			return audit.Verdict{}, err
		}
		switch classify(s, x) {
		case refused:
			return audit.Passed("the token is refused (%d) once its session has ended", x.Status).With(ended, x), nil
		case broken, unclear:
			return audit.Unproven("after log-out the token is neither accepted nor refused: %s", x).With(x), nil
		}
		if err := audit.Sleep(ctx, s.Policy().Grace); err != nil {
			return audit.Verdict{}, err
		}
	}
	x, err := t.send(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	switch classify(s, x) {
	case refused:
		return audit.Passed("the token is refused (%d) soon after its session has ended", x.Status).With(ended, x), nil
	case broken, unclear:
		return audit.Unproven("after log-out the token is neither accepted nor refused: %s", x).With(x), nil
	}
	if why := s.Declared(); why != "" {
		return audit.Unproven("accepted after log-out, as declared: %s", why).With(ended, x), nil
	}
	return audit.Failed("the token is still accepted %s after log-out", 2*s.Policy().Grace).With(ended, x), nil
}

// beginSession follows the recipe and returns the access token.
func beginSession(ctx context.Context, s *audit.Session) (string, error) {
	recipe := rightLogin(s)
	x, err := follow(ctx, s, recipe, "log-in", "")
	if err != nil {
		return "", err
	}
	if !x.OK() {
		return "", fmt.Errorf("the log-in recipe is answered %d", x.Status)
	}
	names := []string{"access_token", "accessToken", "access", "token", "jwt", "id_token"}
	if own := s.Target().Recipes[recipe].Field; own != "" {
		names = []string{own}
	}
	for _, name := range names {
		value, _ := field(x.Body, name)
		if token, ok := value.(string); ok && token != "" {
			s.Hide(token)
			return token, nil
		}
	}
	return "", fmt.Errorf("the answer to the log-in recipe has no %s", strings.Join(names, ", "))
}

// rightLogin is the recipe that logs in rightly: where login is a form for trying passwords (RL-05), the other one.
func rightLogin(s *audit.Session) string {
	recipes := s.Target().Recipes
	if _, ok := recipes["login-other"]; ok && strings.Contains(recipes["login"].Body, "{{password}}") {
		return "login-other"
	}
	return "login"
}

// follow sends what a recipe says, as the session whose token is given. {{token}} in its body is that token.
func follow(ctx context.Context, s *audit.Session, recipe, label, token string) (*audit.Exchange, error) {
	r := newWriter(s, recipe).request("", 1)
	r.Token, r.Label = token, label
	r.Body = []byte(strings.ReplaceAll(string(r.Body), "{{token}}", token))
	return s.Do(ctx, r)
}
