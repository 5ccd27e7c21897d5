package alert

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const alertsPage = "../docs/alerts.md"

func TestTheTablesOfTheDocumentationAreCurrent(t *testing.T) {
	text, err := os.ReadFile(alertsPage)
	if err != nil {
		t.Fatal(err)
	}
	page := between(t, string(text), "signals", signalTable())
	golden(t, "../"+alertsPage, []byte(between(t, page, "defaults", defaultTable())))
}

// between puts a table in the place that a page has for it.
func between(t *testing.T, page, name, table string) string {
	t.Helper()
	begin := "<!-- " + name + ": written by the tests with -update -->\n"
	before, rest, ok := strings.Cut(page, begin)
	_, after, also := strings.Cut(rest, "<!-- end -->")
	if !ok || !also {
		t.Fatalf("the page has no place for %s", name)
	}
	return before + begin + table + "<!-- end -->" + after
}

func signalTable() string {
	var b strings.Builder
	b.WriteString("| signal | limit | window | for | what |\n|---|---|---|---|---|\n")
	for _, m := range measures() {
		fmt.Fprintf(&b, "| `%s` | `%s %s` | %s | %s | %s |\n", m.signal, m.worse(), m.limit, promTime(m.window), promTime(m.hold), m.help)
	}
	return b.String()
}

func defaultTable() string {
	var b strings.Builder
	b.WriteString("| name | condition | window | for | severity | notify |\n|---|---|---|---|---|---|\n")
	for _, r := range Defaults() {
		windows := promTime(r.Window)
		if r.Short > 0 {
			windows += ", " + promTime(r.Short)
		}
		fmt.Fprintf(&b, "| [%s](runbook.md#%s) | `%s` | %s | %s | %s | %s |\n", r.Name, Anchor(r.Name), r.Condition.Text, windows, promTime(r.For), r.Severity, strings.Join(r.Notify, ", "))
	}
	return b.String()
}

// The page's first example is the document's block, and every example on it is sound.
func TestTheExamplesOfTheDocumentationAreSound(t *testing.T) {
	text, err := os.ReadFile(alertsPage)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(text), "```yaml\n")[1:] {
		example, _, _ := strings.Cut(part, "```")
		rules, faults := Parse("example", []byte(example))
		if len(faults) > 0 || len(rules) == 0 {
			t.Errorf("example %d: %d rules, %v", i+1, len(rules), faults)
		}
		if body, _ := strings.CutPrefix(example, "alerts:\n"); i == 0 && strings.ReplaceAll(body, "\n  ", "\n") != "  "+document {
			t.Errorf("the first example is not the document's:\n%s", body)
		}
	}
}
