package probes

import (
	"context"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func serialisation() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-25", Title: "JSON and nested serialisation", Severity: audit.High,
			Sends:        "a forged and the valid token together: JWS in JSON, flattened with two payloads and general with two signatures; compact and JSON mixed; `Bearer Bearer`; two tokens in one header; two Authorization headers, both ways round",
			Passes:       "refused, or the valid one is used",
			Fails:        "the forged claims show in the answer",
			Inconclusive: "accepted, and the path's answer shows no claim of the token, so that nobody can tell whose were used",
			Guard:        "acceptance alone is no fault: the forged claims must show, twice. With a second user's token the forged claims are that user's, so that an API which looks the user up can show them too",
			Knobs:        []string{"--token-b"},
			Refs:         []string{"CVE-2022-39227", "CWE-436", "RFC 8725 section 2.4"},
			Why:          "One part of the software verifies the one token and another part reads the other.",
			Fix:          "Accept the compact form only, and exactly one Authorization header with exactly one token.",
			Run:          mixedSerialisation,
		}),
		{
			ID: "JWT-26", Title: "Base64 malleability and trailing characters", Severity: audit.Low, Mode: audit.Safe,
			Category: audit.Identity, NeedsCredential: true, Confirms: true,
			Sends:        "the valid token with the spare last bits of its signature flipped, with `=`, `.` and `.x` at the end, with a space inside the signature, and with the signature in the standard alphabet",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "the token is opaque",
			Guard:        "nearly every library accepts flipped spare bits: low, and of consequence only where a deny-list holds raw tokens. A space or newline at the end is not sent: HTTP itself strips it",
			Knobs:        []string{"--token", "--protected-path"},
			Refs:         []string{"RFC 7515 section 2", "CWE-347"},
			Why:          "The same token has several spellings: a deny-list of raw tokens stops one of them.",
			Fix:          "Decode base64url strictly, and key deny-lists on `jti`.",
			Run:          malleable,
		},
		{
			ID: "JWT-27", Title: "Token accepted in the query string", Severity: audit.Medium, Mode: audit.Safe,
			Category: audit.Identity, NeedsCredential: true, Confirms: true,
			Sends:        "GET of the protected path with the valid token in `access_token`, `token`, `jwt` and `auth` of the query, and no Authorization",
			Passes:       "refused each time",
			Fails:        "accepted as the valid token in the header is",
			Inconclusive: "only the general rules apply",
			Guard:        "only the protected path is judged: paths of WebSockets and event streams, whose clients cannot set a header, are another matter",
			Knobs:        []string{"--token", "--protected-path"},
			Refs:         []string{"RFC 9700 section 4.3.2", "RFC 6750 section 2.3", "CWE-598"},
			Why:          "Addresses end up in logs, histories and Referer headers, and the token with them.",
			Fix:          "Take the token from the Authorization header only.",
			Run:          tokenInQuery,
		},
	}
}

// mask is a set of forged claims and the texts by which an answer betrays that it used them.
type mask struct {
	payload []byte
	marks   []string
}

func (m mask) shows(x *audit.Exchange) bool {
	return x.OK() && slices.ContainsFunc(m.marks, func(mark string) bool { return strings.Contains(x.Text(), mark) })
}

func mixedSerialisation(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	m, err := masked(ctx, s, t)
	if err != nil {
		return audit.Verdict{}, err
	}
	var last, blind, down *audit.Exchange
	for _, r := range mixtures(s.Calibration().Path, t, m.payload) {
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		last = x
		if m.shows(x) {
			return m.confirmed(ctx, s, r, x)
		}
		switch a := classify(s, x); {
		case a == broken:
			keep(&down, x)
		case a == unclear, a == served && len(m.marks) == 0:
			keep(&blind, x)
		}
	}
	switch {
	case blind != nil:
		return audit.Unproven("accepted, and the answer does not show whose claims were used: %s", blind).With(blind).
			Unlock("--token-b, or a --protected-path that answers with the caller's id"), nil
	case down != nil:
		return tally{sent: 1, failed: 1, broken: down}.steady(ctx, s, "mixed serialisation")
	}
	return audit.Passed("mixed serialisations are refused, or the valid part of them is used").With(last), nil
}

func (m mask) confirmed(ctx context.Context, s *audit.Session, r audit.Request, x *audit.Exchange) (audit.Verdict, error) {
	again, err := s.Repeats(ctx, r, m.shows)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("forged claims showed once and not again: %s", r.Label).With(x), nil
	}
	return audit.Failed("the forged claims were used: %s", r.Label).With(x, s.Calibration().Valid), nil
}

// masked forges claims: those of the second user when there is one, else names that nobody has, in place of every
// claim that the valid answer shows.
func masked(ctx context.Context, s *audit.Session, t jws.Token) (mask, error) {
	valid := s.Calibration().Valid.Text()
	if other, err := jws.Parse(s.Target().TokenB); err == nil {
		x, err := s.Do(ctx, audit.Request{Path: s.Calibration().Path, Token: s.Target().TokenB, Label: "control: the second user"})
		if err != nil {
			return mask{}, err
		}
		m := mask{payload: other.Payload}
		for _, v := range texts(other) {
			if x.OK() && strings.Contains(x.Text(), v) && !strings.Contains(valid, v) {
				m.marks = append(m.marks, v)
			}
		}
		if len(m.marks) > 0 {
			return m, nil
		}
	}
	changes, marks := map[string]any{"sub": s.Nonce(0)}, []string{}
	for name, v := range texts(t) {
		if strings.Contains(valid, v) && name != "iss" && name != "aud" {
			changes[name] = s.Nonce(0)
			marks = append(marks[:0], s.Nonce(0))
		}
	}
	return mask{jws.With(t.Payload, changes), marks}, nil
}

