package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/postgres"
)

// known is all capabilities, settled, after a request that did something.
func known(change func(*postgres.Observation)) postgres.Observation {
	obs := postgres.Observation{
		Settled: true, SessionsActive: 1, Commits: 10,
		Known: postgres.Known{Sessions: true, Opened: true, Counters: true, Statements: true, WriteCommits: true},
	}
	change(&obs)
	return obs
}

func TestVerdictsHaveTheirThresholds(t *testing.T) {
	table := postgres.Table{Name: "public.orders", SeqScans: 20, SeqRows: 20 * 5000, LiveRows: 5000, Pages: 50}
	seek := postgres.Statement{Text: "SELECT id FROM orders WHERE note = ?", Calls: 20, Rows: 20, Pages: 20 * 50}
	scan := func(change func(*postgres.Table, *postgres.Statement)) postgres.Observation {
		return known(func(o *postgres.Observation) {
			t, s := table, seek
			change(&t, &s)
			o.Tables, o.Statements = []postgres.Table{t}, []postgres.Statement{s}
		})
	}
	writes := func(n int64, others bool) observe.Verdict {
		return postgres.WriteCommitsPerRequest(known(func(o *postgres.Observation) { o.WriteCommits, o.OthersWrote = n, others }), 20)
	}
	sessions := func(opened int64, left, requests int) observe.Verdict {
		return postgres.PoolVerdict(known(func(o *postgres.Observation) { o.SessionsOpened, o.SessionsLeft = opened, left }), requests)
	}
	idle := func(longest time.Duration, before bool) observe.Verdict {
		return postgres.IdleTransactions(known(func(o *postgres.Observation) {
			o.Idle = []postgres.IdleInTransaction{{Longest: longest, Before: before}}
		}))
	}
	indexes := func(change func(*postgres.Table, *postgres.Statement)) observe.Verdict {
		return postgres.MissingIndexes(scan(change), 20)
	}
	for name, c := range map[string]struct {
		got  observe.Verdict
		want observe.Outcome
	}{
		"one connection a request":        {sessions(20, 0, 20), observe.Fail},
		"nine of ten":                     {sessions(18, 0, 20), observe.Fail},
		"two of three":                    {sessions(14, 0, 20), observe.Unknown},
		"a pool that replaces some":       {sessions(9, 0, 20), observe.Pass},
		"a pool that fills":               {sessions(20, 20, 20), observe.Unknown},
		"too few":                         {sessions(9, 0, 9), observe.Unknown},
		"one write":                       {writes(20, true), observe.Pass},
		"a write or two of somebody else": {writes(25, false), observe.Unknown},
		"two writes":                      {writes(40, false), observe.Fail},
		"writes in other databases":       {writes(40, true), observe.Unknown},
		"an idle second":                  {idle(time.Second, false), observe.Fail},
		"less than a second":              {idle(900*time.Millisecond, false), observe.Pass},
		"idle from before":                {idle(time.Hour, true), observe.Unknown},
		"a scan to find few":              {indexes(func(*postgres.Table, *postgres.Statement) {}), observe.Fail},
		"a scan that returns all":         {indexes(func(_ *postgres.Table, s *postgres.Statement) { s.Rows = 20 * 5000 }), observe.Unknown},
		"another statement scans":         {indexes(func(_ *postgres.Table, s *postgres.Statement) { s.Pages = 20 * 4 }), observe.Unknown},
		"a small table":                   {indexes(func(t *postgres.Table, _ *postgres.Statement) { t.LiveRows, t.SeqRows = 999, 20*999 }), observe.Pass},
		"a small table that grows":        {indexes(func(t *postgres.Table, _ *postgres.Statement) { t.LiveRows, t.Inserted = 999, 1 }), observe.Unknown},
		"somebody's one scan":             {indexes(func(t *postgres.Table, _ *postgres.Statement) { t.SeqScans = 1 }), observe.Pass},
		"a scan that stops early":         {indexes(func(t *postgres.Table, _ *postgres.Statement) { t.SeqRows = 20 * 20 }), observe.Pass},
		"a name inside another":           {indexes(func(_ *postgres.Table, s *postgres.Statement) { s.Text = "SELECT id FROM reorders WHERE note = ?" }), observe.Unknown},
		"an aggregate":                    {indexes(func(_ *postgres.Table, s *postgres.Statement) { s.Text = "SELECT count(*) FROM orders WHERE open" }), observe.Unknown},
	} {
		t.Run(name, func(t *testing.T) { wantOutcome(t, c.got, c.want) })
	}
}

func TestWhatHadNotSettledIsUnknown(t *testing.T) {
	obs := known(func(o *postgres.Observation) {
		o.Settled = false
		o.Tables = []postgres.Table{{Name: "public.t", IndexScans: 20}}
	})
	wantOutcome(t, postgres.MissingIndexes(obs, 20), observe.Unknown)
	wantOutcome(t, postgres.DeadlockVerdict(obs), observe.Unknown)
	obs.Settled = true
	wantOutcome(t, postgres.MissingIndexes(obs, 20), observe.Pass)
	wantOutcome(t, postgres.DeadlockVerdict(obs), observe.Pass)
}

func TestEvidenceIsBounded(t *testing.T) {
	sizes := map[int]postgres.Observation{}
	for _, size := range []int{1, 50} {
		sizes[size] = known(func(o *postgres.Observation) {
			for i := range 40 {
				text := fmt.Sprintf("SELECT c%d%s FROM t", i, strings.Repeat(", é", 1000))
				o.Statements = append(o.Statements, postgres.Statement{Text: text, Calls: int64(size * (i + 1))})
			}
		})
	}
	v := postgres.Growth(sizes, 1)
	if v.Outcome != observe.Fail || len(v.Evidence) != observe.MaxEvidence || !strings.Contains(v.Evidence[0], "SELECT c39") {
		t.Errorf("%v with %d lines of evidence, the first %.80q; want fail, %d, the worst", v.Outcome, len(v.Evidence), v.Evidence[0], observe.MaxEvidence)
	}
	for _, line := range v.Evidence {
		if _, text, _ := strings.Cut(line, "rows: "); len([]rune(text)) != 300 {
			t.Errorf("%d characters of statement, want 300", len([]rune(text)))
		}
	}
}

func TestALoaderInBatchesIsNoGrowth(t *testing.T) {
	calls := func(n int64) postgres.Observation {
		return known(func(o *postgres.Observation) { o.Statements = []postgres.Statement{{Text: "SELECT ?", Calls: n}} })
	}
	for name, c := range map[string]struct {
		sizes map[int]postgres.Observation
		want  observe.Outcome
	}{
		"by twenty":       {map[int]postgres.Observation{1: calls(2), 10: calls(2), 100: calls(10)}, observe.Pass},
		"by one":          {map[int]postgres.Observation{1: calls(2), 10: calls(20), 100: calls(200)}, observe.Fail},
		"up and down":     {map[int]postgres.Observation{1: calls(2), 10: calls(90), 100: calls(40)}, observe.Pass},
		"one size":        {map[int]postgres.Observation{10: calls(20)}, observe.Unknown},
		"sizes too close": {map[int]postgres.Observation{1: calls(2), 2: calls(40)}, observe.Unknown},
	} {
		t.Run(name, func(t *testing.T) { wantOutcome(t, postgres.Growth(c.sizes, 2), c.want) })
	}
}
