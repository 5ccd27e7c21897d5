package probes

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
	"github.com/gantryhq/gantry/audit/selftest"
	"github.com/gantryhq/gantry/internal/testenv"
)

// ruse is a server that could mislead a probe, and what the probe must say.
type ruse struct {
	name, probe string
	server      func(*selftest.API)                                     // changes the sound API; may be nil
	knobs       func(a *selftest.API, t *audit.Target, c *audit.Config) // may be nil
	want        audit.Outcome
	as          audit.Severity // of a failure
	says        string         // part of the message or the hint
}

func tryRuses(t *testing.T, ruses []ruse) {
	t.Helper()
	for _, tr := range ruses {
		t.Run(tr.probe+" "+tr.name, func(t *testing.T) {
			t.Parallel()
			f, _ := tr.run(t)
			if f.Outcome != tr.want || f.FailedAs != tr.as {
				t.Errorf("got %s %s (%s), want %s %s", f.Outcome, severityName(f.FailedAs), f.Message, tr.want, severityName(tr.as))
			}
			if !strings.Contains(f.Message+" "+f.Hint, tr.says) {
				t.Errorf("got message %q, hint %q; want %q in them", f.Message, f.Hint, tr.says)
			}
		})
	}
}

func severityName(s audit.Severity) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

// run audits the ruse and returns the finding and the whole report.
func (tr ruse) run(t *testing.T) (audit.Finding, audit.Report) {
	t.Helper()
	api := selftest.New()
	if tr.server != nil {
		tr.server(api)
	}
	url, stop, err := api.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	target, err := audit.ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	target.Token, target.ProtectedPaths = api.Token(nil), []string{"/me"}
	c := audit.Config{Active: true, Pace: 1000, Only: []string{tr.probe}, Policy: audit.Policy{Grace: 200 * time.Millisecond}}
	if tr.knobs != nil {
		tr.knobs(api, target, &c)
	}
	report, err := audit.Run(t.Context(), target, All(), c)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := report.Find(tr.probe)
	return f, report
}

// stagingKey tells the audit the key that signs.
func stagingKey(a *selftest.API, t *audit.Target, _ *audit.Config) {
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		panic(err)
	}
	t.JWTKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// keyAnd makes the given token of the claims, too.
func keyAnd(claims map[string]any) func(*selftest.API, *audit.Target, *audit.Config) {
	return func(a *selftest.API, t *audit.Target, c *audit.Config) {
		t.Token = a.Token(claims)
		stagingKey(a, t, c)
	}
}

// anyType is what a verifier sees that does not look at typ.
func anyType(t *jws.Token) { t.Header = jws.With(t.Header, map[string]any{"typ": "JWT"}) }

// seeing makes the API see every token as rewrite leaves it, signed again: the rest of its checks are the sound ones.
func seeing(rewrite func(*jws.Token)) func(*selftest.API) {
	return func(a *selftest.API) {
		sound := a.Identify
		a.Identify = func(r *http.Request) (map[string]any, error) {
			t, err := jws.Parse(selftest.Bearer(r))
			if err != nil {
				return nil, err
			}
			rewrite(&t)
			token, err := jws.Sign(t.Header, t.Payload, "RS256", a.Key)
			if err != nil {
				return nil, err
			}
			seen := r.Clone(r.Context())
			seen.Header.Set("Authorization", "Bearer "+token)
			return sound(seen)
		}
	}
}

// claim makes the API see a claim as value, whatever it is; when says for which tokens.
func claim(name string, value any, when func(payload []byte) bool) func(*selftest.API) {
	return seeing(func(t *jws.Token) {
		if when == nil || when(t.Payload) {
			t.Payload = jws.With(t.Payload, map[string]any{name: value})
		}
	})
}

// tolerates tokens that expired less than d ago.
func tolerates(d time.Duration) func(*selftest.API) {
	return claim("exp", time.Now().Add(time.Hour).Unix(), func(payload []byte) bool {
		exp, ok := instant(payload, "exp")
		return ok && time.Since(exp) < d
	})
}

// outer wraps the API's handler.
func outer(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(*selftest.API) {
	return func(a *selftest.API) {
		a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
		})
	}
}

