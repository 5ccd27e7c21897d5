package source

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	word kind = iota
	str       // a literal of text: string, template, character, symbol, regular expression
	number
	punct
)

// token is a piece of code. Comments are none.
type token struct {
	kind     kind
	text     string // of a str what is between the quotes
	from, to int    // bytes of the file, quotes included
	match    int    // of a bracket its partner's index; else -1
	first    bool   // begins a line; in Python a statement
	live     bool   // a str with values filled in
}

type span struct{ from, to int }

// grammar is what the scanners of the languages differ in. Each func looks at text[pos:] and returns the
// end of what it recognised, pos when nothing.
type grammar struct {
	comment  func(l *lexer) int
	literal  func(l *lexer) (end int, text string, live bool)
	newline  func(l *lexer) int // called at each line's end with pos after it; may be nil
	letters  string             // besides letters, digits and _
	suffixes string             // may end a word
	joined   bool               // a line's end inside brackets is no end
}

type lexer struct {
	grammar
	text     string
	pos      int
	tokens   []token
	comments []span
	open     []int // brackets
	fresh    bool  // the next token begins a line
	pending  []string
	lines    []int // where each line begins
}

// operators of more than one character that matter to a rule or to the structure, longest first.
var operators = []string{
	"===", "!==", "||=", "&&=", "??=", "...", "<=>", "**=", "..", "=>", "->", "==", "!=", "<=", ">=", "&&", "||", "??", "?.", "::", ":=", "&.", "+=", "-=", "*=", "/=", "|=", "=~", "!~", "**", "++", "--",
}

func lineStarts(text string) []int {
	lines := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			lines = append(lines, i+1)
		}
	}
	return lines
}

// position is line and column of a byte, both from 1.
func position(lines []int, at int) (line, column int) {
	line = sort.SearchInts(lines, at+1)
	return line, at - lines[line-1] + 1
}

// lex cuts the whole text. It fails on brackets that do not match and strings that do not end.
func lex(text string, g grammar) (*lexer, error) {
	l := &lexer{grammar: g, text: text, fresh: true, lines: lineStarts(text)}
	for l.pos < len(text) {
		if err := l.next(); err != nil {
			line, _ := position(l.lines, min(l.pos, len(text)-1))
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	if len(l.open) > 0 {
		line, _ := position(l.lines, l.tokens[l.open[len(l.open)-1]].from)
		return nil, fmt.Errorf("line %d: bracket is not closed", line)
	}
	return l, nil
}

var errUnterminated = errors.New("literal is not closed")

func (l *lexer) next() error {
	c := l.text[l.pos]
	switch {
	case c == '\n':
		l.pos++
		l.fresh = l.fresh || !l.joined || len(l.open) == 0
		if l.newline != nil {
			l.pos = l.newline(l)
		}
		return nil
	case c == ' ', c == '\t', c == '\r', c == '\f', c == '\v':
		l.pos++
		return nil
	case c == '\\':
		l.pos++
		if strings.HasPrefix(strings.TrimPrefix(l.text[l.pos:min(len(l.text), l.pos+2)], "\r"), "\n") {
			l.pos = strings.IndexByte(l.text[l.pos:], '\n') + l.pos + 1 // the line goes on
		}
		return nil
	}
	if end := l.comment(l); end > l.pos {
		l.comments = append(l.comments, span{l.pos, end})
		l.pos = end
		return nil
	}
	if end, text, live := l.literal(l); end > l.pos {
		l.emit(token{kind: str, text: text, to: end, live: live})
		return nil
	} else if end < 0 {
		return errUnterminated
	}
	if end := l.word(); end > l.pos {
		l.emit(token{kind: word, text: l.text[l.pos:end], to: end})
		return nil
	}
	if c >= '0' && c <= '9' {
		end := l.number()
		l.emit(token{kind: number, text: l.text[l.pos:end], to: end})
		return nil
	}
	return l.punct()
}

func (l *lexer) emit(t token) {
	t.from, t.match, t.first = l.pos, -1, l.fresh
	l.fresh = false
	l.tokens = append(l.tokens, t)
	l.pos = t.to
}

func (l *lexer) word() int {
	end := l.pos
	for end < len(l.text) {
		c := rune(l.text[end])
		size := 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRuneInString(l.text[end:])
		}
		digit := c >= '0' && c <= '9'
		if c != '_' && !unicode.IsLetter(c) && (!digit || end == l.pos) && !strings.ContainsRune(l.letters, c) {
			break
		}
		end += size
	}
	if end > l.pos && end < len(l.text) && strings.IndexByte(l.suffixes, l.text[end]) >= 0 && (end+1 == len(l.text) || l.text[end+1] != '=') {
		end++
	}
	return end
}

func (l *lexer) number() int {
	end := l.pos
	for end < len(l.text) {
		c := l.text[end]
		point := c == '.' && end+1 < len(l.text) && l.text[end+1] >= '0' && l.text[end+1] <= '9'
		if c != '_' && !point && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			break
		}
		end++
	}
	return end
}

