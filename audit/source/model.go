package source

import (
	"slices"
	"strings"
)

// file is a parsed source file: tokens, and what is known of their structure.
type file struct {
	path   string
	lang   Language
	text   string
	tokens []token
	spans  []span // comments
	lines  []int  // where each line begins

	imports   map[string]string // a name of this file to what it stands for: "r" to "requests"
	packages  []string          // everything imported, as written
	functions []function        // outer before inner
	blocks    []block
	classes   []class
	calls     []call              // by position
	vars      map[variable]string // the path of the call whose result a name holds; "" for something else
	serves    *bool               // of JavaScript, what server found
	work      int                 // steps that may still be taken beyond reading the tokens once
	owner     []int               // for each token the innermost function, or -1
	place     place               // of JavaScript, where it runs
}

// function has its body in tokens [from,to).
type function struct {
	name     string
	from, to int
	params   string   // their source, types included
	marks    []string // decorators or annotations, without @, with their arguments' tokens left out
	returns  string   // the declared type, where there is one
	async    bool
	handler  bool // runs for each request
	outer    int  // function around it, or -1
	class    int  // class around it, or -1
}

// class has its body in tokens [from,to).
type class struct {
	name     string
	bases    string
	marks    []string
	from, to int
}

// block is a part of a function that a word begins: "except", "if".
type block struct {
	word     string
	head     span // tokens of its condition
	from, to int
}

// call is NAME(ARGS). The path is the whole chain, its first name replaced by what was imported or
// assigned under it: "requests.get", "new pg.Client", "Jwts.parser().build().parse".
type call struct {
	path string
	name string // last part of the path
	at   int    // token of the name
	root int    // first token of the chain
	args []arg
	from int // first token of the arguments
	to   int // after their last one
	fn   int // innermost function, or -1
}

type arg struct {
	name     string // of a keyword argument
	from, to int
}

// variable is a name of a function, or of the file and its classes when that is -1.
type variable struct {
	fn   int
	name string
}

// maxWork bounds what a file may cost, about a second: some questions look at all calls of a file, and a
// hostile file asks them for each of a hundred thousand calls.
const maxWork = 20_000_000

// spend says whether there is still work to be had. Where there is none, a rule finds nothing.
func (f *file) spend(n int) bool {
	f.work -= n
	return f.work > 0
}

// parse makes a file of text.
func parse(path string, lang Language, text string) (*file, error) {
	f := &file{path: path, lang: lang, text: text, work: maxWork, imports: map[string]string{}, vars: map[variable]string{}}
	if lang == Go {
		if err := f.parseGo(); err != nil {
			return nil, err
		}
	} else {
		l, err := lex(text, grammars[lang])
		if err != nil {
			return nil, err
		}
		f.tokens, f.spans, f.lines = l.tokens, l.comments, l.lines
	}
	switch lang {
	case Python:
		f.structurePython()
	case JavaScript, TypeScript:
		f.structureJS()
	case Ruby:
		f.structureRuby()
	case Java:
		f.structureJava()
	}
	f.own()
	f.findCalls()
	f.bind()
	f.resolve()
	f.markHandlers()
	return f, nil
}

var grammars = map[Language]grammar{
	Python: pythonGrammar, JavaScript: jsGrammar, TypeScript: jsGrammar, Ruby: rubyGrammar, Java: javaGrammar,
}

// tok is the token at i; beyond either end it is the zero token of kind punct.
func (f *file) tok(i int) token {
	if i < 0 || i >= len(f.tokens) {
		return token{kind: punct, match: -1}
	}
	return f.tokens[i]
}

// is says that the token at i is one of these words or signs, and no literal.
func (f *file) is(i int, texts ...string) bool {
	t := f.tok(i)
	return t.kind != str && slices.Contains(texts, t.text)
}

// literal is the text of the literal at i, if there is one without values filled in.
func (f *file) literal(i int) (string, bool) {
	t := f.tok(i)
	return t.text, t.kind == str && !t.live
}

// source is the text of tokens [from,to).
func (f *file) source(from, to int) string {
	if from >= to || to > len(f.tokens) {
		return ""
	}
	return f.text[f.tokens[from].from:f.tokens[to-1].to]
}

