package source

import (
	"path"
	"strings"
)

var rubyGrammar = grammar{comment: rubyComment, literal: rubyLiteral, newline: heredocs, letters: "@$", suffixes: "?!"}

func rubyComment(l *lexer) int {
	switch {
	case l.text[l.pos] == '#':
		return l.toLineEnd()
	case l.fresh && strings.HasPrefix(l.rest(), "=begin"):
		if i := strings.Index(l.rest(), "\n=end"); i >= 0 {
			return l.pos + i + len("\n=end")
		}
		return len(l.text)
	case l.fresh && strings.HasPrefix(l.rest(), "__END__\n"):
		return len(l.text)
	}
	return l.pos
}

// apart says that there is a space before pos and none behind the sign there: "puts /x/", not "a / b".
func (l *lexer) apart() bool {
	return l.last().kind == word && l.last().to < l.pos && l.pos+1 < len(l.text) && !strings.ContainsRune(" =\n", rune(l.text[l.pos+1]))
}

func rubyLiteral(l *lexer) (int, string, bool) {
	at := l.pos + 1
	if t := l.last(); t.kind != str && (t.text == "def" || t.text == "." || t.text == "&.") {
		return l.pos, "", false // def %(other)
	}
	switch c := l.text[l.pos]; c {
	case '\'':
		if end := closing(l.text, at, "'", true); end >= 0 {
			return end + 1, l.text[at:end], false
		}
		return -1, "", false
	case '"', '`':
		if end, live := filled(l.text, at, c, "#{", true, 0); end >= 0 {
			return end + 1, l.text[at:end], live
		}
		return -1, "", false
	case '/':
		if l.fresh || l.valueNext() || l.apart() {
			if end := rubyRegexp(l.text, at, l.fresh || l.valueNext()); end > 0 {
				return end, l.text[at : end-1], true
			}
		}
	case '%':
		return percent(l)
	case '$': // $` and $' are what stands around a match
		if at < len(l.text) && strings.IndexByte("`'\"/&~!+", l.text[at]) >= 0 {
			return at + 1, l.text[l.pos : at+1], true
		}
	case ':':
		return symbol(l)
	case '?': // ?/ is a string of one character
		if l.valueNext() && at < len(l.text) && !strings.ContainsRune(" \n\t", rune(l.text[at])) && (at+1 == len(l.text) || !wordByte(l.text[at+1])) {
			return at + 1, l.text[at : at+1], false
		}
	case '<':
		return heredoc(l)
	}
	return l.pos, "", false
}

// maxRegexp bounds a regular expression of several lines, in bytes.
const maxRegexp = 4096

// rubyRegexp is after the slash that ends a regular expression, or 0. It may have values in it.
func rubyRegexp(text string, at int, lines bool) int {
	set := false
	for i := at; i < min(len(text), at+maxRegexp) && (lines || text[i] != '\n'); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case strings.HasPrefix(text[i:], "#{"):
			if i = value(text, i+2, "#{", 1); i < 0 {
				return 0
			}
		case c == '[':
			set = true
		case c == ']':
			set = false
		case c == '/' && !set:
			return i + 1
		}
	}
	return 0
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// percent is %w[..], %i(..), %q{..}, %(..) and the like.
func percent(l *lexer) (int, string, bool) {
	at := l.pos + 1
	if !l.fresh && !l.valueNext() && !l.apart() {
		return l.pos, "", false
	}
	if at < len(l.text) && strings.IndexByte("wWiIqQrxs", l.text[at]) >= 0 {
		at++
	}
	if at >= len(l.text) || strings.IndexByte("([{<|!/", l.text[at]) < 0 {
		return l.pos, "", false
	}
	open := l.text[at]
	close := map[byte]byte{'(': ')', '[': ']', '{': '}', '<': '>'}[open]
	if close == 0 {
		close = open
	}
	depth := 1
	for i := at + 1; i < len(l.text); i++ {
		switch c := l.text[i]; {
		case c == '\\':
			i++
		case c == close:
			if depth--; depth == 0 {
				return i + 1, l.text[at+1 : i], strings.Contains(l.text[at+1:i], "#{")
			}
		case c == open:
			depth++
		}
	}
	return -1, "", false
}

