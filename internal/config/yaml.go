package config

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/ratelimit"
)

// document is gantry.yaml.
type document struct {
	Routes []routeEntry      `yaml:"routes"`
	Plans  map[string]string `yaml:"plans"`
	Audit  Audit             `yaml:"audit"`

	Receivers map[string]receiverEntry `yaml:"receivers"`
	Alerts    any                      `yaml:"alerts"` // read by the package alert, from
	text      string
}

type routeEntry struct {
	Path    string   `yaml:"path"`
	Methods []string `yaml:"methods"`
	Auth    string   `yaml:"auth"`
	Timeout string   `yaml:"timeout"`
	Limit   string   `yaml:"limit"`
	Stream  bool     `yaml:"stream"`
	MaxBody int64    `yaml:"max_body"`
	Loose   bool     `yaml:"loose"`
	Rollout *bool    `yaml:"rollout"`
}

var yamlKeys = []string{"routes", "plans", "path", "methods", "auth", "timeout", "limit", "stream", "max_body", "loose", "rollout"}

// yaml reads gantry.yaml: strictly, one document, no aliases (a few bytes of them can stand for
// gigabytes).
func (l *loader) yaml(src Sources) {
	tree, doc, ok := l.document(src)
	if !ok {
		return
	}
	file := tree.Name
	l.yamlName, l.yamlText = file, doc.text
	l.ownReceivers(doc.Receivers, tree)
	if doc.Alerts != nil {
		l.rules(file, doc.text)
	}
	lines := routeLines(tree)
	for i, entry := range doc.Routes {
		line := 0
		if i < len(lines) {
			line = lines[i]
		}
		l.route(entry, file, line)
	}
	l.conflicts(file)
	l.plans(doc.Plans, file)
}

// document reads and decodes the file; not ok when there is none, or a fault was reported.
func (l *loader) document(src Sources) (tree *ast.File, doc document, ok bool) {
	text, file, ok := l.file(src.YAML, src.Dir, "gantry.yaml")
	if !ok {
		return nil, doc, false
	}
	tree, doc, err := decode(text)
	switch {
	case errors.Is(err, errNotPlain):
		l.fault(Fault{ID: idSyntax, Name: file, Source: file, Problem: "must be one document " + errNotPlain.Error()})
		return nil, doc, false
	case err != nil:
		l.yamlError(file, err)
		return nil, doc, false
	}
	tree.Name, doc.text = file, text
	return tree, doc, true
}

var errNotPlain = errors.New("without anchors, aliases and tags")

// decode parses text and reads it into a document. The library can panic on what it parsed itself; that
// is a bad file to the operator all the same.
func decode(text string) (tree *ast.File, doc document, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("yaml: %v", v)
		}
	}()
	if tree, err = parser.ParseBytes([]byte(text), 0); err != nil {
		return nil, doc, err
	}
	if len(tree.Docs) > 1 || !isPlain(tree) {
		return nil, doc, errNotPlain
	}
	err = yaml.UnmarshalWithOptions([]byte(text), &doc, yaml.Strict())
	return tree, doc, err
}

// isPlain says that a file has no anchors, aliases and tags: nothing in gantry.yaml needs them.
func isPlain(tree *ast.File) bool {
	plain := true
	for _, d := range tree.Docs {
		if d.Body != nil {
			ast.Walk(visitor(func(n ast.Node) {
				plain = plain && n.Type() != ast.AliasType && n.Type() != ast.AnchorType && n.Type() != ast.TagType
			}), d.Body)
		}
	}
	return plain
}

type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor { v(n); return v }

var unknownKey = regexp.MustCompile(`unknown field "([^"]+)"`)

// yamlError turns the parser's error into a fault with line and column, and without the source text
// that it would print: that may hold values.
func (l *loader) yamlError(file string, err error) {
	source := file
	message := ""
	var positioned yaml.Error
	if errors.As(err, &positioned) {
		if token := positioned.GetToken(); token != nil {
			source = fmt.Sprintf("%s:%d:%d", file, token.Position.Line, token.Position.Column)
		}
		message = positioned.GetMessage()
	}
	if m := unknownKey.FindStringSubmatch(message); m != nil {
		f := Fault{ID: idUnknown, Name: m[1], Source: source, Problem: "is not a key"}
		if near := nearKey(m[1]); near != "" {
			f.Problem, f.Example = "is not a key; did you mean "+near+"?", near
		}
		l.fault(f)
		return
	}
	var syntax *yaml.SyntaxError
	problem := "a value has the wrong type, or a key stands twice"
	if errors.As(err, &syntax) || positioned == nil {
		problem = "is not valid YAML"
	}
	l.fault(Fault{ID: idSyntax, Name: file, Source: source, Problem: problem})
}

