package source

import (
	"fmt"
	"go/ast"
	"go/parser"
	goscanner "go/scanner"
	gotoken "go/token"
	"sort"
	"strconv"
	"strings"
)

// parseGo lets go/parser say whether the file is Go and where its functions are, and go/scanner what its
// tokens are.
func (f *file) parseGo() error {
	set := gotoken.NewFileSet()
	tree, err := parser.ParseFile(set, f.path, f.text, parser.SkipObjectResolution)
	if err != nil {
		return shortGo(err)
	}
	f.lines = lineStarts(f.text)
	f.scanGo()
	for _, spec := range tree.Imports {
		f.importGo(spec)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body != nil {
				f.functionGo(set, n.Name.Name, n.Type, n.Body)
			}
		case *ast.FuncLit:
			f.functionGo(set, "", n.Type, n.Body)
		}
		return true
	})
	return nil
}

func shortGo(err error) error {
	if list, ok := err.(goscanner.ErrorList); ok && len(list) > 0 {
		return fmt.Errorf("line %d: %s", list[0].Pos.Line, list[0].Msg)
	}
	return err
}

func (f *file) scanGo() {
	set := gotoken.NewFileSet()
	src := set.AddFile(f.path, -1, len(f.text))
	var s goscanner.Scanner
	s.Init(src, []byte(f.text), nil, goscanner.ScanComments)
	var open []int
	line := 0
	for {
		pos, tok, lit := s.Scan()
		if tok == gotoken.EOF {
			return
		}
		at := src.Offset(pos)
		if tok == gotoken.COMMENT {
			f.spans = append(f.spans, span{at, min(at+len(lit), len(f.text))})
			continue
		}
		if tok == gotoken.SEMICOLON && lit == "\n" {
			continue // not in the text
		}
		t := goToken(tok, lit, at)
		n, _ := position(f.lines, at)
		t.first, line = n != line, n
		f.tokens = append(f.tokens, t)
		i := len(f.tokens) - 1
		switch tok {
		case gotoken.LPAREN, gotoken.LBRACK, gotoken.LBRACE:
			open = append(open, i)
		case gotoken.RPAREN, gotoken.RBRACK, gotoken.RBRACE:
			if len(open) > 0 {
				f.tokens[i].match, f.tokens[open[len(open)-1]].match = open[len(open)-1], i
				open = open[:len(open)-1]
			}
		}
	}
}

func goToken(tok gotoken.Token, lit string, at int) token {
	t := token{kind: punct, text: lit, from: at, to: at + len(lit), match: -1}
	switch {
	case tok == gotoken.STRING || tok == gotoken.CHAR:
		t.kind = str
		if s, err := strconv.Unquote(lit); err == nil {
			t.text = s
		}
	case tok == gotoken.INT || tok == gotoken.FLOAT || tok == gotoken.IMAG:
		t.kind = number
	case tok == gotoken.IDENT || tok.IsKeyword():
		t.kind = word
	default:
		t.text = tok.String()
		t.to = at + len(t.text)
	}
	return t
}

func (f *file) importGo(spec *ast.ImportSpec) {
	path, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return
	}
	f.packages = append(f.packages, path)
	name := path[strings.LastIndexByte(path, '/')+1:]
	if _, err := strconv.Atoi(strings.TrimPrefix(name, "v")); err == nil && strings.Contains(path, "/") { // .../jwt/v5
		base := strings.TrimSuffix(path, "/"+name)
		name = base[strings.LastIndexByte(base, '/')+1:]
	}
	name = strings.TrimPrefix(name, "go-")
	name, _, _ = strings.Cut(name, ".") // gopkg.in/yaml.v3
	if spec.Name != nil {
		name = spec.Name.Name
	}
	f.imports[name] = path
}

func (f *file) functionGo(set *gotoken.FileSet, name string, t *ast.FuncType, body *ast.BlockStmt) {
	at := func(p gotoken.Pos) int { return set.Position(p).Offset }
	index := func(p gotoken.Pos) int {
		offset := at(p)
		return sort.Search(len(f.tokens), func(i int) bool { return f.tokens[i].from >= offset })
	}
	fn := function{name: name, from: index(body.Lbrace) + 1, to: index(body.Rbrace)}
	if t.Params != nil && t.Params.Closing.IsValid() {
		fn.params = f.text[at(t.Params.Opening)+1 : at(t.Params.Closing)]
	}
	fn.handler = strings.Contains(fn.params, "http.ResponseWriter") && strings.Contains(fn.params, "http.Request")
	for _, ctx := range []string{"gin.Context", "echo.Context", "fiber.Ctx", "fasthttp.RequestCtx", "iris.Context"} {
		fn.handler = fn.handler || strings.Contains(fn.params, ctx)
	}
	f.functions = append(f.functions, fn)
}
