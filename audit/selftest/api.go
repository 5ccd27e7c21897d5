package selftest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// API is a small, sound JSON API that a case takes apart. Every part that a fault touches is a field or a route.
type API struct {
	Scheme string // http, or https with a Serve that speaks it
	// Identify says who calls, or why not. The sound one wants an RS256 token of this API's issuer.
	Identify func(*http.Request) (map[string]any, error)
	// Routes by pattern of net/http; a case adds and replaces.
	Routes map[string]http.HandlerFunc
	// Outer wraps the whole, the first outermost.
	Outer []func(http.Handler) http.Handler
	// Serve answers on the listener until Close.
	Serve func(net.Listener, http.Handler)

	LogFile string // where the API logs; empty when it does not

	Issuer, Audience string
	Key              *rsa.PrivateKey
	Secret           []byte // of the cases whose tokens are signed with HMAC
	// Notes that Prepare and Break leave for Knobs.
	Notes map[string]string

	mu      sync.Mutex
	dir     string // of the levers
	closers []func()
	closed  bool
}

// key is made once a process: making one takes longer than most cases.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the system has no randomness
	}
	return k
})

const keyID = "sound-1"

// New API, sound.
func New() *API {
	a := &API{Scheme: "http", Issuer: "https://issuer.example", Audience: "api", Key: key(), Routes: map[string]http.HandlerFunc{}, Notes: map[string]string{}}
	a.Identify = a.verified
	a.Serve = a.serve
	a.Routes["GET /me"] = a.Private(func(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
		Answer(w, 200, map[string]any{"id": claims["sub"], "email": "a@example.com", "plan": "free"})
	})
	for _, path := range []string{"/health", "/livez", "/readyz"} {
		a.Routes["GET "+path] = func(w http.ResponseWriter, _ *http.Request) { Answer(w, 200, map[string]any{"status": "ok"}) }
	}
	a.Routes["/"] = func(w http.ResponseWriter, _ *http.Request) { Refuse(w, 404, "there is nothing here") }
	a.Routes["GET /.well-known/jwks.json"] = a.jwks
	return a
}

// Handler of the whole API.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range a.Routes {
		mux.HandleFunc(pattern, h)
	}
	var h http.Handler = mux
	for i := len(a.Outer) - 1; i >= 0; i-- {
		h = a.Outer[i](h)
	}
	return h
}

// OnClose registers what must end with the API.
func (a *API) OnClose(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		f()
		return
	}
	a.closers = append(a.closers, f)
}

// Close ends it.
func (a *API) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, f := range a.closers {
		f()
	}
	a.closers = nil
}

// Private wraps a handler that needs a caller.
func (a *API) Private(h func(http.ResponseWriter, *http.Request, map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		claims, err := a.Identify(r)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			Refuse(w, 401, "the token is missing or not valid")
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		h(w, r, claims)
	}
}

// Answer in JSON.
func Answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// Refuse with problem+json (RFC 9457).
func Refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}

// Token that the API takes for genuine, with claims replaced (nil removes one).
func (a *API) Token(claims map[string]any) string {
	now := time.Now().Unix()
	base := []byte(`{}`)
	all := map[string]any{
		"iss": a.Issuer, "aud": a.Audience, "sub": "user_a", "iat": now - 10, "nbf": now - 10, "exp": now + 600, "plan": "free",
	}
	for k, v := range claims {
		all[k] = v
	}
	token, err := jws.Sign([]byte(`{"alg":"RS256","typ":"JWT","kid":"`+keyID+`"}`), jws.With(base, all), "RS256", a.Key)
	if err != nil {
		panic(err) // a key of our own making
	}
	return token
}

// Bearer token of a request; empty when there is not exactly one.
func Bearer(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || strings.ContainsAny(token, " ,") {
		return ""
	}
	return token
}

var errToken = errors.New("not a valid token")

// verified is the sound identity: signature, algorithm, key, issuer, audience and times, all required.
func (a *API) verified(r *http.Request) (map[string]any, error) {
	raw := Bearer(r)
	if len(raw) > 8<<10 {
		return nil, errToken
	}
	t, err := jws.Parse(raw)
	if err != nil || jws.Compact(t.Header, t.Payload, t.Signature) != raw || !StrictHeader(t.Header) {
		return nil, errToken
	}
	if !a.signed(t) {
		return nil, errToken
	}
	return a.checkClaims(t)
}

// StrictHeader wants RS256, the one key, no crit, and no member twice.
func StrictHeader(header []byte) bool {
	return jws.Member(header, "alg") == "RS256" && jws.Member(header, "kid") == keyID && jws.Member(header, "typ") != "logout+jwt" &&
		!jws.Has(header, "crit") && !Duplicates(header)
}

// Duplicates says whether a JSON object has a member twice.
func Duplicates(object []byte) bool {
	d := json.NewDecoder(strings.NewReader(string(object)))
	seen := map[string]bool{}
	if _, err := d.Token(); err != nil {
		return true
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return true
		}
		text, _ := name.(string)
		if seen[text] {
			return true
		}
		seen[text] = true
	}
	return false
}

func (a *API) signed(t jws.Token) bool {
	input := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	sum := sha256.Sum256([]byte(input))
	return rsa.VerifyPKCS1v15(&a.Key.PublicKey, crypto.SHA256, sum[:], t.Signature) == nil
}

func (a *API) checkClaims(t jws.Token) (map[string]any, error) {
	claims, err := t.Claims()
	if err != nil || Duplicates(t.Payload) {
		return nil, errToken
	}
	now := time.Now().Unix()
	exp, nbf, iat := Number(claims, "exp"), Number(claims, "nbf"), Number(claims, "iat")
	switch {
	case claims["iss"] != a.Issuer, claims["aud"] != a.Audience, claims["sub"] == nil,
		exp == 0 || exp+30 < now, nbf > now+30, iat == 0 || iat > now+30:
		return nil, errToken
	}
	return claims, nil
}

// Number is a claim as whole seconds; 0 when absent or of another type.
func Number(claims map[string]any, name string) int64 {
	n, ok := claims[name].(json.Number)
	if !ok {
		return 0
	}
	v, err := n.Int64()
	if err != nil {
		return 0
	}
	return v
}

func (a *API) jwks(w http.ResponseWriter, _ *http.Request) {
	jwk, err := audit.JWK(&a.Key.PublicKey)
	if err != nil {
		Refuse(w, 500, "no key")
		return
	}
	jwk["kid"], jwk["use"], jwk["alg"] = keyID, "sig", "RS256"
	Answer(w, 200, map[string]any{"keys": []any{jwk}})
}
