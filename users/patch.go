package users

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/gantryhq/gantry/problem"
)

// Patch is a change of a profile: a nil field stays, an empty one is cleared.
type Patch struct {
	Handle, DisplayName, ImageURL, Bio, Locale, Timezone *string
}

// field joins a patch's value, its place in the user, and its rule.
type field struct {
	name string
	from func(*Patch) **string
	to   func(*User) *string
	rule func(string) (string, error)
}

var fields = []field{
	{"handle", func(p *Patch) **string { return &p.Handle }, func(u *User) *string { return &u.Handle }, handleRule},
	{"display_name", func(p *Patch) **string { return &p.DisplayName }, func(u *User) *string { return &u.DisplayName }, nameRule},
	{"image_url", func(p *Patch) **string { return &p.ImageURL }, func(u *User) *string { return &u.ImageURL }, imageRule},
	{"bio", func(p *Patch) **string { return &p.Bio }, func(u *User) *string { return &u.Bio }, bioRule},
	{"locale", func(p *Patch) **string { return &p.Locale }, func(u *User) *string { return &u.Locale }, localeRule},
	{"timezone", func(p *Patch) **string { return &p.Timezone }, func(u *User) *string { return &u.Timezone }, timezoneRule},
}

// Normalize brings every value into its stored form and returns all faults at once.
func (p *Patch) Normalize() []problem.Fault {
	var faults []problem.Fault
	for _, f := range fields {
		value := *f.from(p)
		if value == nil {
			continue
		}
		text, err := f.rule(*value)
		if err != nil {
			faults = append(faults, problem.Fault{Pointer: "/" + f.name, Detail: err.Error()})
			continue
		}
		*f.from(p) = &text
	}
	return faults
}

// apply returns u with the changes, and the names of the fields that differ.
func (p Patch) apply(u User) (User, []string) {
	var changed []string
	for _, f := range fields {
		if value := *f.from(&p); value != nil && *value != *f.to(&u) {
			*f.to(&u) = *value
			changed = append(changed, f.name)
		}
	}
	return u, changed
}

var handleShape = regexp.MustCompile(`^[a-z0-9_]{3,30}$`)

// reserved handles would stand where a route does, or speak for the service.
var reserved = []string{
	"about", "account", "admin", "administrator", "anonymous", "api", "auth", "docs", "export", "gantry", "health", "help",
	"login", "logout", "moderator", "null", "official", "openapi", "root", "security", "settings", "signup", "staff", "status",
	"support", "system", "undefined", "user", "users", "webhooks", "www",
}

// handleRule allows ASCII only, so that no two handles look the same. "me" is too short already.
func handleRule(s string) (string, error) {
	switch {
	case s == "":
		return s, nil
	case !handleShape.MatchString(s):
		return "", errors.New("must be 3 to 30 lower-case letters a-z, digits or underscores")
	case slices.Contains(reserved, s):
		return "", errors.New("is a reserved word")
	}
	return s, nil
}

func nameRule(s string) (string, error) { return line(s, 100) }

func bioRule(s string) (string, error) { return text(s, 1000, "\n\t") }

func line(s string, limit int) (string, error) { return text(strings.TrimSpace(s), limit, "") }

// text normalises to NFC, so that one name has one spelling, and refuses what cannot be seen.
func text(s string, limit int, allowed string) (string, error) {
	s = norm.NFC.String(s)
	if n := utf8.RuneCountInString(s); n > limit {
		return "", fmt.Errorf("has %d characters, at most %d are allowed", n, limit)
	}
	for _, r := range s {
		switch {
		case strings.ContainsRune(allowed, r):
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return "", fmt.Errorf("holds a control character (U+%04X)", r)
		}
	}
	return s, nil
}

func imageRule(s string) (string, error) {
	s, err := line(s, 2048)
	if err != nil || s == "" {
		return s, err
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", errors.New("must be an https address")
	}
	return s, nil
}

func emailRule(s string) (string, error) {
	s, err := line(s, 254)
	if err != nil || s == "" {
		return s, err
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
		return "", errors.New("must be an e-mail address")
	}
	return s, nil
}

// languageTag is the shape of a BCP 47 tag (RFC 5646 section 2.1), extensions aside.
var languageTag = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-[A-Za-z0-9]{5,8})*$`)

func localeRule(s string) (string, error) {
	if s == "" || len(s) <= 35 && languageTag.MatchString(s) {
		return s, nil
	}
	return "", errors.New(`must be a language tag such as "en" or "pt-BR"`)
}

func timezoneRule(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	if _, err := time.LoadLocation(s); err != nil || s == "Local" || len(s) > 64 {
		return "", errors.New(`must be a time zone such as "UTC" or "Europe/Berlin"`)
	}
	return s, nil
}