func (l *lexer) punct() error {
	for _, op := range operators {
		if strings.HasPrefix(l.text[l.pos:], op) {
			l.emit(token{kind: punct, text: op, to: l.pos + len(op)})
			return nil
		}
	}
	_, size := utf8.DecodeRuneInString(l.text[l.pos:])
	l.emit(token{kind: punct, text: l.text[l.pos : l.pos+size], to: l.pos + size})
	return l.bracket(len(l.tokens) - 1)
}

func (l *lexer) bracket(i int) error {
	switch l.tokens[i].text {
	case "(", "[", "{":
		l.open = append(l.open, i)
	case ")", "]", "}":
		if len(l.open) == 0 {
			return errors.New("bracket was not opened")
		}
		o := l.open[len(l.open)-1]
		l.open = l.open[:len(l.open)-1]
		if l.tokens[o].text+l.tokens[i].text != "()" && l.tokens[o].text+l.tokens[i].text != "[]" && l.tokens[o].text+l.tokens[i].text != "{}" {
			return errors.New("brackets do not match")
		}
		l.tokens[o].match, l.tokens[i].match = i, o
	}
	return nil
}

// last is the token before, the zero token at the beginning.
func (l *lexer) last() token {
	if len(l.tokens) == 0 {
		return token{kind: punct, text: ";"}
	}
	return l.tokens[len(l.tokens)-1]
}

func (l *lexer) rest() string { return l.text[l.pos:] }

// toLineEnd is where the line that holds pos ends.
func (l *lexer) toLineEnd() int {
	if i := strings.IndexByte(l.rest(), '\n'); i >= 0 {
		return l.pos + i
	}
	return len(l.text)
}

// address says that "//" is that of https:// in the text of JSX.
func (l *lexer) address() bool {
	n := len(l.tokens)
	return n > 1 && l.tokens[n-1].text == ":" && l.tokens[n-1].to == l.pos && strings.HasPrefix(l.tokens[n-2].text, "http") && l.tokens[n-2].kind == word
}

// cComment is // and /* */, and the first line of a script.
func cComment(l *lexer) int {
	switch {
	case l.address():
	case strings.HasPrefix(l.rest(), "//"), l.pos == 0 && strings.HasPrefix(l.text, "#!"):
		return l.toLineEnd()
	case strings.HasPrefix(l.rest(), "/*"):
		if i := strings.Index(l.text[l.pos+2:], "*/"); i >= 0 {
			return l.pos + 2 + i + 2
		}
		return len(l.text)
	}
	return l.pos
}

// closing finds the end of a literal that began before at: the first quote that is not escaped; -1 when
// there is none, or none on the line and lines are not allowed.
func closing(text string, at int, quote string, lines bool) int {
	for i := at; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '\n' && !lines:
			return -1
		case strings.HasPrefix(text[i:], quote):
			return i
		}
	}
	return -1
}

// maxNesting bounds values within strings within values.
const maxNesting = 32

// filled finds the end of a literal with values in it, such as `a ${b(`c`)}` or "a #{b("c")}": opener
// begins a value, which ends with the matching brace.
func filled(text string, at int, quote byte, opener string, lines bool, depth int) (end int, live bool) {
	if depth > maxNesting {
		return -1, false
	}
	for i := at; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == quote:
			return i, live
		case text[i] == '\n' && !lines:
			return -1, false
		case strings.HasPrefix(text[i:], opener):
			live = true
			if i = value(text, i+len(opener), opener, depth+1); i < 0 {
				return -1, false
			}
		}
	}
	return -1, false
}

// value finds the brace that ends a value.
func value(text string, at int, opener string, depth int) int {
	braces := 0
	before := byte('(') // the last that is no space: it tells a regular expression from a division
	for i := at; i < len(text); i++ {
		c := text[i]
		if c == '/' && strings.IndexByte("(,=:[!&|?{};~", before) >= 0 {
			if end := regexpEnd(text, i+1); end > 0 {
				i, before = end-1, '/'
				continue
			}
		}
		if c != ' ' && c != '\n' {
			before = c
		}
		switch c {
		case '{':
			braces++
		case '}':
			if braces == 0 {
				return i
			}
			braces--
		case '$':
			if opener == "#{" { // Ruby's $` and $'
				i++
			}
		case '\'', '"', '`':
			end, _ := filled(text, i+1, c, opener, true, depth)
			if end < 0 {
				return -1
			}
			i = end
		}
	}
	return -1
}
