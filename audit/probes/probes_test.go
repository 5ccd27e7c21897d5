package probes

import (
	"os"
	"strings"
	"testing"
)

// spec is the catalogue as it was agreed: id, severity, mode, root.
const spec = "../../../shared/spec/probes.tsv"

func TestCatalogueIsTheOneAgreed(t *testing.T) {
	text, err := os.ReadFile(spec)
	if err != nil {
		t.Skipf("the catalogue's table is not here: %v", err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if id, rest, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && id != "id" {
			want[id] = rest
		}
	}
	for _, p := range All() {
		got := strings.Join([]string{p.Severity.String(), p.Mode.String(), p.RootName()}, "\t")
		if got != want[p.ID] {
			t.Errorf("%s is %q, want %q", p.ID, got, want[p.ID])
		}
		delete(want, p.ID)
	}
	for id := range want {
		t.Errorf("%s is missing", id)
	}
}

func TestEveryProbeSaysWhatItDoes(t *testing.T) {
	for _, p := range All() {
		for field, text := range map[string]string{
			"Title": p.Title, "Sends": p.Sends, "Passes": p.Passes, "Fails": p.Fails, "Why": p.Why, "Fix": p.Fix,
			"Refs": strings.Join(p.Refs, ""), "Category": string(p.Category),
		} {
			if text == "" {
				t.Errorf("%s: %s is empty", p.ID, field)
			}
		}
		if p.Run == nil {
			t.Errorf("%s cannot run", p.ID)
		}
	}
}
