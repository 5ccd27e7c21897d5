package probes

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
	"github.com/gantryhq/gantry/internal/testenv"
)

func pemBody(der []byte) string { return base64.StdEncoding.EncodeToString(der) }

func mustFresh(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := freshRSA()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFloodOfKeyIDsIsJudgedByItsFigures(t *testing.T) {
	times := func(n int, d time.Duration) []time.Duration {
		list := make([]time.Duration, n)
		for i := range list {
			list[i] = d + time.Duration(i)*time.Microsecond
		}
		return list
	}
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		f    flood
		want audit.Outcome
	}{
		{"fast", flood{unknown: times(50, ms), valid: times(10, ms), fetches: -1}, audit.Pass},
		{"slower than the valid token, and nobody minds", flood{unknown: times(50, 15*ms), valid: times(10, ms), fetches: -1}, audit.Pass},
		{"slower, and somebody may mind", flood{unknown: times(50, 90*ms), valid: times(10, 5*ms), fetches: -1}, audit.Inconclusive},
		{"one of them slow", flood{unknown: append(times(49, ms), 400*ms), valid: times(10, ms), fetches: -1}, audit.Pass},
		{"a busy machine", flood{unknown: append(times(15, ms), times(5, 40*ms)...), valid: times(4, 2*ms), fetches: -1}, audit.Pass},
		{"every tenth slow", flood{unknown: append(times(45, ms), times(5, 400*ms)...), valid: times(10, ms), fetches: -1}, audit.Inconclusive},
		{"a look-up each", flood{unknown: times(12, 1200*ms), valid: times(2, 5*ms), fetches: -1}, audit.Fail},
		{"everything is slow", flood{unknown: times(12, 1200*ms), valid: times(2, 1100*ms), fetches: -1}, audit.Pass},
		{"a fetch each", flood{unknown: times(50, ms), valid: times(10, ms), fetches: 50}, audit.Fail},
		{"some fetches", flood{unknown: times(50, ms), valid: times(10, ms), fetches: 12}, audit.Inconclusive},
		{"one fetch", flood{unknown: times(50, ms), valid: times(10, ms), fetches: 1}, audit.Pass},
		{"limited late", flood{unknown: times(20, ms), valid: times(4, ms), fetches: -1, limited: true}, audit.Pass},
		{"limited early", flood{unknown: times(6, ms), valid: times(1, ms), fetches: -1, limited: true}, audit.Inconclusive},
	} {
		if got := c.f.judge(); got.Outcome != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, got.Outcome, got.Message, c.want)
		}
	}
}

func TestUnknownKeyIDsAreCountedAtTheHarness(t *testing.T) {
	address := testenv.FreeAddress(t)
	fetching := func(each bool) http.Handler {
		var set atomic.Value
		return backend{identify: func(r *http.Request) (map[string]any, error) {
			token, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			if err != nil {
				return nil, err
			}
			keys, _ := set.Load().([]publicKey)
			if len(keys) == 0 || each && keys[0].Kid != token.Kid() {
				res, err := http.Get("http://" + address + "/.well-known/jwks.json")
				if err != nil {
					return nil, err
				}
				defer res.Body.Close()
				body := make([]byte, 4096)
				n, _ := res.Body.Read(body)
				keys = parseKeys(body[:n])
				set.Store(keys)
			}
			if len(keys) == 0 || keys[0].Kid != token.Kid() || !verifies(keys[0].Public, token) {
				return nil, errRefused
			}
			return token.Claims()
		}}.handler()
	}
	harness := func(t *audit.Target, c *audit.Config) { t.Token, c.Harness = "", address }
	for _, c := range []struct {
		each bool
		want audit.Outcome
	}{{true, audit.Fail}, {false, audit.Pass}} {
		if got := askProbe(t, "JWT-08", fetching(c.each), harness); got.Outcome != c.want {
			t.Errorf("a fetch for each unknown key id %v: %s (%s), want %s", c.each, got.Outcome, got.Message, c.want)
		}
	}
}

