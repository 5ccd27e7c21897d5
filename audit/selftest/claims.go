package selftest

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func claimCases() []Case {
	return []Case{
		{Probe: "JWT-06", Prepare: sharedSecret(rand.Text()), Break: sharedSecret("your-256-bit-secret"), Knobs: sharedToken},
		{Probe: "JWT-14", Knobs: stagingKey, Break: forgives("exp", func(a *API) any { return time.Now().Unix() + 60 })},
		{Probe: "JWT-15", Knobs: stagingKey, Break: forgives("nbf", func(*API) any { return nil })},
		{Probe: "JWT-16", Knobs: stagingKey, Break: func(a *API) {
			a.Identify = a.lax(func(t *jws.Token) {
				if !jws.Has(t.Payload, "exp") { // what is missing is not checked, as several libraries have it
					t.Payload = jws.With(t.Payload, map[string]any{"exp": time.Now().Unix() + 60})
				}
			})
		}},
		{Probe: "JWT-17", Knobs: stagingKey, Break: forgives("aud", func(a *API) any { return a.Audience })},
		{Probe: "JWT-18", Knobs: stagingKey, Break: forgives("iss", func(a *API) any { return a.Issuer })},
		{Probe: "JWT-19", Break: func(a *API) { // any token that the issuer signed will do
			a.Identify = a.lax(func(t *jws.Token) { t.Header = jws.With(t.Header, map[string]any{"typ": "JWT"}) })
		}, Knobs: stagingKey},
		{Probe: "JWT-20", Break: func(a *API) { // the library does not know crit
			a.Identify = a.lax(func(t *jws.Token) { t.Header = jws.With(t.Header, map[string]any{"crit": nil}) })
		}, Knobs: stagingKey},
		{Probe: "JWT-21", Break: func(a *API) { // the decoder lets the last value win
			a.Identify = a.lax(func(t *jws.Token) { t.Header, t.Payload = jws.With(t.Header, nil), jws.With(t.Payload, nil) })
		}, Knobs: stagingKey},
		{Probe: "JWT-22", Break: longTokensCrash},
		{Probe: "JWT-23", Break: passwordTokens, Alone: true},
		{Probe: "JWT-28", Break: func(a *API) { a.Routes["GET /.well-known/jwks.json"] = a.privateJWKS }},
		{Probe: "JWT-29", Prepare: sessions(true), Break: sessions(false), Knobs: sessionRecipes},
	}
}

// stagingKey gives the audit the API's own key.
func stagingKey(_ string, a *API, t *audit.Target, _ *audit.Config) {
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		panic(err) // a key of our own making
	}
	t.JWTKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// lax is the sound identity, but for what forgive does to a token after its signature was verified.
func (a *API) lax(forgive func(*jws.Token)) func(*http.Request) (map[string]any, error) {
	return func(r *http.Request) (map[string]any, error) {
		t, err := jws.Parse(Bearer(r))
		if err != nil || !a.signed(t) {
			return nil, errToken
		}
		forgive(&t)
		if !StrictHeader(t.Header) {
			return nil, errToken
		}
		return a.checkClaims(t)
	}
}

// forgives one claim, whatever it says: it is judged as if it said value.
func forgives(claim string, value func(*API) any) func(*API) {
	return func(a *API) {
		a.Identify = a.lax(func(t *jws.Token) { t.Payload = jws.With(t.Payload, map[string]any{claim: value(a)}) })
	}
}

// sharedSecret makes an API of the kind that signs its own tokens with HMAC.
func sharedSecret(secret string) func(*API) {
	return func(a *API) {
		a.Secret = []byte(secret)
		a.Identify = func(r *http.Request) (map[string]any, error) {
			t, err := jws.Parse(Bearer(r))
			if err != nil || jws.Member(t.Header, "alg") != "HS256" {
				return nil, errToken
			}
			input := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
			if !hmac.Equal(jws.HS256(a.Secret, []byte(input)), t.Signature) {
				return nil, errToken
			}
			return a.checkClaims(t)
		}
	}
}

func sharedToken(_ string, a *API, t *audit.Target, _ *audit.Config) {
	genuine, err := jws.Parse(a.Token(nil))
	if err != nil {
		panic(err) // a token of our own making
	}
	t.Token, err = jws.Sign([]byte(`{"alg":"HS256","typ":"JWT"}`), genuine.Payload, "HS256", a.Secret)
	if err != nil {
		panic(err)
	}
}

// longTokensCrash has raised the limit of headers for one client, and writes tokens to a column that is too short.
func longTokensCrash(a *API) {
	a.Serve = func(ln net.Listener, h http.Handler) {
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second, MaxHeaderBytes: 4 << 20}
		a.OnClose(func() { s.Close() })
		s.Serve(ln)
	}
	a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header.Get("Authorization")) > 32<<10 {
				Refuse(w, 500, "value too long for type character varying(32768)")
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

// passwordTokens derives the key of every encrypted token that comes, once for each password that the service
// has ever had, with as many rounds as the stranger likes.
func passwordTokens(a *API) {
	a.Identify = func(r *http.Request) (map[string]any, error) {
		header, _, _ := strings.Cut(Bearer(r), ".")
		text, err := base64.RawURLEncoding.DecodeString(header)
		var h struct {
			Alg string `json:"alg"`
			P2C int    `json:"p2c"`
			P2S string `json:"p2s"`
		}
		if err == nil && json.Unmarshal(text, &h) == nil && strings.HasPrefix(h.Alg, "PBES2") {
			for range 6 {
				if _, err := pbkdf2.Key(sha256.New, "a password", []byte(h.Alg+"\x00"+h.P2S), h.P2C, 16); err != nil {
					return nil, err
				}
			}
			return nil, errToken
		}
		return a.verified(r)
	}
	a.Serve = func(ln net.Listener, h http.Handler) {
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		a.OnClose(func() { s.Close() })
		s.Serve(ln)
	}
}

// privateJWKS exports the whole key where the public part was meant.
func (a *API) privateJWKS(w http.ResponseWriter, _ *http.Request) {
	jwk, err := audit.JWK(&a.Key.PublicKey)
	if err != nil {
		Refuse(w, 500, "no key")
		return
	}
	jwk["kid"], jwk["use"], jwk["alg"] = keyID, "sig", "RS256"
	jwk["d"] = jws.Encode(a.Key.D.Bytes())
	Answer(w, 200, map[string]any{"keys": []any{jwk}})
}

// sessions can be begun and ended. The faulty API's log-out only tells the browser to forget.
func sessions(revokes bool) func(*API) {
	return func(a *API) {
		var mu sync.Mutex
		ended := map[any]bool{}
		a.Routes["POST /login"] = func(w http.ResponseWriter, _ *http.Request) {
			Answer(w, 200, map[string]any{"access_token": a.Token(map[string]any{"jti": rand.Text()})})
		}
		a.Identify = func(r *http.Request) (map[string]any, error) {
			claims, err := a.verified(r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || ended[claims["jti"]] {
				return nil, errToken
			}
			return claims, nil
		}
		a.Routes["POST /logout"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
			if revokes {
				mu.Lock()
				ended[claims["jti"]] = true
				mu.Unlock()
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
}

func sessionRecipes(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Recipes = map[string]audit.Recipe{"login": {Method: "POST", Path: "/login"}, "logout": {Method: "POST", Path: "/logout"}}
}
