package telemetry

import (
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

const redacted = "[redacted]"

// Redact returns a handler that takes secrets out of what it hands on to next: the values of attributes
// whose names say that they are secret, and in all other texts what looks like a secret or an e-mail
// address.
func Redact(next slog.Handler) slog.Handler { return &redactor{next} }

// Unredacted returns a logger that hands its lines on as they are, for those who know that nothing in them
// needs looking at and log a line for each request.
func Unredacted(log *slog.Logger) *slog.Logger {
	if r, ok := log.Handler().(*redactor); ok {
		return slog.New(r.next)
	}
	return log
}

type redactor struct{ next slog.Handler }

// Enabled implements slog.Handler.
func (r *redactor) Enabled(ctx context.Context, level slog.Level) bool {
	return r.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (r *redactor) Handle(ctx context.Context, line slog.Record) error {
	clean := slog.NewRecord(line.Time, line.Level, Scrub(line.Message), line.PC)
	line.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(scrubAttr(a))
		return true
	})
	return r.next.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (r *redactor) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &redactor{r.next.WithAttrs(scrubAttrs(attrs))}
}

// WithGroup implements slog.Handler.
func (r *redactor) WithGroup(name string) slog.Handler { return &redactor{r.next.WithGroup(name)} }

func scrubAttrs(attrs []slog.Attr) []slog.Attr {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = scrubAttr(a)
	}
	return clean
}

func scrubAttr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(scrubAttrs(v.Group())...)}
	case slog.KindString:
		if isSecretName(a.Key) && v.String() != "" {
			return slog.String(a.Key, redacted)
		}
		return slog.String(a.Key, Scrub(v.String()))
	case slog.KindAny:
		if isSecretName(a.Key) {
			return slog.String(a.Key, redacted)
		}
		return slog.Attr{Key: a.Key, Value: scrubAny(v)}
	}
	return slog.Attr{Key: a.Key, Value: v} // numbers and times keep no secret
}

// scrubAny looks at a value as it will be written.
func scrubAny(v slog.Value) slog.Value {
	if err, ok := v.Any().(error); ok {
		return slog.StringValue(Scrub(err.Error()))
	}
	text, err := json.Marshal(v.Any())
	if err != nil {
		return slog.StringValue(Scrub(v.String()))
	}
	if clean := Scrub(string(text)); clean != string(text) {
		return slog.StringValue(clean)
	}
	return v
}

// secretNames are parts of names, in lower case and without separators.
var secretNames = []string{
	"authorization", "cookie", "token", "secret", "password", "passwd", "dsn", "apikey", "privatekey", "signingkey", "routingkey", "credential", "webhookurl",
}

func isSecretName(name string) bool {
	plain := strings.Map(func(c rune) rune {
		switch {
		case c == '_' || c == '-' || c == '.' || c == ' ':
			return -1
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return c
	}, name)
	for _, secret := range secretNames {
		if strings.Contains(plain, secret) {
			return true
		}
	}
	return false
}

// secrets are what must not be told wherever it stands.
var secrets = regexp.MustCompile(strings.Join([]string{
	`eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}`,                       // a JWT
	`\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]+`,                                              // Clerk, Stripe
	`\bwhsec_[A-Za-z0-9+/=_-]+`,                                                           // Svix, Stripe
	`\bxox[a-z]-[A-Za-z0-9-]+`,                                                            // Slack
	`\bhooks\.slack\.com/[A-Za-z0-9/_-]+`,                                                 // Slack
	`\bgh[a-z]_[A-Za-z0-9]{20,}`,                                                          // GitHub
	`\bAKIA[A-Z0-9]{16}`,                                                                  // AWS
	`\b(?:[Bb]earer|BEARER|[Bb]asic|BASIC) +[A-Za-z0-9+/=._~-]{6,}`,                       // an Authorization header
	`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END[A-Z ]*-----)?`, // PEM
	`://[^\s/@:]*:[^\s/@]+@`,                                                              // user and password in a URL
	`://[0-9a-f]{32}@`,                                                                    // the key in a Sentry DSN
	`(?i:\b(?:access_?token|token|secret|password|api[_-]?key|client_secret|sig(?:nature)?)=)[^&\s"]+`, // in a query
	`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}`,                                // an e-mail address
}, "|"))

// Scrub replaces in text what looks like a secret or an e-mail address.
func Scrub(text string) string {
	if !suspicious(text) {
		return text
	}
	return secrets.ReplaceAllString(text, redacted)
}

// marks are what a text must hold for anything in secrets to match, and rare the bytes that one of them has
// for certain.
var (
	marks = []string{
		"@", "=", "eyJ", "sk_", "rk_", "whsec_", "xox", "hooks.slack.com", "gh", "AKIA", "-----BEGIN ",
		"bearer ", "Bearer ", "BEARER ", "basic ", "Basic ", "BASIC ",
	}
	rare = func() (t [256]bool) {
		for _, c := range []byte("@=J_x.K ") {
			t[c] = true
		}
		return t
	}()
)

// suspicious is a first look that costs a nanosecond a byte, for the many texts that are harmless.
func suspicious(text string) bool {
	for i := range len(text) {
		if rare[text[i]] {
			return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(text, m) })
		}
	}
	return false
}