// denied answers what the API refuses in another way.
func denied(how http.HandlerFunc) func(*selftest.API) {
	return func(a *selftest.API) {
		a.Routes["GET /me"] = func(w http.ResponseWriter, r *http.Request) {
			claims, err := a.Identify(r)
			if err != nil {
				how(w, r)
				return
			}
			selftest.Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com", "plan": "free"})
		}
	}
}

// afterRequests lets n requests with a token pass and then hands over to f.
func afterRequests(n int64, f http.HandlerFunc) func(*selftest.API) {
	var seen atomic.Int64
	return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") != "" && seen.Add(1) > n {
			f(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func gatewayDown(w http.ResponseWriter, _ *http.Request) { selftest.Refuse(w, 503, "no backend") }

func TestMintingProbesAreNotMisled(t *testing.T) {
	in200 := denied(func(w http.ResponseWriter, _ *http.Request) {
		selftest.Answer(w, 200, map[string]any{"ok": false, "error": map[string]any{"code": 16, "text": "unauthenticated"}})
	})
	in403 := denied(func(w http.ResponseWriter, _ *http.Request) { selftest.Refuse(w, 403, "no") })
	volatile := denied(func(w http.ResponseWriter, _ *http.Request) {
		selftest.Answer(w, 401, map[string]any{"error": "unauthorised", "request": rand.Text(), "at": time.Now().UnixNano()})
	})
	limited := func() func(*selftest.API) {
		var seen atomic.Int64
		return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if seen.Add(1) == 11 { // the first after calibration and control
				w.Header().Set("Retry-After", "1")
				selftest.Refuse(w, 429, "slow down")
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	var ruses []ruse
	for _, probe := range []string{"JWT-14", "JWT-15", "JWT-16", "JWT-17", "JWT-18", "JWT-19", "JWT-20", "JWT-21"} {
		ruses = append(
			ruses,
			ruse{name: "sound", probe: probe, knobs: stagingKey, want: audit.Pass},
			ruse{name: "errors inside 200", probe: probe, server: in200, knobs: stagingKey, want: audit.Pass},
			ruse{name: "403", probe: probe, server: in403, knobs: stagingKey, want: audit.Pass},
			ruse{name: "volatile errors", probe: probe, server: volatile, knobs: stagingKey, want: audit.Pass},
			ruse{name: "no key", probe: probe, want: audit.Inconclusive, says: "--jwt-key or --issuer-harness"},
			ruse{name: "the wrong key", probe: probe, knobs: strangersKey, want: audit.Inconclusive, says: "an untouched token minted with --jwt-key is not accepted (401)"},
			ruse{name: "goes down in between", probe: probe, server: afterRequests(7, hangUp), knobs: stagingKey, want: audit.Inconclusive},
			ruse{name: "gateway in between", probe: probe, server: afterRequests(7, gatewayDown), knobs: stagingKey, want: audit.Inconclusive},
			ruse{name: "token dies in between", probe: probe, server: afterRequests(7, func(w http.ResponseWriter, _ *http.Request) { selftest.Refuse(w, 401, "logged out") }), knobs: stagingKey, want: audit.Inconclusive, says: "control request"},
			ruse{name: "catch-all", probe: probe, server: outer(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				fmt.Fprint(w, "<!doctype html><title>app</title>")
			}), knobs: stagingKey, want: audit.Inconclusive, says: "answers the same"},
		)
	}
	ruses = append(ruses, ruse{name: "a limiter in between", probe: "JWT-18", server: limited(), knobs: stagingKey, want: audit.Pass})
	tryRuses(t, ruses)
}

func strangersKey(_ *selftest.API, t *audit.Target, _ *audit.Config) {
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	if err != nil {
		panic(err)
	}
	t.JWTKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestTimesOfTokensAreJudgedFairly(t *testing.T) {
	now := time.Now()
	aheadOfUs := func(a *selftest.API) { // the target's clock, and its issuer's, is an hour ahead
		seeing(func(t *jws.Token) {
			back := map[string]any{}
			for _, name := range []string{"exp", "iat", "nbf"} {
				if at, ok := instant(t.Payload, name); ok {
					back[name] = at.Add(-time.Hour).Unix()
				}
			}
			t.Payload = jws.With(t.Payload, back)
		})(a)
		outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			next.ServeHTTP(w, r)
		})(a)
	}
	aheadToken := keyAnd(map[string]any{"exp": now.Add(70 * time.Minute).Unix(), "iat": now.Add(time.Hour).Unix(), "nbf": now.Add(time.Hour).Unix()})
	given := func(token func(*selftest.API) string, key bool) func(*selftest.API, *audit.Target, *audit.Config) {
		return func(a *selftest.API, t *audit.Target, c *audit.Config) {
			t.TokenExpired = token(a)
			if key {
				stagingKey(a, t, c)
			}
		}
	}
	old := func(a *selftest.API) string { return a.Token(map[string]any{"exp": now.Add(-time.Hour).Unix()}) }
	alive := func(a *selftest.API) string { return a.Token(nil) }
	anyTime := claim("exp", now.Add(time.Hour).Unix(), nil)
	tryRuses(t, []ruse{
		{name: "two minutes of skew", probe: "JWT-14", server: tolerates(2 * time.Minute), knobs: stagingKey, want: audit.Pass, says: "more than 1m0s and less than 5m0s"},
		{name: "ten minutes of skew", probe: "JWT-14", server: tolerates(10 * time.Minute), knobs: stagingKey, want: audit.Fail, as: audit.Medium},
		{name: "a clock that is ahead", probe: "JWT-14", server: aheadOfUs, knobs: aheadToken, want: audit.Pass},
		{name: "a clock that is ahead", probe: "JWT-15", server: aheadOfUs, knobs: aheadToken, want: audit.Pass},
		{name: "the given expired token refused", probe: "JWT-14", knobs: given(old, false), want: audit.Pass, says: "the token given as expired"},
		{name: "the given expired token accepted", probe: "JWT-14", server: anyTime, knobs: given(old, false), want: audit.Fail, as: audit.Critical},
		{name: "the given expired token alive", probe: "JWT-14", knobs: given(alive, false), want: audit.Inconclusive},
		{name: "the valid token itself expired", probe: "JWT-14", server: anyTime, knobs: func(a *selftest.API, t *audit.Target, _ *audit.Config) { t.Token = old(a) }, want: audit.Fail, as: audit.Critical, says: "and is accepted"},
		{name: "iat in the future taken", probe: "JWT-15", server: claim("iat", now.Unix()-5, nil), knobs: stagingKey, want: audit.Pass, says: "no fault by itself: iat in a day"},
		{name: "two days", probe: "JWT-16", knobs: keyAnd(map[string]any{"exp": now.Add(48 * time.Hour).Unix()}), want: audit.Fail, as: audit.High, says: "lives 48h"},
		{name: "no exp in the given token", probe: "JWT-16", server: claim("exp", now.Add(time.Hour).Unix(), nil), knobs: keyAnd(map[string]any{"exp": nil}), want: audit.Fail, as: audit.High, says: "never ends"},
		{name: "no iat", probe: "JWT-16", server: claim("iat", now.Unix()-5, nil), knobs: keyAnd(map[string]any{"iat": nil, "nbf": nil}), want: audit.Inconclusive, says: "no iat"},
		{name: "an opaque token", probe: "JWT-16", server: opaqueTokens, knobs: opaqueToken, want: audit.Inconclusive, says: "not a JSON web token"},
	})
}

const opaque = "gtk_5f1c8a90b2d34e67"

func opaqueTokens(a *selftest.API) {
	a.Identify = func(r *http.Request) (map[string]any, error) {
		if selftest.Bearer(r) != opaque {
			return nil, jws.ErrOpaque
		}
		return map[string]any{"sub": "user_a"}, nil
	}
}

func opaqueToken(_ *selftest.API, t *audit.Target, _ *audit.Config) { t.Token = opaque }

func TestBindingIsJudgedByWhatBinds(t *testing.T) {
	byClient := func(a *selftest.API) { // tokens without aud, told apart by client_id, as Cognito has them
		seeing(func(t *jws.Token) {
			if jws.Member(t.Payload, "client_id") == "ours" {
				t.Payload = jws.With(t.Payload, map[string]any{"aud": a.Audience})
			}
		})(a)
	}
	clientToken := map[string]any{"aud": nil, "client_id": "ours"}
	other := func(claims map[string]any) func(*selftest.API, *audit.Target, *audit.Config) {
		return func(a *selftest.API, t *audit.Target, _ *audit.Config) { t.TokenOtherAudience = a.Token(claims) }
	}
	anyAudience := func(a *selftest.API) { claim("aud", a.Audience, nil)(a) }
	declared := func(a *selftest.API, t *audit.Target, c *audit.Config) {
		stagingKey(a, t, c)
		t.Declared = map[string]string{"JWT-17": "one key, one API"}
	}
	tryRuses(t, []ruse{
		{name: "azp ignored beside aud", probe: "JWT-17", knobs: keyAnd(map[string]any{"azp": "web"}), want: audit.Pass, says: "no fault by itself: azp"},
		{name: "client_id binds", probe: "JWT-17", server: byClient, knobs: keyAnd(clientToken), want: audit.Pass, says: "client_id"},
		{name: "nothing binds", probe: "JWT-17", server: anyAudience, knobs: keyAnd(clientToken), want: audit.Fail, as: audit.Critical, says: "client_id"},
		{name: "declared", probe: "JWT-17", server: anyAudience, knobs: declared, want: audit.NotApplicable, says: "one key, one API"},
		{name: "a real token of another", probe: "JWT-17", knobs: other(map[string]any{"aud": "billing"}), want: audit.Pass},
		{name: "a real token of another accepted", probe: "JWT-17", server: anyAudience, knobs: other(map[string]any{"aud": "billing"}), want: audit.Fail, as: audit.Critical},
		{name: "another's that is ours", probe: "JWT-17", knobs: other(map[string]any{"jti": "2"}), want: audit.Inconclusive},
		{name: "the final slash", probe: "JWT-18", server: func(a *selftest.API) {
			claim("iss", a.Issuer, func(payload []byte) bool { return jws.Member(payload, "iss") == a.Issuer+"/" })(a)
		}, knobs: stagingKey, want: audit.Fail, as: audit.Low, says: "final slash"},
		{name: "a prefix", probe: "JWT-18", server: func(a *selftest.API) {
			claim("iss", a.Issuer, func(payload []byte) bool { return strings.HasPrefix(jws.Member(payload, "iss"), a.Issuer) })(a)
		}, knobs: stagingKey, want: audit.Fail, as: audit.Critical, says: "host name appended"},
		{name: "an ID token accepted", probe: "JWT-19", knobs: func(a *selftest.API, t *audit.Target, _ *audit.Config) {
			t.IDToken = a.Token(map[string]any{"nonce": "n"})
		}, want: audit.Fail, as: audit.High, says: "the ID token"},
		{name: "an expired ID token", probe: "JWT-19", knobs: func(a *selftest.API, t *audit.Target, _ *audit.Config) {
			t.IDToken = a.Token(map[string]any{"exp": 1})
		}, want: audit.Inconclusive},
		{name: "a refresh token by its claim", probe: "JWT-19", knobs: keyAnd(map[string]any{"token_type": "access"}), want: audit.Fail, as: audit.High, says: "token_type says refresh"},
		{name: "an issuer that types nothing", probe: "JWT-19", server: seeing(anyType), knobs: stagingKey, want: audit.Fail, as: audit.Medium, says: "logout+jwt"},
		{name: "a refresh token where nothing is typed", probe: "JWT-19", server: seeing(anyType), knobs: keyAnd(map[string]any{"token_type": "access"}), want: audit.Fail, as: audit.High, says: "token_type says refresh"},
		{name: "a duplicate shown", probe: "JWT-21", server: seeing(func(t *jws.Token) { t.Payload = jws.With(t.Payload, nil) }), knobs: stagingKey, want: audit.Fail, as: audit.Medium, says: "the last value wins"},
	})
}

func TestOversizedTokensAreJudgedByWhatTheyDo(t *testing.T) {
	roomy := func(f http.HandlerFunc) func(*selftest.API) {
		return func(a *selftest.API) {
			a.Serve = func(ln net.Listener, h http.Handler) {
				s := &http.Server{MaxHeaderBytes: 4 << 20, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if len(r.Header.Get("Authorization")) > 20<<10 && f != nil {
						f(w, r)
						return
					}
					h.ServeHTTP(w, r)
				})}
				a.OnClose(func() { s.Close() })
				s.Serve(ln)
			}
		}
	}
	tryRuses(t, []ruse{
		{name: "read and refused", probe: "JWT-22", server: roomy(nil), want: audit.Pass, says: "1024 kB are read and answered 401"},
		{name: "413", probe: "JWT-22", server: roomy(func(w http.ResponseWriter, _ *http.Request) { selftest.Refuse(w, 413, "too long") }), want: audit.Pass, says: "64 kB are refused for their size (413)"},
		{name: "connection closed", probe: "JWT-22", server: roomy(hangUp), want: audit.Pass, says: "connection closed"},
		{name: "another hop", probe: "JWT-22", server: roomy(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "edge")
			w.WriteHeader(502)
		}), want: audit.Inconclusive, says: "another hop"},
		{name: "crash", probe: "JWT-22", server: roomy(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), want: audit.Fail, as: audit.High},
	})
}

