package source

import (
	"path"
	"strings"
)

var jsGrammar = grammar{comment: cComment, literal: jsLiteral, letters: "$#"}

// beforeValue are words after which a value begins, and so "/" a regular expression.
var beforeValue = words("return typeof case in of delete void throw new else do yield await instanceof if unless and or not when elsif while until puts then")

// valueNext says that a value may begin here, which decides what "/" and "%" mean.
func (l *lexer) valueNext() bool {
	t := l.last()
	switch t.kind {
	case punct:
		return t.text != ")" && t.text != "]" && t.text != "}" && t.text != "++" && t.text != "--"
	case word:
		return beforeValue[t.text]
	}
	return false
}

func jsLiteral(l *lexer) (int, string, bool) {
	at := l.pos + 1
	switch c := l.text[l.pos]; c {
	case '"', '\'':
		// In the text of JSX there are apostrophes. No string stands directly behind a name.
		end := closing(l.text, at, string(c), false)
		if t := l.last(); end < 0 || t.kind == word && t.to == l.pos && !beforeValue[t.text] && t.text != "from" && t.text != "import" {
			return l.pos, "", false
		}
		return end + 1, l.text[at:end], false
	case '`':
		end, live := filled(l.text, at, '`', "${", true, 0)
		if end < 0 {
			return -1, "", false
		}
		return end + 1, l.text[at:end], live
	case '/':
		if l.valueNext() && l.last().text != "<" {
			if end := regexpEnd(l.text, at); end > 0 {
				return end, l.text[at : end-1], false
			}
		}
	}
	return l.pos, "", false
}

// regexpEnd is after the slash that ends a regular expression on the same line, or 0.
func regexpEnd(text string, at int) int {
	set := false
	for i := at; i < len(text) && text[i] != '\n'; i++ {
		switch text[i] {
		case '\\':
			i++
		case '[':
			set = true
		case ']':
			set = false
		case '/':
			if !set {
				return i + 1
			}
		}
	}
	return 0
}

func (f *file) structureJS() {
	f.importJS()
	for i := range f.tokens {
		switch {
		case f.is(i, "=>"):
			f.arrow(i)
		case f.is(i, "{") && f.tok(i).match > i:
			f.braceJS(i)
		case f.is(i, "class") && f.tok(i+1).kind == word:
			f.classJS(i)
		}
	}
	f.handlersJS()
}

// arrow is (a, b) => body, a => body or (a): Type => body.
func (f *file) arrow(i int) {
	fn := function{from: i + 1, to: f.expressionEnd(i + 1)}
	head := i - 1
	if f.tok(head).kind == word && !f.is(head-1, ":", "|", "&", ".", "<", ",") || f.is(head-1, "async", "(", ",") && f.tok(head).kind == word {
		fn.params = f.tok(head).text
	} else if close := f.paramsBefore(i); close > 0 {
		head = f.tok(close).match
		fn.params = f.source(head+1, close)
		fn.returns = f.source(close+2, i)
	}
	fn.async = f.is(head-1, "async")
	fn.name = f.nameBefore(head, fn.async)
	f.functions = append(f.functions, fn)
}

// expressionEnd is after the body of an arrow function.
func (f *file) expressionEnd(from int) int {
	if f.is(from, "{") && f.tok(from).match > from {
		return f.tok(from).match + 1
	}
	for i := from; i < len(f.tokens); i++ {
		if m := f.tokens[i].match; m > i {
			i = m
		} else if f.is(i, ",", ";", ")", "]", "}") || i > from && f.tokens[i].first && f.tokens[i].kind == word && !f.is(i-1, ".", "?", ":", "=", "&&", "||", "+", "=>", "await") {
			return i
		}
	}
	return len(f.tokens)
}

// paramsBefore finds the ")" of the parameters before "=>" or "{", over a declared type; 0 if none.
func (f *file) paramsBefore(i int) int {
	for j := i - 1; j > max(0, i-40); j-- {
		t := f.tokens[j]
		switch {
		case f.is(j, ")") && (j == i-1 || f.is(j+1, ":")):
			return j
		case t.match >= 0 && t.match < j:
			j = t.match
		case t.kind == punct && !strings.Contains(".<>|&,:?[]=>", t.text):
			return 0
		}
	}
	return 0
}

// nameBefore is the name that a function expression gets from its assignment or key.
func (f *file) nameBefore(head int, async bool) string {
	if async {
		head--
	}
	if f.is(head-1, "=", ":") && f.tok(head-2).kind == word {
		return f.tok(head - 2).text
	}
	return ""
}