// symbol is :name or :"name"; "a ? b : c", "key: value" and "A::B" are none.
func symbol(l *lexer) (int, string, bool) {
	at := l.pos + 1
	if at >= len(l.text) || l.pos > 0 && l.text[l.pos-1] == ':' || strings.HasPrefix(l.rest(), "::") {
		return l.pos, "", false
	}
	if l.text[at] == '"' && l.valueNext() {
		if end, live := filled(l.text, at+1, '"', "#{", true, 0); end >= 0 {
			return end + 1, l.text[at+1 : end], live
		}
	}
	end := at
	if l.valueNext() { // :/ and :[] are symbols of operators
		for end < len(l.text) && strings.IndexByte("+-*/%<>=!&|^~", l.text[end]) >= 0 {
			end++
		}
		if strings.HasPrefix(l.text[at:], "[]") {
			end += 2
		}
		if end > at {
			return end, l.text[at:end], false
		}
	}
	for end < len(l.text) && (l.text[end] == '_' || l.text[end]|0x20 >= 'a' && l.text[end]|0x20 <= 'z' || end > at && l.text[end] >= '0' && l.text[end] <= '9') {
		end++
	}
	if end == at || l.last().to == l.pos && l.last().kind != punct {
		return l.pos, "", false
	}
	return end, l.text[at:end], false
}

// heredoc is <<~ID; its lines are taken at the end of this one.
func heredoc(l *lexer) (int, string, bool) {
	rest, ok := strings.CutPrefix(l.rest(), "<<")
	if !ok {
		return l.pos, "", false
	}
	dashed := strings.HasPrefix(rest, "~") || strings.HasPrefix(rest, "-")
	if dashed {
		rest = rest[1:]
	}
	id := strings.TrimLeft(rest, "'\"`")
	end := 0
	for end < len(id) && (id[end] == '_' || id[end] >= 'A' && id[end] <= 'Z' || id[end] >= '0' && id[end] <= '9' || dashed && id[end] >= 'a' && id[end] <= 'z') {
		end++
	}
	if end == 0 || !dashed && !(l.valueNext() || l.apart()) {
		return l.pos, "", false
	}
	quotes := len(rest) - len(id)
	if len(l.pending) < maxNesting {
		l.pending = append(l.pending, id[:end])
	}
	return min(len(l.text)-len(rest)+end+2*quotes, len(l.text)), id[:end], true
}

// heredocs skips the lines of the here-documents that began on the line before.
func heredocs(l *lexer) int {
	pos := l.pos
	for _, id := range l.pending {
		for pos < len(l.text) {
			line, _, _ := strings.Cut(l.text[pos:], "\n")
			pos = min(pos+len(line)+1, len(l.text))
			if strings.TrimSpace(line) == id {
				break
			}
		}
	}
	l.pending = nil
	return pos
}

var (
	rubyOpeners   = words("def class module begin case do")
	rubyModifiers = words("if unless while until for")
)

// frame is something that "end" closes.
type frame struct {
	word string
	at   int
	fn   int // index in functions, or -1
	cl   int
}

func (f *file) structureRuby() {
	var open []frame
	loop := -1 // "while x do": its do opens nothing
	for i, t := range f.tokens {
		if t.kind != word || f.is(i-1, ".", "&.", "::") || f.is(i+1, ":") && f.tok(i+1).from == t.to && !f.is(i+1, "::") {
			continue
		}
		begins := t.first || f.is(i-1, "=", "(", "[", ",", ";", "{", "|", "||", "&&", "||=", "+", "=>", "return", "then", "else", "do", "not", "and", "or", "!", "<<", "->")
		switch {
		case t.text == "do" && loop >= 0 && f.sameLine(loop, i):
			loop = -1
		case rubyOpeners[t.text] || rubyModifiers[t.text] && begins:
			if rubyModifiers[t.text] && t.text != "if" && t.text != "unless" {
				loop = i
			}
			open = f.openRuby(open, i)
		case t.text == "end" && len(open) > 0:
			f.closeRuby(open[len(open)-1], i)
			open = open[:len(open)-1]
		case t.text == "rescue" && t.first:
			f.blocks = append(f.blocks, block{"rescue", span{}, i + 1, f.rescueEnd(i)})
		}
	}
	for _, o := range open {
		f.closeRuby(o, len(f.tokens))
	}
	f.bracesRuby()
	f.packages = append(f.packages, "ruby")
}

func (f *file) sameLine(a, b int) bool {
	for i := a + 1; i <= b; i++ {
		if f.tokens[i].first {
			return false
		}
	}
	return true
}

// rescueEnd is an approximation: the next end, else, ensure or rescue at the beginning of a line that is
// indented no deeper.
func (f *file) rescueEnd(i int) int {
	_, column := position(f.lines, f.tokens[i].from)
	for j := i + 1; j < len(f.tokens); j++ {
		if f.tokens[j].first && f.is(j, "end", "ensure", "else", "rescue") {
			if _, c := position(f.lines, f.tokens[j].from); c <= column {
				return j
			}
		}
	}
	return len(f.tokens)
}

