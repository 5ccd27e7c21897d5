package probes

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/audit"
)

var update = flag.Bool("update", false, "write docs/probes.md anew")

// TestCatalogueIsDocumented keeps docs/probes.md what -update makes of the catalogue.
func TestCatalogueIsDocumented(t *testing.T) {
	const path = "../../docs/probes.md"
	want := document(All())
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("docs/probes.md is not current (%v); run go test ./audit/probes -run Documented -update", err)
	}
}

func document(list []audit.Probe) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The probes of `gantry audit`\n\n%d questions to a running API, generated from the catalogue. "+
		"`gantry explain ID` prints the same.\n\n", len(list))
	b.WriteString("Modes: P looks at what others fetched, S reads (both always run); A writes to objects of its own (`--active`), L sends load\n" +
		"(`--load`), X breaks something and mends it (`--fault-cmd`). Probes of one root measure one hole from several sides.\n\n")
	b.WriteString("| probe | severity | mode | root | question |\n|---|---|---|---|---|\n")
	for _, p := range list {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s |\n", p.ID, strings.ToLower(p.ID), p.Severity, p.Mode, p.RootName(), cell(p.Title))
	}
	category := audit.Category("")
	for _, p := range list {
		if p.Category != category {
			category = p.Category
			fmt.Fprintf(&b, "\n## %s (weight %g of 100)\n", category, category.Weight())
		}
		section(&b, p)
	}
	return b.String()
}

func section(b *strings.Builder, p audit.Probe) {
	fmt.Fprintf(b, "\n### %s\n\n**%s.** %s, root `%s`, mode %s\n\n", p.ID, p.Title, p.Severity, p.RootName(), p.Mode)
	for _, n := range p.Notes() {
		fmt.Fprintf(b, "- %s: %s\n", n.Name, cell(n.Text))
	}
}

// cell keeps text from being taken for markup.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ", "*", "\\*").Replace(s)
}