// braceJS looks whether a body of a function or a catch begins here.
func (f *file) braceJS(i int) {
	if f.is(i-1, "catch") {
		f.blocks = append(f.blocks, block{"catch", span{}, i + 1, f.tok(i).match})
		return
	}
	close := f.paramsBefore(i)
	if close == 0 || f.tok(close).match < 0 {
		return
	}
	open := f.tok(close).match
	name := open - 1
	fn := function{from: i + 1, to: f.tok(i).match, params: f.source(open+1, close)}
	if f.is(name, ">") {
		name = f.typesBack(name)
	}
	switch {
	case f.is(name, "catch"):
		f.blocks = append(f.blocks, block{"catch", span{}, i + 1, f.tok(i).match})
		return
	case f.is(name, "function", "*"): // without a name of its own
		for f.is(name, "function", "*") {
			name--
		}
		fn.async = f.is(name, "async")
		fn.name = f.nameBefore(name+1, fn.async)
	case f.is(name-1, "function", "*") && f.tok(name).kind == word:
		fn.name = f.tok(name).text
		for name--; f.is(name, "function", "*"); name-- {
		}
		fn.async = f.is(name, "async")
	case f.tok(name).kind == word && !notCalled[f.tok(name).text] && !f.is(name-1, ".", "new", "?."):
		fn.name = f.tok(name).text
		fn.async = f.is(name-1, "async")
		fn.marks = f.marksBefore(name)
	default:
		return
	}
	f.functions = append(f.functions, fn)
}

func (f *file) typesBack(i int) int {
	depth := 0
	for j := i; j > max(0, i-60); j-- {
		if f.is(j, ">") {
			depth++
		} else if f.is(j, "<") {
			if depth--; depth == 0 {
				return j - 1
			}
		}
	}
	return i
}

// marksBefore collects the decorators or annotations before a member: @Get("x") async NAME.
func (f *file) marksBefore(i int) []string {
	var marks []string
	for j := i - 1; j >= max(0, i-200); j-- {
		switch {
		case f.is(j, ";", "{", "}"):
			return marks
		case f.is(j, ")") && f.tok(j).match >= 0:
			j = f.tok(j).match
		case f.is(j, "@"):
			marks = append(marks, f.tok(j+1).text)
		}
	}
	return marks
}

func (f *file) classJS(i int) {
	c := class{name: f.tok(i + 1).text, marks: f.marksBefore(i)}
	for j := i + 2; j < min(len(f.tokens), i+60); j++ {
		if f.is(j, "{") && f.tok(j).match > j {
			c.bases, c.from, c.to = f.source(i+2, j), j+1, f.tok(j).match
			f.classes = append(f.classes, c)
			return
		}
	}
}

func (f *file) importJS() {
	for i := range f.tokens {
		switch {
		case f.is(i, "import") && !f.is(i+1, "(", "."):
			f.importStatement(i)
		case f.is(i, "require") && f.is(i+1, "("), f.is(i, "import") && f.is(i+1, "("):
			if module, ok := f.literal(i + 2); ok && f.is(i+3, ")") {
				f.required(i, f.module(module))
			}
		}
	}
}

// module is the name of a package as rules write it.
func (f *file) module(name string) string {
	name = strings.TrimPrefix(name, "node:")
	f.packages = append(f.packages, name)
	return name
}

func (f *file) importStatement(i int) {
	from := i + 1
	for ; from < min(len(f.tokens), i+400) && f.tok(from).kind != str; from++ {
		if f.is(from, ";", "(", "=") {
			return // import X = require("m") is read at require
		}
	}
	text, ok := f.literal(from)
	if !ok {
		return
	}
	module := f.module(text)
	for j := i + 1; j < from; j++ {
		switch {
		case f.is(j, "{"):
			f.members(j, module, "as")
			j = max(j, f.tok(j).match)
		case f.is(j, "*"):
			f.imports[f.tok(j+2).text] = module
			j += 2
		case f.tok(j).kind == word && !f.is(j, "from", "type"):
			f.imports[f.tok(j).text] = module
		}
	}
}

// members reads { a, b as c } of an import or { a, b: c } of an assignment.
func (f *file) members(open int, module, rename string) {
	for _, a := range f.split(open+1, f.tok(open).match) {
		first := a.from
		if f.is(first, "type") && f.tok(first+1).kind == word {
			first++
		}
		name, as := f.tok(first).text, f.tok(first).text
		if f.is(first+1, rename) {
			as = f.tok(first + 2).text
		}
		f.imports[as] = module + "." + name
	}
}