func TestUnknownKeyIDs(t *testing.T) {
	calls := &atomic.Int64{}
	before := func(f func(w http.ResponseWriter, kid string) bool) http.Handler {
		return backend{outer: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token, err := jws.Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
				if err == nil && token.Kid() != "k1" && f(w, token.Kid()) {
					return
				}
				next.ServeHTTP(w, r)
			})
		}}.handler()
	}
	status := func(w http.ResponseWriter, s int) bool {
		if s == 429 {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(s)
		return true
	}
	limited := func(from int64) http.Handler {
		n := &atomic.Int64{}
		return before(func(w http.ResponseWriter, _ string) bool { return n.Add(1) > from && status(w, 429) })
	}
	checkTraps(t, []trap{
		{"a key error", "JWT-08", before(func(w http.ResponseWriter, _ string) bool { return status(w, 500) }), nil, audit.Fail, audit.High},
		{"one stray error", "JWT-08", before(func(w http.ResponseWriter, _ string) bool { return calls.Add(1) == 1 && status(w, 500) }), nil, audit.Inconclusive, 0},
		{"the limiter stops it late", "JWT-08", limited(30), nil, audit.Pass, 0},
		{"the limiter stops it early", "JWT-08", limited(5), nil, audit.Inconclusive, 0},
		{"any key id is good", "JWT-08", backend{identify: holed(func(tk jws.Token) bool { return tk.Kid() != "k1" })}.handler(), nil, audit.Fail, audit.High},
	})
}

// fetcher asks for the address in a member of the header and, if believe is set, believes the key that comes.
func fetcher(member string, believe bool) http.Handler {
	return backend{identify: holed(func(token jws.Token) bool {
		address := jws.Member(token.Header, member)
		if address == "" {
			return false
		}
		client := &http.Client{Timeout: time.Second}
		res, err := client.Get(address)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body := make([]byte, 8<<10)
		n, _ := res.Body.Read(body)
		keys := parseKeys(body[:n])
		return believe && len(keys) == 1 && verifies(keys[0].Public, token)
	})}.handler()
}

func TestRemoteKeysAreFoundByWhoCalls(t *testing.T) {
	elsewhere := func(_ *audit.Target, c *audit.Config) { c.Callback = "0.0.0.0:0" }
	checkTraps(t, []trap{
		{"jku is believed", "JWT-11", fetcher("jku", true), nil, audit.Fail, audit.Critical},
		{"jku is only fetched", "JWT-11", fetcher("jku", false), nil, audit.Fail, audit.High},
		{"x5u is believed", "JWT-11", fetcher("x5u", true), nil, audit.Fail, audit.Critical},
		{"x5u is only fetched", "JWT-11", fetcher("x5u", false), nil, audit.Fail, audit.High},
		{"the listener may be out of reach", "JWT-11", backend{}.handler(), elsewhere, audit.Inconclusive, 0},
	})
}

func TestEmbeddedKeysAreFoundInEveryForm(t *testing.T) {
	believes := func(when func(token jws.Token, jwk map[string]any, x5c []any) bool) http.Handler {
		return backend{identify: holed(func(token jws.Token) bool {
			var header struct {
				JWK map[string]any `json:"jwk"`
				X5C []any          `json:"x5c"`
			}
			return decodeJSON(token.Header, &header) && when(token, header.JWK, header.X5C)
		})}.handler()
	}
	byJWK := func(token jws.Token, jwk map[string]any) bool {
		public, err := parseJWK(jwk)
		return err == nil && verifies(public, token)
	}
	checkTraps(t, []trap{
		{"RSA", "JWT-10", believes(func(tk jws.Token, jwk map[string]any, _ []any) bool {
			return text(jwk, "kty") == "RSA" && byJWK(tk, jwk)
		}), nil, audit.Fail, audit.Critical},
		{"EC, only without a key id", "JWT-10", believes(func(tk jws.Token, jwk map[string]any, _ []any) bool {
			return text(jwk, "kty") == "EC" && tk.Kid() == "" && byJWK(tk, jwk)
		}), nil, audit.Fail, audit.Critical},
		{"RSA, only under the same key id", "JWT-10", believes(func(tk jws.Token, jwk map[string]any, _ []any) bool {
			return text(jwk, "kid") == "k1" && tk.Kid() == "k1" && byJWK(tk, jwk)
		}), nil, audit.Fail, audit.Critical},
		{"certificate", "JWT-10", believes(func(tk jws.Token, _ map[string]any, x5c []any) bool {
			keys := parsePEM([]byte("-----BEGIN CERTIFICATE-----\n" + fmt.Sprint(append(x5c, "")[0]) + "\n-----END CERTIFICATE-----\n"))
			return len(keys) == 1 && keys[0].Public != nil && verifies(keys[0].Public, tk)
		}), nil, audit.Fail, audit.Critical},
	})
}

