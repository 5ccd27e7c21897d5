package problem

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/problems.md anew")

func TestWriteIsRFC9457(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set(RequestIDHeader, "abc")
	w.Header().Set("Content-Encoding", "gzip")
	Write(w, httptest.NewRequest("GET", "/", nil), RateLimited.After(1500*time.Millisecond).With("<b>"))
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	h := w.Header()
	if w.Code != 429 || h.Get("Retry-After") != "2" || h.Get("Content-Type") != ContentType || h.Get("Content-Encoding") != "" {
		t.Errorf("answer = %d %v", w.Code, h)
	}
	if got["instance"] != "abc" || got["status"] != 429.0 || got["retry_after"] != 2.0 || strings.Contains(w.Body.String(), "<b>") {
		t.Errorf("body = %s", w.Body)
	}
}

func TestTheZeroProblemTellsNothing(t *testing.T) {
	w := httptest.NewRecorder()
	Write(w, httptest.NewRequest("HEAD", "/", nil), Details{})
	if w.Code != 500 || w.Body.Len() != 0 {
		t.Errorf("answer = %d %q", w.Code, w.Body)
	}
}

// TestCatalogueIsDocumented keeps docs/problems.md what -update makes of the catalogue.
func TestCatalogueIsDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Problems\n\nEvery refusal is `application/problem+json` (RFC 9457). `type` leads here; `code` is stable; `instance` is the\nrequest id, which is also in the log.\n")
	seen := make(map[string]bool)
	for _, d := range All() {
		if seen[d.Code] || d.Status < 400 || d.Title == "" {
			t.Errorf("%q is used twice or incomplete", d.Code)
		}
		seen[d.Code] = true
		fmt.Fprintf(&b, "\n## %s\n\n**%d** %s. %s\n", d.Code, d.Status, d.Title, d.Detail)
		if d.Type != "" {
			fmt.Fprintf(&b, "\nType: <%s>\n", d.Type)
		}
	}
	const path = "../docs/problems.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != b.String() {
		t.Errorf("docs/problems.md is not current (%v); run go test ./problem -update", err)
	}
}
