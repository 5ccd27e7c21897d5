package alert

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryRuleHasItsEntryInTheRunbook, and every entry says what it must and leads to entries that are there.
func TestEveryRuleHasItsEntryInTheRunbook(t *testing.T) {
	text, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := make(map[string]string)
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		entries[Anchor(title)] = body
	}
	names := []string{InstanceDown}
	for _, r := range Defaults() {
		names = append(names, r.Name)
	}
	for _, name := range names {
		body, ok := entries[Anchor(name)]
		if !ok {
			t.Errorf("%s has no entry #%s", name, Anchor(name))
		}
		for _, part := range []string{"**Confirm**", "**Do**", "**Wake**"} {
			if !strings.Contains(body, part) {
				t.Errorf("the entry of %s has no %s", name, part)
			}
		}
	}
	for anchor, body := range entries {
		if !slices.ContainsFunc(names, func(name string) bool { return Anchor(name) == anchor }) {
			t.Errorf("the entry #%s is no rule's", anchor)
		}
		for _, link := range strings.Split(body, "](#")[1:] {
			to, _, _ := strings.Cut(link, ")")
			if _, ok := entries[to]; !ok {
				t.Errorf("#%s leads to #%s, which is not there", anchor, to)
			}
		}
	}
}

// TestTheRunbookAsksForMetricsThatExist, as docs/metrics.md lists them.
func TestTheRunbookAsksForMetricsThatExist(t *testing.T) {
	runbook, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\b(gantry|db_client|http_server)_[a-z_]+`).FindAllString(string(runbook), -1)
	if len(found) < 20 {
		t.Errorf("%d names of metrics found", len(found))
	}
	for _, name := range found {
		base := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
		if !strings.Contains(string(metrics), "`"+name+"`") && !strings.Contains(string(metrics), "`"+base+"`") {
			t.Errorf("%s is no metric", name)
		}
	}
}