func (f *file) openRuby(open []frame, i int) []frame {
	o := frame{f.tok(i).text, i, -1, -1}
	switch o.word {
	case "def":
		return f.defRuby(open, i)
	case "class":
		if f.is(i+1, "<<") {
			break
		}
		c := class{name: f.tok(i + 1).text, from: i + 1, to: len(f.tokens)}
		for j := i + 2; j < min(i+12, len(f.tokens)) && !f.tokens[j].first; j++ {
			c.bases += f.tok(j).text
		}
		o.cl = len(f.classes)
		f.classes = append(f.classes, c)
	case "do":
		o.fn = f.blockFunction(i)
	}
	return append(open, o)
}

// defRuby opens a method, unless it is an endless one: def a(b) = c.
func (f *file) defRuby(open []frame, i int) []frame {
	name := i + 1
	for f.is(name+1, ".") { // def self.a
		name += 2
	}
	fn := function{name: f.tok(name).text, from: name + 1, to: len(f.tokens)}
	after := name + 1
	if f.is(after, "(") && f.tok(after).match > 0 {
		fn.params = f.source(after+1, f.tok(after).match)
		after = f.tok(after).match + 1
	}
	if f.is(after, "=") && !f.tok(after).first {
		for fn.to = after + 1; fn.to < len(f.tokens) && !f.tokens[fn.to].first; fn.to++ {
		}
		f.functions = append(f.functions, fn)
		return open
	}
	f.functions = append(f.functions, fn)
	return append(open, frame{"def", i, len(f.functions) - 1, -1})
}

// blockFunction makes a function of a block that is a route: get "/x" do.
func (f *file) blockFunction(do int) int {
	start := do
	for start > max(0, do-60) && !f.tokens[start].first {
		start--
	}
	path, ok := f.literal(start + 1)
	if f.is(start+1, "(") {
		path, ok = f.literal(start + 2)
	}
	if !verbs[f.tok(start).text] || !ok && !f.is(start+1, "do") || ok && !strings.HasPrefix(path, "/") && f.tok(start+1).kind == str && !f.grape() {
		return -1
	}
	f.functions = append(f.functions, function{from: do + 1, to: len(f.tokens), handler: true})
	return len(f.functions) - 1
}

func (f *file) grape() bool {
	for _, c := range f.classes {
		if strings.Contains(c.bases, "Grape") || strings.Contains(c.bases, "Sinatra") {
			return true
		}
	}
	return false
}

func (f *file) closeRuby(o frame, end int) {
	if o.fn >= 0 {
		f.functions[o.fn].to = end
	}
	if o.cl >= 0 {
		f.classes[o.cl].to = end
	}
}

// bracesRuby marks the methods that run for each request: the actions of a controller, call(env) of Rack,
// perform is none. Routes were marked at their blocks.
func (f *file) bracesRuby() {
	f.own()
	for i := range f.functions {
		fn := &f.functions[i]
		fn.handler = fn.handler || fn.name == "call" && strings.HasPrefix(fn.params, "env")
		if fn.class >= 0 && fn.name != "initialize" && fn.name != "" {
			bases := f.classes[fn.class].bases
			fn.handler = fn.handler || strings.HasSuffix(bases, "Controller") || strings.HasPrefix(bases, "<ActionController::") ||
				strings.HasSuffix(path.Base(f.path), "_controller.rb") && bases != ""
		}
	}
}

// command is a call without parentheses: JWT.decode token, nil, false. It says whether there was one.
func (f *file) command(i int) bool {
	next := f.tok(i + 1)
	t := f.tok(i)
	if next.first || next.from == t.to || rubyOpeners[t.text] || notCalled[next.text] && next.kind == word && next.text != "self" {
		return false
	}
	starts := next.kind == str || next.kind == number || next.kind == word && !f.is(i+1, "do", "if", "unless", "and", "or", "while", "until", "rescue", "then", "end", "in")
	if next.kind == punct {
		tight := next.to == f.tok(i+2).from
		starts = (f.is(i+1, "[", "*", "**", "&", "::", "-", "->") && tight) || f.is(i+1, "(")
	}
	if !starts {
		return false
	}
	end := i + 1
	for ; end < min(len(f.tokens), i+200) && f.spend(10); end++ {
		if end > i+1 && f.tok(end).first && !f.is(end-1, ",", "=>", "(", "[", "{", "+", "||", "&&", "|", ":") && !f.is(end, ".", "&.") {
			break
		}
		if f.is(end, "do", "if", "unless", ";", ")", "]", "}", "and", "or", "rescue", "while", "until", "end") && f.tok(end).match < end+1 {
			break
		}
		if m := f.tok(end).match; m > end {
			end = m
		}
	}
	f.addCall(i, i+1, min(end, len(f.tokens)))
	return true
}