// texts are the claims that are strings long enough not to occur by chance.
func texts(t jws.Token) map[string]string {
	claims, _ := t.Claims()
	out := map[string]string{}
	for name, v := range claims {
		if text, ok := v.(string); ok && len(text) >= 5 {
			out[name] = text
		}
	}
	return out
}

// mixtures put the forged payload beside the valid token.
func mixtures(path string, t jws.Token, payload []byte) []audit.Request {
	h, p, sig, forged := jws.Encode(t.Header), jws.Encode(t.Payload), jws.Encode(t.Signature), jws.Encode(payload)
	token := h + "." + forged + "." + sig
	none := jws.Encode([]byte(`{"alg":"none"}`))
	bearers := []struct {
		label  string
		values []string
	}{
		{"JSON, flattened, two payloads", []string{`Bearer {"payload":"` + p + `","protected":"` + h + `","signature":"` + sig + `","payload":"` + forged + `"}`}},
		{"JSON, general, two signatures", []string{`Bearer {"payload":"` + forged + `","signatures":[{"protected":"` + h + `","signature":"` + sig + `"},{"protected":"` + none + `","signature":""}]}`}},
		{"compact and JSON mixed", []string{`Bearer {"  ` + h + `.` + forged + `.":"","protected":"` + h + `","payload":"` + p + `","signature":"` + sig + `"}`}},
		{"Bearer Bearer", []string{"Bearer Bearer " + token}},
		{"two tokens in one header, forged first", []string{"Bearer " + token + ", Bearer " + t.Raw}},
		{"two tokens in one header, forged last", []string{"Bearer " + t.Raw + ", Bearer " + token}},
		{"two tokens after one Bearer", []string{"Bearer " + t.Raw + " " + token}},
		{"two Authorization headers, forged first", []string{"Bearer " + token, "Bearer " + t.Raw}},
		{"two Authorization headers, forged last", []string{"Bearer " + t.Raw, "Bearer " + token}},
	}
	var list []audit.Request
	for _, b := range bearers {
		list = append(list, audit.Request{Path: path, Label: b.label, Header: map[string][]string{"Authorization": b.values}})
	}
	return list
}

func malleable(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	list := bearers(s, spellings(t))
	result, err := attempt(ctx, s, list)
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.served == nil || result.flickered {
		return result.verdict(ctx, s, "spellings")
	}
	accepted := []string{result.served.Request.Label}
	for _, r := range list[result.sent:] { // the first is confirmed: which others there are takes one look each
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		if s.Accepted(x) {
			accepted = append(accepted, r.Label)
		}
	}
	return audit.Failed("the same token is accepted in other spellings: %s", strings.Join(accepted, "; ")).With(result.served), nil
}

// spellings of the token that a strict decoder refuses.
func spellings(t jws.Token) []forgery {
	input := t.Raw[:strings.LastIndexByte(t.Raw, '.')+1]
	signature := t.Raw[len(input):]
	list := []forgery{
		{"`=` at the end", t.Raw + "="},
		{"a dot at the end", t.Raw + "."},
		{"`.x` at the end", t.Raw + ".x"},
	}
	if len(signature) > 4 {
		list = append(list, forgery{"a space inside the signature", input + signature[:4] + " " + signature[4:]})
	}
	if other, ok := spareBits(signature); ok {
		list = append(list, forgery{"spare bits of the signature flipped", input + other})
	}
	if standard := strings.NewReplacer("-", "+", "_", "/").Replace(signature); standard != signature {
		list = append(list, forgery{"the signature in the standard alphabet", input + standard})
	}
	return list
}

// spareBits flips the last of the bits that base64 leaves over; there are none when the length is a multiple of three.
func spareBits(encoded string) (string, bool) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	at := len(encoded) - 1
	if len(encoded)%4 == 0 || at < 0 {
		return "", false
	}
	value := strings.IndexByte(alphabet, encoded[at])
	if value < 0 {
		return "", false
	}
	other := encoded[:at] + string(alphabet[value^1])
	_, err := base64.RawURLEncoding.DecodeString(other)
	return other, err == nil
}

func tokenInQuery(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	path, mark := s.Calibration().Path, "?"
	if strings.Contains(path, "?") {
		mark = "&"
	}
	escaped := url.QueryEscape(s.Target().Token)
	s.Hide(escaped)
	var list []audit.Request
	for _, name := range []string{"access_token", "token", "jwt", "auth"} {
		list = append(list, audit.Request{
			Path: path + mark + name + "=" + escaped, Label: "the valid token in ?" + name + "=",
		})
	}
	t, err := attempt(ctx, s, list)
	if err != nil {
		return audit.Verdict{}, err
	}
	return t.verdict(ctx, s, "tokens in the query string")
}
