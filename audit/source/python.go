package source

import (
	"slices"
	"strings"
)

var pythonGrammar = grammar{comment: hashComment, literal: pythonLiteral, joined: true}

func hashComment(l *lexer) int {
	if l.text[l.pos] == '#' {
		return l.toLineEnd()
	}
	return l.pos
}

// pythonLiteral is a string with its prefix: r, b, u, f, t and pairs of them.
func pythonLiteral(l *lexer) (int, string, bool) {
	at := l.pos
	for at < len(l.text) && at < l.pos+3 && strings.IndexByte("rRbBuUfFtT", l.text[at]) >= 0 {
		at++
	}
	if at >= len(l.text) || l.text[at] != '"' && l.text[at] != '\'' {
		return l.pos, "", false
	}
	quote := l.text[at : at+1]
	format := strings.ContainsAny(l.text[l.pos:at], "fFtT")
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(l.text[at:], triple) {
		quote = triple
	}
	at += len(quote)
	end := -1
	if format && len(quote) == 1 { // since 3.12 a value may hold the same quotes
		end, _ = filled(l.text, at, quote[0], "{", false, 0)
	}
	if end < 0 {
		end = closing(l.text, at, quote, len(quote) == 3)
	}
	if end < 0 {
		return -1, "", false
	}
	text := l.text[at:end]
	return end + len(quote), text, format && strings.Contains(text, "{")
}

// statement is a line of Python, brackets and backslashes joined.
type statement struct{ from, to, indent int }

func (f *file) statements() []statement {
	var list []statement
	for i, t := range f.tokens {
		if !t.first {
			continue
		}
		if len(list) > 0 {
			list[len(list)-1].to = i
		}
		_, column := position(f.lines, t.from)
		list = append(list, statement{i, len(f.tokens), column})
	}
	return list
}

func (f *file) structurePython() {
	list := f.statements()
	ends := blockEnds(list)
	var marks []string
	for n, s := range list {
		f.importPython(s)
		if f.is(s.from, "@") {
			marks = append(marks, f.source(s.from+1, s.to))
			continue
		}
		from, to := s.to, len(f.tokens)
		if e := ends[n]; e < len(list) {
			to = list[e].from
		}
		colon := f.headColon(s)
		if colon < s.to-1 { // the body is on the same line
			from, to = colon+1, s.to
		}
		f.blockPython(s, from, to, colon, marks)
		marks = nil
	}
	f.lambdas()
	f.handlersPython()
}

// blockEnds gives for each statement the first one after it that is not indented deeper.
func blockEnds(list []statement) []int {
	ends := make([]int, len(list))
	var open []int
	for n, s := range list {
		for len(open) > 0 && list[open[len(open)-1]].indent >= s.indent {
			ends[open[len(open)-1]] = n
			open = open[:len(open)-1]
		}
		open = append(open, n)
	}
	for _, n := range open {
		ends[n] = len(list)
	}
	return ends
}

// headColon is the colon that begins the body of a compound statement.
func (f *file) headColon(s statement) int {
	for i := s.from; i < s.to; i++ {
		if m := f.tokens[i].match; m > i {
			i = m
		} else if f.is(i, ":") {
			return i
		}
	}
	return s.to - 1
}

func (f *file) blockPython(s statement, from, to, colon int, marks []string) {
	i := s.from
	async := f.is(i, "async")
	if async {
		i++
	}
	switch f.tok(i).text {
	case "def":
		fn := function{name: f.tok(i + 1).text, from: from, to: to, async: async, marks: marks}
		if m := f.tok(i + 2).match; m > 0 {
			fn.params = f.source(i+3, m)
		}
		f.functions = append(f.functions, fn)
	case "class":
		c := class{name: f.tok(i + 1).text, from: from, to: to, marks: marks}
		if m := f.tok(i + 2).match; m > 0 {
			c.bases = f.source(i+3, m)
		}
		f.classes = append(f.classes, c)
	case "except", "if", "elif", "else":
		f.blocks = append(f.blocks, block{f.tok(i).text, span{i + 1, colon}, from, to})
	}
}

