package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode"
)

// Shape is what an answer looks like with everything volatile taken out: the status, the kind of media,
// and the JSON key paths with their types, or the words of a text without its digits.
type Shape struct {
	Status int
	Media  string
	Parts  map[string]bool
}

// What a hostile body can make of a shape is bounded, in time and in memory: shapes are kept for long.
const (
	maxParts = 2000
	maxDepth = 40
	maxPart  = 200     // bytes of a path or a word
	maxShape = 1 << 20 // bytes of a body that are looked at
)

// ShapeOf reads an answer.
func ShapeOf(status int, contentType string, body []byte) Shape {
	media, _, _ := mime.ParseMediaType(contentType)
	s := Shape{Status: status, Media: media, Parts: map[string]bool{}}
	body = body[:min(len(body), maxShape)]
	var value any
	if json.Unmarshal(body, &value) == nil { // all of it: "404 page not found" begins with a number, and is none
		s.walk("$", value, 0)
		return s
	}
	for word := range strings.FieldsFuncSeq(strings.ToValidUTF8(string(body), ""), notWord) {
		if len(s.Parts) >= maxParts {
			break
		}
		s.Parts[short(word)] = true
	}
	return s
}

// short is a copy of s for keeping: it does not keep the body alive, and what is long becomes a start and a digest.
func short(s string) string {
	if len(s) <= maxPart {
		return strings.Clone(s)
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:maxPart/2], "") + "#" + hex.EncodeToString(sum[:8])
}

func notWord(r rune) bool { return !unicode.IsLetter(r) }

func (s Shape) walk(path string, value any, depth int) {
	if len(s.Parts) >= maxParts || depth > maxDepth {
		return
	}
	switch v := value.(type) {
	case map[string]any:
		s.Parts[path+":object"] = true
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s.walk(short(path+"."+cut(key, 80)), v[key], depth+1)
		}
	case []any:
		s.Parts[path+":array"] = true
		for _, item := range v[:min(len(v), 50)] {
			s.walk(short(path+"[]"), item, depth+1)
		}
	case string:
		s.Parts[path+":string"] = true
	case float64:
		s.Parts[path+":number"] = true
	case bool:
		s.Parts[path+":bool"] = true
	case nil:
		s.Parts[path+":null"] = true
	}
}

// Similarity of two shapes, 0 to 1: nothing when the status or the kind of media differs, else the
// share of parts that both have (Jaccard index). Two empty bodies are alike.
func (s Shape) Similarity(o Shape) float64 {
	if s.Status != o.Status || s.Media != o.Media {
		return 0
	}
	return s.BodySimilarity(o)
}

// BodySimilarity compares the parts alone.
func (s Shape) BodySimilarity(o Shape) float64 {
	if len(s.Parts) == 0 && len(o.Parts) == 0 {
		return 1
	}
	both := 0
	for p := range s.Parts {
		if o.Parts[p] {
			both++
		}
	}
	return float64(both) / float64(len(s.Parts)+len(o.Parts)-both)
}

// alike is the similarity from which two answers count as equivalent.
const alike = 0.9
