package openapi

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

const (
	maxSchemaDepth  = 8   // of schemas in schemas; deeper ones are left out of an example
	maxExampleParts = 500 // values of one example
)

// schema is what matters of a JSON schema, with allOf merged and the first of oneOf and anyOf taken.
type schema struct {
	kind, format   string
	enum           []*node
	min, max       *float64
	minLen, maxLen int
	example        *node
	props          []member
	required       []string
	items          *node
	readOnly       bool
	depth          int
}

// schema reads n. One that is too deep, as every one in a circle is in the end, is empty.
func (r *reader) schema(n *node, depth int) (schema, error) {
	out := schema{depth: depth}
	if n == nil || depth > maxSchemaDepth {
		return out, nil
	}
	n, err := r.follow(n)
	if err != nil || n.kind != object {
		return out, err
	}
	for _, part := range parts(n) {
		inner, err := r.schema(part, depth+1)
		if err != nil {
			return out, err
		}
		out.merge(inner)
	}
	out.merge(plain(n))
	return out, nil
}

// parts are the schemas that n is put together from.
func parts(n *node) []*node {
	var list []*node
	if all := n.at("allOf"); all != nil {
		list = append(list, all.items[:min(len(all.items), 20)]...)
	}
	for _, key := range []string{"oneOf", "anyOf"} {
		choice := n.at(key)
		if choice == nil {
			continue
		}
		i := slices.IndexFunc(choice.items, func(c *node) bool { return c.string("type") != "null" })
		if i >= 0 {
			list = append(list, choice.items[i])
		}
	}
	return list
}

// plain reads the keywords of n itself.
func plain(n *node) schema {
	s := schema{
		kind: typeOf(n), format: n.string("format"), min: numberOf(n, "minimum", "exclusiveMinimum", 1), max: numberOf(n, "maximum", "exclusiveMaximum", -1),
		minLen: count(n, "minLength"), maxLen: count(n, "maxLength"), items: n.at("items"), readOnly: n.yes("readOnly"),
	}
	if e := n.at("enum"); e != nil {
		s.enum = e.items
	}
	if p := n.at("properties"); p != nil {
		s.props = p.members
	}
	if q := n.at("required"); q != nil {
		for _, name := range q.items {
			s.required = append(s.required, name.text)
		}
	}
	s.example = n.at("example")
	if many := n.at("examples"); s.example == nil && many != nil && len(many.items) > 0 {
		s.example = many.items[0]
	}
	for _, key := range []string{"const", "default"} {
		if s.example == nil {
			s.example = n.at(key)
		}
	}
	return s
}

func typeOf(n *node) string {
	t := n.at("type")
	switch {
	case t == nil && n.at("properties") != nil:
		return "object"
	case t == nil:
		return ""
	case t.kind == list:
		for _, item := range t.items {
			if item.text != "null" && item.kind == text {
				return item.text
			}
		}
		return ""
	}
	return t.text
}

// numberOf reads a bound. An exclusive one is a number of its own (3.1) or a switch beside it (3.0).
func numberOf(n *node, key, exclusive string, step float64) *float64 {
	v, err := strconv.ParseFloat(n.string(key), 64)
	other, otherErr := strconv.ParseFloat(n.string(exclusive), 64)
	switch {
	case otherErr == nil:
		v = other + step
	case err != nil:
		return nil
	case n.yes(exclusive):
		v += step
	}
	return &v
}

func count(n *node, key string) int {
	v, err := strconv.Atoi(n.string(key))
	if err != nil || v < 0 {
		return 0
	}
	return v
}

