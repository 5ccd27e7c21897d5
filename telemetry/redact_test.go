package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// canaries must not come out anywhere.
var canaries = []string{
	"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl", "sk_live_canary1234", "sk_test_canary1234", "rk_live_canary1234", "whsec_Y2FuYXJ5Y2FuYXJ5",
	"xoxb-1234-canary", "https://hooks.slack.com/services/T0/B0/canary", "ghp_canarycanarycanarycanary12", "AKIACANARYCANARY1234",
	"Bearer canary-opaque-token", "Authorization: Basic Y2FuYXJ5OnB3", "postgres://app:canary@db.example.org/app", "https://0123456789abcdef0123456789abcdef@o1.ingest.sentry.io/1",
	"/callback?access_token=canary&x=1", "password=canary", "canary@example.org", "-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----",
}

// told are the parts of them that give something away.
var told = []string{"canary", "Y2FuYXJ5", "CANARY", "0123456789abcdef0123456789abcdef", "eyJhbGci"}

func TestSecretsAreScrubbedWhereverTheyStand(t *testing.T) {
	for _, secret := range canaries {
		for _, text := range []string{secret, "before " + secret + " after", `{"x":"` + secret + `"}`} {
			got := Scrub(text)
			for _, part := range told {
				if strings.Contains(got, part) {
					t.Errorf("Scrub(%q) = %q", text, got)
				}
			}
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	for _, text := range []string{
		"", "/v1/users/me/", "/v1/orders/01JCANARY2/items", "dial tcp 127.0.0.1:5432: connect: connection refused", "listening on [::1]:8000", "u_2c80f694c664",
		"quota:user+global", "the sky is blue", "rate=5", "a basic truth", "eyJ", "https://login.example.org/.well-known/jwks.json", "pk_live_Y2xlcms",
	} {
		if got := Scrub(text); got != text {
			t.Errorf("Scrub(%q) = %q", text, got)
		}
	}
}

type valuer struct{ secret string }

// LogValue implements slog.LogValuer.
func (v valuer) LogValue() slog.Value { return slog.StringValue(v.secret) }

func TestTheLogKeepsSecretsToItself(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Redact(slog.NewJSONHandler(&out, nil)))
	for _, key := range []string{"Authorization", "cookie", "set_cookie", "access_token", "clientSecret", "db.password", "SENTRY_DSN", "api_key", "X-Api-Key", "private-key", "routing_key"} {
		log.Info("x", key, "plain canary")
		log.Info("x", slog.Any(key, []string{"plain canary"}))
		log.With(key, "plain canary").WithGroup("g").Info("x", slog.Group("inner", key, "plain canary"))
	}
	for _, secret := range canaries {
		log.Error(secret, "error", fmt.Errorf("asking: %w", errors.New(secret)))
		log.With("url", secret).WithGroup("g").Info("x", "list", []string{"a", secret}, "map", map[string]string{"k": secret}, "v", valuer{secret})
	}
	for _, part := range told {
		if i := strings.Index(out.String(), part); i >= 0 {
			t.Errorf("the log has %q: ...%s", part, out.String()[max(0, i-200):i+50])
		}
	}
	out.Reset()
	log.Info("hello", "tokens", 5, "ok", true, "name", "joe", "list", []int{1})
	if got := out.String(); !strings.Contains(got, `"tokens":5,"ok":true,"name":"joe","list":[1]`) {
		t.Errorf("what is no secret came out as %s", got)
	}
}

func TestTheAccessLineIsNotLookedAtTwice(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Redact(slog.NewTextHandler(&out, nil)))
	Unredacted(log).Info("as it is", "token", "x")
	if !strings.Contains(out.String(), "token=x") {
		t.Errorf("%s", &out)
	}
	plain := slog.New(slog.DiscardHandler)
	if Unredacted(plain) != plain {
		t.Error("another logger is changed")
	}
}

func TestScrubbingAPlainPathAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Scrub("/v1/users/me/things/7") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzScrubbedStaysScrubbed: what was scrubbed holds nothing more to scrub.
func FuzzScrubbedStaysScrubbed(f *testing.F) {
	for _, secret := range canaries {
		f.Add(secret)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := Scrub(text)
		if !suspicious(text) && secrets.MatchString(text) {
			t.Errorf("the first look takes %q for harmless", text)
		}
		_ = Scrub(once)
	})
}

func BenchmarkScrub(b *testing.B) {
	for b.Loop() {
		Scrub("/v1/users/me/things/0190f5c2")
	}
}