func TestCheapRequestsMustNotWaitForOversizedTokens(t *testing.T) {
	var one sync.Mutex // a server that does one thing at a time
	slow := func(a *selftest.API) {
		a.Serve = func(ln net.Listener, h http.Handler) {
			s := &http.Server{MaxHeaderBytes: 4 << 20, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				one.Lock()
				defer one.Unlock()
				if token, err := jws.Parse(selftest.Bearer(r)); err == nil && strings.Count(string(token.Payload), "[") > 1000 {
					time.Sleep(120 * time.Millisecond) // the work of a parser that copies what is left at every level
				}
				h.ServeHTTP(w, r)
			})}
			a.OnClose(func() { s.Close() })
			s.Serve(ln)
		}
	}
	f, _ := ruse{probe: "JWT-22", server: slow}.run(t)
	if f.Outcome != audit.Fail || f.FailedAs != audit.High || !strings.Contains(f.Message, "a cheap request takes") {
		t.Errorf("got %s (%s), want a high failure about cheap requests", f.Outcome, f.Message)
	}
}

func TestEncryptedTokensAreJudgedByTheirWork(t *testing.T) {
	encryptedTo := func(f http.HandlerFunc) func(*selftest.API) {
		return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.Count(r.Header.Get("Authorization"), ".") == 4 {
				f(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	tryRuses(t, []ruse{
		{name: "refused", probe: "JWT-23", want: audit.Pass},
		{name: "5xx", probe: "JWT-23", server: encryptedTo(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), want: audit.Fail, as: audit.High},
		{name: "slow for all alike", probe: "JWT-23", server: encryptedTo(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(30 * time.Millisecond)
			selftest.Refuse(w, 401, "no")
		}), want: audit.Pass},
		{name: "closes on the long one", probe: "JWT-23", server: func(a *selftest.API) {
			forEncryption(a)
			encryptedTo(func(w http.ResponseWriter, r *http.Request) {
				if len(r.Header.Get("Authorization")) > 8<<10 {
					hangUp(w, r)
				}
				selftest.Refuse(w, 401, "no")
			})(a)
		}, want: audit.Pass, says: "compressed plaintext: "},
		{name: "inflates all that comes", probe: "JWT-23", server: func(a *selftest.API) {
			forEncryption(a)
			roomyServer(a)
			encryptedTo(func(w http.ResponseWriter, r *http.Request) {
				if len(r.Header.Get("Authorization")) > 8<<10 { // it runs out of memory
					w.WriteHeader(500)
					return
				}
				selftest.Refuse(w, 401, "no")
			})(a)
		}, want: audit.Fail, as: audit.High},
		{name: "goes down", probe: "JWT-23", server: afterRequests(7, hangUp), want: audit.Inconclusive},
	})
}

// forEncryption publishes a key that may encrypt.
func forEncryption(a *selftest.API) {
	a.Routes["GET /.well-known/jwks.json"] = func(w http.ResponseWriter, _ *http.Request) {
		jwk, err := audit.JWK(&a.Key.PublicKey)
		if err != nil {
			panic(err)
		}
		jwk["kid"], jwk["use"] = "enc-1", "enc"
		selftest.Answer(w, 200, map[string]any{"keys": []any{jwk}})
	}
}

// roomyServer takes headers of megabytes.
func roomyServer(a *selftest.API) {
	a.Serve = func(ln net.Listener, h http.Handler) {
		s := &http.Server{MaxHeaderBytes: 4 << 20, ReadHeaderTimeout: time.Second, Handler: h}
		a.OnClose(func() { s.Close() })
		s.Serve(ln)
	}
}

func TestAZipBombOpensElsewhere(t *testing.T) {
	const size = 200 << 10 // an independent library stops at 250 kB
	token, err := zipped(&rsaKey().PublicKey, "enc-1", size)
	if err != nil {
		t.Fatal(err)
	}
	object, err := jose.ParseEncryptedCompact(token, []jose.KeyAlgorithm{jose.RSA_OAEP_256}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := object.Decrypt(rsaKey())
	if err != nil || len(plain) != size || len(token) > 4<<10 {
		t.Errorf("%d bytes of token give %d of plaintext (%v), want %d from less than 4 kB", len(token), len(plain), err, size)
	}
}

func TestTokensOfAnAPIThatIssuesItsOwnBindNothing(t *testing.T) {
	const secret = "a secret of forty characters and a few more"
	own := func(a *selftest.API) {
		a.Identify = func(r *http.Request) (map[string]any, error) {
			token, err := jws.Parse(selftest.Bearer(r))
			if err != nil || !signs([]byte(secret), token) {
				return nil, jws.ErrOpaque
			}
			return token.Claims()
		}
	}
	with := func(payload string) func(*selftest.API, *audit.Target, *audit.Config) {
		return func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
			token, err := jws.Sign([]byte(`{"alg":"HS256"}`), []byte(payload), "HS256", []byte(secret))
			if err != nil {
				panic(err)
			}
			t.Token, t.JWTKey = token, secret
		}
	}
	const nameless, named = `{"sub":"user_a","exp":4102444800}`, `{"sub":"user_a","exp":4102444800,"aud":"orders","iss":"accounts"}`
	tryRuses(t, []ruse{
		{name: "nameless", probe: "JWT-17", server: own, knobs: with(nameless), want: audit.Inconclusive, says: "alone holds it"},
		{name: "nameless", probe: "JWT-18", server: own, knobs: with(nameless), want: audit.Inconclusive, says: "alone holds it"},
		{name: "named, and not looked at", probe: "JWT-17", server: own, knobs: with(named), want: audit.Fail, as: audit.Critical},
		{name: "named, and not looked at", probe: "JWT-18", server: own, knobs: with(named), want: audit.Fail, as: audit.Critical},
	})
}

func TestKnownSecretsAreFoundAndNeverTold(t *testing.T) {
	const secret = "your-256-bit-secret"
	hs := func(a *selftest.API) {
		a.Identify = func(r *http.Request) (map[string]any, error) {
			token, err := jws.Parse(selftest.Bearer(r))
			if err != nil || !signs([]byte(secret), token) {
				return nil, jws.ErrOpaque
			}
			return token.Claims()
		}
	}
	signed := func(a *selftest.API, t *audit.Target, _ *audit.Config) {
		genuine, err := jws.Parse(a.Token(nil))
		if err != nil {
			panic(err)
		}
		t.Token, err = jws.Sign([]byte(`{"alg":"HS256"}`), genuine.Payload, "HS256", []byte(secret))
		if err != nil {
			panic(err)
		}
	}
	allowList := func(a *selftest.API) { // only the very tokens it has issued
		hs(a)
		inner, first := a.Identify, atomic.Pointer[string]{}
		a.Identify = func(r *http.Request) (map[string]any, error) {
			claims, err := inner(r)
			token := selftest.Bearer(r)
			if err == nil && !first.CompareAndSwap(nil, &token) && *first.Load() != token {
				return nil, jws.ErrOpaque
			}
			return claims, err
		}
	}
	everybody := func(a *selftest.API) {
		a.Identify = func(*http.Request) (map[string]any, error) { return map[string]any{"sub": "x"}, nil }
	}
	tryRuses(t, []ruse{
		{name: "RS256", probe: "JWT-06", want: audit.NotApplicable, says: "RS256"},
		{name: "opaque", probe: "JWT-06", server: opaqueTokens, knobs: opaqueToken, want: audit.Inconclusive},
		{name: "nobody looks at the token", probe: "JWT-06", server: everybody, knobs: signed, want: audit.Inconclusive, says: "was not seen to accept it"},
		{name: "fresh tokens refused", probe: "JWT-06", server: allowList, knobs: signed, want: audit.Fail, as: audit.High},
	})
	f, report := ruse{probe: "JWT-06", server: hs, knobs: signed}.run(t)
	if f.Outcome != audit.Fail || f.FailedAs != audit.Critical {
		t.Errorf("got %s (%s), want a critical failure", f.Outcome, f.Message)
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, tell := range []string{secret, audit.Fingerprint(secret)} {
		if strings.Contains(string(text), tell) {
			t.Errorf("the report tells the secret: %q", tell)
		}
	}
}

func TestASecretThatWasFoundMintsForTheOthers(t *testing.T) {
	tr := ruse{probe: "JWT-18", server: func(a *selftest.API) {
		a.Identify = func(r *http.Request) (map[string]any, error) {
			token, err := jws.Parse(selftest.Bearer(r))
			if err != nil || !signs([]byte("changeme"), token) {
				return nil, jws.ErrOpaque
			}
			return token.Claims()
		}
	}, knobs: func(a *selftest.API, t *audit.Target, c *audit.Config) {
		genuine, err := jws.Parse(a.Token(nil))
		if err != nil {
			panic(err)
		}
		t.Token, err = jws.Sign([]byte(`{"alg":"HS512"}`), genuine.Payload, "HS512", []byte("changeme"))
		if err != nil {
			panic(err)
		}
		c.Only = append(c.Only, "JWT-06")
	}}
	if f, _ := tr.run(t); f.Outcome != audit.Fail || f.FailedAs != audit.Critical {
		t.Errorf("got %s (%s), want a critical failure", f.Outcome, f.Message)
	}
}

func TestKeySetsGiveNothingAway(t *testing.T) {
	serves := func(document any) func(*selftest.API) {
		return func(a *selftest.API) {
			a.Routes["GET /.well-known/jwks.json"] = func(w http.ResponseWriter, _ *http.Request) { selftest.Answer(w, 200, document) }
		}
	}
	key := func(members map[string]any) map[string]any {
		jwk, err := audit.JWK(&rsaKey().PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range members {
			jwk[k] = v
		}
		return jwk
	}
	set := func(keys ...map[string]any) map[string]any { return map[string]any{"keys": keys} }
	short := key(map[string]any{"kid": "1", "n": jws.Encode(rsaKey().N.Bytes()[:128])})
	elliptic := map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": jws.Encode(make([]byte, 32))}
	hmacToken := func(a *selftest.API, t *audit.Target, _ *audit.Config) {
		genuine, _ := jws.Parse(a.Token(nil))
		t.Token, _ = jws.Sign([]byte(`{"alg":"HS256"}`), genuine.Payload, "HS256", []byte(rand.Text()))
	}
	tryRuses(t, []ruse{
		{name: "short key", probe: "JWT-28", server: serves(set(short)), want: audit.Fail, as: audit.Medium, says: "1024 bits"},
		{name: "same kid", probe: "JWT-28", server: serves(set(key(map[string]any{"kid": "1"}), key(map[string]any{"kid": "1"}))), want: audit.Fail, as: audit.Medium, says: "stands twice"},
		{name: "same kid of two types", probe: "JWT-28", server: serves(set(key(map[string]any{"kid": "1"}), elliptic)), want: audit.Pass},
		{name: "shared secret", probe: "JWT-28", server: serves(set(map[string]any{"kty": "oct", "kid": "1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"})), want: audit.Fail, as: audit.Critical},
		{name: "nothing readable", probe: "JWT-28", server: serves(set(map[string]any{"kty": "XX", "kid": "1"})), want: audit.Inconclusive},
		{name: "no key set", probe: "JWT-28", server: func(a *selftest.API) { delete(a.Routes, "GET /.well-known/jwks.json") }, want: audit.Inconclusive, says: "--jwks"},
		{name: "no key set, HMAC", probe: "JWT-28", server: func(a *selftest.API) { delete(a.Routes, "GET /.well-known/jwks.json") }, knobs: hmacToken, want: audit.NotApplicable},
	})
	private := jws.Encode(rsaKey().D.Bytes())
	f, report := ruse{probe: "JWT-28", server: serves(set(key(map[string]any{"kid": "1", "d": private})))}.run(t)
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if f.Outcome != audit.Fail || strings.Contains(string(text), private[:100]) {
		t.Errorf("got %s; the private exponent is in the report: %t", f.Outcome, strings.Contains(string(text), private[:100]))
	}
}

func TestEndedSessionsAreJudgedWithOneOfTheirOwn(t *testing.T) {
	sessions := func(logOut func(w http.ResponseWriter, end func())) func(*selftest.API) {
		return func(a *selftest.API) {
			var ended sync.Map
			sound := a.Identify
			a.Identify = func(r *http.Request) (map[string]any, error) {
				if _, gone := ended.Load(selftest.Bearer(r)); gone {
					return nil, jws.ErrOpaque
				}
				return sound(r)
			}
			a.Routes["POST /login"] = func(w http.ResponseWriter, _ *http.Request) {
				selftest.Answer(w, 200, map[string]any{"data": map[string]any{"token": a.Token(map[string]any{"jti": rand.Text()})}})
			}
			a.Routes["POST /logout"] = func(w http.ResponseWriter, r *http.Request) {
				token := selftest.Bearer(r)
				logOut(w, func() { ended.Store(token, true) })
			}
		}
	}
	recipes := func(_ *selftest.API, t *audit.Target, _ *audit.Config) {
		t.Recipes = map[string]audit.Recipe{
			"login": {Method: "POST", Path: "/login", Body: `{"user":"{{marker}}"}`, Field: "data.token"}, "logout": {Path: "/logout"},
		}
	}
	declared := func(a *selftest.API, t *audit.Target, c *audit.Config) {
		recipes(a, t, c)
		t.Declared = map[string]string{"JWT-29": "tokens live a minute"}
	}
	tryRuses(t, []ruse{
		{name: "no recipe", probe: "JWT-29", want: audit.Inconclusive, says: "audit.recipes.logout"},
		{name: "at once", probe: "JWT-29", server: sessions(func(w http.ResponseWriter, end func()) { end(); w.WriteHeader(204) }), knobs: recipes, want: audit.Pass},
		{name: "a moment later", probe: "JWT-29", server: sessions(func(w http.ResponseWriter, end func()) {
			time.AfterFunc(100*time.Millisecond, end)
			w.WriteHeader(204)
		}), knobs: recipes, want: audit.Pass},
		{name: "never", probe: "JWT-29", server: sessions(func(w http.ResponseWriter, _ func()) { w.WriteHeader(204) }), knobs: recipes, want: audit.Fail, as: audit.High},
		{name: "never, declared", probe: "JWT-29", server: sessions(func(w http.ResponseWriter, _ func()) { w.WriteHeader(204) }), knobs: declared, want: audit.NotApplicable},
		{name: "log-out fails", probe: "JWT-29", server: sessions(func(w http.ResponseWriter, _ func()) { w.WriteHeader(500) }), knobs: recipes, want: audit.Inconclusive},
	})
}

// trusting makes an API that trusts one issuer, and fetches its keys by need.
func trusting(issuer string) func(*selftest.API) {
	return func(a *selftest.API) {
		a.Identify = func(r *http.Request) (map[string]any, error) {
			token, err := jws.Parse(selftest.Bearer(r))
			if err != nil {
				return nil, err
			}
			res, err := http.Get(issuer + "/.well-known/jwks.json")
			if err != nil {
				return nil, err
			}
			defer res.Body.Close()
			document, err := io.ReadAll(res.Body)
			if err != nil {
				return nil, err
			}
			input, _, _ := cutLast(token.Raw, ".")
			digest := sha256.Sum256([]byte(input))
			for _, k := range parseKeys(document) {
				public, ok := k.Public.(*rsa.PublicKey)
				if ok && k.Kid == token.Kid() && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], token.Signature) == nil {
					return bound(token, issuer)
				}
			}
			return nil, jws.ErrOpaque
		}
	}
}

// bound checks audience and issuer, and forgets exp.
func bound(token jws.Token, issuer string) (map[string]any, error) {
	claims, err := token.Claims()
	if err != nil || claims["iss"] != issuer || claims["aud"] != "api" {
		return nil, jws.ErrOpaque
	}
	return claims, nil
}

func TestTheHarnessMintsWhereThereIsNoKey(t *testing.T) {
	for probe, want := range map[string]audit.Outcome{"JWT-14": audit.Fail, "JWT-16": audit.Fail, "JWT-17": audit.Pass, "JWT-18": audit.Pass} {
		addr := testenv.FreeAddress(t)
		f, _ := ruse{probe: probe, server: trusting("http://" + addr), knobs: func(_ *selftest.API, t *audit.Target, c *audit.Config) {
			t.Token, c.Harness, c.Claims = "", addr, map[string]any{"aud": "api"}
		}}.run(t)
		if f.Outcome != want {
			t.Errorf("%s: got %s (%s), want %s", probe, f.Outcome, f.Message, want)
		}
	}
}
