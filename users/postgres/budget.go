package postgres

import (
	"context"
	"fmt"
)

// BudgetError says that a fleet may need more connections than the server gives.
type BudgetError struct {
	// Instances of Max connections each; a rollout runs twice as many for a while.
	Instances, Max int
	// Reserve is a tenth of what the server has, for jobs and people.
	Reserve int
	// Need is 2 x Instances x Max + Reserve.
	Need int
	// Have is what the server gives this role in this database.
	Have int
}

// Error implements error.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("%d instances with %d connections each need %d in a rollout, with %d kept in reserve, and the server gives %d: "+
		"make the pools smaller, raise max_connections, or put PgBouncer between", e.Instances, e.Max, e.Need, e.Reserve, e.Have)
}

// What a superuser keeps is no longer called by one name: reserved_connections came with Postgres 16.
const budgetSQL = `SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int -
  coalesce(current_setting('reserved_connections', true)::int, 0),
  (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
  (SELECT datconnlimit FROM pg_database WHERE datname = current_database())`

// Budget compares what a fleet of instances with this configuration may need with what the server
// gives, and returns a [*BudgetError] if it is more (requirement D1). Through a pooler there is nothing to
// compare: the pooler keeps the number.
func (s *Store) Budget(ctx context.Context, instances int) error {
	if s.pooler {
		return nil
	}
	var server, role, database int
	err := s.read(ctx, func(p *pipe) error {
		return p.QueryRow(ctx, budgetSQL).Scan(&server, &role, &database)
	})
	if err != nil {
		return err
	}
	return budget(instances, s.cfg.Max, server, role, database)
}

// budget is the sum. role and database limit too, unless negative.
func budget(instances, size, server, role, database int) error {
	e := &BudgetError{Instances: instances, Max: size, Have: server, Reserve: (server + 9) / 10}
	for _, limit := range []int{role, database} {
		if limit >= 0 {
			e.Have = min(e.Have, limit)
		}
	}
	e.Need = 2*instances*size + e.Reserve
	if e.Need <= e.Have {
		return nil
	}
	return e
}
