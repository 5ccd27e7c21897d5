package probes

import (
	"context"
	"fmt"

	"github.com/gantryhq/gantry/audit"
)

func identity() []audit.Probe {
	return []audit.Probe{
		{
			ID: "ID-01", Title: "Protected path without a credential", Severity: audit.Critical, Mode: audit.Safe,
			Category: audit.Identity, Confirms: true,
			Sends:        "GET of the protected path with no Authorization, and with `Bearer`, `Bearer x`, `Basic Og==`, `Bearer null`, `Bearer undefined`",
			Passes:       "401 or 403 each time",
			Fails:        "any answer equivalent to the valid token's; where a garbage token gets one too, only what matches the canary is",
			Inconclusive: "the path answers the same with and without a credential and was not declared protected",
			Guard:        "--protected-path is a declaration; a path that was only discovered is called public, never failed. A declared path that answers like a name that cannot exist, or with an error in a 200, is not failed either",
			Knobs:        []string{"--protected-path"},
			Refs:         []string{"OWASP API2:2023", "CWE-306", "ASVS 8.2.1"},
			Why:          "Whoever finds the path reads what is behind it.",
			Fix:          "Put authentication in one middleware that denies by default, and list the public routes.",
			Run:          withoutCredential,
		},
	}
}

// withoutCredential tries every way of having no credential.
func withoutCredential(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	c := s.Calibration()
	if c.Missing == nil {
		return audit.Unproven("%s", c.Why).Unlock("--token and --protected-path"), nil
	}
	if !c.Tells {
		return openPath(ctx, s)
	}
	var list []audit.Request
	for _, value := range []string{"", "Bearer", "Bearer x", "Basic Og==", "Bearer null", "Bearer undefined"} {
		r := audit.Request{Path: c.Path, Label: fmt.Sprintf("Authorization: %q", value)}
		if value == "" {
			r.Label = "no credential"
		} else {
			r.Header = audit.Header("Authorization", value)
		}
		list = append(list, r)
	}
	t, err := attempt(ctx, s, list)
	if err != nil {
		return audit.Verdict{}, err
	}
	return t.verdict(ctx, s, "ways of having no credential")
}

// openPath judges a path whose answers do not depend on the credential. It was asked three times already.
func openPath(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	c := s.Calibration()
	public := c.Missing.OK() && (c.Valid == nil || c.Accepted(c.Missing))
	if c.Declared && !public && s.Target().Canary != nil && c.Missing.Denied() && c.Accepted(c.Valid) && c.Accepted(c.Garbage) {
		return anyToken(ctx, s)
	}
	if !c.Declared || !public {
		return audit.Unproven("%s", c.Why).Unlock("--token and --protected-path, or --canary"), nil
	}
	absent, err := s.Absent(ctx, c.Missing)
	switch {
	case err != nil:
		return audit.Verdict{}, err
	case absent:
		return audit.Unproven("the path declared protected answers like a name that cannot exist").With(c.Missing).
			Unlock("--protected-path with a path that is there"), nil
	case saysError(c.Missing):
		return audit.Unproven("the path declared protected answers %d with an error in its body", c.Missing.Status).With(c.Missing).
			Unlock("--token, or --canary"), nil
	}
	return audit.Failed("the path declared protected answers %d without a credential", c.Missing.Status).With(c.Missing), nil
}

// anyToken judges a path that refuses no credential and takes garbage: what is behind it is known by the canary alone,
// because an API may also say in a 200 that it did not know the token.
func anyToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	c := s.Calibration()
	r := audit.Request{Path: c.Path, Header: audit.Header("Authorization", "Bearer x"), Label: `Authorization: "Bearer x"`}
	x, err := s.Do(ctx, r)
	switch {
	case err != nil:
		return audit.Verdict{}, err
	case !s.Accepted(x) || saysError(x):
		return audit.Unproven("%s", c.Why).With(c.Valid, c.Garbage).Unlock("--canary that only the answer to a valid token matches"), nil
	}
	return audit.Failed("any token is accepted: the canary matches the answer to %q", "Bearer x").With(x, c.Valid, c.Missing), nil
}
