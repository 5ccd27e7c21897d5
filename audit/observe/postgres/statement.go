package postgres

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// mostTexts bounds the statements whose text is asked for; mostText is how much of each, in characters.
	mostTexts = 2000
	mostText  = 1000
)

// texts adds the statements of the window to obs. Some have a number each though they differ in the length of a list
// only, so the texts are put together before the 200 are chosen.
func (o *Observer) texts(ctx context.Context, obs *Observation, before, after map[int64]count) error {
	called, lost := difference(before, after)
	if lost {
		obs.Doubts = append(obs.Doubts, "pg_stat_statements forgot statements during the window; raise pg_stat_statements.max")
	}
	ids := make([]int64, 0, len(called))
	for id := range called {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(called[b].calls, called[a].calls) })
	if len(ids) > mostTexts {
		ids = ids[:mostTexts]
		obs.Doubts = append(obs.Doubts, "the window had too many different statements; those with the fewest calls are left out")
	}
	if len(ids) == 0 {
		return nil
	}
	texts := map[string]*Statement{}
	sql := `SELECT DISTINCT ON (queryid) queryid, left(query, $2) FROM ` + o.server.statements + `(true)
		WHERE queryid = ANY($1) AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`
	err := o.rows(ctx, sql, []any{ids, mostText}, func(rows pgx.Rows) error {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil || strings.HasPrefix(text, mark) {
			return err
		}
		add(texts, text, called[id])
		return nil
	})
	obs.Statements, obs.savepoints = most(texts)
	return err
}

// difference is what was called between two readings. One that was forgotten meanwhile starts again from nothing.
func difference(before, after map[int64]count) (called map[int64]count, lost bool) {
	called = map[int64]count{}
	for id, c := range after {
		old := before[id]
		if c.calls < old.calls {
			old, lost = count{}, true
		}
		if c.calls > old.calls {
			called[id] = count{c.calls - old.calls, c.rows - old.rows, c.pages - old.pages, c.ms - old.ms}
		}
	}
	for id := range before {
		if _, kept := after[id]; !kept {
			lost = true
		}
	}
	return called, lost
}

func add(texts map[string]*Statement, text string, c count) {
	text = Normalise(text)
	s := texts[text]
	if s == nil {
		s = &Statement{Text: text}
		texts[text] = s
	}
	s.Calls += c.calls
	s.Rows += c.rows
	s.Pages += c.pages
	s.Time += time.Duration(c.ms * float64(time.Millisecond))
}

// most is the statements with the most calls, and how many savepoints were made by any.
func most(texts map[string]*Statement) (all []Statement, savepoints int64) {
	for _, s := range texts {
		if strings.HasPrefix(s.Text, "SAVEPOINT") {
			savepoints += s.Calls
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Statement) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Text, b.Text))
	})
	return all[:min(len(all), mostStatements)], savepoints
}