// required binds what require("m") at i is assigned to.
func (f *file) required(i int, module string) {
	member := ""
	if f.is(i+4, ".") && f.tok(i+5).kind == word && !f.is(i+6, "(") {
		member = "." + f.tok(i+5).text
	}
	at := i - 1
	if f.is(at, "await") {
		at--
	}
	switch {
	case !f.is(at, "="):
	case f.is(at-1, "}") && f.tok(at-1).match >= 0:
		f.members(f.tok(at-1).match, module+member, ":")
	case f.tok(at-1).kind == word:
		f.imports[f.tok(at-1).text] = module + member
	}
}

// handlersJS knows Express, Fastify, Koa, Hono, hapi, NestJS, Next.js and node:http: by the parameters, by
// being an argument of a route, by decorators and by exported names.
func (f *file) handlersJS() {
	for i := range f.functions {
		fn := &f.functions[i]
		fn.handler = requestParams(fn.params) || nestMarks(fn.marks) || f.nextHandler(*fn) || f.routed(*fn)
	}
}

func requestParams(params string) bool {
	var names []string
	for p := range strings.SplitSeq(params, ",") {
		p, _, _ = strings.Cut(p, ":")
		names = append(names, strings.Trim(p, " \n\t_?"))
	}
	first, second := names[0], ""
	if len(names) > 1 {
		second = names[1]
	}
	switch first {
	case "req", "request":
		return second == "res" || second == "response" || second == "reply" || second == "h" || second == "rep" || second == "resp"
	case "err", "error":
		return second == "req"
	case "ctx", "context":
		return second == "next"
	}
	return false
}

func nestMarks(marks []string) bool {
	for _, m := range marks {
		if m == "All" || m != strings.ToLower(m) && verbs[strings.ToLower(m)] {
			return true
		}
	}
	return false
}

// nextHandler is GET, POST ... of a file named route, or handler below pages/api.
func (f *file) nextHandler(fn function) bool {
	base := path.Base(f.path)
	if strings.HasPrefix(base, "route.") {
		return fn.name != "" && fn.name == strings.ToUpper(fn.name) && verbs[strings.ToLower(fn.name)]
	}
	return strings.Contains("/"+f.path, "/pages/api/") && fn.name == "handler"
}

// routed says that the function is an argument of app.get("/x", ...) or http.createServer(...).
func (f *file) routed(fn function) bool {
	at := fn.from - 1 // "=>" or "{"
	for ; at > max(0, fn.from-60); at-- {
		if m := f.tok(at).match; m >= 0 && m < at {
			at = m
			continue
		}
		if f.is(at, "(") && f.tok(at).match >= fn.to-1 && f.tok(at-1).kind == word && !f.is(at-1, "function", "async") {
			break
		}
		if f.is(at, ";", "{", "}") && at != fn.from-1 {
			return false
		}
	}
	if !f.is(at, "(") || f.tok(at).match < fn.to-1 {
		return false
	}
	if f.is(at-1, "createServer") {
		return true
	}
	path, ok := f.literal(at + 1)
	routes := verbs[f.tok(at-1).text] || f.is(at-1, "all", "use", "del")
	return routes && f.is(at-2, ".") && f.tok(at+1).match < 0 && (ok && strings.HasPrefix(path, "/") || f.is(at-1, "use"))
}

// server says that a file of JavaScript belongs to a service and not to a page in a browser.
func (f *file) server() bool {
	if f.serves == nil {
		serves := f.looksServed()
		f.serves = &serves
	}
	return *f.serves
}

func (f *file) looksServed() bool {
	if f.imported("react", "vue", "svelte", "@angular", "solid-js", "preact", "jquery", "@tanstack") {
		return false
	}
	for i, t := range f.tokens {
		if t.kind == word && f.is(i+1, ".") && f.is(i, "document", "window", "localStorage", "sessionStorage") {
			return false
		}
	}
	if f.place != unknownPlace {
		return f.place == inService
	}
	for _, fn := range f.functions {
		if fn.handler {
			return true
		}
	}
	for i := range f.tokens {
		if f.is(i, "module") && f.is(i+1, ".") && f.is(i+2, "exports") {
			return true
		}
	}
	return f.imported(
		"express", "fastify", "koa", "hono", "hapi", "@hapi", "@nestjs", "http", "https", "fs", "path", "os", "crypto", "net", "url", "util", "stream", "events",
		"child_process", "worker_threads", "pg", "mysql", "mysql2", "mongodb", "mongoose", "redis", "ioredis", "@prisma", "knex", "sequelize", "typeorm", "jsonwebtoken",
		"next/server", "dotenv", "winston", "pino", "bullmq", "amqplib", "kafkajs", "node-fetch", "undici",
	)
}
