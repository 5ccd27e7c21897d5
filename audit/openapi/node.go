package openapi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The bounds of what is read. The parser is recursive, and so are descriptions.
const (
	maxBytes    = 8 << 20
	maxNesting  = 200     // of values in values
	maxBrackets = 5000    // opened and not closed: prose has some
	maxNodes    = 600_000 // values, also what aliases and merge keys make of them; in 8 MiB, each has 14 bytes
	maxYAML     = 4 << 20
	maxMarks    = 200_000 // of YAML: each costs its parser up to a kilobyte
)

type kind uint8

const (
	null kind = iota
	text
	number
	boolean
	list
	object
)

// node is a value of the document with the line where it stands.
type node struct {
	kind    kind
	line    int
	text    string // of a scalar, as written but without quotes
	items   []*node
	members []member
	index   map[string]int // of members by key, when there are many
}

type member struct {
	key   string
	line  int
	value *node
}

// at returns a member of an object; nil when n is no object or has none of that name.
func (n *node) at(key string) *node {
	if n == nil {
		return nil
	}
	if i := n.find(key); i >= 0 {
		return n.members[i].value
	}
	return nil
}

// indexed is how many members an object has at least when it is worth an index, which costs more memory than they do.
const indexed = 12

func (n *node) find(key string) int {
	if n.index != nil {
		if i, ok := n.index[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(n.members, func(m member) bool { return m.key == key })
}

// string of a scalar member; empty when there is none.
func (n *node) string(key string) string {
	if v := n.at(key); v != nil && v.kind != list && v.kind != object {
		return v.text
	}
	return ""
}

func (n *node) yes(key string) bool { return n.string(key) == "true" }

func (n *node) set(key string, line int, value *node) {
	if i := n.find(key); i >= 0 {
		n.members[i].value = value
		return
	}
	n.members = append(n.members, member{key, line, value})
	switch {
	case n.index != nil:
		n.index[key] = len(n.members) - 1
	case len(n.members) == indexed:
		n.index = make(map[string]int, 2*indexed)
		for i, m := range n.members {
			n.index[m.key] = i
		}
	}
}

// fault is an error at a line of the file.
func fault(file string, line int, format string, args ...any) error {
	if line == 0 {
		return fmt.Errorf("%s: %s", file, fmt.Sprintf(format, args...))
	}
	return fmt.Errorf("%s:%d: %s", file, line, fmt.Sprintf(format, args...))
}

// parse reads JSON or YAML into nodes.
func parse(file string, data []byte) (root *node, err error) {
	if len(data) > maxBytes {
		return nil, fault(file, 0, "the description has %d MiB, more than 8; leave out examples, or split it", len(data)>>20)
	}
	if line := tooDeep(data); line > 0 {
		return nil, fault(file, line, "brackets or dashes are nested deeper than any API description; give the right file")
	}
	if looksLikeJSON(data) {
		return parseJSON(file, data)
	}
	if len(data) > maxYAML || marks(data) > maxMarks {
		return nil, fault(file, 0, "that is too much YAML to read; give the description in JSON")
	}
	defer func() { // the library can panic on what it read itself
		if v := recover(); v != nil {
			root, err = nil, fault(file, 0, "this is neither JSON nor YAML: %v", v)
		}
	}()
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntax(file, err)
	}
	b := builder{file: file, anchors: map[string]*node{}}
	for _, d := range tree.Docs {
		if d.Body != nil {
			return b.build(d.Body, 0)
		}
	}
	return nil, fault(file, 0, "the description is empty; give an OpenAPI file")
}

func syntax(file string, err error) error {
	var positioned yaml.Error
	if errors.As(err, &positioned) && positioned.GetToken() != nil {
		return fault(file, positioned.GetToken().Position.Line, "this is neither JSON nor YAML: %s", positioned.GetMessage())
	}
	return fault(file, 0, "this is neither JSON nor YAML; give the file that your framework writes, such as openapi.json")
}

// marks counts what may begin or end a token of YAML, wherever it stands.
func marks(data []byte) int {
	n := 0
	for _, c := range data {
		if strings.IndexByte(",:\n\r[]{}&*!#|>'\"%@`?", c) >= 0 {
			n++
		}
	}
	return n + bytes.Count(data, []byte("- ")) + bytes.Count(data, []byte("-\t"))
}

// tooDeep returns the line at which the parser's recursion would go deeper than any description does, or 0. It counts
// brackets wherever they stand, in prose too: what is quoted cannot be told before parsing. A line may also nest by
// itself, as "- - - -" does.
func tooDeep(data []byte) int {
	line, depth, words, fresh := 1, 0, 0, true
	for i, c := range data {
		switch c {
		case '\n':
			line++
			words, fresh = 0, true
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		}
		if fresh && c != ' ' && (i == 0 || data[i-1] == ' ' || data[i-1] == '\n') {
			words++
			fresh = strings.IndexByte("-?:!&", c) >= 0
		}
		if depth > maxBrackets || words > maxNesting {
			return line
		}
	}
	return 0
}

// builder turns the syntax tree into nodes. An alias is the node that it names, not a copy.
type builder struct {
	file    string
	anchors map[string]*node
	count   int
}

func (b *builder) build(n ast.Node, depth int) (*node, error) {
	line := lineOf(n)
	if b.count++; b.count > maxNodes || depth > maxNesting {
		return nil, fault(b.file, line, "the description is nested too deeply or has too many values")
	}
	switch v := n.(type) {
	case *ast.AnchorNode:
		value, err := b.build(v.Value, depth+1)
		if err == nil {
			b.anchors[v.Name.GetToken().Value] = value
		}
		return value, err
	case *ast.AliasNode:
		name := v.Value.GetToken().Value
		if known, ok := b.anchors[name]; ok {
			return known, nil
		}
		return nil, fault(b.file, line, "the alias *%s names an anchor that does not stand before it", name)
	case *ast.TagNode:
		return b.build(v.Value, depth+1)
	case *ast.MappingNode:
		return b.object(v.Values, line, depth)
	case *ast.MappingValueNode:
		return b.object([]*ast.MappingValueNode{v}, line, depth)
	case *ast.SequenceNode:
		out := &node{kind: list, line: line}
		for _, item := range v.Values {
			value, err := b.build(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, value)
		}
		return out, nil
	}
	return scalar(n, line), nil
}

func (b *builder) object(values []*ast.MappingValueNode, line, depth int) (*node, error) {
	out := &node{kind: object, line: line, members: make([]member, 0, len(values))}
	for _, v := range values {
		value, err := b.build(v.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if v.Key.IsMergeKey() {
			if b.count += len(value.members); b.count > maxNodes {
				return nil, fault(b.file, line, "the merge keys of the description multiply it")
			}
			for _, m := range value.members {
				if out.at(m.key) == nil {
					out.set(m.key, m.line, m.value)
				}
			}
			continue
		}
		out.set(keyOf(v.Key), lineOf(v.Key), value)
	}
	return out, nil
}

func keyOf(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

func scalar(n ast.Node, line int) *node {
	out := &node{line: line}
	switch v := n.(type) {
	case *ast.StringNode:
		out.kind, out.text = text, v.Value
	case *ast.LiteralNode:
		out.kind, out.text = text, v.Value.Value
	case *ast.IntegerNode:
		out.kind, out.text = number, v.Token.Value
	case *ast.FloatNode:
		out.kind, out.text = number, v.Token.Value
	case *ast.BoolNode:
		out.kind, out.text = boolean, fmt.Sprint(v.Value)
	case *ast.NullNode, nil:
	default:
		if n.GetToken() != nil {
			out.kind, out.text = text, n.GetToken().Value
		}
	}
	return out
}
