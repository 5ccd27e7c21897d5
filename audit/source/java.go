package source

import "strings"

var javaGrammar = grammar{comment: cComment, literal: javaLiteral, letters: "$"}

func javaLiteral(l *lexer) (int, string, bool) {
	at := l.pos + 1
	switch c := l.text[l.pos]; c {
	case '"':
		if strings.HasPrefix(l.rest(), `"""`) {
			if end := closing(l.text, at+2, `"""`, true); end >= 0 {
				return end + 3, l.text[at+2 : end], false
			}
			return -1, "", false
		}
		fallthrough
	case '\'':
		if end := closing(l.text, at, string(c), false); end >= 0 {
			return end + 1, l.text[at:end], false
		}
		return -1, "", false
	}
	return l.pos, "", false
}

func (f *file) structureJava() {
	for i := range f.tokens {
		switch {
		case f.is(i, "import"):
			f.importJava(i)
		case f.is(i, "class", "interface", "record", "enum") && f.tok(i+1).kind == word && !f.is(i-1, "."):
			f.classJS(i)
		case f.is(i, "->"):
			f.lambdaJava(i)
		case f.is(i, "{") && f.tok(i).match > i:
			f.methodJava(i)
		}
	}
	f.handlersJava()
}

func (f *file) importJava(i int) {
	j := i + 1
	if f.is(j, "static") {
		j++
	}
	end := j
	for end < min(len(f.tokens), j+60) && !f.is(end, ";") {
		end++
	}
	name := f.source(j, end)
	f.packages = append(f.packages, name)
	if last := f.tok(end - 1); last.kind == word {
		f.imports[last.text] = name
	}
}

// lambdaJava is ctx -> body or (a, b) -> body.
func (f *file) lambdaJava(i int) {
	if f.is(i-2, "case", ",") && f.tok(i-1).kind != punct && !f.is(i-3, "(") {
		return // a branch of a switch
	}
	fn := function{from: i + 1, to: f.expressionEnd(i + 1), params: f.tok(i - 1).text}
	head := i - 1
	if f.is(head, ")") && f.tok(head).match >= 0 {
		head = f.tok(head).match
		fn.params = f.source(head+1, i-1)
	}
	// app.get("/x", ctx -> ...)
	path, ok := f.literal(head - 2)
	fn.handler = ok && strings.HasPrefix(path, "/") && f.is(head-1, ",") && f.is(head-3, "(") && verbs[strings.ToLower(f.tok(head-4).text)]
	f.functions = append(f.functions, fn)
}

// methodJava is TYPE NAME(PARAMS) throws X {.
func (f *file) methodJava(i int) {
	close := i - 1
	for close > max(0, i-30) && (f.tok(close).kind == word && !f.is(close, "else", "try", "do") || f.is(close, ",", ".")) {
		close--
	}
	if f.is(close, ")") && f.is(f.tok(close).match-1, "catch") {
		f.blocks = append(f.blocks, block{"catch", span{}, i + 1, f.tok(i).match})
		return
	}
	open := f.tok(close).match
	if !f.is(close, ")") || open < 2 || close != i-1 && !f.is(close+1, "throws") {
		return
	}
	name := open - 1
	if f.tok(name).kind != word || notCalled[f.tok(name).text] {
		return
	}
	before := f.tok(name - 1)
	typed := before.kind == word && before.text != "new" && before.text != "return" || f.is(name-1, ">", "]")
	if !typed {
		return
	}
	f.functions = append(f.functions, function{
		name: f.tok(name).text, from: i + 1, to: f.tok(i).match, params: f.source(open+1, close),
		marks: f.marksBefore(name), returns: f.returnType(name),
	})
}

func (f *file) returnType(name int) string {
	from := name - 1
	if f.is(from, ">") {
		from = f.typesBack(from)
	}
	return f.source(from, name)
}

// handlersJava knows Spring, JAX-RS, Micronaut, servlets and Vert.x.
func (f *file) handlersJava() {
	f.own()
	for i := range f.functions {
		fn := &f.functions[i]
		for _, m := range fn.marks {
			lower := strings.ToLower(m)
			fn.handler = fn.handler || strings.HasSuffix(m, "Mapping") || verbs[lower] && m != lower || m == "ExceptionHandler"
		}
		for _, t := range []string{"HttpServletRequest", "RoutingContext", "ServerRequest", "ServerHttpRequest", "HttpExchange", "ContainerRequestContext", "ServletRequest"} {
			fn.handler = fn.handler || strings.Contains(fn.params, t+" ")
		}
		fn.handler = fn.handler || f.perRequestClass(*fn)
	}
}

// perRequestClass says that a method of the class serves requests although it is called from elsewhere:
// those of services and repositories, their constructors and factories excepted.
func (f *file) perRequestClass(fn function) bool {
	if fn.class < 0 || fn.name == f.classes[fn.class].name || fn.name == "" {
		return false
	}
	for _, m := range fn.marks {
		if m == "Bean" || m == "PostConstruct" || m == "Scheduled" || m == "PreDestroy" || m == "EventListener" {
			return false
		}
	}
	for _, m := range f.classes[fn.class].marks {
		if m == "Repository" || m == "Service" || m == "RestController" || m == "Controller" {
			return true
		}
	}
	return false
}
