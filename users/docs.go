package users

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsText string

// policyOf lets a page do nothing but show itself, with the one style sheet that is in it.
func policyOf(page []byte) string {
	_, rest, _ := bytes.Cut(page, []byte("<style>"))
	style, _, _ := bytes.Cut(rest, []byte("</style>"))
	sum := sha256.Sum256(style)
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// docsPage is the OpenAPI document for people: made once, it loads nothing and runs nothing.
func docsPage(doc *huma.OpenAPI) (http.Handler, error) {
	t, err := template.New("docs").Funcs(template.FuncMap{"schema": schemaRows(doc.Components.Schemas), "example": example(doc.Components.Schemas), "status": http.StatusText}).Parse(docsText)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := t.Execute(&page, docsView(doc)); err != nil {
		return nil, err
	}
	policy := policyOf(page.Bytes())
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Length", strconv.Itoa(page.Len()))
		_, _ = w.Write(page.Bytes())
	}), nil
}

type docsModel struct {
	Title, Version, Description string
	Groups                      []docsGroup
}

type docsGroup struct {
	Name   string
	Routes []docsRoute
}

type docsRoute struct {
	Method, Path string
	*huma.Operation
	Body    *huma.Schema // of the request
	Answers []docsAnswer
}

type docsAnswer struct {
	Code int
	Good bool
	Body *huma.Schema
}

func docsView(doc *huma.OpenAPI) docsModel {
	m := docsModel{Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description}
	for _, tag := range []string{tagSelf, tagPublic, tagAdmin} {
		m.Groups = append(m.Groups, docsGroup{Name: tag, Routes: docsRoutes(doc, tag)})
	}
	return m
}

func docsRoutes(doc *huma.OpenAPI, tag string) (routes []docsRoute) {
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{
			"GET": item.Get, "PATCH": item.Patch, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete,
		} {
			if op != nil && slices.Contains(op.Tags, tag) {
				routes = append(routes, docsRoute{Method: method, Path: path, Operation: op, Body: requestSchema(op), Answers: docsAnswers(op)})
			}
		}
	}
	order := []string{"GET", "PUT", "PATCH", "POST", "DELETE"}
	slices.SortFunc(routes, func(a, b docsRoute) int {
		if a.Path != b.Path {
			return bytes.Compare([]byte(a.Path), []byte(b.Path))
		}
		return slices.Index(order, a.Method) - slices.Index(order, b.Method)
	})
	return routes
}

func requestSchema(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil {
		return nil
	}
	return schemaOf(op.RequestBody.Content)
}

func schemaOf(content map[string]*huma.MediaType) *huma.Schema {
	for _, kind := range []string{"application/json", "application/merge-patch+json"} {
		if m := content[kind]; m != nil {
			return m.Schema
		}
	}
	return nil
}

func docsAnswers(op *huma.Operation) (answers []docsAnswer) {
	for text, r := range op.Responses {
		if code, err := strconv.Atoi(text); err == nil {
			a := docsAnswer{Code: code, Good: code < 400}
			if a.Good {
				a.Body = schemaOf(r.Content)
			}
			answers = append(answers, a)
		}
	}
	slices.SortFunc(answers, func(a, b docsAnswer) int { return a.Code - b.Code })
	return answers
}

// docsRow is one member of an object, with how deep it lies.
type docsRow struct {
	Depth            int
	Name, Type, Text string
	Required         bool
}

// schemaRows lists an object's members, those of objects within it beneath them.
func schemaRows(registry huma.Registry) func(*huma.Schema) []docsRow {
	var walk func(s *huma.Schema, depth int) []docsRow
	walk = func(s *huma.Schema, depth int) (rows []docsRow) {
		if s = resolved(registry, s); s == nil || depth > 3 {
			return nil
		}
		if s.Type == huma.TypeArray {
			return walk(s.Items, depth)
		}
		for _, name := range names(s) {
			p := s.Properties[name]
			row := docsRow{Depth: depth, Name: name, Type: typeName(registry, p), Text: p.Description, Required: slices.Contains(s.Required, name)}
			rows = append(append(rows, row), walk(p, depth+1)...)
		}
		return rows
	}
	return func(s *huma.Schema) []docsRow { return walk(s, 0) }
}

// example is a body that a reader can send: the first member, set to its name in angle brackets.
func example(registry huma.Registry) func(*huma.Schema) string {
	return func(s *huma.Schema) string {
		for _, name := range names(resolved(registry, s)) {
			return fmt.Sprintf(`{"%s": "<%s>"}`, name, name)
		}
		return "{}"
	}
}

// names are the members in alphabetical order, the schema's own link aside.
func names(s *huma.Schema) (list []string) {
	for name := range s.Properties {
		if name != "$schema" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func resolved(registry huma.Registry, s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return registry.SchemaFromRef(s.Ref)
	}
	return s
}

func typeName(registry huma.Registry, s *huma.Schema) string {
	s = resolved(registry, s)
	switch {
	case s == nil:
		return ""
	case s.Type == huma.TypeArray:
		return "list of " + typeName(registry, s.Items)
	case s.Format == "date-time":
		return "time"
	case s.Nullable:
		return s.Type + " or null"
	}
	return s.Type
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
