package openapi

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/audit"
)

func shop(t *testing.T) Description {
	t.Helper()
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Read("shop.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func find(t *testing.T, ops []audit.Operation, method, path string) audit.Operation {
	t.Helper()
	for _, op := range ops {
		if op.Method == method && op.Path == path {
			return op
		}
	}
	t.Fatalf("there is no %s %s", method, path)
	return audit.Operation{}
}

func TestOperationsKnowTheirLine(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, op := range shop(t).Operations {
		if got := strings.TrimSpace(lines[op.Line-1]); !strings.HasPrefix(got, strings.ToLower(op.Method)+":") {
			t.Errorf("%s %s stands at line %d, which is %q", op.Method, op.Path, op.Line, got)
		}
	}
}

func TestSecurityIsInheritedAndCanBeLifted(t *testing.T) {
	ops := shop(t).Operations
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/me", true},
		{"GET", "/health", false},                           // security: []
		{"POST", "/items/{item~id}/stock/increment", false}, // an empty alternative lets anybody in
		{"POST", "/auth/login", false},
		{"POST", "/items", true},
	} {
		if got := find(t, ops, c.method, c.path).Secured; got != c.want {
			t.Errorf("%s %s secured: %v, want %v", c.method, c.path, got, c.want)
		}
	}
}

