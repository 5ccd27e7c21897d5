package probes

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func cookieSecret() []audit.Probe {
	return []audit.Probe{
		{
			ID: "CFG-03", Title: "Known framework secret behind signed cookies", Severity: audit.Critical, Mode: audit.Passive,
			Category: audit.Configuration, Root: secretRoot, Confirms: true,
			Sends:        "nothing: the cookies that the target has set are tried with known secrets as Django, Flask, Starlette, Rails, Laravel, Express and JSON web token cookies",
			Passes:       "none of them signed a cookie",
			Fails:        "one did",
			Inconclusive: "cookies were set and none has a signature that is known. A target that knows its callers by their token and sets no cookie has none to judge: not applicable",
			Guard:        "a fit is a whole MAC, so it is no accident; the secret is never printed, and nothing is forged with it",
			Refs:         []string{"CWE-798", "Django security.W009"},
			Why:          "Whoever has read the template makes session cookies of any user; with some serialisers that is code execution.",
			Fix:          "A random key from the secret store, and no default in the code.",
			Run:          knownCookieSecret,
		},
	}
}

// signedCookie is a cookie in one reading, and what verifies it.
type signedCookie struct {
	cookie, format string
	slow           bool // a key is derived on purpose slowly: only published secrets are tried
	fits           func(key []byte) bool
}

const maxCookies = 60

// crack tries the guesses, or the known secrets alone where each costs a millisecond.
func (c signedCookie) crack(guesses []string) (secret string, found bool) {
	if !c.slow {
		_, secret, found = crack(guesses, c.fits)
		return secret, found
	}
	for _, secret := range knownList() {
		if c.fits([]byte(secret)) {
			return secret, true
		}
	}
	return "", false
}

func knownCookieSecret(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	cookies, setter := cookiesSet(s)
	if len(cookies) == 0 {
		if c := s.Calibration(); c.Tells {
			return audit.DoesNotApply("callers are known by their token, and none of %d answers set a cookie", len(s.History())), nil
		}
		return audit.Unproven("no cookie was set"), nil
	}
	signed := signatures(cookies)
	if len(signed) == 0 {
		return audit.Unproven("none of the %d cookies has a signature of a known format", len(cookies)).With(setter[cookies[0].Name]), nil
	}
	list := guesses()
	names := map[string]bool{}
	for _, f := range signed {
		if ctx.Err() != nil {
			return audit.Verdict{}, ctx.Err()
		}
		if secret, found := f.crack(list); found {
			hideFound(s, secret)
			return audit.Failed("the cookie %q is signed with a known secret (%s; %s)", f.cookie, f.format, nameless(s, secret)).With(setter[f.cookie]), nil
		}
		names[f.cookie] = true
	}
	return audit.Passed("none of %d known secrets made the %d signed cookies", len(list), len(names)).With(setter[signed[0].cookie]), nil
}

// cookiesSet by the target so far, the first of each name, and who set it. More of one name would be signed alike.
func cookiesSet(s *audit.Session) ([]*http.Cookie, map[string]*audit.Exchange) {
	var list []*http.Cookie
	setter := map[string]*audit.Exchange{}
	for _, x := range s.History() {
		for _, line := range x.Header.Values("Set-Cookie") {
			c, err := http.ParseSetCookie(line)
			if err != nil || c.Value == "" || setter[c.Name] != nil || len(list) >= maxCookies {
				continue
			}
			list, setter[c.Name] = append(list, c), x
		}
	}
	return list, setter
}

// signatures that the cookies may carry, by the looks of them.
func signatures(cookies []*http.Cookie) []signedCookie {
	var list []signedCookie
	for _, c := range cookies {
		value := c.Value
		if decoded, err := url.QueryUnescape(strings.ReplaceAll(value, "+", "%2B")); err == nil {
			value = decoded
		}
		for _, find := range []func(name, value string) []signedCookie{
			django, itsDangerous, flaskLogin, expressSigned, railsDigest, railsSealed, laravel, tokenCookie,
		} {
			list = append(list, find(c.Name, value)...)
		}
	}
	return append(list, keygrip(cookies)...)
}