// lambdas are functions too: they do not run where they stand.
func (f *file) lambdas() {
	for i := range f.tokens {
		if !f.is(i, "lambda") {
			continue
		}
		from := -1
		j := i + 1
		for ; j < min(len(f.tokens), i+400); j++ {
			if m := f.tokens[j].match; m > j {
				j = m
				continue
			}
			if from < 0 && f.is(j, ":") {
				from = j + 1
			} else if from >= 0 && f.is(j, ",") || f.is(j, ")", "]", "}") || f.tokens[j].first {
				break
			}
		}
		if from >= 0 {
			f.functions = append(f.functions, function{from: from, to: min(j, len(f.tokens))})
		}
	}
}

func (f *file) importPython(s statement) {
	switch {
	case f.is(s.from, "import"):
		for _, a := range f.split(s.from+1, s.to) {
			name, as := f.source(a.from, a.to), ""
			if f.is(a.to-2, "as") {
				name, as = f.source(a.from, a.to-2), f.tok(a.to-1).text
			}
			f.packages = append(f.packages, name)
			if as != "" {
				f.imports[as] = name
			} else {
				first, _, _ := strings.Cut(name, ".")
				f.imports[first] = first
			}
		}
	case f.is(s.from, "from"):
		f.importFrom(s)
	}
}

func (f *file) importFrom(s statement) {
	at := s.from + 1
	for at < s.to && !f.is(at, "import") {
		at++
	}
	module := f.source(s.from+1, at)
	f.packages = append(f.packages, module)
	from, to := at+1, s.to
	if f.is(from, "(") {
		from, to = from+1, max(f.tok(from).match, from+1)
	}
	for _, a := range f.split(from, to) {
		name := f.tok(a.from).text
		f.imports[f.tok(a.to-1).text] = module + "." + name
		f.packages = append(f.packages, module+"."+name)
	}
}

var verbs = words("get post put patch delete head options trace dispatch")

// handlersPython knows Django and REST framework, Flask, FastAPI and Starlette, aiohttp, Tornado and
// Falcon by decorators, base classes and the name of the first parameter.
func (f *file) handlersPython() {
	f.own() // the classes are needed
	for i := range f.functions {
		fn := &f.functions[i]
		first := firstParam(fn.params)
		bases := ""
		if fn.class >= 0 {
			bases = f.classes[fn.class].bases
		}
		view := false
		for _, suffix := range []string{"View", "ViewSet", "Mixin", "RequestHandler", "Resource", "Endpoint", "Middleware", "MiddlewareMixin", "HTTPEndpoint", "Consumer"} {
			view = view || slices.ContainsFunc(strings.Split(bases, ","), func(b string) bool { return strings.HasSuffix(strings.TrimSpace(b), suffix) })
		}
		fn.handler = first == "request" || first == "req" || view && (verbs[fn.name] || first == "request") ||
			strings.HasPrefix(fn.name, "on_") && verbs[fn.name[3:]] ||
			slices.ContainsFunc(fn.marks, routeMark)
	}
}

func firstParam(params string) string {
	for p := range strings.SplitSeq(params, ",") {
		p, _, _ = strings.Cut(p, ":")
		p, _, _ = strings.Cut(p, "=")
		if p = strings.TrimSpace(p); p != "self" && p != "cls" {
			return p
		}
	}
	return ""
}

// routeMark is a decorator that makes a route: app.get("/x"), bp.route("/x"), api_view(["GET"]).
func routeMark(mark string) bool {
	name, args, called := strings.Cut(mark, "(")
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch last {
	case "route", "api_view", "websocket", "api_route", "before_request", "after_request", "middleware", "require_http_methods", "require_GET", "require_POST", "csrf_exempt", "login_required":
		return true
	}
	return called && verbs[last] && last != name && strings.ContainsAny(args, "\"'")
}
