package probes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func tokenForm() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-20", Title: "Critical header that nobody understands", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:        "validly signed tokens with `crit: [\"gantry\"]`, with `crit: []`, and with `crit: [\"b64\"], b64: false` over both signing inputs",
			Passes:       "refused",
			Fails:        "accepted",
			Inconclusive: "no token can be minted",
			Guard:        "an untouched mint must be accepted first. Common libraries accept it (jsonwebtoken 9.0.3, golang-jwt 4.5.1): medium, and never a cap",
			Knobs:        []string{"--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 7515 section 4.1.11", "RFC 7797 section 7", "CVE-2025-59420", "CVE-2026-32597"},
			Why:          "A restriction that the issuer marked as critical is skipped, and two verifiers of one token can disagree about what was signed.",
			Fix:          "Upgrade the library, or refuse every token that has crit.",
			Run:          unknownCritical,
		},
		{
			ID: "JWT-21", Title: "Member that stands twice in header or claims", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:        "validly signed tokens in which `sub`, `alg`, `kid` or an unused claim stands twice",
			Passes:       "refused",
			Fails:        "accepted; the finding says which value won",
			Inconclusive: "no token can be minted",
			Guard:        "an untouched mint must be accepted first. RFC 7519 allows the last to win, so this is medium: it hurts where two parts of a chain choose differently",
			Knobs:        []string{"--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 7519 section 4", "RFC 8725 section 2.4", "CWE-436"},
			Why:          "The gateway reads one user, the service behind it another.",
			Fix:          "Refuse duplicate members at the edge.",
			Run:          duplicateMember,
		},
	}
}

func unknownCritical(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	m, err := minting(ctx, s)
	if err != nil {
		return cannotMint(), err
	}
	list, err := m.criticals()
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeMinted(ctx, s, list)
}

func (m *mint) criticals() ([]minted, error) {
	t, err := m.raw()
	if err != nil {
		return nil, err
	}
	unencoded := jws.With(t.Header, map[string]any{"crit": []string{"b64"}, "b64": false})
	var list []minted
	for _, k := range []struct {
		label  string
		header []byte
	}{
		{"crit names an unknown member", jws.With(t.Header, map[string]any{"crit": []string{"gantry"}, "gantry": true})},
		{"crit is empty", jws.With(t.Header, map[string]any{"crit": []string{}})},
		{"b64 false, signed as if it were not there", unencoded},
	} {
		signed, err := m.sign(k.label, k.header, t.Payload)
		if err != nil {
			return nil, err
		}
		list = append(list, signed)
	}
	// RFC 7797 section 3: with b64 false the payload is signed as it is.
	signature, err := jws.Signature([]byte(jws.Encode(unencoded)+"."+string(t.Payload)), m.Alg, m.Key)
	if err != nil {
		return nil, err
	}
	return append(list, minted{label: "b64 false, the payload signed unencoded", token: jws.Compact(unencoded, t.Payload, signature)}), nil
}

func duplicateMember(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	m, err := minting(ctx, s)
	if err != nil {
		return cannotMint(), err
	}
	other := s.Nonce(0)
	list, err := m.duplicates(other)
	if err != nil {
		return audit.Verdict{}, err
	}
	v, err := judgeMinted(ctx, s, list)
	if err != nil || v.Outcome != audit.Fail {
		return v, err
	}
	if bytes.Contains(v.Evidence[0].Body, []byte(other)) {
		v.Message += "; the answer shows the foreign value"
	}
	return v, nil
}

// duplicates: in the first the right sub comes last, so that who takes it lets the last win; in the second it comes first.
func (m *mint) duplicates(other string) ([]minted, error) {
	t, err := m.raw()
	if err != nil {
		return nil, err
	}
	var list []minted
	add := func(label string, header, payload []byte) {
		signed, e := m.sign(label, header, payload)
		if e != nil {
			err = e
		}
		list = append(list, signed)
	}
	if jws.Has(t.Payload, "sub") {
		add("sub twice, the right one last: the last value wins", t.Header, prepended(t.Payload, "sub", other))
		add("sub twice, the right one first: the first value wins", t.Header, appended(t.Payload, "sub", other))
	}
	add("an unused claim twice", t.Header, prepended(appended(t.Payload, "gantry", "b"), "gantry", "a"))
	add("alg twice, the right one last: the last value wins", prepended(t.Header, "alg", "none"), t.Payload)
	if t.Kid() != "" {
		add("kid twice, the right one last: the last value wins", prepended(t.Header, "kid", other), t.Payload)
	}
	return list, err
}

// prepended writes a member before all others of a JSON object, whether there is one of that name or not.
func prepended(object []byte, name, value string) []byte {
	return fmt.Appendf(nil, "{%s,%s", jsonMember(name, value), bytes.TrimPrefix(bytes.TrimSpace(object), []byte("{")))
}

// appended writes a member after all others.
func appended(object []byte, name, value string) []byte {
	return fmt.Appendf(nil, "%s,%s}", bytes.TrimSuffix(bytes.TrimSpace(object), []byte("}")), jsonMember(name, value))
}

func jsonMember(name, value string) string {
	quoted, err := json.Marshal(value)
	if err != nil {
		return `"":""` // no string is refused by the encoder
	}
	return fmt.Sprintf("%q:%s", name, quoted)
}
