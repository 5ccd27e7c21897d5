package identity

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A strict JSON reader. encoding/json keeps the last of two equal names, replaces broken UTF-8 and
// matches struct fields without regard to case; a token must not mean one thing here and another
// elsewhere (RFC 8725 section 3.10, RFC 7515 section 4), so this one refuses all three.

var errJSON = errors.New("not strict JSON")

// member is one name and its value, in the order of the text.
type member struct {
	name  string
	value value
}

// object is a JSON object whose names are known to be unique.
type object []member

// value is the exact text of one well-formed JSON value, without space around it.
type value []byte

// get returns the value of name, compared byte for byte after unescaping.
func (o object) get(name string) (value, bool) {
	for i := range o {
		if o[i].name == name {
			return o[i].value, true
		}
	}
	return nil, false
}

// has says whether any of the names is present, whatever its value.
func (o object) has(names ...string) bool {
	for _, name := range names {
		if _, ok := o.get(name); ok {
			return true
		}
	}
	return false
}

// parseObject reads text as one JSON object and nothing else. It refuses invalid UTF-8, duplicate
// names at any level, lone surrogates and values nested more than depth levels deep (the object
// itself is level one).
func parseObject(text []byte, depth int) (object, error) {
	if !utf8.Valid(text) {
		return nil, errJSON
	}
	p := parser{text: text, depth: depth}
	p.space()
	var o object
	if p.at('{') {
		o = p.object()
	} else {
		p.bad = true
	}
	p.space()
	if p.bad || p.pos != len(text) {
		return nil, errJSON
	}
	return o, nil
}

// str returns the text of a JSON string.
func (v value) str() (string, bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	return unquote(v[1 : len(v)-1]), true
}

func (v value) isNull() bool   { return string(v) == "null" }
func (v value) isArray() bool  { return len(v) > 0 && v[0] == '[' }
func (v value) isObject() bool { return len(v) > 0 && v[0] == '{' }

// object returns the members of a value that parseObject has already accepted.
func (v value) object() (object, bool) {
	if !v.isObject() {
		return nil, false
	}
	p := parser{text: v, depth: maxDepth}
	return p.object(), !p.bad
}

// array returns the elements of a value that parseObject has already accepted.
func (v value) array() ([]value, bool) {
	if !v.isArray() {
		return nil, false
	}
	p := parser{text: v, depth: maxDepth, keep: true}
	p.array()
	return p.kept, !p.bad
}

// strs returns an array that holds strings only.
func (v value) strs() ([]string, bool) {
	values, ok := v.array()
	if !ok {
		return nil, false
	}
	texts := make([]string, len(values))
	for i := range values {
		if texts[i], ok = values[i].str(); !ok {
			return nil, false
		}
	}
	return texts, true
}

// parser walks text; bad is set at the first fault and stops every loop.
type parser struct {
	text  []byte
	pos   int
	depth int     // levels still allowed
	bad   bool    // the text is not strict JSON
	keep  bool    // collect the elements of the outermost array
	kept  []value // the elements collected
}

func (p *parser) at(c byte) bool {
	return !p.bad && p.pos < len(p.text) && p.text[p.pos] == c
}

// eat consumes c, or reports a fault.
func (p *parser) eat(c byte) {
	if !p.at(c) {
		p.bad = true
		return
	}
	p.pos++
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// enter goes one level down, and says whether there is still room.
func (p *parser) enter() bool {
	p.depth--
	if p.depth < 0 {
		p.bad = true
	}
	return !p.bad
}

func (p *parser) object() object {
	if !p.enter() {
		return nil
	}
	defer func() { p.depth++ }()
	var o object
	var seen names
	p.eat('{')
	p.space()
	for !p.at('}') && !p.bad {
		if len(o) > 0 {
			p.eat(',')
			p.space()
		}
		m := p.member()
		if p.bad || seen.again(o, m.name) {
			p.bad = true
			return nil
		}
		o = append(o, m)
		p.space()
	}
	p.eat('}')
	return o
}

func (p *parser) member() member {
	if !p.at('"') {
		p.bad = true
		return member{}
	}
	name, _ := p.value().str()
	p.space()
	p.eat(':')
	p.space()
	return member{name: name, value: p.value()}
}

func (p *parser) array() {
	if !p.enter() {
		return
	}
	defer func() { p.depth++ }()
	keep := p.keep
	p.keep = false
	p.eat('[')
	p.space()
	for first := true; !p.at(']') && !p.bad; first = false {
		if !first {
			p.eat(',')
			p.space()
		}
		v := p.value()
		if keep {
			p.kept = append(p.kept, v)
		}
		p.space()
	}
	p.eat(']')
}

func (p *parser) value() value {
	start := p.pos
	if p.bad || start == len(p.text) {
		p.bad = true
		return nil
	}
	switch c := p.text[start]; {
	case c == '{':
		p.object()
	case c == '[':
		p.array()
	case c == '"':
		p.quoted()
	case c == '-' || isDigit(c):
		p.number()
	default:
		p.word()
	}
	if p.bad {
		return nil
	}
	return value(p.text[start:p.pos])
}

func (p *parser) word() {
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(p.text[p.pos:], []byte(word)) {
			p.pos += len(word)
			return
		}
	}
	p.bad = true
}

