package guard

import (
	"strings"
	"unicode/utf8"
)

// pathFault says why a path has no single reading.
type pathFault int

const (
	pathOK    pathFault = iota
	pathLoose           // unusual but with one meaning: a route may opt in
	pathBad             // never accepted
)

// canonicalPath brings a raw request path into the one form that routes, rules and the upstream all
// see: percent-encoded unreserved characters are decoded and hex digits are upper case (RFC 3986
// section 6.2.2). It refuses what servers read in different ways: dot segments however encoded,
// backslashes, control characters, invalid percent signs, overlong UTF-8. Empty segments, encoded
// slashes and semicolons are "loose".
func canonicalPath(raw string) (string, pathFault) {
	if raw == "" || raw[0] != '/' {
		return raw, pathBad
	}
	if isPlainPath(raw) {
		return raw, pathOK
	}
	return rewritePath(raw)
}

// isPlainPath recognises the common case, in which nothing needs a second look.
func isPlainPath(raw string) bool {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '/':
			if i+1 < len(raw) && (raw[i+1] == '/' || raw[i+1] == '.') {
				return false
			}
		case !isUnreserved(c):
			return false
		}
	}
	return true
}

func rewritePath(raw string) (string, pathFault) {
	var out strings.Builder
	var text []byte // the decoded path, to check its encoding
	fault := pathOK
	for i := 0; i < len(raw); i++ {
		c, width := raw[i], 1
		if c == '%' {
			value, ok := unhex(raw, i+1)
			if !ok {
				return raw, pathBad
			}
			c, width = value, 3
		}
		f := judgeByte(c, width == 3)
		if f == pathBad {
			return raw, pathBad
		}
		fault = max(fault, f)
		writeByte(&out, c, width == 3)
		text = append(text, c)
		i += width - 1
	}
	if !utf8.Valid(text) || hasDotSegment(string(text)) {
		return raw, pathBad
	}
	if strings.Contains(string(text), "//") {
		fault = max(fault, pathLoose)
	}
	return out.String(), fault
}

func judgeByte(c byte, encoded bool) pathFault {
	switch {
	case c < 0x20, c == 0x7f, c == '\\':
		return pathBad
	case c == '/' && encoded, c == ';':
		return pathLoose
	case encoded, isUnreserved(c), strings.IndexByte("/!$&'()*+,=:@", c) >= 0:
		return pathOK
	default:
		return pathBad // not a pchar (RFC 3986 section 3.3)
	}
}

func writeByte(out *strings.Builder, c byte, encoded bool) {
	if !encoded || isUnreserved(c) {
		out.WriteByte(c)
		return
	}
	const digits = "0123456789ABCDEF"
	out.WriteByte('%')
	out.WriteByte(digits[c>>4])
	out.WriteByte(digits[c&15])
}

// hasDotSegment looks at the segments as a server sees them after decoding, path parameters removed
// ("/..;a=b/" is "/../" to Tomcat).
func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		if name == "." || name == ".." {
			return true
		}
	}
	return false
}

func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(s string, i int) (byte, bool) {
	if i+1 >= len(s) {
		return 0, false
	}
	high, ok1 := hexDigit(s[i])
	low, ok2 := hexDigit(s[i+1])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	default:
		return 0, false
	}
}
