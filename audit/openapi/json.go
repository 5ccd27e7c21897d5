package openapi

import (
	"bytes"
	"encoding/json"
	"io"
)

// jsonReader builds nodes from JSON as it is read. The YAML parser reads JSON too, and takes a hundred times as much
// memory for it, which a hostile API would make use of.
type jsonReader struct {
	file   string
	data   []byte
	tokens *json.Decoder
	offset int // up to which line counts
	line   int
	count  int
}

func looksLikeJSON(data []byte) bool {
	start := bytes.TrimLeft(data, " \t\r\n")
	return len(start) > 0 && start[0] == '{' && json.Valid(data)
}

func parseJSON(file string, data []byte) (*node, error) {
	r := &jsonReader{file: file, data: data, tokens: json.NewDecoder(bytes.NewReader(data)), line: 1}
	r.tokens.UseNumber()
	return r.value(0)
}

// next token, and the line where it stands: no token of JSON goes over the end of a line.
func (r *jsonReader) next() (json.Token, error) {
	t, err := r.tokens.Token()
	if err != nil && err != io.EOF {
		return nil, fault(r.file, r.line, "this is no JSON: %v", err)
	}
	at := int(r.tokens.InputOffset())
	r.line += bytes.Count(r.data[r.offset:at], []byte("\n"))
	r.offset = at
	return t, nil
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, err := r.next()
	if err != nil {
		return nil, err
	}
	if r.count++; r.count > maxNodes || depth > maxNesting {
		return nil, fault(r.file, r.line, "the description is nested too deeply or has too many values")
	}
	n := &node{line: r.line}
	switch v := t.(type) {
	case json.Delim:
		if v == '[' {
			n.kind = list
			return n, r.list(n, depth)
		}
		n.kind = object
		return n, r.object(n, depth)
	case string:
		n.kind, n.text = text, v
	case json.Number:
		n.kind, n.text = number, v.String()
	case bool:
		n.kind, n.text = boolean, "false"
		if v {
			n.text = "true"
		}
	}
	return n, nil
}

func (r *jsonReader) list(n *node, depth int) error {
	for r.tokens.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := r.next()
	return err
}

func (r *jsonReader) object(n *node, depth int) error {
	for r.tokens.More() {
		key, err := r.next()
		if err != nil {
			return err
		}
		line := r.line
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.set(key.(string), line, value)
	}
	_, err := r.next()
	return err
}
