package secret

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

const random = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9iPpQx1RzVbNk4MwS6HgYeDjCuFaO"

func TestTheSharedVectorsAreJudgedAsWritten(t *testing.T) {
	text, err := os.ReadFile("../../shared/vectors/gantry/secret_key_cases.json")
	if err != nil {
		t.Skipf("the shared test vectors are absent: %v", err)
	}
	var file struct {
		Cases []struct {
			Value, Why string
			Valid      bool
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		key := strings.TrimSuffix(c.Value, "\n") // of a file: its reader strips one
		if got := Weakness(key) == ""; got != c.Valid {
			t.Errorf("Weakness(%q) = %q, want valid = %v (%s)", key, Weakness(key), c.Valid, c.Why)
		}
	}
}

func TestEachWeaknessIsNamed(t *testing.T) {
	for key, want := range map[string]string{
		"":                             "is not set",
		" " + random:                   "begins or ends with a space",
		random[:30] + "\n" + random:    "has a line break inside",
		"${SECRET_KEY}":                "is a placeholder that was never filled in",
		"{{ secret }}":                 "is a placeholder that was never filled in",
		"django-insecure-" + random:    "is a development key (it begins with an insecure- prefix)",
		random + "ChangeMe":            "is an example value",
		random[:49]:                    "is shorter than 50 characters",
		strings.Repeat("ab1", 20):      "has too few different characters",
		strings.Repeat(random[:20], 3): "repeats itself",
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":                  "is a sequence",
		"The quick brown fox jumps over the lazy dog, twice over and once more": "is text, not random characters",
		random: "",
	} {
		if got := Weakness(key); got != want {
			t.Errorf("Weakness(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestExamplesOfAnyValueArePlaceholders(t *testing.T) {
	for value, want := range map[string]bool{
		"postgresql://user:pass@host:5432/dbname":         true,
		"<your_clerk_secret>":                             true,
		"${DATABASE_URL}":                                 true,
		"api.yourdomain.com":                              true,
		"postgresql://app:" + random + "@db.internal/app": false,
		"": false,
	} {
		if got := IsPlaceholder(value); got != want {
			t.Errorf("IsPlaceholder(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestNoRandomKeyIsRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const django = "abcdefghijklmnopqrstuvwxyz0123456789!@#$%^&*(-_=+)"
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	kinds := map[string]func() string{
		"django": func() string {
			b := random(50)
			for i := range b {
				b[i] = django[r.IntN(len(django))]
			}
			return string(b)
		},
		"hex":       func() string { return hex.EncodeToString(random(32)) },
		"base64":    func() string { return base64.StdEncoding.EncodeToString(random(48)) },
		"base64url": func() string { return base64.RawURLEncoding.EncodeToString(random(48)) },
	}
	for name, generate := range kinds {
		for range 50_000 {
			if key := generate(); Weakness(key) != "" {
				t.Errorf("%s: %q %s", name, key, Weakness(key))
			}
		}
	}
}