func cookieMAC(h func() hash.Hash, key []byte, parts ...string) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write([]byte(p))
	}
	return m.Sum(nil)
}

func cookieHash(h func() hash.Hash, parts ...string) []byte {
	d := h()
	for _, p := range parts {
		d.Write([]byte(p))
	}
	return d.Sum(nil)
}

// unpadded base64url, as most of these formats write it.
func unpadded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

var djangoForm = regexp.MustCompile(`^(.+:[0-9A-Za-z]{6}):([A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{27})$`)

// django.core.signing: value:timestamp:signature, an HMAC whose key is the hash of a salt and SECRET_KEY. SHA-1 until 3.0.
// Signed cookies and messages put a prefix before the key, sessions do not.
func django(name, value string) []signedCookie {
	m := djangoForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	h := sha256.New
	if len(m[2]) == 27 {
		h = sha1.New
	}
	const prefix = "django.http.cookies"
	var list []signedCookie
	for _, k := range []struct{ salt, prefix, what string }{
		{name, prefix, "Django signed cookie"},
		{name, "", "Django signed cookie"},
		{"django.contrib.sessions.backends.signed_cookies", "", "Django session"},
		{"django.contrib.messages", prefix, "Django message"},
		{"django.core.signing", "", "Django signed value"},
	} {
		list = append(list, signedCookie{cookie: name, format: k.what, fits: func(key []byte) bool {
			derived := cookieHash(h, k.salt, "signer", k.prefix, string(key))
			return unpadded(cookieMAC(h, derived, m[1])) == m[2]
		}})
	}
	return list
}

var itsDangerousForm = regexp.MustCompile(`^(.+\.[A-Za-z0-9_-]{5,8})\.([A-Za-z0-9_-]{27})$`)

// itsDangerous signs value.timestamp with HMAC-SHA1. Flask derives the key by an HMAC of its salt; the library's default,
// which Starlette's sessions use, by a hash of salt, "signer" and key.
func itsDangerous(name, value string) []signedCookie {
	m := itsDangerousForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	concat := func(salt string) func([]byte) bool {
		return func(key []byte) bool {
			return unpadded(cookieMAC(sha1.New, cookieHash(sha1.New, salt, "signer", string(key)), m[1])) == m[2]
		}
	}
	return []signedCookie{
		{cookie: name, format: "Flask session", fits: func(key []byte) bool {
			return unpadded(cookieMAC(sha1.New, cookieMAC(sha1.New, key, "cookie-session"), m[1])) == m[2]
		}},
		{cookie: name, format: "Starlette session", fits: concat("itsdangerous.Signer")},
		{cookie: name, format: "itsdangerous value", fits: concat("itsdangerous")},
	}
}

var flaskLoginForm = regexp.MustCompile(`^(.+)\|([0-9a-f]{128})$`)

// flaskLogin is the remember_token of Flask-Login: value|HMAC-SHA512 in hexadecimal.
func flaskLogin(name, value string) []signedCookie {
	m := flaskLoginForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	return []signedCookie{{cookie: name, format: "Flask-Login remember token", fits: func(key []byte) bool {
		return hex.EncodeToString(cookieMAC(sha512.New, key, m[1])) == m[2]
	}}}
}

var expressForm = regexp.MustCompile(`^s:(.*)\.([A-Za-z0-9+/]{43})$`)

// expressSigned is what cookie-signature makes, for signed cookies and the connect.sid of express-session: "s:" and then
// value.HMAC-SHA256 in unpadded base64.
func expressSigned(name, value string) []signedCookie {
	m := expressForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	return []signedCookie{{cookie: name, format: "Express signed cookie", fits: func(key []byte) bool {
		return base64.RawStdEncoding.EncodeToString(cookieMAC(sha256.New, key, m[1])) == m[2]
	}}}
}

// keygrip is what cookie-session and cookies use: the cookie name.sig holds the HMAC-SHA1 of "name=value".
func keygrip(cookies []*http.Cookie) []signedCookie {
	var list []signedCookie
	for _, signed := range cookies {
		base, isSignature := strings.CutSuffix(signed.Name, ".sig")
		if !isSignature || len(signed.Value) != 27 {
			continue
		}
		for _, c := range cookies {
			if c.Name != base {
				continue
			}
			list = append(list, signedCookie{cookie: base, format: "cookie signed by Keygrip", fits: func(key []byte) bool {
				return unpadded(cookieMAC(sha1.New, key, base+"="+c.Value)) == signed.Value
			}})
		}
	}
	return list
}