func TestMixedSerialisationsAreJudgedByTheClaimsThatShow(t *testing.T) {
	// mixed verifies one part of what it gets and reads another.
	mixed := func(raw string) (map[string]any, error) {
		var flat struct{ Protected, Payload, Signature string }
		if decodeJSON([]byte(raw), &flat) {
			if _, err := soundToken(flat.Protected + "." + flat.Payload + "." + flat.Signature); err != nil {
				return nil, err
			}
		} else if claims, err := soundToken(raw); err != nil {
			return claims, err
		}
		parts := strings.Split(raw, ".") // CVE-2022-39227
		if len(parts) < 3 {
			return nil, errRefused
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		var claims map[string]any
		if err != nil || !decodeJSON(payload, &claims) {
			return nil, errRefused
		}
		return claims, nil
	}
	bearer := func(f func(string) (map[string]any, error)) func(*http.Request) (map[string]any, error) {
		return func(r *http.Request) (map[string]any, error) {
			return f(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}
	}
	first := func(raw string) (map[string]any, error) { // the first of several, verified
		raw, _, _ = strings.Cut(raw, ",")
		raw, _, _ = strings.Cut(raw, " ")
		return soundToken(raw)
	}
	users := func(next func(string) (map[string]any, error)) func(string) (map[string]any, error) {
		return func(raw string) (map[string]any, error) { // only who is in the database
			claims, err := next(raw)
			if err == nil && claims["sub"] != "user_a" && claims["sub"] != "user_b" {
				return nil, errRefused
			}
			return claims, err
		}
	}
	twoUsers := func(t *audit.Target, _ *audit.Config) { t.TokenB = userToken(map[string]any{"sub": "user_b"}) }
	blind := func(map[string]any) any { return map[string]any{"ok": true} }
	checkTraps(t, []trap{
		{"compact and JSON", "JWT-25", backend{identify: bearer(mixed)}.handler(), nil, audit.Fail, audit.High},
		{"compact and JSON, users looked up", "JWT-25", backend{identify: bearer(users(mixed))}.handler(), twoUsers, audit.Fail, audit.High},
		{"the valid one of several is used", "JWT-25", backend{identify: bearer(first)}.handler(), nil, audit.Pass, 0},
		{"the valid one of several is used, two users", "JWT-25", backend{identify: bearer(first)}.handler(), twoUsers, audit.Pass, 0},
		{"nobody sees which is used", "JWT-25", backend{identify: bearer(first), me: blind}.handler(), nil, audit.Inconclusive, 0},
		{"refused, and the answer shows no claim", "JWT-25", backend{me: blind}.handler(), nil, audit.Pass, 0},
	})
}

func decodeJSON(b []byte, into any) bool { return json.Unmarshal(b, into) == nil }

func TestEncryptedUnsignedTokensNeedAKeyForEncryption(t *testing.T) {
	set := func(public any, members map[string]any) map[string]http.HandlerFunc {
		body := jwksOf(t, public, members)
		return map[string]http.HandlerFunc{"GET /.well-known/jwks.json": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }}
	}
	enc := map[string]any{"kid": "e1", "use": "enc"}
	elliptic, err := ownEC()
	if err != nil {
		t.Fatal(err)
	}
	// opens believes any token of five parts: what it decrypts to does not matter here.
	opens := backend{routes: set(&rsaKey().PublicKey, enc), identify: func(r *http.Request) (map[string]any, error) {
		if strings.Count(r.Header.Get("Authorization"), ".") == 4 {
			return map[string]any{"sub": "user_a"}, nil
		}
		return soundly(r)
	}}
	checkTraps(t, []trap{
		{"RSA for encryption", "JWT-24", backend{routes: set(&rsaKey().PublicKey, enc)}.handler(), nil, audit.Pass, 0},
		{"EC for encryption", "JWT-24", backend{routes: set(elliptic.private.Public(), enc)}.handler(), nil, audit.Pass, 0},
		{"RSA for anything", "JWT-24", backend{routes: set(&rsaKey().PublicKey, nil)}.handler(), nil, audit.Pass, 0},
		{"RSA for signatures", "JWT-24", backend{routes: set(&rsaKey().PublicKey, map[string]any{"use": "sig"})}.handler(), nil, audit.Inconclusive, 0},
		{"EC for signatures", "JWT-24", backend{routes: set(elliptic.private.Public(), map[string]any{"use": "sig"})}.handler(), nil, audit.Inconclusive, 0},
		{"no keys", "JWT-24", backend{}.handler(), nil, audit.Inconclusive, 0},
		{"believed", "JWT-24", opens.handler(), nil, audit.Fail, audit.Critical},
	})
}