func nearKey(name string) string {
	best, distance := "", 3
	for _, key := range slices.Concat(yamlKeys, auditKeys, alertKeys) {
		if d := editDistance(strings.ToLower(name), key, 2); d < distance {
			best, distance = key, d
		}
	}
	return best
}

// routeLines returns the line of each entry of routes.
func routeLines(tree *ast.File) []int {
	path, err := yaml.PathString("$.routes")
	if err != nil {
		return nil
	}
	node, err := path.FilterFile(tree)
	list, ok := node.(*ast.SequenceNode)
	if err != nil || !ok {
		return nil
	}
	var lines []int
	for _, v := range list.Values {
		lines = append(lines, v.GetToken().Position.Line)
	}
	return lines
}

func (l *loader) route(e routeEntry, file string, line int) {
	at := func(key, problem, example string) {
		l.fault(Fault{ID: idRoute, Name: "routes." + key, Source: fmt.Sprintf("%s:%d", file, line), Problem: problem, Example: example})
	}
	r := Route{Stream: e.Stream, MaxBody: e.MaxBody, Loose: e.Loose, Uncounted: e.Rollout != nil && !*e.Rollout, Line: line}
	var err error
	if !strings.HasPrefix(e.Path, "/") {
		at("path", "must begin with a slash", "path: /public/")
		return
	}
	if e.Auth != "" {
		if r.Auth, err = identity.ParseMode(e.Auth); err != nil {
			at("auth", "is none of required, optional, none", "auth: none")
		}
	}
	if e.Timeout != "" {
		if r.Timeout, err = time.ParseDuration(e.Timeout); err != nil || r.Timeout < 10*time.Millisecond || r.Timeout > time.Hour {
			at("timeout", "is not a time from 10ms to 1h", "timeout: 5s")
		}
	}
	if e.Limit != "" {
		if r.Limit, err = ratelimit.ParseRate(e.Limit); err != nil {
			at("limit", err.Error(), "limit: 10/min")
		}
	}
	if e.MaxBody < 0 {
		at("max_body", "is negative", "max_body: 104857600")
	}
	l.addRoutes(r, e, at)
}

var routeMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

func (l *loader) addRoutes(r Route, e routeEntry, at func(key, problem, example string)) {
	if len(e.Methods) == 0 {
		r.Pattern = e.Path
		l.cfg.Routes = append(l.cfg.Routes, r)
	}
	for _, method := range e.Methods {
		if !slices.Contains(routeMethods, method) {
			at("methods", "holds something that is not a method", "methods: [GET, POST]")
			continue
		}
		r.Pattern = method + " " + e.Path
		l.cfg.Routes = append(l.cfg.Routes, r)
	}
}

// conflicts asks net/http itself, whose patterns they are.
func (l *loader) conflicts(file string) {
	mux := http.NewServeMux()
	for _, r := range l.cfg.Routes {
		if err := register(mux, r.Pattern); err != nil {
			l.fault(Fault{ID: idRoute, Name: "routes.path", Source: fmt.Sprintf("%s:%d", file, r.Line), Problem: "is malformed, or conflicts with another route", Example: "path: /v1/items/{id}"})
		}
	}
}

func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	mux.Handle(pattern, http.NotFoundHandler())
	return nil
}

func (l *loader) plans(plans map[string]string, file string) {
	for name, text := range plans {
		r, err := ratelimit.ParseRate(text)
		if err != nil {
			l.fault(Fault{ID: idInvalid, Name: "plans." + name, Source: file, Problem: err.Error(), Example: "pro: 1000/min"})
			continue
		}
		if l.cfg.Limits.Plans == nil {
			l.cfg.Limits.Plans = make(map[string]ratelimit.Rate)
		}
		l.cfg.Limits.Plans[name] = r
	}
}
