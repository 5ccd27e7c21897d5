package envfile

import (
	"fmt"
	"strings"
)

// entry is one NAME=value.
type entry struct {
	name, value string
	line        int
}

// file is what a .env file says. Of a name set twice the last value counts, as in most readers.
type file struct {
	entries []entry // each name once, in the order of the lines
	index   map[string]int
}

// get returns the first of the names that is set to something.
func (f file) get(names ...string) (entry, bool) {
	for _, name := range names {
		if i, ok := f.index[name]; ok && f.entries[i].value != "" {
			return f.entries[i], true
		}
	}
	return entry{}, false
}

// has says that one of the names is set, directly or by its _FILE form.
func (f file) has(names ...string) bool {
	for _, name := range names {
		if _, ok := f.get(name, name+"_FILE"); ok {
			return true
		}
	}
	return false
}

// environments are the names by which frameworks know where they run.
var environments = []string{
	"ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "NODE_ENV", "RAILS_ENV", "RACK_ENV", "FLASK_ENV", "GO_ENV",
	"APP_ENVIRONMENT", "SPRING_PROFILES_ACTIVE", "ASPNETCORE_ENVIRONMENT", "ENV",
}

// production says that the file means to be production's.
func (f file) production() bool {
	for _, name := range environments {
		if e, ok := f.get(name); ok {
			return isProduction(e.value)
		}
	}
	return false
}

func isProduction(value string) bool {
	switch strings.ToLower(value) {
	case "production", "prod", "live":
		return true
	}
	return false
}

// parse reads NAME=value lines with "export", comments and quotes; a quoted value may run over several
// lines, as a private key does. There is no expansion: ${X} stays, and is a fault of its own.
func parse(text string) (file, []Fault) {
	f := file{index: make(map[string]int)}
	var faults []Fault
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	for n := 0; n < len(lines); n++ {
		line := strings.TrimSpace(lines[n])
		if line == "" || line[0] == '#' {
			continue
		}
		e := entry{line: n + 1}
		var what string
		e.name, e.value, n, what = parseEntry(line, lines, n)
		if what != "" {
			faults = append(faults, Fault{
				ID: Unreadable, Severity: Medium, Name: e.name, Line: e.line, What: what,
				Fix: `write NAME=value, or NAME="a value" when it has spaces or #`,
			})
			continue
		}
		faults = f.add(e, faults)
	}
	return f, faults
}

func (f *file) add(e entry, faults []Fault) []Fault {
	i, twice := f.index[e.name]
	if !twice {
		f.index[e.name] = len(f.entries)
		f.entries = append(f.entries, e)
		return faults
	}
	first := f.entries[i].line
	f.entries[i] = e
	return append(faults, Fault{
		ID: Duplicate, Severity: Medium, Name: e.name, Line: e.line,
		What: fmt.Sprintf("is set twice, first on line %d; readers differ in which one counts", first),
		Fix:  "keep one of the two lines",
	})
}

// parseEntry reads the entry that begins on lines[n] and returns the last line it took.
func parseEntry(line string, lines []string, n int) (name, value string, last int, what string) {
	line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
	name, rest, found := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	if !found || !isName(name) {
		return "", "", n, "the line is not NAME=value"
	}
	rest = strings.TrimSpace(rest)
	if rest == "" || rest[0] == '#' {
		return name, "", n, ""
	}
	if q := rest[0]; q == '\'' || q == '"' {
		return quoted(name, rest, lines, n)
	}
	if i := strings.Index(rest, " #"); i >= 0 {
		rest = strings.TrimSpace(rest[:i])
	}
	return name, rest, n, ""
}

// quoted takes following lines until the quote closes. A quote that never closes takes its own line
// only, so that one slip does not hide the rest of the file.
func quoted(name, rest string, lines []string, n int) (string, string, int, string) {
	var b strings.Builder
	q := rest[0]
	rest = rest[1:]
	for last := n; last < min(len(lines), n+200); last++ {
		if last > n {
			b.WriteByte('\n')
			rest = strings.TrimSuffix(lines[last], "\r")
		}
		for i := 0; i < len(rest); i++ {
			switch c := rest[i]; {
			case c == q:
				if after := strings.TrimSpace(rest[i+1:]); after != "" && after[0] != '#' {
					return name, "", last, "has text after the closing quote"
				}
				return name, b.String(), last, ""
			case c == '\\' && q == '"' && i+1 < len(rest):
				i++
				b.WriteString(unescape(rest[i]))
			default:
				b.WriteByte(c)
			}
		}
	}
	return name, "", n, "has a quote that is not closed"
}

func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case '"', '\\', '$':
		return string(c)
	}
	return "\\" + string(c)
}

func isName(s string) bool {
	if s == "" || len(s) > 128 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '_' && c != '.' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
