package probes

import (
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

//go:embed knownsecrets.txt
var knownSecrets string

// knownList are the secrets of the list, as they stand there.
func knownList() []string {
	var list []string
	for line := range strings.Lines(knownSecrets) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "# ") {
			list = append(list, line)
		}
	}
	return list
}

// guesses are the published secrets and what people make of the short ones, without repetition: about three thousand.
func guesses() []string {
	seen := map[string]bool{}
	var list []string
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	base := knownList()
	for _, s := range base {
		add(s)
	}
	for _, s := range base {
		if len(s) < 3 || len(s) > 14 {
			continue
		}
		for _, form := range []string{s + "123", s + "!", "my" + s, strings.ToUpper(s), s + "-secret", s + "_secret", s + "-jwt-secret"} {
			add(form)
		}
	}
	return list
}

// keyForms of a secret: its bytes, and what it decodes to, because some libraries take a configured secret for base64 or
// hexadecimal.
func keyForms(secret string) [][]byte {
	forms := [][]byte{[]byte(secret)}
	bare := strings.TrimRight(strings.TrimPrefix(secret, "base64:"), "=")
	for _, decode := range []func(string) ([]byte, error){
		base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString,
	} {
		if b, err := decode(bare); err == nil && len(b) >= 8 {
			forms = append(forms, b)
		}
	}
	return forms
}

// crack returns the first key form that fits, with the secret it came from.
func crack(secrets []string, fits func(key []byte) bool) (key []byte, secret string, found bool) {
	for _, secret := range secrets {
		for _, key := range keyForms(secret) {
			if fits(key) {
				return key, secret, true
			}
		}
	}
	return nil, "", false
}

// hideFound keeps a found secret out of the report. A short one stays: it is a word or a number that texts contain by chance,
// and striking it out everywhere would point at it.
func hideFound(s *audit.Session, secret string) {
	if len(secret) >= 12 {
		s.Hide(secret)
	}
}

// nameless says what may be said of a found secret. The salt is of this run and told to nobody: a plain hash of a word
// from a list is the word.
func nameless(s *audit.Session, secret string) string {
	const fact = "secret-salt"
	salt, ok := s.Fact(fact).(string)
	if !ok {
		salt = rand.Text()
		s.Remember(fact, salt)
	}
	sum := sha256.Sum256([]byte(salt + secret))
	return fmt.Sprintf("%d characters, salted hash %s…", len(secret), hex.EncodeToString(sum[:3]))
}
