package probes

import (
	"context"
	"crypto/hmac"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func weakSecret() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-06", Title: "Known HMAC secret behind the tokens", Severity: audit.Critical, Mode: audit.Passive, Category: audit.Identity,
			Root: secretRoot, Confirms: true,
			Sends:        "nothing to search: some thousand secrets of frameworks, templates and tutorials are tried on the given token; one minted token when one of them fits",
			Passes:       "none of them signed the token",
			Fails:        "one did",
			Inconclusive: "the token is opaque, or the target was not seen to accept it. Tokens with another signature than an HMAC have no such secret: not applicable",
			Guard:        "the secret is never printed, only its length and a hash with a salt of this run; when the target refuses what it signs, the failure is high and no more",
			Knobs:        []string{"--token"},
			Refs:         []string{"CWE-521", "CWE-798", "RFC 8725 section 3.5"},
			Why:          "Whoever has read the tutorial signs tokens as any user, offline and unseen.",
			Fix:          "Generate 32 random bytes, load them from the secret store, and fail at boot when the default is still there.",
			Run:          knownSecret,
		},
	}
}

func knownSecret(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err).Unlock("--token with a JSON web token"), nil
	}
	if !strings.HasPrefix(t.Alg(), "HS") {
		return audit.DoesNotApply("the token is signed with %s, not with a shared secret", t.Alg()), nil
	}
	list := guesses()
	key, secret, found := crack(list, func(key []byte) bool { return signs(key, t) })
	c := s.Calibration()
	if !found {
		if !c.Tells {
			return audit.Unproven("no known secret signed the token, but the target was not seen to accept it: %s", c.Why).Unlock("--token and --protected-path"), nil
		}
		return audit.Passed("none of %d known secrets signed the token", len(list)).With(c.Valid), nil
	}
	hideFound(s, secret)
	if !c.Tells {
		return audit.Unproven("the token is signed with a known secret (%s), but the target was not seen to accept it: %s", nameless(s, secret), c.Why), nil
	}
	return proveSecret(ctx, s, t, key, nameless(s, secret))
}

// signs says whether key made the token's signature.
func signs(key []byte, t jws.Token) bool {
	input, _, found := cutLast(t.Raw, ".")
	mac, err := jws.Signature([]byte(input), t.Alg(), key)
	return found && err == nil && hmac.Equal(mac, t.Signature)
}

// proveSecret mints one token. The probes after this one mint with the secret too.
func proveSecret(ctx context.Context, s *audit.Session, t jws.Token, key []byte, described string) (audit.Verdict, error) {
	if err := s.UseSecret(key, t.Alg()); err != nil {
		return audit.Verdict{}, err
	}
	now := targetNow(s).Unix()
	token, err := jws.Sign(t.Header, jws.With(t.Payload, map[string]any{"iat": now - 1, "exp": now + 300}), t.Alg(), key)
	if err != nil {
		return audit.Verdict{}, err
	}
	x, err := minted{label: "a token signed with the secret that was found", token: token}.send(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	valid := s.Calibration().Valid
	if !s.Accepted(x) {
		return audit.Failed("the accepted token is signed with a known secret (%s); a token newly signed with it was not accepted (%d)", described, x.Status).
			As(audit.High).With(x, valid), nil
	}
	return audit.Failed("the tokens are signed with a known secret (%s), and one that the audit signed with it is accepted", described).With(x, valid), nil
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
