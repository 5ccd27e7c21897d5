package source

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rule is one kind of hole. Rules are values in one list; there is no other way in.
type Rule struct {
	ID         string
	Probe      string // the audit's probe with the same concern
	Languages  []Language
	Title      string
	Why        string // what goes wrong in production
	Fix        string // what to do, as an order
	References []string
	check      func(f *file, found func(finding))
}

// finding is a hole in a file: the token where it is.
type finding struct {
	at     int
	unless fact // no hole if this is true of the project
	onlyIf fact // and if this is not "", only if it is true
}

// Rules are all of them, in the order of the audit's document.
func Rules() []Rule {
	all := []Language{Python, JavaScript, TypeScript, Go, Ruby, Java}
	return []Rule{
		{
			ID: "jwt-not-verified", Probe: "JWT-01", Languages: all, check: notVerified,
			Title: "A token is decoded without its signature being verified",
			Why:   "anyone can write a token that says who they are; the signature is never looked at",
			Fix:   "verify with the issuer's key and an explicit list of algorithms, and use only what the verification returns",
			References: []string{
				"CWE-347", "ASVS 5.0 9.1.1", "RFC 8725 section 3.3",
			},
		},
		{
			ID: "jwt-algorithm-none", Probe: "JWT-03", Languages: all, check: algorithmNone,
			Title: "A token without a signature is allowed",
			Why:   `"none" is an algorithm: a token that names it needs no key`,
			Fix:   "list the one algorithm that the issuer signs with, such as RS256",
			References: []string{
				"CWE-347", "CWE-327", "RFC 8725 section 3.2",
			},
		},
		{
			ID: "secret-default", Probe: "JWT-06", Languages: all, check: secretDefault,
			Title: "A secret has a value in the code",
			Why:   "where the setting is forgotten the service starts all the same, with a key that everyone with the code can sign with",
			Fix:   "read it from the environment or a secret store, without a default, and refuse to start when it is absent",
			References: []string{
				"CWE-798", "CWE-1188", "ASVS 5.0 13.3.1",
			},
		},
		{
			ID: "connection-per-request", Probe: "DAT-01", Languages: all, check: connectionPerRequest,
			Title: "Each request opens a connection of its own",
			Why:   "opening costs more than the query, and as many users as the server has connections are enough to stop it",
			Fix:   "open one pool when the process starts, with a size below the server's limit, and take connections from it",
			References: []string{
				"CWE-400", "CWE-770", "ASVS 5.0 13.1.2",
			},
		},
		{
			ID: "blocking-in-async", Probe: "LIM-03", Languages: []Language{Python, JavaScript, TypeScript, Java}, check: blockingInAsync,
			Title: "A blocking call stands in asynchronous code",
			Why:   "while it waits the event loop serves nobody else: one slow answer is everybody's",
			Fix:   "use the asynchronous form of the call, or hand it to a thread; or make the handler synchronous throughout",
			References: []string{
				"CWE-400", "CWE-833",
			},
		},
		{
			ID: "call-without-timeout", Probe: "LIM-01", Languages: all, check: withoutTimeout,
			Title: "A call to another service has no timeout",
			Why:   "when the other side hangs so does the request, and soon all workers wait for it",
			Fix:   "set a timeout for connecting and for reading, shorter than the request's own deadline",
			References: []string{
				"CWE-400", "CWE-1088", "ASVS 5.0 13.1.3",
			},
		},
	}
}

// fact is something that a file says about the whole project.
type fact string

const (
	axiosTimeout  fact = "axios.defaults.timeout"
	socketTimeout fact = "socket.setdefaulttimeout"
	clientTimeout fact = "http.DefaultClient.Timeout"
)

func (f *file) facts() []fact {
	var found []fact
	for i := range f.tokens {
		if !f.is(i, "=") {
			continue
		}
		switch f.target(i) {
		case "axios.defaults.timeout":
			found = append(found, axiosTimeout)
		case "http.DefaultClient", "http.DefaultClient.Timeout":
			found = append(found, clientTimeout)
		}
	}
	for _, c := range f.calls {
		if c.path == "socket.setdefaulttimeout" {
			found = append(found, socketTimeout)
		}
	}
	return append(found, f.calledInRequests()...)
}

// maxCode is how much of a line a report shows, in bytes.
const maxCode = 160

func (f *file) hole(rule Rule, at finding) Hole {
	t := f.tok(at.at)
	line, column := position(f.lines, t.from)
	return Hole{
		Rule: rule.ID, Probe: rule.Probe, File: f.path, Line: line, Column: column,
		Code: f.code(line), Why: rule.Why, Fix: rule.Fix,
	}
}

// code is a line without its comment, and with no literal that could be a secret.
func (f *file) code(line int) string {
	from := f.lines[line-1]
	to := len(f.text)
	if line < len(f.lines) {
		to = f.lines[line] - 1
	}
	var b strings.Builder
	pos := from
	cut := func(s span, instead string) {
		if s.to <= pos || s.from >= to {
			return
		}
		b.WriteString(f.text[pos:max(s.from, pos)])
		b.WriteString(instead)
		pos = min(s.to, to)
	}
	spans := f.spans
	for _, t := range f.around(from, to) {
		for len(spans) > 0 && spans[0].from < t.from {
			cut(spans[0], "")
			spans = spans[1:]
		}
		if t.kind == str && !harmless(t.text) {
			cut(span{t.from, t.to}, `"[redacted]"`)
		}
	}
	for _, s := range spans {
		cut(s, "")
	}
	b.WriteString(f.text[pos:to])
	return shorten(b.String())
}

// around are the tokens that touch bytes [from,to).
func (f *file) around(from, to int) []token {
	first, last := 0, len(f.tokens)
	for first < last && f.tokens[first].to <= from {
		first++
	}
	for last > first && f.tokens[last-1].from >= to {
		last--
	}
	return f.tokens[first:last]
}

// harmless literals say what is going on and can be no secret: names in capitals with _ between, and words
// that rules look for.
func harmless(text string) bool {
	switch text {
	case "", "none", "None", "verify_signature", "RS256", "ES256", "HS256", "HS384", "HS512", "EdDSA", "utf-8", "utf8", "base64", "base64url", ".", "jsonwebtoken", "GET", "POST":
		return true
	}
	words := 0
	for part := range strings.SplitSeq(text, "_") {
		if part == "" || strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return false
		}
		words++
	}
	return words > 1 && len(text) <= 40 && setting(text)
}

// setting says that the name ends as names of settings do. A key in capitals does not.
func setting(name string) bool {
	switch name[strings.LastIndexByte(name, '_')+1:] {
	case "KEY", "SECRET", "URL", "BASE", "TOKEN", "SALT", "PASSWORD", "DSN", "HOST", "NAME", "USER":
		return true
	}
	return false
}

// shorten trims, drops control characters and cuts at a whole character.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= maxCode {
		return s
	}
	cut := maxCode - len("...")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
