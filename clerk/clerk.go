package clerk

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode"
)

// Errors of keys that are not what they should be.
var (
	ErrPublishableKey = errors.New("not a Clerk publishable key: it begins with pk_test_ or pk_live_, and the rest is the base64 of a host name and $")
	ErrSecretKey      = errors.New("not a Clerk secret key: it begins with sk_test_ or sk_live_")
	ErrWebhookSecret  = errors.New("not a webhook signing secret: whsec_ and the base64 of 24 to 64 bytes")
	ErrMixedInstances = errors.New("the publishable key and the secret key are of different instances: one is for test, the other is live")
)

// Instance is what a publishable key stands for.
type Instance struct {
	// Host is the Frontend API's host name.
	Host string
	// Issuer is the "iss" of its session tokens, unless the Frontend API is proxied.
	Issuer string
	// JWKSURL is where its public keys are; no secret is needed to read them.
	JWKSURL string
	// Test says that the key is for a development instance.
	Test bool
}

// Development says that the instance cannot be a production one: by its key, or because Clerk hosts
// it under a development domain.
func (i Instance) Development() bool {
	return i.Test || strings.HasSuffix(i.Host, ".accounts.dev")
}

// ParsePublishableKey reads pk_test_ or pk_live_ and the base64, padded or not, of a host name with
// one "$" at its end. https://clerk.com/docs/guides/how-clerk-works/overview
func ParsePublishableKey(key string) (Instance, error) {
	kind, rest, err := split(key, "pk_", ErrPublishableKey)
	if err != nil {
		return Instance{}, err
	}
	text, err := base64.RawStdEncoding.Strict().DecodeString(unpad(rest))
	if err != nil || strings.ContainsAny(rest, "\r\n") {
		return Instance{}, ErrPublishableKey
	}
	host, ok := strings.CutSuffix(string(text), "$")
	if !ok || !isHostname(host) {
		return Instance{}, ErrPublishableKey
	}
	issuer := "https://" + host
	return Instance{
		Host: host, Issuer: issuer, JWKSURL: issuer + "/.well-known/jwks.json", Test: kind == "test",
	}, nil
}

// ParseSecretKey says whether a secret key is a test instance's.
func ParseSecretKey(key string) (test bool, err error) {
	kind, rest, err := split(key, "sk_", ErrSecretKey)
	if err != nil {
		return false, err
	}
	for _, c := range rest {
		if !isAlphanumeric(c) {
			return false, ErrSecretKey
		}
	}
	return kind == "test", nil
}

// CheckPair says whether a secret key can belong to the instance, as far as the keys tell.
func CheckPair(instance Instance, secretKey string) error {
	test, err := ParseSecretKey(secretKey)
	if err != nil {
		return err
	}
	if test != instance.Test {
		return ErrMixedInstances
	}
	return nil
}

// DecodeWebhookSecret returns the key of a webhook's signatures, 24 to 64 bytes long
// (https://www.standardwebhooks.com, "Signature scheme"). The prefix may be missing, as in Svix's own
// libraries.
func DecodeWebhookSecret(secret string) ([]byte, error) {
	rest := strings.TrimPrefix(secret, "whsec_")
	if strings.ContainsAny(rest, "\r\n") {
		return nil, ErrWebhookSecret
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(unpad(rest))
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, ErrWebhookSecret
	}
	return key, nil
}

// DecodeWebhookSecrets reads a list of secrets, set apart by commas or space: while one is being
// replaced, both count. One that is bad makes the list bad, and so does an empty list.
func DecodeWebhookSecrets(list string) ([][]byte, error) {
	var keys [][]byte
	for _, secret := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' || unicode.IsSpace(c) }) {
		key, err := DecodeWebhookSecret(secret)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, ErrWebhookSecret
	}
	return keys, nil
}

// split takes prefix and "test_" or "live_" off a key.
func split(key, prefix string, fault error) (kind, rest string, err error) {
	body, ok := strings.CutPrefix(key, prefix)
	kind, rest, cut := strings.Cut(body, "_")
	if !ok || !cut || rest == "" || (kind != "test" && kind != "live") {
		return "", "", fault
	}
	return kind, rest, nil
}

// unpad removes base64 padding where it completes a group of four, and nowhere else.
func unpad(text string) string {
	if len(text)%4 != 0 {
		return text
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "="), "=")
}

// isHostname accepts lower-case letters, digits and hyphens in two labels or more (RFC 1123 section
// 2.1); the last label is not a number, so that no address passes for a name.
func isHostname(host string) bool {
	labels := strings.Split(host, ".")
	if len(host) > 253 || len(labels) < 2 {
		return false
	}
	for _, label := range labels {
		if !isLabel(label) {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range label {
		if c != '-' && (!isAlphanumeric(c) || c != lower(c)) {
			return false
		}
	}
	return true
}

func isAlphanumeric(c rune) bool {
	return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'z' && c < 0x80
}

func lower(c rune) rune {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