// own finds the innermost function of each token, the functions' nesting and their classes.
func (f *file) own() {
	slices.SortStableFunc(f.functions, func(a, b function) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	f.owner = make([]int, len(f.tokens))
	var stack []int
	next := 0
	for i := range f.tokens {
		for len(stack) > 0 && f.functions[stack[len(stack)-1]].to <= i {
			stack = stack[:len(stack)-1]
		}
		for ; next < len(f.functions) && f.functions[next].from <= i; next++ {
			f.functions[next].outer = -1
			if len(stack) > 0 {
				f.functions[next].outer = stack[len(stack)-1]
			}
			if f.functions[next].to > i {
				stack = append(stack, next)
			}
		}
		f.owner[i] = -1
		if len(stack) > 0 {
			f.owner[i] = stack[len(stack)-1]
		}
	}
	for ; next < len(f.functions); next++ {
		f.functions[next].outer = -1
	}
	f.ownClasses()
}

func (f *file) ownClasses() {
	slices.SortStableFunc(f.classes, func(a, b class) int { return a.from - b.from })
	var stack []int
	next := 0
	for i := range f.functions {
		fn := &f.functions[i]
		for ; next < len(f.classes) && f.classes[next].from <= fn.from; next++ {
			for len(stack) > 0 && f.classes[stack[len(stack)-1]].to <= f.classes[next].from {
				stack = stack[:len(stack)-1]
			}
			stack = append(stack, next)
		}
		for len(stack) > 0 && f.classes[stack[len(stack)-1]].to <= fn.from {
			stack = stack[:len(stack)-1]
		}
		fn.class = -1
		if len(stack) > 0 {
			fn.class = stack[len(stack)-1]
		}
	}
}

// notCalled are words before "(" that call nothing.
var notCalled = words("if elif else for while switch catch with return and or not in is lambda def function async await yield typeof instanceof new delete void throw case do end then unless until when begin rescue ensure class module assert del except finally import from pass raise try global nonlocal print! synchronized super func go defer select range func type struct interface map chan var const package fallthrough self this static public private protected final")

// findCalls finds every call with parentheses, and Ruby's without.
func (f *file) findCalls() {
	for i := range f.tokens {
		if f.tokens[i].kind != word || notCalled[f.tokens[i].text] && !f.is(i-1, ".", "?.", "&.") {
			continue
		}
		open := f.afterTypes(i + 1)
		switch {
		case f.is(open, "(") && f.tok(open).match > open && !(f.lang == Python && f.is(i-1, "def", "class")):
			if f.lang == Ruby && f.tok(open).from > f.tok(i).to {
				f.command(i) // "p (a), b": the bracket belongs to the first argument
				continue
			}
			f.addCall(i, open+1, f.tok(open).match)
		case f.lang == Ruby && !f.command(i) && f.is(i-1, ".", "&."):
			f.addCall(i, i+1, i+1) // a.b calls b
		}
	}
}

// afterTypes skips the type arguments of a call, as in get<User>(url).
func (f *file) afterTypes(i int) int {
	if f.lang != TypeScript && f.lang != Java || !f.is(i, "<") || f.tok(i).from != f.tok(i-1).to {
		return i
	}
	depth := 0
	for j := i; j < min(i+60, len(f.tokens)); j++ {
		switch t := f.tokens[j]; {
		case t.text == "<" && t.kind == punct:
			depth++
		case t.text == ">" && t.kind == punct:
			if depth--; depth == 0 {
				return j + 1
			}
		case t.kind == punct && strings.Contains(";()=>=&&+", t.text):
			return i
		}
	}
	return i
}

func (f *file) addCall(name, from, to int) {
	c := call{name: f.tokens[name].text, at: name, from: from, to: to, fn: f.owner[name]}
	c.path, c.root = f.chain(name)
	c.args = f.split(from, to)
	f.calls = append(f.calls, c)
}

// maxChain bounds how far a chain is followed to its beginning.
const maxChain = 40

// chain walks from the name of a call back to the beginning of the expression.
func (f *file) chain(i int) (path string, root int) {
	parts := []string{f.tokens[i].text}
	for range maxChain {
		if !f.is(i-1, ".", "?.", "::", "&.") {
			break
		}
		j := i - 2
		if f.is(j, "!") { // TypeScript's a!.b
			j--
		}
		suffix := ""
		for f.is(j, ")", "]") && f.tok(j).match >= 0 {
			suffix = map[string]string{")": "()", "]": "[]"}[f.tok(j).text] + suffix
			j = f.beforeTypes(f.tok(j).match - 1)
			if f.is(j, "?.") {
				j--
			}
		}
		switch {
		case f.tok(j).kind == word && !(suffix != "" && notCalled[f.tok(j).text] && !f.is(j-1, ".")):
			parts = append(parts, f.tok(j).text+suffix)
			i = j
		case f.tok(j).kind == str:
			return join(append(parts, "''"+suffix)), j
		default: // of an expression in brackets
			return join(append(parts, suffix)), j + 1
		}
	}
	if f.is(i-1, "new") {
		return "new " + join(parts), i - 1
	}
	return join(parts), i
}

// beforeTypes skips type arguments backwards.
func (f *file) beforeTypes(i int) int {
	if f.lang != TypeScript && f.lang != Java || !f.is(i, ">") {
		return i
	}
	depth := 0
	for j := i; j > max(i-60, 0); j-- {
		switch {
		case f.is(j, ">"):
			depth++
		case f.is(j, "<"):
			if depth--; depth == 0 {
				return j - 1
			}
		case f.is(j, ";", "{", "(", ")"):
			return i
		}
	}
	return i
}

func join(backwards []string) string {
	slices.Reverse(backwards)
	return strings.Join(backwards, ".")
}

// split cuts arguments at the commas that belong to the call itself.
func (f *file) split(from, to int) []arg {
	var args []arg
	start := from
	add := func(end int) {
		if start < end {
			args = append(args, f.argument(start, end))
		}
		start = end + 1
	}
	for i := from; i < to; i++ {
		if m := f.tokens[i].match; m > i {
			i = min(m, to-1)
		} else if f.is(i, ",") {
			add(i)
		}
	}
	add(to)
	return args
}

func (f *file) argument(from, to int) arg {
	if f.tok(from).kind == word && to > from+2 {
		switch {
		case f.lang == Python && f.is(from+1, "="), f.lang == Ruby && f.is(from+1, ":"):
			return arg{f.tok(from).text, from + 2, to}
		}
	}
	if f.lang == Ruby && f.tok(from).kind == str && f.is(from+1, "=>") {
		return arg{f.tok(from).text, from + 2, to}
	}
	return arg{"", from, to}
}

// bind remembers which names hold the result of which call.
func (f *file) bind() {
	longest := make(map[int]int) // root token to the outermost call of the chain
	for i, c := range f.calls {
		if j, ok := longest[c.root]; !ok || f.calls[j].to < c.to {
			longest[c.root] = i
		}
	}
	for i := range f.tokens {
		var name string
		value := i + 1
		switch {
		case f.is(i, "=", ":=", "||="):
			name = f.target(i)
		case f.lang == Python && f.is(i, "as") && f.tok(i+1).kind == word: // with a() as b
			if m := f.tok(i - 1).match; m >= 0 && f.is(i-1, ")") {
				name, value = f.tok(i+1).text, f.rootBefore(m)
			}
		}
		if name == "" {
			continue
		}
		for f.is(value, "await", "yield", "&") {
			value++
		}
		key := variable{f.owner[i], name}
		if strings.Contains(name, ".") {
			key.fn = -1
		}
		path := ""
		if j, ok := longest[value]; ok {
			path = f.expand(f.calls[j].path, f.owner[i]) + "()"
		}
		if before, twice := f.vars[key]; !twice || before == "" || before == path {
			f.vars[key] = path
		} else if path != "" {
			f.vars[key] = "ambiguous()"
		}
	}
}

func (f *file) rootBefore(open int) int {
	_, root := f.chain(max(open-1, 0))
	return root
}

// target is the name left of the assignment at i: "session", "self.session"; of x["NAME"] it is NAME.
func (f *file) target(i int) string {
	j := i - 1
	if f.is(j, "]") {
		if text, ok := f.literal(j - 1); ok && f.tok(j).match == j-2 {
			return text
		}
		return ""
	}
	if name, ok := f.typedTarget(i); ok {
		return name
	}
	if f.tok(j).kind != word || notCalled[f.tok(j).text] {
		return ""
	}
	name := f.tok(j).text
	for f.is(j-1, ".") && f.tok(j-2).kind == word {
		j -= 2
		name = f.tok(j).text + "." + name
	}
	return name
}

// typedTarget is NAME of "const NAME: Type =" and of Python's "NAME: Type =".
func (f *file) typedTarget(i int) (string, bool) {
	if f.lang != TypeScript && f.lang != Python {
		return "", false
	}
	for j := i - 1; j > max(0, i-24); j-- {
		t := f.tok(j)
		switch {
		case t.match >= 0 && t.match < j && !f.is(j, "}"):
			j = t.match
		case f.is(j, ":"):
			before := f.tok(j - 1)
			begins := before.first || f.is(j-2, "const", "let", "var", "readonly", "private", "public", "protected", "static")
			return before.text, before.kind == word && begins
		case f.is(j, ";", "=", ",", "(", "{", "}", "=>"), t.first && f.lang == Python:
			return "", false
		}
	}
	return "", false
}

// resolve replaces the first name of each path by what it stands for.
func (f *file) resolve() {
	for i := range f.calls {
		c := &f.calls[i]
		c.path = f.expand(c.path, c.fn)
		if f.imports[c.name] != "" && c.root == c.at { // imported under a name of its own
			c.name = c.path[strings.LastIndexByte(c.path, '.')+1:]
		}
	}
}

// expand replaces the first name of a path that stands in function fn.
func (f *file) expand(path string, fn int) string {
	whole := path
	path, isNew := strings.CutPrefix(path, "new ")
	first, rest, more := strings.Cut(path, ".")
	if more && (first == "self" || first == "this") {
		field, tail, ok := strings.Cut(rest, ".")
		for _, name := range []string{first + "." + field, field} { // set in a method, or declared in the class
			if held := f.vars[variable{-1, name}]; held != "" && ok {
				return held + "." + tail
			}
		}
		return whole
	}
	name := strings.TrimRight(first, "()[]")
	brackets := first[len(name):]
	held, local := f.lookup(name, fn)
	switch {
	case local && more && held == "":
		return "~" + whole // not what is imported under that name
	case local && (!more || brackets != ""):
		return whole
	case local:
		first = held
	case f.imports[name] != "":
		first = f.imports[name] + brackets
	}
	if more {
		first += "." + rest
	}
	if isNew {
		first = "new " + first
	}
	return first
}

// lookup finds what a name holds where function fn uses it. A parameter hides what is outside.
func (f *file) lookup(name string, fn int) (held string, local bool) {
	for range maxNesting {
		if held, ok := f.vars[variable{fn, name}]; ok && (fn >= 0 || f.imports[name] == "") {
			return held, true
		}
		if fn < 0 {
			return "", false
		}
		if f.takes(fn, name) {
			return "", true
		}
		fn = f.functions[fn].outer
	}
	return "", false
}

// takes says that the function has a parameter of that name.
func (f *file) takes(fn int, name string) bool {
	for p := range strings.SplitSeq(f.functions[fn].params, ",") {
		if f.lang == Java {
			p = p[strings.LastIndexAny(p, " \n\t")+1:]
		}
		p = strings.TrimLeft(p, " \n\t*.{&([")
		if rest, ok := strings.CutPrefix(p, name); ok && (rest == "" || strings.ContainsRune(" :=}?)])\n", rune(rest[0]))) {
			return true
		}
	}
	return false
}

// markHandlers passes the mark of a handler on to the functions inside and to those of the same file
// that a handler calls.
func (f *file) markHandlers() {
	named := make(map[string][]int)
	for i, fn := range f.functions {
		if fn.name != "" {
			named[fn.name] = append(named[fn.name], i)
		}
	}
	called := make(map[int][]int)
	for _, c := range f.calls {
		switch c.path {
		case c.name, "self." + c.name, "this." + c.name, "cls." + c.name:
			if c.fn >= 0 && !strings.HasPrefix(c.path, "new ") && f.spend(len(named[c.name])) {
				called[c.fn] = append(called[c.fn], named[c.name]...)
			}
		}
	}
	var todo []int
	inner := make(map[int][]int)
	for i, fn := range f.functions {
		if fn.outer >= 0 {
			inner[fn.outer] = append(inner[fn.outer], i)
		}
		if fn.handler {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, j := range append(inner[i], called[i]...) {
			if !f.functions[j].handler {
				f.functions[j].handler = true
				todo = append(todo, j)
			}
		}
	}
}

// inRequest says that the token runs for each request.
func (f *file) inRequest(c call) bool { return c.fn >= 0 && f.functions[c.fn].handler }

// imported says that something below one of these packages is imported.
func (f *file) imported(prefixes ...string) bool {
	return slices.ContainsFunc(f.packages, func(p string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool {
			rest, ok := strings.CutPrefix(p, prefix)
			return ok && (rest == "" || strings.ContainsRune("/.:", rune(rest[0])))
		})
	})
}

// beside says that a call satisfying ok is in the same function as c, around it or inside it.
func (f *file) beside(c call, ok func(call) bool) bool {
	if !f.spend(len(f.calls)) {
		return true
	}
	for _, other := range f.calls {
		if other.at != c.at && f.related(c.fn, other.fn) && ok(other) {
			return true
		}
	}
	return false
}

func (f *file) related(a, b int) bool {
	return a == b || a >= 0 && b >= 0 && (f.within(a, b) || f.within(b, a))
}

func (f *file) within(inner, outer int) bool {
	for range maxNesting {
		if inner = f.functions[inner].outer; inner < 0 || inner == outer {
			return inner == outer
		}
	}
	return false
}

// inBlock says that the token is inside a block that one of these words begins.
func (f *file) inBlock(at int, names ...string) bool {
	return f.spend(len(f.blocks)) && slices.ContainsFunc(f.blocks, func(b block) bool {
		return b.from <= at && at < b.to && slices.Contains(names, b.word)
	})
}

// keyword returns the argument of that name.
func (c call) keyword(name string) (arg, bool) {
	for _, a := range c.args {
		if a.name == name {
			return a, true
		}
	}
	return arg{}, false
}

// positional returns the n-th argument without a name.
func (c call) positional(n int) (arg, bool) {
	for _, a := range c.args {
		if a.name == "" {
			if n == 0 {
				return a, true
			}
			n--
		}
	}
	return arg{}, false
}

// spread says that an argument passes on others that cannot be seen: *args, **kwargs, ...rest.
func (f *file) spread(c call) bool {
	return slices.ContainsFunc(c.args, func(a arg) bool { return f.is(a.from, "*", "**", "...", "&") })
}

// only says that the argument is this single token.
func (f *file) only(a arg, texts ...string) bool { return a.to == a.from+1 && f.is(a.from, texts...) }

// property finds the value of a key in a literal of an object, dict or hash at any depth of [from,to).
func (f *file) property(from, to int, names ...string) (arg, bool) {
	for i := from; i < to; i++ {
		t := f.tok(i)
		if t.kind > str || !slices.Contains(names, t.text) || !f.is(i+1, ":", "=>", "=") {
			continue
		}
		end := i + 2
		for end < to && !f.is(end, ",", "}", ")") {
			if m := f.tok(end).match; m > end {
				end = m
			}
			end++
		}
		return arg{t.text, i + 2, min(end, to)}, true
	}
	return arg{}, false
}

// mentions says that a word or literal stands in tokens [from,to).
func (f *file) mentions(from, to int, texts ...string) bool {
	if !f.spend(to - from) {
		return true
	}
	for i := from; i < min(to, len(f.tokens)); i++ {
		if t := f.tokens[i]; t.kind <= str && slices.Contains(texts, t.text) {
			return true
		}
	}
	return false
}