// number follows the grammar of RFC 8259 section 6: no leading zero, no bare dot, no plus.
func (p *parser) number() {
	if p.at('-') {
		p.pos++
	}
	if p.at('0') {
		p.pos++
	} else {
		p.digits()
	}
	if p.at('.') {
		p.pos++
		p.digits()
	}
	if p.at('e') || p.at('E') {
		p.pos++
		if p.at('+') || p.at('-') {
			p.pos++
		}
		p.digits()
	}
}

// digits consumes one digit or more.
func (p *parser) digits() {
	start := p.pos
	for p.pos < len(p.text) && isDigit(p.text[p.pos]) {
		p.pos++
	}
	if p.pos == start {
		p.bad = true
	}
}

// quoted consumes a string. The UTF-8 of the whole text has been checked before.
func (p *parser) quoted() {
	p.eat('"')
	for !p.bad && p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return
		case c == '\\':
			p.escape()
		case c < ' ':
			p.bad = true
		default:
			p.pos++
		}
	}
	p.bad = true
}

func (p *parser) escape() {
	rest := p.text[p.pos+1:]
	if len(rest) == 0 {
		p.bad = true
		return
	}
	if rest[0] != 'u' {
		p.bad = strings.IndexByte(`"\/bfnrt`, rest[0]) < 0
		p.pos += 2
		return
	}
	_, n := unicodeEscape(p.text[p.pos:])
	p.bad = n == 0
	p.pos += n
}

// unicodeEscape reads \uXXXX, or a pair of them for a character beyond the basic plane, and returns
// the character and the length of its text; 0 for a fault or half of a pair (RFC 8259 section 8.2).
func unicodeEscape(text []byte) (rune, int) {
	high, ok := hex4(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(high) {
		return high, 6
	}
	low, ok := hex4(text[6:])
	if r := utf16.DecodeRune(high, low); ok && r != utf8.RuneError {
		return r, 12
	}
	return 0, 0
}

func hex4(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range text[2:6] {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if digit < 0 || (c < 'A' && !isDigit(c)) {
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}

// unquote resolves the escapes of a string that has been checked.
func unquote(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
	}
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); {
		switch {
		case text[i] != '\\':
			b.WriteByte(text[i])
			i++
		case text[i+1] == 'u':
			r, n := unicodeEscape(text[i:])
			b.WriteRune(r)
			i += n
		default:
			b.WriteByte(unescape(text[i+1]))
			i += 2
		}
	}
	return b.String()
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	default:
		return c
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// fewNames is how many names are compared one by one; from there on a set does it, so that a
// thousand names cost a thousand look-ups and not half a million comparisons.
const fewNames = 16

// names finds the second occurrence of a name within one object.
type names struct{ set map[string]struct{} }

// again says whether name is already in o, and remembers it.
func (n *names) again(o object, name string) bool {
	if len(o) < fewNames {
		_, found := o.get(name)
		return found
	}
	if n.set == nil {
		n.set = make(map[string]struct{}, 4*fewNames)
		for i := range o {
			n.set[o[i].name] = struct{}{}
		}
	}
	_, found := n.set[name]
	n.set[name] = struct{}{}
	return found
}
