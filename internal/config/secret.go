package config

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Secret is a value that never prints: not in logs, errors, JSON, YAML or any fmt verb.
type Secret struct{ value *string } // a pointer: fmt prints unexported fields without asking any method

const redacted = "[redacted]"

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal returns the value. Every call is a place to look at in a review.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero says that nothing is set.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Matches compares in constant time. An unset secret matches nothing.
func (s Secret) Matches(other string) bool {
	return !s.IsZero() && subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other)) == 1
}

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML use.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML implements the YAML encoder's interface.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
