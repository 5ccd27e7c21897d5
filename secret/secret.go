// Package secret judges keys that sign or encrypt: whether one is random and long enough, or only looks
// it. Begin with [Weakness]. The surprise: length is the least of it; most weak keys that live in
// production are the example of a framework or a sentence, and long.
package secret

import (
	"fmt"
	"strings"
	"unicode"
)

// Rules of a SECRET_KEY. The first two are Django's (security.W009), 16 different characters instead
// of its five; the rest catch what only looks long enough.
const (
	MinLength       = 50 // characters of a SECRET_KEY
	secretMinUnique = 16
)

// exampleKeys are what frameworks ship and tutorials print. They are matched anywhere, without case: a
// word of seven letters stands in one random key of several hundred million.
var exampleKeys = []string{
	"changeme", "change-me", "change_me", "change-this", "secret-key", "secret_key", "secretkey", "your-secret", "your_secret", "yoursecret",
	"example", "placeholder", "replace-me", "replace_me", "replace-this", "insecure", "not-so-secret", "supersecret", "super-secret",
	"generated_key_here",
}

// Weakness says what is wrong with a key that signs or encrypts, "" when nothing is. The answer reads
// after the key's name ("SECRET_KEY is shorter than 50 characters") and never holds any of the key.
func Weakness(key string) string { return WeaknessBelow(key, MinLength) }

// WeaknessBelow is Weakness with another least length, for keys whose form is fixed elsewhere: 32 random
// bytes in base64 are 44 characters and enough for HS256 (RFC 7518 section 3.2).
func WeaknessBelow(key string, length int) string {
	lower := strings.ToLower(key)
	switch {
	case key == "":
		return "is not set"
	case strings.TrimSpace(key) != key:
		return "begins or ends with a space"
	case strings.ContainsAny(key, "\r\n\x00"):
		return "has a line break inside"
	case looksUnexpanded(key):
		return "is a placeholder that was never filled in"
	case strings.HasPrefix(lower, "django-insecure-"), strings.HasPrefix(lower, "insecure-"):
		return "is a development key (it begins with an insecure- prefix)"
	case containsAny(lower, exampleKeys):
		return "is an example value"
	case len(key) < length:
		return fmt.Sprintf("is shorter than %d characters", length)
	case uniqueBytes(key) < minUnique(key):
		return "has too few different characters"
	case period(key) <= len(key)/3:
		return "repeats itself"
	case isSequential(key):
		return "is a sequence"
	case isProse(key):
		return "is text, not random characters"
	}
	return ""
}

// minUnique is lower for hexadecimal keys: a random one of 64 digits lacks at least one of the
// sixteen in a quarter of all cases, and more than six of them practically never.
func minUnique(key string) int {
	if strings.Trim(key, "-0123456789abcdefABCDEF") == "" { // with the dashes of a UUID
		return 10
	}
	return secretMinUnique
}

// looksUnexpanded recognises what a shell or a template should have filled in. "$(" alone is not
// enough: both characters are in the alphabet of Django's generator.
func looksUnexpanded(s string) bool {
	return strings.Contains(s, "${") || strings.Contains(s, "{{") ||
		strings.HasPrefix(s, "$(") && strings.HasSuffix(s, ")") && strings.Contains(s, " ") ||
		strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">")
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

func uniqueBytes(s string) int {
	var seen [256]bool
	n := 0
	for i := range len(s) {
		if !seen[s[i]] {
			seen[s[i]] = true
			n++
		}
	}
	return n
}

// period is the length of the shortest prefix that, repeated, gives the key.
func period(s string) int {
	fail := make([]int, len(s))
	for i, k := 1, 0; i < len(s); i++ {
		for k > 0 && s[i] != s[k] {
			k = fail[k-1]
		}
		if s[i] == s[k] {
			k++
		}
		fail[i] = k
	}
	return len(s) - fail[len(s)-1]
}

// isSequential says that most neighbours are one step apart, as in "0123456789abcdef".
func isSequential(s string) bool {
	steps := 0
	for i := 1; i < len(s); i++ {
		if d := int(s[i]) - int(s[i-1]); d == 1 || d == -1 {
			steps++
		}
	}
	return steps*2 > len(s)
}

// isProse says that the key is written in words: three or more blanks, with mostly letters between. A
// generator of random keys does not use blanks at all.
func isProse(s string) bool {
	letters := 0
	for _, r := range s {
		if unicode.IsLetter(r) {
			letters++
		}
	}
	return strings.Count(s, " ") >= 3 && letters*10 >= len(s)*7
}

// IsPlaceholder says that the value of any secret, a URL with a password among them, is still the
// example from a document or a template that was never filled in.
func IsPlaceholder(s string) bool {
	return looksUnexpanded(s) || strings.HasPrefix(s, "<") || containsAny(strings.ToLower(s), []string{"changeme", "change-me", "your_", "your-", "yourdomain", "user:pass@host"})
}
