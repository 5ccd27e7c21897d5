package identity

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStrictJSONRefusesWhatIsAmbiguous(t *testing.T) {
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	for name, text := range map[string]string{
		"empty":                    "",
		"duplicate name":           `{"a":1,"a":2}`,
		"duplicate by escape":      `{"a":1,"\u0061":2}`,
		"duplicate inside":         `{"a":{"b":1,"b":1}}`,
		"duplicate inside a list":  `{"a":[{"b":1,"b":1}]}`,
		"duplicate among many":     `{` + manyNames(40) + `,"n7":0}`,
		"byte order mark":          "\ufeff{}",
		"trailing bytes":           `{}x`,
		"second value":             `{}{}`,
		"trailing comma":           `{"a":1,}`,
		"leading comma":            `{,"a":1}`,
		"comma only":               `{,}`,
		"no comma":                 `{"a":1 "b":2}`,
		"array":                    `[]`,
		"string":                   `"a"`,
		"null":                     `null`,
		"invalid UTF-8":            "{\"a\":\"\xff\"}",
		"invalid UTF-8 in a name":  "{\"\xc0\xaf\":1}",
		"encoded surrogate":        "{\"a\":\"\xed\xa0\x80\"}",
		"lone high surrogate":      `{"a":"\ud800"}`,
		"lone low surrogate":       `{"a":"\udc00"}`,
		"surrogates reversed":      `{"a":"\udc00\ud800"}`,
		"high surrogate twice":     `{"a":"\ud800\ud800"}`,
		"bare control character":   "{\"a\":\"\n\"}",
		"unknown escape":           `{"a":"\x41"}`,
		"short escape":             `{"a":"\u00"}`,
		"escape of no hex":         `{"a":"\u00g0"}`,
		"escape at the end":        `{"a":"\`,
		"open string":              `{"a":"`,
		"open object":              `{"a":1`,
		"open list":                `{"a":[1`,
		"trailing comma in a list": `{"a":[1,]}`,
		"leading zero":             `{"a":01}`,
		"plus":                     `{"a":+1}`,
		"bare dot":                 `{"a":1.}`,
		"leading dot":              `{"a":.1}`,
		"bare exponent":            `{"a":1e}`,
		"minus alone":              `{"a":-}`,
		"hexadecimal":              `{"a":0x10}`,
		"NaN":                      `{"a":NaN}`,
		"wrong word":               `{"a":tru}`,
		"longer word":              `{"a":nullx}`,
		"unquoted name":            `{a:1}`,
		"single quotes":            `{'a':1}`,
		"comment":                  `{"a":1/**/}`,
		"form feed as space":       "{\f}",
		"NUL at the end":           "{}\x00",
		"one level too deep":       `{"a":` + deep + `}`,
		"bottomless":               `{"a":` + strings.Repeat("[", 6000) + `}`,
		"mismatched brackets":      `{"a":[}]`,
	} {
		if o, err := parseObject([]byte(text), maxDepth); err == nil {
			t.Errorf("%s: parseObject(%.60q) = %v, want an error", name, text, o)
		}
	}
	if _, err := parseObject([]byte(deep), maxDepth); err != nil {
		t.Errorf("%d levels: %v, want none", maxDepth, err)
	}
}

func manyNames(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"n%d":%d`, i, i))
	}
	return strings.Join(list, ",")
}

func TestStrictJSONReadsEverySpelling(t *testing.T) {
	text := " {\"a\\u0062\" : \"\\ud83d\\ude00\\n\\/\\u0000é\" ,\t\"n\":-0.5e+3,\r\n\"l\":[ 1 , [] , {} ],\"SUB\":1,\"sub\":2} "
	o, err := parseObject([]byte(text), maxDepth)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := o.text("ab"), "😀\n/\x00é"; got != want {
		t.Errorf("string = %q, want %q", got, want)
	}
	if got, _ := o.get("sub"); string(got) != "2" {
		t.Errorf("sub = %s, want 2: names are case-sensitive", got)
	}
	list, _ := o.get("l")
	if parts, ok := list.array(); !ok || len(parts) != 3 || string(parts[1]) != "[]" {
		t.Errorf("array = %s, %v", parts, ok)
	}
}

// What we accept, encoding/json accepts too and reads alike; it may accept more.
func TestStrictJSONAgreesWithTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(jsonText(t, 4))
		o, err := parseObject(text, maxDepth)
		if err != nil {
			return
		}
		agree(t, text, o)
	})
}

func agree(t interface{ Fatalf(string, ...any) }, text []byte, o object) {
	var want map[string]json.RawMessage
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("accepted %q, which encoding/json refuses: %v", text, err)
	}
	if len(want) != len(o) {
		t.Fatalf("%q: %d names, want %d", text, len(o), len(want))
	}
	for _, m := range o {
		if got := string(m.value); got != string(want[m.name]) {
			t.Fatalf("%q: %q = %q, want %q", text, m.name, got, want[m.name])
		}
		var plain string
		if s, ok := m.value.str(); ok {
			if err := json.Unmarshal(m.value, &plain); err != nil || plain != s {
				t.Fatalf("%q: string = %q, want %q (%v)", text, s, plain, err)
			}
		}
	}
}

// jsonText draws an object that is mostly well-formed.
func jsonText(t *rapid.T, depth int) string {
	name := rapid.SampledFrom([]string{`"a"`, `"b"`, `"\u0061"`, `"A"`, `"é"`, `"\ud83d\ude00"`, `"\ud83d"`, `a`, `""`})
	leaf := rapid.SampledFrom([]string{`1`, `-0`, `1e5`, `01`, `"x"`, `"\n"`, `true`, `null`, `[]`, `[1,"a"]`, `[1,]`, `{}`, `"\q"`, ` 2 `})
	var parts []string
	for range rapid.IntRange(0, 20).Draw(t, "members") {
		v := leaf.Draw(t, "leaf")
		if depth > 0 && rapid.IntRange(0, 9).Draw(t, "nest") == 0 {
			v = jsonText(t, depth-1)
		}
		parts = append(parts, name.Draw(t, "name")+":"+v)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestManyNamesCostLinearWork(t *testing.T) {
	text := []byte("{" + manyNames(20_000) + "}")
	o, err := parseObject(text, maxDepth)
	if err != nil || len(o) != 20_000 {
		t.Fatalf("parseObject = %d names, %v", len(o), err)
	}
}
