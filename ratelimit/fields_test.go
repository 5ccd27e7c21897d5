package ratelimit_test

import (
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"
)

// The headers of this package are structured fields (RFC 9651). The tests read them with httpsfv,
// so httpsfv itself is held against the working group's vectors here.

const fieldVectors = "../../shared/vectors/structured-fields"

type fieldCase struct {
	Name       string   `json:"name"`
	Raw        []string `json:"raw"`
	HeaderType string   `json:"header_type"`
	Expected   any      `json:"expected"`
	MustFail   bool     `json:"must_fail"`
	CanFail    bool     `json:"can_fail"`
	Canonical  []string `json:"canonical"`
}

func TestTheParserOurHeadersAreReadWithFollowsRFC9651(t *testing.T) {
	for _, c := range readFieldCases(t, fieldVectors) {
		t.Run(c.Name, func(t *testing.T) { checkParsing(t, c) })
	}
}

func TestTheParserOurHeadersAreReadWithSerialisesByRFC9651(t *testing.T) {
	for _, c := range readFieldCases(t, filepath.Join(fieldVectors, "serialisation-tests")) {
		t.Run(c.Name, func(t *testing.T) { checkSerialising(t, c) })
	}
}

func checkParsing(t *testing.T, c fieldCase) {
	got, err := parseField(c.HeaderType, c.Raw)
	if err != nil {
		if !c.MustFail && !c.CanFail {
			t.Fatalf("parsing %q: %v, want it accepted", c.Raw, err)
		}
		return
	}
	if c.MustFail {
		t.Fatalf("parsing %q succeeded, want it refused", c.Raw)
	}
	if diff := cmp.Diff(plainField(got), c.Expected); diff != "" {
		t.Fatalf("parsing %q (-got +want):\n%s", c.Raw, diff)
	}
	want := c.Raw
	if c.Canonical != nil {
		want = c.Canonical
	}
	text, err := httpsfv.Marshal(got)
	if err != nil || text != strings.Join(want, ", ") {
		t.Fatalf("serialising %q = %q, %v, want %q", c.Raw, text, err, want)
	}
}

func checkSerialising(t *testing.T, c fieldCase) {
	got, err := serialise(c)
	switch {
	case err != nil && !c.MustFail && !c.CanFail:
		t.Fatalf("serialising %v: %v, want %q", c.Expected, err, c.Canonical)
	case err == nil && c.MustFail:
		t.Fatalf("serialising %v = %q, want it refused", c.Expected, got)
	case err == nil && got != strings.Join(c.Canonical, ", "):
		t.Fatalf("serialising %v = %q, want %q", c.Expected, got, c.Canonical)
	}
}

func readFieldCases(t *testing.T, dir string) []fieldCase {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(files) == 0 {
		t.Skipf("no structured field vectors in %s", dir)
	}
	var all []fieldCase
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(f)
		dec.UseNumber()
		var cases []fieldCase
		if err := errors.Join(dec.Decode(&cases), f.Close()); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, cases...)
	}
	return all
}

func parseField(kind string, raw []string) (httpsfv.StructuredFieldValue, error) {
	switch kind {
	case "item":
		return httpsfv.UnmarshalItem(raw)
	case "list":
		return httpsfv.UnmarshalList(raw)
	default:
		return httpsfv.UnmarshalDictionary(raw)
	}
}

// plainField turns a parsed field into the shape the vectors write it in.
func plainField(v httpsfv.StructuredFieldValue) any {
	switch v := v.(type) {
	case httpsfv.Item:
		return plainItem(v)
	case httpsfv.List:
		out := []any{}
		for _, m := range v {
			out = append(out, plainMember(m))
		}
		return out
	case *httpsfv.Dictionary:
		out := []any{}
		for _, k := range v.Names() {
			m, _ := v.Get(k)
			out = append(out, []any{k, plainMember(m)})
		}
		return out
	}
	panic(fmt.Sprintf("unexpected %T", v))
}

func plainMember(m httpsfv.Member) any {
	l, ok := m.(httpsfv.InnerList)
	if !ok {
		return plainItem(m.(httpsfv.Item))
	}
	items := []any{}
	for _, i := range l.Items {
		items = append(items, plainItem(i))
	}
	return []any{items, plainParams(l.Params)}
}

func plainItem(i httpsfv.Item) any { return []any{plainBare(i.Value), plainParams(i.Params)} }

func plainParams(p *httpsfv.Params) any {
	out := []any{}
	for _, k := range p.Names() {
		v, _ := p.Get(k)
		out = append(out, []any{k, plainBare(v)})
	}
	return out
}

func plainBare(v any) any {
	typed := func(kind string, value any) any { return map[string]any{"__type": kind, "value": value} }
	switch v := v.(type) {
	case int64:
		return json.Number(fmt.Sprint(v))
	case float64:
		text := strings.TrimRight(fmt.Sprintf("%.3f", v), "0")
		if strings.HasSuffix(text, ".") {
			text += "0"
		}
		return json.Number(text)
	case []byte:
		return typed("binary", base32.StdEncoding.EncodeToString(v))
	case httpsfv.Token:
		return typed("token", string(v))
	case httpsfv.DisplayString:
		return typed("displaystring", string(v))
	case time.Time:
		return typed("date", json.Number(fmt.Sprint(v.Unix())))
	default:
		return v
	}
}

// serialise builds the value a vector describes and writes it.
func serialise(c fieldCase) (string, error) {
	switch c.HeaderType {
	case "item":
		return httpsfv.Marshal(builtItem(c.Expected))
	case "list":
		var l httpsfv.List
		for _, m := range c.Expected.([]any) {
			l = append(l, builtItem(m))
		}
		return httpsfv.Marshal(l)
	default:
		d := httpsfv.NewDictionary()
		for _, m := range c.Expected.([]any) {
			pair := m.([]any)
			d.Add(pair[0].(string), builtItem(pair[1]))
		}
		return httpsfv.Marshal(d)
	}
}

func builtItem(v any) httpsfv.Item {
	pair := v.([]any)
	i := httpsfv.NewItem(builtBare(pair[0]))
	for _, p := range pair[1].([]any) {
		kv := p.([]any)
		i.Params.Add(kv[0].(string), builtBare(kv[1]))
	}
	return i
}

func builtBare(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		if v["__type"] == "token" {
			return httpsfv.Token(v["value"].(string))
		}
		panic(fmt.Sprintf("a serialisation vector of type %v", v["__type"]))
	default:
		return v
	}
}
