package probes

import (
	"context"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func algorithm() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-03", Title: "Algorithm none and its spellings",
			Sends:  "the valid token's claims with `alg` none, None, NONE, nOnE, `none` with a space or a tab, empty, null and missing; each with an empty signature, without the last dot, and with the original signature",
			Passes: "all refused",
			Fails:  "any accepted as the valid token is",
			Guard:  "the claims are the valid token's own, so that a check of `sub` cannot hide acceptance. What is accepted is sent again, with the valid token in between",
			Refs:   []string{"RFC 8725 section 3.1", "CVE-2015-2951", "ASVS 9.1.2"},
			Why:    "A token that says it needs no signature is believed: anybody can be anybody.",
			Fix:    "Allow a fixed list of algorithms in code; a list of forbidden spellings always misses one.",
			Run:    algorithmNone,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-05", Title: "HMAC with an empty or trivial key",
			Sends:        "the valid token's claims signed by HMAC with the empty key, one NUL, `null`, `undefined`, the key id and the issuer",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "the token is opaque",
			Refs:         []string{"CVE-2019-20933", "CVE-2026-44699", "RFC 8725 section 3.5"},
			Why:          "The signing key was never set, so everybody knows it.",
			Fix:          "Refuse to start with a key under 256 bits; bind each key to its algorithm.",
			Run:          trivialKey,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-12", Title: "ECDSA signature of zeros and its relatives",
			Sends:        "the valid token's claims under ES256, ES384 and ES512, key id kept, with r = s = 0, r = s = n, zero in DER, and 64 zero bytes",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "the token is opaque; a verifier without an elliptic key refuses trivially, which is a pass with a note",
			Refs:         []string{"CVE-2022-21449", "CWE-347"},
			Why:          "One constant signature fits every token: anybody can sign anything.",
			Fix:          "Patch the JDK or the library; a verifier checks 0 < r, s < n.",
			Run:          psychicSignature,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-13", Title: "Unknown or unexpected algorithm",
			Sends:        "the valid token's claims with `alg` XX256, HS1, `RS256` with a space, rs256, an array, a number and a string of 10 kB; random signatures",
			Passes:       "401 each time",
			Fails:        "any accepted as the valid token is; an error of the server (5xx) fails as high",
			Inconclusive: "the token is opaque",
			Guard:        "an error of the server is seen twice with the valid token accepted in between; the one on 10 kB counts only when a token of that size under the usual algorithm does not meet it too",
			Refs:         []string{"CVE-2026-23993", "RFC 8725 section 3.1"},
			Why:          "A verifier that falls through on what it does not know lets everybody in, or can be made to crash at will.",
			Fix:          "An unknown algorithm is an error of the caller: answer 401, from the default branch.",
			Run:          unknownAlgorithm,
		}),
	}
}

func algorithmNone(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	var list []forgery
	for _, alg := range []any{"none", "None", "NONE", "nOnE", "none ", "\tnone", "", json.RawMessage("null"), nil} {
		label := "alg missing"
		if alg != nil {
			text, _ := json.Marshal(alg)
			label = "alg " + string(text)
		}
		input := jws.Encode(jws.With(t.Header, map[string]any{"alg": alg})) + "." + jws.Encode(t.Payload)
		list = append(
			list,
			forgery{label + ", empty signature", input + "."},
			forgery{label + ", no last dot", input},
			forgery{label + ", original signature", input + "." + jws.Encode(t.Signature)},
		)
	}
	return forgeries(ctx, s, list)
}

func trivialKey(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	alg := hmacFor(t)
	keys := []struct{ label, key string }{
		{"the empty key", ""},
		{"one NUL as key", "\x00"},
		{"the key null", "null"},
		{"the key undefined", "undefined"},
		{"the key id as key", t.Kid()},
		{"the issuer as key", jws.Member(t.Payload, "iss")},
	}
	var list []forgery
	for i, k := range keys {
		if k.key == "" && i > 0 {
			continue // the token has no kid, or no iss
		}
		forged, err := jws.Sign(jws.With(t.Header, map[string]any{"alg": alg}), t.Payload, alg, []byte(k.key))
		if err != nil {
			return audit.Verdict{}, err
		}
		list = append(list, forgery{alg + " with " + k.label, forged})
	}
	return forgeries(ctx, s, list)
}