// merge lays o over s.
func (s *schema) merge(o schema) {
	for _, f := range []struct{ to, from *string }{{&s.kind, &o.kind}, {&s.format, &o.format}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if o.min != nil {
		s.min = o.min
	}
	if o.max != nil {
		s.max = o.max
	}
	if len(o.enum) > 0 {
		s.enum = o.enum
	}
	if o.example != nil {
		s.example = o.example
	}
	if o.items != nil {
		s.items = o.items
	}
	s.minLen, s.maxLen = max(s.minLen, o.minLen), max(s.maxLen, o.maxLen)
	s.readOnly = s.readOnly || o.readOnly
	s.required = append(s.required, o.required...)
	for _, p := range o.props {
		if i := slices.IndexFunc(s.props, func(q member) bool { return q.key == p.key }); i >= 0 {
			s.props = slices.Clone(s.props) // they may be the document's own
			s.props[i] = p
		} else if len(s.props) < maxParams {
			s.props = append(s.props[:len(s.props):len(s.props)], p)
		}
	}
}

// param describes an input of this schema.
func (s schema) param(name, in string, required bool) audit.Param {
	p := audit.Param{
		Name: name, In: in, Type: s.kind, Format: s.format, Required: required, Minimum: s.min, Maximum: s.max, MaxLen: s.maxLen,
	}
	for _, e := range s.enum[:min(len(s.enum), 100)] {
		p.Enum = append(p.Enum, e.text)
	}
	switch {
	case s.example != nil && s.example.kind != object && s.example.kind != list:
		p.Example = s.example.text
	case len(p.Enum) > 0:
		p.Example = p.Enum[0]
	}
	return p
}

// example is a JSON value that the schema allows; empty when it says nothing.
func (r *reader) example(s schema) (string, error) {
	left := maxExampleParts
	v, err := r.value(s, &left)
	if err != nil || v == nil {
		return "", err
	}
	text, err := json.Marshal(v)
	return string(text), err
}

func (r *reader) value(s schema, left *int) (any, error) {
	if *left--; *left < 0 {
		return nil, nil
	}
	switch {
	case s.example != nil:
		return plainValue(s.example, left), nil
	case len(s.enum) > 0:
		return plainValue(s.enum[0], left), nil
	}
	switch s.kind {
	case "object":
		return r.objectValue(s, left)
	case "array":
		inner, err := r.schema(s.items, s.depth+1)
		if err != nil {
			return nil, err
		}
		item, err := r.value(inner, left)
		if err != nil || item == nil {
			return []any{}, err
		}
		return []any{item}, nil
	case "integer", "number":
		return s.number(), nil
	case "boolean":
		return true, nil
	case "string":
		return s.word(), nil
	}
	return nil, nil
}

// objectValue fills every property that a client may write; one that is too deep to tell is left out.
func (r *reader) objectValue(s schema, left *int) (any, error) {
	out := map[string]any{}
	for _, p := range s.props {
		inner, err := r.schema(p.value, s.depth+1)
		if err != nil {
			return nil, err
		}
		if inner.readOnly {
			continue
		}
		v, err := r.value(inner, left)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[p.key] = v
		}
	}
	return out, nil
}

func (s schema) number() any {
	v := 1.0
	switch {
	case s.min != nil && *s.min > v:
		v = *s.min
	case s.max != nil && *s.max < v:
		v = *s.max
	}
	if s.kind == "integer" {
		return int64(v)
	}
	return v
}

// formats with a value that every validator takes.
var formats = map[string]string{
	"email": "gantry@example.com", "uuid": "3f2b8c1e-7a54-4d0b-9a1c-5e6d7f809132", "date": "2030-01-02", "date-time": "2030-01-02T03:04:05Z",
	"time": "03:04:05Z", "duration": "PT1H", "uri": "https://example.com/", "url": "https://example.com/", "uri-reference": "/gantry",
	"hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "byte": "Z2FudHJ5", "password": "gantry-Passw0rd-1",
}

func (s schema) word() string {
	if v, ok := formats[s.format]; ok {
		return v
	}
	v := "gantry"
	if short := s.minLen - len(v); short > 0 {
		v += strings.Repeat("y", min(short, 10_000))
	}
	if s.maxLen > 0 && len(v) > s.maxLen {
		v = v[:s.maxLen]
	}
	return v
}

// asJSON writes a value of the document as JSON.
func asJSON(n *node) string {
	left := maxExampleParts
	text, err := json.Marshal(plainValue(n, &left))
	if err != nil {
		return ""
	}
	return string(text)
}

// plainValue is a value of the document as encoding/json would read it.
func plainValue(n *node, left *int) any {
	if *left--; *left < 0 || n == nil {
		return nil
	}
	switch n.kind {
	case text:
		return n.text
	case boolean:
		return n.text == "true"
	case number:
		if json.Valid([]byte(n.text)) {
			return json.Number(n.text)
		}
		if v, err := strconv.ParseFloat(n.text, 64); err == nil {
			return v
		}
		return n.text
	case list:
		out := []any{}
		for _, item := range n.items[:min(len(n.items), max(*left, 0))] {
			out = append(out, plainValue(item, left))
		}
		return out
	case object:
		out := map[string]any{}
		for _, m := range n.members[:min(len(n.members), max(*left, 0))] {
			out[m.key] = plainValue(m.value, left)
		}
		return out
	}
	return nil
}
