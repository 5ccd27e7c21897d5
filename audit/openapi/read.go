package openapi

import (
	"net/url"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// The bounds of one description.
const (
	maxOperations = 5000
	maxParams     = 200 // of one operation, and properties of one body
	maxHops       = 32  // of a $ref to a $ref
)

// Description is what an API says about itself.
type Description struct {
	Title, Version string
	// BasePath stands before every path: of the first server, or Swagger's basePath; without a slash at its end.
	BasePath   string
	Operations []audit.Operation // in the order of the file; paths without BasePath
}

// Read reads an OpenAPI 3.0 or 3.1 or a Swagger 2.0 description in JSON or YAML, 8 MiB at most. file is its name in
// errors and in [audit.Operation]. The error names the file, the line and what to do.
func Read(file string, data []byte) (Description, error) {
	root, err := parse(file, data)
	if err != nil {
		return Description{}, err
	}
	r := reader{file: file, root: root}
	if err := r.checkVersion(); err != nil {
		return Description{}, err
	}
	info := root.at("info")
	d := Description{Title: info.string("title"), Version: info.string("version"), BasePath: r.basePath()}
	d.Operations, err = r.operations()
	return d, err
}

// For gives the operations with paths relative to a target's base: the description's own base path comes before each,
// unless the target's URL ends with it already.
func (d Description) For(base *url.URL) []audit.Operation {
	list := slices.Clone(d.Operations)
	if d.BasePath == "" || base != nil && strings.HasSuffix(base.Path, d.BasePath) {
		return list
	}
	for i := range list {
		list[i].Path = d.BasePath + list[i].Path
	}
	return list
}

type reader struct {
	file string
	root *node
	old  bool // Swagger 2.0
}

func (r *reader) checkVersion() error {
	version, old := r.root.string("openapi"), r.root.string("swagger")
	switch {
	case r.root.kind != object || version == "" && old == "":
		return fault(r.file, r.root.line, "there is neither openapi nor swagger at the top; give an OpenAPI 3.0 or 3.1 description")
	case old == "2" || strings.HasPrefix(old, "2."):
		r.old = true
	case !strings.HasPrefix(version, "3.0") && !strings.HasPrefix(version, "3.1"):
		return fault(r.file, r.root.line, "version %q is not read; convert it to OpenAPI 3.0 or 3.1", version+old)
	}
	if p := r.root.at("paths"); p == nil || p.kind != object {
		return fault(r.file, r.root.line, "there are no paths; give the description with the operations in it")
	}
	return nil
}

func (r *reader) basePath() string {
	if r.old {
		return strings.TrimSuffix(r.root.string("basePath"), "/")
	}
	servers := r.root.at("servers")
	if servers == nil || len(servers.items) == 0 {
		return ""
	}
	first := servers.items[0]
	raw := first.string("url")
	if variables := first.at("variables"); variables != nil && variables.kind == object {
		for _, v := range variables.members {
			raw = strings.ReplaceAll(raw, "{"+v.key+"}", v.value.string("default"))
		}
	}
	u, err := url.Parse(raw)
	if err != nil || strings.Contains(u.Path, "{") {
		return ""
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		return "/" + path
	}
	return ""
}

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

func (r *reader) operations() ([]audit.Operation, error) {
	var out []audit.Operation
	for _, path := range r.root.at("paths").members {
		if strings.HasPrefix(path.key, "x-") {
			continue
		}
		if !strings.HasPrefix(path.key, "/") {
			return nil, fault(r.file, path.line, "path %q does not begin with a slash; write /%s", path.key, path.key)
		}
		item, err := r.follow(path.value)
		if err != nil {
			return nil, err
		}
		if item.kind != object {
			return nil, fault(r.file, path.line, "path %s holds no operations", path.key)
		}
		for _, m := range item.members {
			if !slices.Contains(methods, m.key) {
				continue
			}
			op, err := r.operation(path.key, item, m)
			if err != nil {
				return nil, err
			}
			if out = append(out, op); len(out) > maxOperations {
				return nil, fault(r.file, m.line, "there are more than %d operations; split the description", maxOperations)
			}
		}
	}
	return out, nil
}

func (r *reader) operation(path string, item *node, m member) (audit.Operation, error) {
	op := audit.Operation{
		Method: strings.ToUpper(m.key), Path: path, ID: m.value.string("operationId"), Secured: r.secured(m.value),
		File: r.file, Line: m.line,
	}
	if tags := m.value.at("tags"); tags != nil {
		for _, t := range tags.items {
			op.Tags = append(op.Tags, t.text)
		}
	}
	if responses := m.value.at("responses"); responses != nil {
		for _, status := range responses.members {
			op.Statuses = append(op.Statuses, status.key)
		}
	}
	if err := r.params(&op, item.at("parameters"), m.value.at("parameters")); err != nil {
		return op, err
	}
	return op, r.body(&op, m.value.at("requestBody"))
}

// secured inherits the document's security requirement. An empty list, or an empty alternative in it, lets anybody in.
func (r *reader) secured(op *node) bool {
	security := op.at("security")
	if security == nil {
		security = r.root.at("security")
	}
	if security == nil || len(security.items) == 0 {
		return false
	}
	for _, alternative := range security.items {
		if len(alternative.members) == 0 {
			return false
		}
	}
	return true
}

// params takes those of the path, and over them those of the operation (OpenAPI 3.1 section 4.8.10.1).
func (r *reader) params(op *audit.Operation, lists ...*node) error {
	place := map[string]int{}
	for _, l := range lists {
		if l == nil {
			continue
		}
		for _, raw := range l.items {
			p, err := r.follow(raw)
			if err != nil {
				return err
			}
			in := p.string("in")
			switch {
			case in == "body":
				if err := r.schemaBody(op, p.at("schema"), nil); err != nil {
					return err
				}
				continue
			case in == "formData" || in == "cookie":
				continue // sent by no probe
			}
			param, err := r.param(p)
			if err != nil {
				return err
			}
			key := param.In + " " + param.Name
			if i, known := place[key]; known {
				op.Params[i] = param
				continue
			}
			if len(op.Params) >= maxParams {
				return fault(r.file, raw.line, "%s %s has more than %d parameters", op.Method, op.Path, maxParams)
			}
			place[key] = len(op.Params)
			op.Params = append(op.Params, param)
		}
	}
	return nil
}

func (r *reader) param(p *node) (audit.Param, error) {
	described := p.at("schema")
	if content := p.at("content"); described == nil && content != nil && len(content.members) > 0 {
		described = content.members[0].value.at("schema")
	}
	if r.old {
		described = p
	}
	s, err := r.schema(described, 0)
	if err != nil {
		return audit.Param{}, err
	}
	out := s.param(p.string("name"), p.string("in"), p.yes("required") || p.string("in") == "path")
	if example := firstExample(p); example != nil && example.kind != object && example.kind != list {
		out.Example = example.text
	}
	return out, nil
}

func (r *reader) body(op *audit.Operation, raw *node) error {
	if raw == nil {
		return nil
	}
	body, err := r.follow(raw)
	if err != nil {
		return err
	}
	media := jsonMedia(body.at("content"))
	if media == nil {
		return nil
	}
	return r.schemaBody(op, media.at("schema"), firstExample(media))
}

func (r *reader) schemaBody(op *audit.Operation, raw, example *node) error {
	s, err := r.schema(raw, 0)
	if err != nil {
		return err
	}
	for _, p := range s.props[:min(len(s.props), maxParams)] {
		inner, err := r.schema(p.value, 1)
		if err != nil {
			return err
		}
		if !inner.readOnly {
			op.Body = append(op.Body, inner.param(p.key, "body", slices.Contains(s.required, p.key)))
		}
	}
	if example != nil {
		op.Example = asJSON(example)
		return nil
	}
	op.Example, err = r.example(s)
	return err
}

// jsonMedia is the JSON among the media types of a body.
func jsonMedia(content *node) *node {
	if m := content.at("application/json"); m != nil {
		return m
	}
	if content == nil {
		return nil
	}
	for _, m := range content.members {
		if strings.Contains(strings.ToLower(m.key), "json") {
			return m.value
		}
	}
	return nil
}

func firstExample(n *node) *node {
	if e := n.at("example"); e != nil {
		return e
	}
	if all := n.at("examples"); all != nil && len(all.members) > 0 {
		return all.members[0].value.at("value")
	}
	return nil
}

// follow goes after a $ref inside the document until there is none.
func (r *reader) follow(n *node) (*node, error) {
	for range maxHops {
		ref := n.at("$ref")
		if ref == nil || ref.kind != text {
			return n, nil
		}
		next, err := r.pointer(ref)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return nil, fault(r.file, n.line, "a $ref leads back to itself; let one of them hold the value")
}

// pointer resolves a JSON pointer in a fragment (RFC 6901 section 6).
func (r *reader) pointer(ref *node) (*node, error) {
	fragment, inside := strings.CutPrefix(ref.text, "#")
	if !inside {
		return nil, fault(r.file, ref.line, "$ref %q points outside this file; bundle the description into one file first", ref.text)
	}
	fragment, err := url.PathUnescape(fragment)
	if err != nil {
		return nil, fault(r.file, ref.line, "$ref %q is not a fragment", ref.text)
	}
	at := r.root
	for _, step := range strings.Split(strings.TrimPrefix(fragment, "/"), "/") {
		if fragment == "" {
			break
		}
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		if at = at.at(step); at == nil {
			return nil, fault(r.file, ref.line, "$ref %q points at nothing; define it or correct it", ref.text)
		}
	}
	return at, nil
}
