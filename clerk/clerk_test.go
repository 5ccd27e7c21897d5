package clerk_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/clerk"
	"github.com/google/go-cmp/cmp"
)

func publishable(prefix, text string) string {
	return prefix + base64.StdEncoding.EncodeToString([]byte(text))
}

func TestPublishableKeysNameTheirInstance(t *testing.T) {
	documented := clerk.Instance{
		Host: "example.accounts.dev", Issuer: "https://example.accounts.dev",
		JWKSURL: "https://example.accounts.dev/.well-known/jwks.json", Test: true,
	}
	live := clerk.Instance{
		Host: "clerk.example.com", Issuer: "https://clerk.example.com",
		JWKSURL: "https://clerk.example.com/.well-known/jwks.json",
	}
	for key, want := range map[string]clerk.Instance{
		"pk_test_ZXhhbXBsZS5hY2NvdW50cy5kZXYk":                                documented,
		publishable("pk_live_", "clerk.example.com$"):                         live,
		strings.TrimRight(publishable("pk_live_", "clerk.example.com$"), "="): live,
	} {
		got, err := clerk.ParsePublishableKey(key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", key, diff)
		}
	}
}

func TestWhatIsNoPublishableKeyIsRefused(t *testing.T) {
	good := publishable("pk_live_", "clerk.example.com$")
	keys := []string{
		"", "pk_live_", "pk_test_", "pk_", good[3:], "sk_live_" + good[8:], "PK_LIVE_" + good[8:], "pk_prod_" + good[8:],
		" " + good, good + " ", good + "\n", good + "=", good + "====", strings.Replace(good, "Y", "-", 1),
		"pk_live_" + base64.RawStdEncoding.EncodeToString([]byte("clerk.example.com$"))[:20], "pk_live_…",
	}
	for _, text := range []string{
		"", "$", "clerk.example.com", "clerk.example.com$$", "$clerk.example.com", "https://clerk.example.com$",
		"clerk.example.com/x$", "clerk.example.com:443$", "a@clerk.example.com$", "clerk.example.com?$", "clerk example.com$",
		"clerk.example.com.$", ".clerk.example.com$", "clerk..example.com$", "localhost$", "127.0.0.1$", "[::1]$", "1.2$",
		"-a.example.com$", "a-.example.com$", "a_b.example.com$", "Clerk.Example.com$", "clérk.example.com$", "*.example.com$",
		"clerk.example.com\x00$", "clerk.example.com\n$", strings.Repeat("a", 64) + ".com$", strings.Repeat("a.", 127) + "com$",
	} {
		keys = append(keys, publishable("pk_live_", text))
	}
	for _, key := range keys {
		if got, err := clerk.ParsePublishableKey(key); !errors.Is(err, clerk.ErrPublishableKey) {
			t.Errorf("%q gives %+v, %v, want it refused", key, got, err)
		}
	}
}

func TestDevelopmentInstancesAreKnownByKeyAndHost(t *testing.T) {
	for key, want := range map[string]bool{
		publishable("pk_test_", "clerk.example.com$"):              true,
		publishable("pk_live_", "happy-cat-1.clerk.accounts.dev$"): true,
		publishable("pk_live_", "clerk.example.com$"):              false,
		publishable("pk_live_", "clerk.myaccounts.dev$"):           false,
	} {
		instance, err := clerk.ParsePublishableKey(key)
		if err != nil || instance.Development() != want {
			t.Errorf("%+v: development %v, %v, want %v", instance, instance.Development(), err, want)
		}
	}
}

func TestKeysOfAPairAreOfOneKind(t *testing.T) {
	for _, c := range []struct {
		test   bool
		secret string
		want   error
	}{
		{true, "sk_test_abc123XYZ", nil},
		{false, "sk_live_abc123XYZ", nil},
		{true, "sk_live_abc123XYZ", clerk.ErrMixedInstances},
		{false, "sk_test_abc123XYZ", clerk.ErrMixedInstances},
		{true, "pk_test_abc123XYZ", clerk.ErrSecretKey},
		{true, "sk_test_", clerk.ErrSecretKey},
		{true, "sk_test_abc 123", clerk.ErrSecretKey},
		{true, "sk_test_abc\n", clerk.ErrSecretKey},
		{true, "sk_test_…", clerk.ErrSecretKey},
		{true, "sk_prod_abc", clerk.ErrSecretKey},
		{true, "", clerk.ErrSecretKey},
	} {
		if got := clerk.CheckPair(clerk.Instance{Test: c.test}, c.secret); !errors.Is(got, c.want) {
			t.Errorf("CheckPair(test %v, %q) = %v, want %v", c.test, c.secret, got, c.want)
		}
	}
}

func TestWebhookSecretsHold24To64Bytes(t *testing.T) {
	for size, want := range map[int]bool{0: false, 23: false, 24: true, 25: true, 32: true, 64: true, 65: false} {
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			secret := encoding.EncodeToString(make([]byte, size))
			if size%2 == 0 {
				secret = "whsec_" + secret // it may be missing
			}
			key, err := clerk.DecodeWebhookSecret(secret)
			if (err == nil) != want || (want && len(key) != size) {
				t.Errorf("%d bytes: %d, %v, want accepted: %v", size, len(key), err, want)
			}
		}
	}
	good := base64.StdEncoding.EncodeToString(make([]byte, 24))
	for _, secret := range []string{"", "whsec_", "WHSEC_" + good, "whsec_" + good + "\n", "whsec_ " + good, "whsec_" + good[:30] + "-_", "whsk_" + good} {
		if _, err := clerk.DecodeWebhookSecret(secret); !errors.Is(err, clerk.ErrWebhookSecret) {
			t.Errorf("%q: %v, want it refused", secret, err)
		}
	}
}

func TestAListOfSecretsIsReadWholeOrNotAtAll(t *testing.T) {
	one, two := publishable("whsec_", strings.Repeat("a", 24)), publishable("whsec_", strings.Repeat("b", 24))
	for list, want := range map[string]int{
		one: 1, one + "," + two: 2, " " + one + " ,\n" + two + "\n": 2,
		"": 0, ", ": 0, one + ",whsec_short": 0,
	} {
		keys, err := clerk.DecodeWebhookSecrets(list)
		if len(keys) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d keys, %v, want %d", list, len(keys), err, want)
		}
	}
}

// Errors are shown to operators, and so to whoever reads their logs.
func TestErrorsHoldNoKey(t *testing.T) {
	const canary = "canary7f3a"
	_, a := clerk.ParsePublishableKey("pk_live_" + canary)
	_, b := clerk.ParseSecretKey("sk_" + canary)
	_, c := clerk.DecodeWebhookSecret("whsec_" + canary)
	d := clerk.CheckPair(clerk.Instance{Host: canary}, "sk_test_"+canary)
	for _, err := range []error{a, b, c, d} {
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("error = %v", err)
		}
	}
}

func FuzzParsePublishableKey(f *testing.F) {
	f.Add("pk_test_ZXhhbXBsZS5hY2NvdW50cy5kZXYk")
	f.Add(publishable("pk_live_", "clerk.example.com$"))
	f.Add(publishable("pk_live_", "a@b.c$"))
	f.Fuzz(func(t *testing.T, key string) {
		instance, err := clerk.ParsePublishableKey(key)
		if err != nil {
			return
		}
		if strings.ContainsAny(instance.Host, "/:@?#$%\\ \r\n\x00") || instance.Issuer != "https://"+instance.Host {
			t.Fatalf("%q gives %+v", key, instance)
		}
	})
}
