package probes

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func keyID() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-08", Title: "Unknown key id, and a flood of them", Severity: audit.High, Mode: audit.Safe,
			Category: audit.Identity, NeedsCredential: true, Confirms: true,
			Sends:        "the valid token's claims under a random key id, signed with a fresh key; then 50 distinct unknown key ids, with the valid token after every fifth",
			Passes:       "401 each time, median and p95 within three times the valid token's, and at most a few fetches of the key set (seen with the issuer harness)",
			Fails:        "accepted, an error of the server, more than a second a token, or a fetch of the key set for every second one",
			Inconclusive: "the times are neither plainly good nor plainly bad, or a limiter ended the flood early",
			Guard:        "the valid token in between is the measure of time; at least ten of each are compared; an error of the server is seen twice",
			Knobs:        []string{"--token", "--protected-path", "--issuer-harness"},
			Refs:         []string{"RFC 8725 section 3.10", "CWE-400"},
			Why:          "Every made-up key id sends the API to its identity provider: a stranger can make it slow, or have it locked out there.",
			Fix:          "Cache the key set; after a miss fetch it again at most once a minute.",
			Run:          unknownKeyID,
		},
		signatureProbe(audit.Probe{
			ID: "JWT-09", Title: "Path and SQL in the key id",
			Sends:        "the valid token's claims by HMAC under key ids that lead to files of known content (`../../../../dev/null`, `/dev/null`, `/proc/sys/kernel/randomize_va_space`, `''`) and to a known key in SQL (`x' UNION SELECT 'gantry'--`), each signed with that key; and the valid token with `x'` and `x''` as key id",
			Passes:       "401 each time, of the class of an unknown key id",
			Fails:        "any accepted; or `x'` gives an error of the server or the words of a database, and `x''` does not",
			Inconclusive: "the token is opaque, or a key id that is a path is answered unlike one that is unknown",
			Guard:        "compared with the answer to an unknown key id and repeated; no command and no sleeping payload is sent",
			Refs:         []string{"RFC 8725 section 3.10", "CWE-22", "CWE-89"},
			Why:          "The caller chooses the file or the row with which the token is verified: one of known content lets everybody sign, and SQL may give away more.",
			Fix:          "Use the key id as a key into a fixed map; refuse characters that no key id of yours has.",
			Run:          injectedKeyID,
		}),
	}
}

const (
	floodLength = 50
	floodStep   = 5  // tokens between two valid ones
	floodLeast  = 10 // answers that a verdict on time needs
	slowLookup  = time.Second
	floodNoise  = 20 * time.Millisecond  // of medians: less is no look-up over a network
	floodTail   = 100 * time.Millisecond // of p95, which a busy machine moves more
	fewFetches  = 5
)

// flood is what a series of unknown key ids met.
type flood struct {
	unknown, valid []time.Duration
	last           *audit.Exchange
	fetches        int // of the harness's key set; -1 without a harness
	limited        bool
}

func unknownKeyID(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	key, err := freshKey(t.Alg())
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	with := func(n int) (audit.Request, error) {
		token, err := jws.Sign(jws.With(t.Header, map[string]any{"kid": s.Nonce(n)}), t.Payload, t.Alg(), key)
		return audit.Request{
			Path: s.Calibration().Path, Token: token, Label: "unknown key id", Timeout: 3 * time.Second, Expect429: true,
		}, err
	}
	first, err := with(0)
	if err != nil {
		return audit.Verdict{}, err
	}
	first.Expect429 = false
	result, err := attempt(ctx, s, []audit.Request{first})
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.broken != nil {
		return brokenLookup(ctx, s, result)
	}
	if v, err := result.verdict(ctx, s, "unknown key ids"); err != nil || v.Outcome != audit.Pass {
		return v, err
	}
	return floodOfKeyIDs(ctx, s, with)
}