var railsDigestForm = regexp.MustCompile(`^([A-Za-z0-9+/=]+)--([0-9a-f]{40}|[0-9a-f]{64})$`)

// railsDigest is a signed cookie of Rails, or an encrypted one before 5.2: base64--HMAC in hexadecimal. The key is derived
// from secret_key_base (PBKDF2, a thousand rounds, with SHA-256 since 7.0), or is secret_token itself in Rails 3.
func railsDigest(name, value string) []signedCookie {
	m := railsDigestForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	h := sha1.New
	if len(m[2]) == 64 {
		h = sha256.New
	}
	right := func(key []byte) bool { return hex.EncodeToString(cookieMAC(h, key, m[1])) == m[2] }
	list := []signedCookie{{cookie: name, format: "Rails 3 signed cookie", fits: right}}
	for _, d := range []struct {
		hash         func() hash.Hash
		salt, format string
	}{
		{sha1.New, "signed cookie", "Rails signed cookie"},
		{sha256.New, "signed cookie", "Rails signed cookie"},
		{sha1.New, "signed encrypted cookie", "Rails 4 encrypted cookie"},
	} {
		list = append(list, signedCookie{cookie: name, format: d.format, slow: true, fits: func(key []byte) bool {
			derived, err := pbkdf2.Key(d.hash, string(key), []byte(d.salt), 1000, 64)
			return err == nil && right(derived)
		}})
	}
	return list
}

var railsSealedForm = regexp.MustCompile(`^([A-Za-z0-9+/=]+)--([A-Za-z0-9+/]{16})--([A-Za-z0-9+/]{22}==)$`)

// railsSealed is an encrypted cookie of Rails 5.2 and later: AES-256-GCM as base64 of ciphertext, nonce and tag.
func railsSealed(name, value string) []signedCookie {
	m := railsSealedForm.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	var parts [3][]byte
	for i := range parts {
		b, err := base64.StdEncoding.DecodeString(m[i+1])
		if err != nil {
			return nil
		}
		parts[i] = b
	}
	sealed := bytes.Join([][]byte{parts[0], parts[2]}, nil)
	var list []signedCookie
	for _, rounds := range []func() hash.Hash{sha1.New, sha256.New} {
		list = append(list, signedCookie{cookie: name, format: "Rails encrypted cookie", slow: true, fits: func(key []byte) bool {
			derived, err := pbkdf2.Key(rounds, string(key), []byte("authenticated encrypted cookie"), 1000, 32)
			return err == nil && opens(derived, parts[1], sealed)
		}})
	}
	return list
}

func opens(key, nonce, sealed []byte) bool {
	block, err := aes.NewCipher(key)
	if err != nil {
		return false
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return false
	}
	_, err = gcm.Open(nil, nonce, sealed, nil)
	return err == nil
}

// laravel encrypts and then signs: base64 of JSON with iv, value, and mac, the HMAC-SHA256 of iv and value as they stand.
func laravel(name, value string) []signedCookie {
	document, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	var envelope struct{ IV, Value, MAC string }
	if err != nil || json.Unmarshal(document, &envelope) != nil || len(envelope.MAC) != 64 || envelope.IV == "" {
		return nil
	}
	return []signedCookie{{cookie: name, format: "Laravel encrypted cookie", fits: func(key []byte) bool {
		return hex.EncodeToString(cookieMAC(sha256.New, key, envelope.IV, envelope.Value)) == envelope.MAC
	}}}
}

// tokenCookie is a JSON web token in a cookie.
func tokenCookie(name, value string) []signedCookie {
	t, err := jws.Parse(value)
	if err != nil || len(t.Signature) == 0 {
		return nil
	}
	if !strings.HasPrefix(t.Alg(), "HS") {
		return nil
	}
	return []signedCookie{{cookie: name, format: "JSON web token", fits: func(key []byte) bool { return signs(key, t) }}}
}
