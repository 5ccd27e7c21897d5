//go:build unix

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// faultRow is one fault in the table.
type faultRow struct {
	name, done             string
	reads, writes, limited answers // while it lasted
	lost, most             int
	back                   time.Duration
}

// faultReport is the table in docs/faults.md.
type faultReport struct {
	t    *testing.T
	mu   sync.Mutex
	rows map[int]faultRow
}

const (
	faultDocs  = "../../docs/faults.md"
	tableBegin = "<!-- table: go test -run TestFaults ./cmd/gantry with GANTRY_UPDATE_FAULTS=1 -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

func newFaultReport(t *testing.T) *faultReport {
	return &faultReport{t: t, rows: make(map[int]faultRow)}
}

func (r *faultReport) add(i int, row faultRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[i] = row
	r.t.Logf("%s", row)
}

// write puts the table in its place when it is asked to, and otherwise wants a row there for every fault.
func (r *faultReport) write() {
	text, err := os.ReadFile(faultDocs)
	if err != nil {
		r.t.Fatal(err)
	}
	before, rest, found := bytes.Cut(text, []byte(tableBegin))
	table, after, ended := bytes.Cut(rest, []byte(tableEnd))
	if !found || !ended {
		r.t.Fatalf("%s has no place for the table", faultDocs)
	}
	if os.Getenv("GANTRY_UPDATE_FAULTS") == "" {
		for _, row := range r.rows {
			if !bytes.Contains(table, []byte("| "+row.name+" |")) {
				r.t.Errorf("%s does not tell of %s; run the test with GANTRY_UPDATE_FAULTS=1", faultDocs, row.name)
			}
		}
		return
	}
	if r.t.Failed() {
		r.t.Fatalf("%s stays as it is: the test fails", faultDocs)
	}
	if err := os.WriteFile(faultDocs, slices.Concat(before, []byte(tableBegin+r.table()+tableEnd), after), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *faultReport) table() string {
	var b strings.Builder
	b.WriteString("| fault | what was done | reads | writes | a user at the limit | longest read, write | lost | most in a window | back after |\n|---|---|---|---|---|--:|--:|--:|--:|\n")
	for _, i := range slices.Sorted(maps.Keys(r.rows)) {
		fmt.Fprintln(&b, r.rows[i])
	}
	return b.String()
}

// String is the row as it stands in the table.
func (row faultRow) String() string {
	most := "-"
	if row.most > 0 {
		most = fmt.Sprintf("%d of %d", row.most, limitN)
	}
	longest := inSeconds(max(row.reads.longest(), row.limited.longest())) + ", " + inSeconds(row.writes.longest())
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %d | %s | %s |", row.name, row.done,
		row.reads.counted(), row.writes.counted(), row.limited.counted(), longest, row.lost, most, inSeconds(row.back))
}

// counted is how often there was which status, such as "200: 31, 503: 7".
func (list answers) counted() string {
	got := list.statuses()
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(got)) {
		parts = append(parts, fmt.Sprintf("%d: %d", status, got[status]))
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
