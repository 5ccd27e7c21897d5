package postgres

import (
	"regexp"
	"strings"
)

// Normalise returns the text of a statement without what differs from call to call or may be private: literals and
// parameters become ?, comments go, spaces become one, lists of ? become (?...), and savepoints lose their names.
// Postgres does a part of this in pg_stat_statements, less of it for statements such as SET, and none in pg_stat_activity.
func Normalise(sql string) string {
	var out strings.Builder
	for i := 0; i < len(sql); {
		n, as := token(sql, i)
		if as == " " && (out.Len() == 0 || strings.HasSuffix(out.String(), " ")) {
			as = ""
		}
		out.WriteString(as)
		i += n
	}
	text := strings.TrimRight(out.String(), " ;")
	text = prefixed.ReplaceAllString(text, "?")
	text = list.ReplaceAllString(text, "(?...)")
	text = listOfOne.ReplaceAllString(text, "$1 (?...)")
	text = lists.ReplaceAllString(text, "(?...)")
	if match := savepoint.FindStringSubmatch(text); match != nil {
		return strings.ToUpper(match[1])
	}
	return text
}

const item = `\?(?:::\w+(?:\[\])?)?`

var (
	prefixed  = regexp.MustCompile(`(?i)\b(?:e|b|x|n|u&)\?`) // E'...' and its kin
	list      = regexp.MustCompile(`\( ?` + item + `(?: ?, ?` + item + `)+ ?\)`)
	listOfOne = regexp.MustCompile(`(?i)\b(in) ?\( ?` + item + ` ?\)`)
	lists     = regexp.MustCompile(`\(\?\.\.\.\)(?: ?, ?\(\?\.\.\.\))+`)
	savepoint = regexp.MustCompile(`(?i)^(savepoint|release(?: savepoint)?|rollback(?: work| transaction)? to(?: savepoint)?) (?:"[^"]*"|[^\s"]+)$`)
)

// token returns the length of the token at i, and what to write for it. In the middle of a word only quotes mean something.
func token(whole string, i int) (int, string) {
	sql, inWord := whole[i:], i > 0 && word(whole[i-1])
	switch c := sql[0]; {
	case c == '\'':
		return quoted(sql, c, escapes(whole[:i])), "?"
	case c == '"':
		n := quoted(sql, c, false)
		return n, sql[:n]
	case strings.HasPrefix(sql, "--"):
		return until(sql, "\n"), " "
	case strings.HasPrefix(sql, "/*"):
		return until(sql, "*/"), " "
	case c == '$' && !inWord:
		return dollar(sql)
	case c >= '0' && c <= '9' && !inWord:
		return number(sql), "?"
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
		return 1, " "
	}
	return 1, sql[:1]
}

// escapes reports whether the literal after before is an E'...', in which a backslash escapes.
func escapes(before string) bool {
	n := len(before)
	return n > 0 && (before[n-1] == 'e' || before[n-1] == 'E') && (n == 1 || !word(before[n-2]))
}

func word(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// quoted is the length of a literal or a name in quotes. A quote inside is doubled; one that does not end takes all.
func quoted(sql string, quote byte, backslash bool) int {
	for i := 1; i < len(sql); i++ {
		switch {
		case sql[i] == '\\' && backslash:
			i++
		case sql[i] == quote && i+1 < len(sql) && sql[i+1] == quote:
			i++
		case sql[i] == quote:
			return i + 1
		}
	}
	return len(sql)
}

func until(sql, end string) int {
	if i := strings.Index(sql[2:], end); i >= 0 {
		return 2 + i + len(end)
	}
	return len(sql)
}

var tag = regexp.MustCompile(`^\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$`)

// dollar is a parameter, $1, or a literal between tags, $$ or $name$.
func dollar(sql string) (int, string) {
	if open := tag.FindString(sql); open != "" {
		if i := strings.Index(sql[len(open):], open); i >= 0 {
			return len(open) + i + len(open), "?"
		}
		return len(sql), "?"
	}
	n := 1
	for n < len(sql) && sql[n] >= '0' && sql[n] <= '9' {
		n++
	}
	if n == 1 {
		return 1, "$"
	}
	return n, "?"
}

func number(sql string) int {
	n := 1
	for n < len(sql) && (word(sql[n]) || sql[n] == '.') {
		n++
	}
	return n
}