// brokenLookup judges an unknown key id that met an error of the server, or silence.
func brokenLookup(ctx context.Context, s *audit.Session, t tally) (audit.Verdict, error) {
	again, err := s.Repeats(ctx, t.broken.Request, func(x *audit.Exchange) bool { return classify(s, x) == broken })
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("an error that did not come again: %s", t.broken).With(t.broken), nil
	}
	return audit.Failed("an unknown key id breaks the server: %s", t.broken).With(t.broken, s.Calibration().Garbage), nil
}

func floodOfKeyIDs(ctx context.Context, s *audit.Session, with func(int) (audit.Request, error)) (audit.Verdict, error) {
	f := flood{fetches: -1}
	before := 0
	if h := s.Harness(); h != nil {
		before = h.Fetches()
	}
	for n := 1; n <= floodLength && !f.limited && !f.stuck(); n++ {
		r, err := with(n)
		if err != nil {
			return audit.Verdict{}, err
		}
		x, err := s.Do(ctx, r)
		if err != nil {
			return audit.Verdict{}, err
		}
		if x.Status == 429 {
			f.limited = true
			continue
		}
		f.last, f.unknown = x, append(f.unknown, x.Took)
		switch a := classify(s, x); {
		case a == broken && !x.TimedOut():
			return brokenLookup(ctx, s, tally{broken: x})
		case a == served || a == unclear:
			return audit.Unproven("one of the unknown key ids was answered unlike the first: %s", x).With(x), nil
		}
		if n%floodStep == 0 {
			if err := f.control(ctx, s); err != nil {
				return audit.Verdict{}, err
			}
		}
	}
	if h := s.Harness(); h != nil {
		f.fetches = h.Fetches() - before
	}
	return f.judge(), nil
}

// control sends the valid token, which must still be accepted, and notes how long that took.
func (f *flood) control(ctx context.Context, s *audit.Session) error {
	x, err := s.Get(ctx, s.Calibration().Path)
	if err != nil {
		return err
	}
	if !s.Accepted(x) {
		return fmt.Errorf("%w (%s)", audit.ErrControl, x)
	}
	f.valid = append(f.valid, x.Took)
	return nil
}

// stuck says that going on would only take time: the lookups are plainly slow.
func (f *flood) stuck() bool {
	return len(f.unknown) >= floodLeast && quantile(f.unknown, 0.5) > slowLookup
}

// judge the flood by its figures alone.
func (f *flood) judge() audit.Verdict {
	if len(f.unknown) < floodLeast || len(f.valid) == 0 {
		return audit.Unproven("a limiter ended the flood of unknown key ids after %d", len(f.unknown))
	}
	median, usual := quantile(f.unknown, 0.5), quantile(f.valid, 0.5)
	slow, base := quantile(f.unknown, 0.95), quantile(f.valid, 0.95)
	v := f.figures(slow, base, median, usual)
	if f.last != nil {
		v = v.With(f.last)
	}
	v = v.Measured("unknownP95Ms", slow.Seconds()*1000).Measured("validP95Ms", base.Seconds()*1000).Measured("keyIDs", len(f.unknown))
	if f.fetches >= 0 {
		v = v.Measured("keySetFetches", f.fetches)
	}
	return v
}