// hmacFor is the HMAC that a target with that token is likeliest to take: its own, else HS256.
func hmacFor(t jws.Token) string {
	switch alg := t.Alg(); alg {
	case "HS384", "HS512":
		return alg
	}
	return "HS256"
}

func psychicSignature(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	elliptical := strings.HasPrefix(t.Alg(), "ES")
	v, err := forgeries(ctx, s, psychics(t, elliptical))
	if err == nil && v.Outcome == audit.Pass && !elliptical {
		v.Message += fmt.Sprintf("; the given token is %s, so the verifier may have no elliptic key to be fooled with", t.Alg())
	}
	return v, err
}

// psychics are tokens with the constant signatures. Without an elliptic key the shorter list says as much.
func psychics(t jws.Token, elliptical bool) []forgery {
	var list []forgery
	for _, c := range []struct {
		alg   string
		curve elliptic.Curve
	}{{"ES256", elliptic.P256()}, {"ES384", elliptic.P384()}, {"ES512", elliptic.P521()}} {
		size := (c.curve.Params().BitSize + 7) / 8
		order := c.curve.Params().N.FillBytes(make([]byte, size))
		add := func(label string, signature []byte) {
			header := jws.With(t.Header, map[string]any{"alg": c.alg})
			list = append(list, forgery{c.alg + ", " + label, jws.Compact(header, t.Payload, signature)})
		}
		add("r = s = 0", make([]byte, 2*size))
		if !elliptical && c.alg != "ES256" {
			continue
		}
		add("r = s = n", append(order, order...))
		add("zero in DER", []byte{0x30, 6, 2, 1, 0, 2, 1, 0})
		if size != 32 {
			add("64 zero bytes", make([]byte, 64))
		}
	}
	return list
}

// longAlgorithm is the length of the longest name tried, in bytes.
const longAlgorithm = 10 << 10

func unknownAlgorithm(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	random := make([]byte, max(len(t.Signature), 32))
	fill(s, random)
	forge := func(label string, alg any) forgery {
		return forgery{label, jws.Compact(jws.With(t.Header, map[string]any{"alg": alg}), t.Payload, random)}
	}
	result, err := attempt(ctx, s, bearers(s, []forgery{
		forge("alg XX256", "XX256"), forge("alg HS1", "HS1"), forge(`alg "RS256 "`, "RS256 "), forge("alg rs256", "rs256"),
		forge("alg an array", []string{t.Alg()}), forge("alg a number", 256),
	}))
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.served != nil || result.broken != nil {
		return algorithmVerdict(ctx, s, result)
	}
	long, err := attempt(ctx, s, bearers(s, []forgery{forge("alg a string of 10 kB", strings.Repeat("A", longAlgorithm))}))
	if err != nil {
		return audit.Verdict{}, err
	}
	if long.broken != nil {
		same, err := sizeAlone(ctx, s, t, random)
		if err != nil || same {
			v, _ := result.verdict(ctx, s, "unknown algorithms")
			return v, err
		}
	}
	long.sent += result.sent
	long.odd += result.odd
	if result.unclear != nil {
		long.unclear = result.unclear
	}
	return algorithmVerdict(ctx, s, long)
}

// sizeAlone says whether a token as long under the usual algorithm breaks the target too.
func sizeAlone(ctx context.Context, s *audit.Session, t jws.Token, signature []byte) (bool, error) {
	padded := jws.Compact(jws.With(t.Header, map[string]any{"gantry": strings.Repeat("A", longAlgorithm)}), t.Payload, signature)
	x, err := s.Do(ctx, audit.Request{Path: s.Calibration().Path, Token: padded, Label: "control: a header of 10 kB, the usual algorithm"})
	return err == nil && classify(s, x) == broken, err
}

// algorithmVerdict counts an error of the server as a failure of its own.
func algorithmVerdict(ctx context.Context, s *audit.Session, t tally) (audit.Verdict, error) {
	if t.served != nil || t.broken == nil || t.broken.Status == 0 {
		return t.verdict(ctx, s, "unknown algorithms")
	}
	again, err := s.Repeats(ctx, t.broken.Request, func(x *audit.Exchange) bool { return x.Status >= 500 })
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("an error that did not come again: %s", t.broken).With(t.broken), nil
	}
	return audit.Failed("an unexpected algorithm breaks the server: %s", t.broken).With(t.broken, s.Calibration().Garbage).As(audit.High), nil
}
