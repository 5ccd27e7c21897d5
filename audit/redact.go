package audit

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// redactor replaces secrets by their fingerprints in everything that leaves the audit: those it was told
// (tokens, keys), and what looks like one.
type redactor struct {
	mu    sync.RWMutex
	known []string // longest first
}

func newRedactor(secrets []string) *redactor {
	r := &redactor{}
	for _, s := range secrets {
		r.hide(s)
	}
	return r
}

// hide adds a secret, also as it stands in a URL, and a token's signature by itself, which travels on in forged tokens.
func (r *redactor) hide(secret string) {
	if len(secret) < 4 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := []string{secret}
	if dot := strings.LastIndexByte(secret, '.'); dot > 0 && len(secret)-dot > 20 {
		parts = append(parts, secret[dot+1:])
	}
	for _, p := range parts {
		for _, form := range []string{p, url.QueryEscape(p), url.PathEscape(p)} {
			if !slices.Contains(r.known, form) {
				r.known = append(r.known, form)
			}
		}
	}
	slices.SortFunc(r.known, func(a, b string) int { return len(b) - len(a) })
}

// Credentials that nobody told us about: bearer and basic values, tokens, private keys, passwords in URLs.
var secretShapes = []*regexp.Regexp{
	regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,2}`),
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}`),
	regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`),
	regexp.MustCompile(`\bxox[baprs]-[A-Za-z0-9-]{8,}`),
	regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{20,}`),
}

var (
	urlPassword = regexp.MustCompile(`(://[^/\s:@"']{0,100}:)[^/\s@"']{1,200}@`)
	assignment  = regexp.MustCompile(`(?im)^(\s*(?:export\s+)?[A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|PRIVATE|CREDENTIAL|AUTH)[A-Z0-9_]*\s*[=:]\s*["']?)([^\s"']{4,})`)
)

// text of at most n bytes without secrets. It redacts before it cuts, so that no half of a secret remains, and writes
// control characters out, so that a report can be looked at on a terminal.
func (r *redactor) text(s string, n int) string {
	s = visible(cut(s, n+64<<10))
	r.mu.RLock()
	for _, secret := range r.known {
		s = strings.ReplaceAll(s, secret, Fingerprint(secret))
	}
	r.mu.RUnlock()
	for _, shape := range secretShapes {
		s = shape.ReplaceAllStringFunc(s, Fingerprint)
	}
	s = urlPassword.ReplaceAllString(s, "${1}[redacted]@")
	s = assignment.ReplaceAllString(s, "${1}[redacted]")
	return cut(s, n)
}

// data of a finding, with its strings redacted and their length bounded; figures stay as they are.
func (r *redactor) data(in map[string]any) map[string]any {
	if in == nil {
		return nil
	}
	out := make(map[string]any, len(in))
	for key, v := range in {
		out[r.text(key, 100)] = r.value(v)
	}
	return out
}

func (r *redactor) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.text(v, 500)
	case []string:
		out := make([]string, 0, len(v))
		for _, s := range v {
			out = append(out, r.text(s, 500))
		}
		return out
	case map[string]string:
		out := make(map[string]string, len(v))
		for key, s := range v {
			out[r.text(key, 100)] = r.text(s, 500)
		}
		return out
	case map[string]any:
		return r.data(v)
	case []any:
		out := make([]any, 0, len(v))
		for _, item := range v {
			out = append(out, r.value(item))
		}
		return out
	}
	return v
}

// Headers whose values are credentials whatever they look like.
var secretHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key"}

func (r *redactor) header(h http.Header) http.Header {
	if len(h) == 0 {
		return nil
	}
	out, room, left := http.Header{}, evidenceHeaders, 0
	for _, key := range slices.Sorted(maps.Keys(h)) {
		name := r.text(key, 64)
		for _, v := range h[key] {
			if room <= 0 {
				left++
				continue
			}
			shown := r.headerValue(key, v)
			room -= len(name) + len(shown)
			out[name] = append(out[name], shown)
		}
	}
	if left > 0 {
		out["..."] = []string{fmt.Sprintf("%d more lines", left)}
	}
	return out
}

func (r *redactor) headerValue(key, value string) string {
	key = http.CanonicalHeaderKey(key)
	if slices.Contains(secretHeaders, key) {
		scheme, _, found := strings.Cut(value, " ")
		if found && len(scheme) < 20 {
			return r.text(scheme, 20) + " " + Fingerprint(value)
		}
		return Fingerprint(value)
	}
	if key == "Set-Cookie" {
		name, rest, _ := strings.Cut(value, "=")
		_, attributes, found := strings.Cut(rest, ";")
		if found {
			attributes = ";" + attributes
		}
		return r.text(name, 100) + "=[redacted]" + r.text(attributes, evidenceHeader)
	}
	return r.text(value, evidenceHeader)
}

// visible writes control characters and marks that change the direction of text as escapes; lines and tabs stay.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r != '\n' && r != '\t' && Hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Hidden says whether a terminal or a browser would act on r instead of showing it: control characters, marks of
// direction and joining, ends of lines and paragraphs.
func Hidden(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
