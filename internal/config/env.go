package config

import (
	"fmt"
	"strings"
)

// value is a setting and where it came from.
type value struct {
	text, source string
}

// parseEnv reads a .env file: NAME=value lines, "export", comments, single and double quotes. There
// is no expansion: ${X} stays as it is, and a secret with one in it is a fault.
func parseEnv(text, file string, add func(Fault)) map[string]value {
	out := make(map[string]value)
	text = strings.TrimPrefix(text, "\ufeff")
	for n, line := range strings.Split(text, "\n") {
		source := fmt.Sprintf("%s:%d", file, n+1)
		line = strings.TrimSpace(strings.TrimSuffix(line, "\r"))
		if line == "" || line[0] == '#' {
			continue
		}
		name, val, fault := parseLine(line)
		if fault != "" {
			add(Fault{ID: idSyntax, Name: name, Source: source, Problem: fault, Example: `NAME=value, or NAME="a value"`})
			continue
		}
		if before, twice := out[name]; twice {
			add(Fault{ID: idDuplicate, Name: name, Source: source, Problem: "is set twice; first in " + before.source})
			continue
		}
		out[name] = value{val, source}
	}
	return out
}

func parseLine(line string) (name, val, fault string) {
	line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
	name, rest, found := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	if !found || !isName(name) {
		return "", "", "the line is not NAME=value"
	}
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return name, "", ""
	}
	switch rest[0] {
	case '\'', '"':
		return quoted(name, rest)
	}
	if i := strings.Index(rest, " #"); i >= 0 {
		rest = strings.TrimSpace(rest[:i])
	}
	return name, rest, ""
}

// quoted reads a quoted value; only a comment may follow it. Double quotes know \n, \" and \\.
func quoted(name, rest string) (string, string, string) {
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == rest[0]:
			after := strings.TrimSpace(rest[i+1:])
			if after != "" && after[0] != '#' {
				return name, "", "there is text after the closing quote"
			}
			return name, b.String(), ""
		case c == '\\' && rest[0] == '"' && i+1 < len(rest):
			i++
			b.WriteString(unescape(rest[i]))
		default:
			b.WriteByte(c)
		}
	}
	return name, "", "the quote is not closed"
}

func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case '"', '\\', '$':
		return string(c)
	default:
		return "\\" + string(c)
	}
}

func isName(s string) bool {
	if s == "" || len(s) > 128 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