func TestParametersComeFromThePathAndTheOperation(t *testing.T) {
	one, hundred := 1.0, 100.0
	got := find(t, shop(t).Operations, "GET", "/items").Params
	want := []audit.Param{
		{Name: "limit", In: "query", Type: "integer", Example: "20", Minimum: &one, Maximum: &hundred},
		{Name: "q", In: "query", Type: "string", Example: "lamp", MaxLen: 40},
		{Name: "state", In: "query", Type: "string", Example: "new", Enum: []string{"new", "used"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExampleBodyIsBuiltFromTheSchema(t *testing.T) {
	op := find(t, shop(t).Operations, "POST", "/items")
	var body map[string]any
	if err := json.Unmarshal([]byte(op.Example), &body); err != nil {
		t.Fatalf("%q: %v", op.Example, err)
	}
	if body["name"] != "gantryyy" || body["price"] != 1.0 || body["state"] != "new" {
		t.Errorf("example %s: want a name of eight letters, a price above 0 and a state of the list", op.Example)
	}
	if _, found := body["id"]; found {
		t.Errorf("example %s holds id, which is read-only", op.Example)
	}
	names := map[string]bool{}
	for _, p := range op.Body {
		names[p.Name] = p.Required
	}
	want := map[string]bool{"name": true, "price": true, "count": false, "state": false, "parent": false, "tags": false}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestGivenExampleWins(t *testing.T) {
	if got, want := find(t, shop(t).Operations, "POST", "/auth/login").Example, `{"email":"you@example.com","password":"secret"}`; got != want {
		t.Errorf("example %s, want %s", got, want)
	}
}

func TestBasePathStandsBeforeEveryPathOnce(t *testing.T) {
	d := shop(t)
	if d.BasePath != "/api/v2" {
		t.Fatalf("base path %q, want /api/v2", d.BasePath)
	}
	for base, want := range map[string]string{
		"http://127.0.0.1:8000": "/api/v2/health", "http://127.0.0.1:8000/api/v2": "/health",
	} {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.For(u)[0].Path; got != want {
			t.Errorf("under %s the path is %s, want %s", base, got, want)
		}
	}
	if d.Operations[0].Path != "/health" {
		t.Errorf("For changed the description: %s", d.Operations[0].Path)
	}
}

func TestSwaggerIsRead(t *testing.T) {
	d, err := Read("swagger.json", []byte(`{
  "swagger": "2.0", "basePath": "/v1/",
  "securityDefinitions": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
  "security": [{"key": []}],
  "paths": {
    "/pets": {
      "get": {"parameters": [{"name": "limit", "in": "query", "type": "integer", "maximum": 50}], "responses": {"200": {}}},
      "post": {"parameters": [{"name": "pet", "in": "body", "schema": {"$ref": "#/definitions/Pet"}}], "responses": {"201": {}}}
    }
  },
  "definitions": {"Pet": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}
}`))
	if err != nil {
		t.Fatal(err)
	}
	fifty := 50.0
	want := []audit.Operation{
		{
			Method: "GET", Path: "/pets", Secured: true, Statuses: []string{"200"}, File: "swagger.json", Line: 7,
			Params: []audit.Param{{Name: "limit", In: "query", Type: "integer", Maximum: &fifty}},
		},
		{
			Method: "POST", Path: "/pets", Secured: true, Statuses: []string{"201"}, File: "swagger.json", Line: 8,
			Body: []audit.Param{{Name: "name", In: "body", Type: "string", Required: true}}, Example: `{"name":"gantry"}`,
		},
	}
	if diff := cmp.Diff(want, d.Operations); diff != "" {
		t.Error(diff)
	}
	if d.BasePath != "/v1" {
		t.Errorf("base path %q, want /v1", d.BasePath)
	}
}

func TestFaultsNameFileLineAndRemedy(t *testing.T) {
	head := "openapi: 3.0.3\npaths:\n"
	for _, c := range []struct{ name, text, want string }{
		{"not a description", "a: 1\n", "api.yaml:1: there is neither openapi nor swagger"},
		{"another version", "openapi: 4.0.0\n", `version "4.0.0" is not read; convert it`},
		{"no paths", "openapi: 3.1.0\n", "there are no paths"},
		{"nothing", "", "api.yaml: the description is empty"},
		{"syntax", head + "  /a: [\n", "neither JSON nor YAML"},
		{"a key twice", head + "  /a: {}\n  /a: {}\n", "api.yaml:4: "},
		{"another file", head + "  /a:\n    $ref: 'other.yaml#/a'\n", `api.yaml:4: $ref "other.yaml#/a" points outside this file; bundle`},
		{"a hole", head + "  /a:\n    get:\n      parameters:\n        - $ref: '#/components/x'\n", `api.yaml:6: $ref "#/components/x" points at nothing`},
		{"a circle of references", head + "  /a:\n    $ref: '#/paths/~1a'\n", "leads back to itself"},
		{"no slash", head + "  a: {get: {}}\n", `api.yaml:3: path "a" does not begin with a slash`},
		{"an alias of nothing", head + "  /a: *b\n", "anchor"},
		{"an abyss of brackets", strings.Repeat("[", 1<<20), "nested deeper"},
		{"an abyss of brackets on lines", "a:\n" + strings.Repeat("  [\n", 1<<18), "nested deeper"},
		{"an abyss of dashes", strings.Repeat("- ", 1<<20), "nested deeper"},
		{"too much", strings.Repeat("#", maxBytes+1), "more than 8"},
	} {
		_, err := Read("api.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "api.yaml:") {
			t.Errorf("%s: %v, want one that says %q", c.name, err, c.want)
		}
	}
}

func TestAliasesCannotMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("openapi: 3.0.0\nx-0: &a0 [1,1,1,1,1,1,1,1,1]\n")
	for i := 1; i < 30; i++ {
		before := "*a" + string(rune('0'+(i-1)%10)) + strings.Repeat("x", (i-1)/10)
		b.WriteString("x-" + strings.Repeat("y", i) + ": &a" + string(rune('0'+i%10)) + strings.Repeat("x", i/10) +
			" [" + strings.Repeat(before+" , ", 8) + before + " ]\n")
	}
	b.WriteString("paths: {/a: {post: {requestBody: {content: {application/json: {example: *a9xx }}}}}}\n")
	d, err := Read("bomb.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Operations[0].Example); n == 0 || n > 64<<10 {
		t.Errorf("the example has %d bytes, want some and at most 64 KiB", n)
	}
}

func TestRecipesAreProposed(t *testing.T) {
	got := Propose(shop(t).Operations)
	want := map[string]audit.Recipe{
		"create":  {Method: "POST", Path: "/items", Body: got["create"].Body, Read: "/items/{{id}}", Field: "id", Delete: "/items/{{id}}"},
		"update":  {Method: "PATCH", Path: "/items/{{id}}", Body: got["create"].Body, Read: "/items/{{id}}", Delete: "/items/{{id}}"},
		"counter": {Method: "POST", Path: "/items/{{id}}/stock/increment", Read: "/items/{{id}}", Field: "count", Delete: "/items/{{id}}"},
		"login":   {Method: "POST", Path: "/auth/login", Body: `{"email":"you@example.com","password":"secret"}`},
		"logout":  {Method: "POST", Path: "/auth/logout"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(got["create"].Body, `"name":"{{marker}}"`) {
		t.Errorf("body %s carries no marker", got["create"].Body)
	}
}

func TestSectionIsYAMLThatSaysWhatTheTargetKnows(t *testing.T) {
	var target audit.Target
	Fill(&target, shop(t).Operations)
	target.Recipes["it's"] = audit.Recipe{Method: "POST", Path: "/x", Body: "{\"a\":\n'é'}", Unique: true}
	var got struct {
		Audit struct {
			Protected  []string                `yaml:"protected_paths"`
			Admin      []string                `yaml:"admin_paths"`
			Health     string                  `yaml:"health_path"`
			List       string                  `yaml:"list_path"`
			PageParam  string                  `yaml:"page_param"`
			PageNumber string                  `yaml:"page_number"`
			Write      string                  `yaml:"write_path"`
			Recipes    map[string]audit.Recipe `yaml:"recipes"`
		} `yaml:"audit"`
	}
	text := Section(&target)
	if err := yaml.UnmarshalWithOptions([]byte(text), &got, yaml.Strict()); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	a := got.Audit
	if a.Protected[0] != "/me" || a.Admin[0] != "/admin/users" || a.Health != "/health" || a.List != "/items" || a.PageParam != "limit" || a.Write != "/items" || a.PageNumber != "" {
		t.Errorf("read back %+v", a)
	}
	if diff := cmp.Diff(target.Recipes, a.Recipes); diff != "" {
		t.Errorf("recipes changed on the way: %s\n%s", diff, text)
	}
}

func TestFillKeepsWhatTheOperatorSaid(t *testing.T) {
	target := audit.Target{ProtectedPaths: []string{"/mine"}, ListPath: "/all"}
	Fill(&target, shop(t).Operations)
	if target.ProtectedPaths[0] != "/mine" || target.ListPath != "/all" || target.PageParam != "" {
		t.Errorf("got %v, %s and %q", target.ProtectedPaths, target.ListPath, target.PageParam)
	}
}

func FuzzRead(f *testing.F) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"swagger":"2.0","paths":{"/a":{"get":{"parameters":[{"in":"body","schema":{"$ref":"#/paths"}}]}}}}`))
	f.Add([]byte("openapi: 3.0.0\npaths: &a\n  /a: *a\n"))
	f.Add([]byte("openapi: 3.0.0\npaths:\n  <<: {/a: {get: {}}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Read("f", data)
		if err != nil {
			return
		}
		for _, op := range d.Operations {
			if op.Example != "" && !json.Valid([]byte(op.Example)) {
				t.Errorf("%s %s: the example is not JSON: %q", op.Method, op.Path, op.Example)
			}
		}
		var target audit.Target
		Fill(&target, d.Operations)
		var back any
		if err := yaml.Unmarshal([]byte(Section(&target)), &back); err != nil {
			t.Errorf("the section is not YAML: %v\n%s", err, Section(&target))
		}
	})
}

// A comment at the end makes it YAML, which is read by another parser.
func TestJSONIsReadAsTheSameYAMLIs(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	if text, err = json.MarshalIndent(value, "", "  "); err != nil {
		t.Fatal(err)
	}
	got, err := Read("shop", text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Read("shop", append(text, "\n# YAML\n"...))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Operations) == 0 {
		t.Errorf("%d operations; YAML, then JSON: %s", len(got.Operations), diff)
	}
}

func TestDescriptionsThatCostTooMuchAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"too many values":  `{"a":[0` + strings.Repeat(",0", maxNodes) + `]}`,
		"too much YAML":    "a: [0" + strings.Repeat(",0", maxMarks) + "]",
		"nested too deep":  `{"a":` + strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1) + `}`,
		"nested deeper":    strings.Repeat(`{"a":`, 1_000_000),
		"more than 8; lea": `{"a":"` + strings.Repeat("x", maxBytes) + `"}`,
	} {
		if _, err := Read("x", []byte(text)); err == nil || !strings.Contains(err.Error(), name[:12]) {
			t.Errorf("%s: error %.200v", name, err)
		}
	}
}
