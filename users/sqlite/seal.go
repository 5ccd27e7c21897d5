package sqlite

import (
	"context"
	"database/sql"

	"github.com/pressly/goose/v3"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

// sealing is migration 3: it chains the events that were written before there were chains, which
// SQL cannot do, for it has no SHA-256.
var sealing = goose.NewGoMigration(3, &goose.GoFunc{RunTx: seal}, &goose.GoFunc{})

// sealPage bounds how many events are held at once.
const sealPage = 500

func seal(ctx context.Context, tx *sql.Tx) error {
	q := db.New(tx)
	var u users.User
	var last users.Event
	for {
		rows, err := q.Chains(ctx, db.ChainsParams{UserID: last.UserID, Seq: last.Seq, N: sealPage})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			if r.UserID != u.ID {
				u = users.User{ID: r.UserID}
			}
			last = u.Extend(eventOf(r))
			if err := store(ctx, q, u, last); err != nil {
				return err
			}
		}
	}
}

func store(ctx context.Context, q *db.Queries, u users.User, e users.Event) error {
	if err := q.SealEvent(ctx, db.SealEventParams{Prev: e.Prev, Hash: e.Hash, ID: e.ID}); err != nil {
		return err
	}
	return q.SetHead(ctx, db.SetHeadParams{Events: u.Events, Head: u.Head, ID: u.ID})
}