func (f *flood) figures(slow, base, median, usual time.Duration) audit.Verdict {
	n := len(f.unknown)
	switch {
	case f.fetches >= 0 && 2*f.fetches >= n:
		return audit.Failed("%d unknown key ids caused %d fetches of the key set", n, f.fetches)
	case median > slowLookup && median > 3*usual:
		return audit.Failed("an unknown key id takes %s, the valid token %s", round(median), round(usual))
	case f.fetches > fewFetches:
		return audit.Unproven("%d unknown key ids caused %d fetches of the key set: more than a few", n, f.fetches)
	case median > 3*usual && median-usual > floodNoise, slow > 3*base && slow-base > floodTail:
		return audit.Unproven("unknown key ids take %s, p95 %s, the valid token %s, p95 %s: not plainly a look-up each",
			round(median), round(slow), round(usual), round(base))
	case f.limited:
		return audit.Passed("%d unknown key ids refused in %s (p95), then a limiter ended the flood", n, round(slow))
	}
	return audit.Passed("%d unknown key ids refused in %s (p95); the valid token takes %s", n, round(slow), round(base))
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// quantile of a non-empty list, by the nearest rank.
func quantile(list []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// sqlWords are what databases say of a broken statement.
var sqlWords = regexp.MustCompile(`(?i)sql syntax|syntax error at or near|unterminated (?:quoted )?string|unrecognized token|unclosed quotation|SQLSTATE|SQLITE_ERROR|sqlite3?\.|psycopg|ORA-\d{5}|mysql_|PG::|near "'`)

func injectedKeyID(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	list, err := knownContents(t)
	if err != nil {
		return audit.Verdict{}, err
	}
	unknown, err := s.Do(ctx, audit.Request{
		Path: s.Calibration().Path, Token: withKeyID(t, s.Nonce(0)), Label: "an unknown key id",
	})
	if err != nil {
		return audit.Verdict{}, err
	}
	result, err := attempt(ctx, s, bearers(s, list))
	if err != nil {
		return audit.Verdict{}, err
	}
	if result.served != nil {
		return result.verdict(ctx, s, "key ids")
	}
	if v, found, err := quotedKeyID(ctx, s, t, unknown); err != nil || found {
		return v, err
	}
	if result.broken != nil && classify(s, unknown) == refused {
		return audit.Unproven("an unknown key id is refused, this one met an error of the server: %s", result.broken).With(result.broken, unknown), nil
	}
	return result.verdict(ctx, s, "key ids with a path or SQL")
}

func withKeyID(t jws.Token, kid string) string {
	return jws.Compact(jws.With(t.Header, map[string]any{"kid": kid}), t.Payload, t.Signature)
}

// knownContents are tokens whose key id leads a careless lookup to a key that we know.
func knownContents(t jws.Token) ([]forgery, error) {
	alg := hmacFor(t)
	var list []forgery
	for _, c := range []struct{ kid, key string }{
		{"../../../../dev/null", ""},
		{"/dev/null", ""},
		{"/proc/sys/kernel/randomize_va_space", "2\n"},
		{"''", ""},
		{"", ""},
		{"x' UNION SELECT 'gantry'--", "gantry"},
	} {
		forged, err := jws.Sign(jws.With(t.Header, map[string]any{"alg": alg, "kid": c.kid}), t.Payload, alg, []byte(c.key))
		if err != nil {
			return nil, err
		}
		list = append(list, forgery{fmt.Sprintf("key id %q", c.kid), forged})
	}
	return list, nil
}

// quotedKeyID looks for a statement that one quote breaks and two mend.
func quotedKeyID(ctx context.Context, s *audit.Session, t jws.Token, unknown *audit.Exchange) (audit.Verdict, bool, error) {
	one := audit.Request{Path: s.Calibration().Path, Token: withKeyID(t, "x'"), Label: "key id x'"}
	two := audit.Request{Path: s.Calibration().Path, Token: withKeyID(t, "x''"), Label: "key id x''"}
	if brokenSQL(unknown) {
		return audit.Verdict{}, false, nil // everything breaks: a quote would prove nothing
	}
	var x, y *audit.Exchange
	for range 2 { // the second time confirms
		var err error
		if x, err = s.Do(ctx, one); err != nil {
			return audit.Verdict{}, false, err
		}
		if y, err = s.Do(ctx, two); err != nil {
			return audit.Verdict{}, false, err
		}
		if classify(s, x) == served || classify(s, y) == served {
			t, err := attempt(ctx, s, []audit.Request{one, two})
			if err != nil {
				return audit.Verdict{}, false, err
			}
			v, err := t.verdict(ctx, s, "key ids with a quote")
			return v, true, err
		}
		if !brokenSQL(x) || brokenSQL(y) || y.Status == 0 {
			return audit.Verdict{}, false, nil
		}
	}
	return audit.Failed("a quote in the key id breaks a statement and two mend it: %s, %s", x, y).With(x, y, unknown), true, nil
}

func brokenSQL(x *audit.Exchange) bool { return x.Status >= 500 || sqlWords.Match(x.Body) }
