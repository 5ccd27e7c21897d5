package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

// log stores users a, b, ... with five events each.
func log(t *testing.T, s *Store, n int) {
	t.Helper()
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		for i := range n {
			if err := logOne(t.Context(), tx, fmt.Sprintf("%c", 'a'+i), 5); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func logOne(ctx context.Context, tx users.Tx, id string, n int) error {
	u := users.User{ID: id, Issuer: "i", Subject: id, Status: users.Active, Version: 1}
	if _, err := tx.Insert(ctx, u); err != nil {
		return err
	}
	for i := range n {
		e := u.Extend(users.Event{Kind: users.UserUpdated, Actor: id, Fields: []string{"bio"}, At: time.UnixMicro(int64(1000 + i))})
		if err := tx.Append(ctx, e); err != nil {
			return err
		}
	}
	return tx.Update(ctx, u)
}

func verify(t *testing.T, s *Store, since users.Checkpoint) (r users.Report, breaks []string) {
	t.Helper()
	r, err := users.Verify(t.Context(), s, users.VerifyConfig{Since: since, Broken: func(b users.Break) { breaks = append(breaks, b.String()) }})
	if err != nil {
		t.Fatal(err)
	}
	return r, breaks
}

// rehash is what a forger does who can write to the table: all hashes of a user's events, and the head,
// made anew.
func rehash(t *testing.T, s *Store, id string) {
	t.Helper()
	events, err := s.Events(t.Context(), id, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	u := users.User{ID: id}
	for _, e := range events {
		e = u.Extend(e)
		mustExec(t, s, "UPDATE audit_events SET seq = ?, prev = ?, hash = ? WHERE id = ?", e.Seq, e.Prev, e.Hash, e.ID)
	}
	mustExec(t, s, "UPDATE users SET events = ?, head = ? WHERE id = ?", u.Events, u.Head, id)
}

func mustExec(t *testing.T, s *Store, statement string, args ...any) {
	t.Helper()
	if _, err := s.write.Exec(statement, args...); err != nil {
		t.Fatal(err)
	}
}

func TestEveryForgeryIsFound(t *testing.T) {
	for name, tt := range map[string]struct {
		forge string
		want  []string
	}{
		"nothing":          {"SELECT 1", nil},
		"a changed actor":  {"UPDATE audit_events SET actor = 'x' WHERE user_id = 'b' AND seq = 2", []string{"b event 2: is not what was written"}},
		"a changed time":   {"UPDATE audit_events SET at = at + 1 WHERE user_id = 'b' AND seq = 5", []string{"b event 5: is not what was written"}},
		"a changed hash":   {"UPDATE audit_events SET hash = 'x' WHERE user_id = 'b' AND seq = 2", []string{"b event 2: is not what was written", "b event 3: does not follow the one before it"}},
		"one removed":      {"DELETE FROM audit_events WHERE user_id = 'b' AND seq = 3", []string{"b event 3: is missing: 4 comes next"}},
		"the first gone":   {"DELETE FROM audit_events WHERE user_id = 'a' AND seq = 1", []string{"a event 1: is missing: 2 comes next"}},
		"the end gone":     {"DELETE FROM audit_events WHERE user_id = 'c' AND seq > 3", []string{"c event 4: is missing, and all after it: the user's row has 5"}},
		"all gone":         {"DELETE FROM audit_events WHERE user_id = 'b'", []string{"b event 1: the user has no events, and 5 by the user's row"}},
		"the last one's":   {"DELETE FROM audit_events WHERE user_id = 'c'", []string{"c event 1: the user has no events, and 5 by the user's row"}},
		"an older head":    {"UPDATE users SET events = 4 WHERE id = 'b'", []string{"b event 4: is not the one that the user's row names as the last", "b event 5: was added after the last that the user's row has"}},
		"another head":     {"UPDATE users SET head = 'x' WHERE id = 'b'", []string{"b event 5: is not the one that the user's row names as the last"}},
		"a user's row":     {"PRAGMA foreign_keys=0; DELETE FROM users WHERE id = 'b'", []string{"b event 5: belongs to no user"}},
		"the highest user": {"PRAGMA foreign_keys=0; DELETE FROM users WHERE id = 'c'", []string{"c event 5: belongs to no user"}},
		"moved to another": {"UPDATE audit_events SET user_id = 'c', seq = 6 WHERE user_id = 'b' AND seq = 5", []string{"b event 5: is missing, and all after it: the user's row has 5", "c event 6: does not follow the one before it", "c event 6: was added after the last that the user's row has"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "gantry.db"))
			log(t, s, 3)
			mustExec(t, s, tt.forge)
			r, breaks := verify(t, s, users.Checkpoint{})
			if diff := cmp.Diff(tt.want, breaks); diff != "" || r.Breaks != int64(len(tt.want)) || r.Sound() != (len(tt.want) == 0) {
				t.Errorf("%+v: %s", r, diff)
			}
		})
	}
}

func TestACheckpointShowsWhatTheChainsCannot(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "gantry.db"))
	log(t, s, 3)
	first, _ := verify(t, s, users.Checkpoint{})
	if first.Users != 3 || first.Events != 15 || first.Checkpoint.Events != 15 || first.Checkpoint.LastID != 15 {
		t.Errorf("the first run = %+v", first)
	}
	log2 := func(tx users.Tx) error { return logOne(t.Context(), tx, "bb", 5) }
	if err := s.Tx(t.Context(), log2); err != nil {
		t.Fatal(err)
	}
	if r, _ := verify(t, s, first.Checkpoint); !r.Sound() || r.Checkpoint == first.Checkpoint {
		t.Errorf("events that came later change the earlier checkpoint: %+v", r)
	}
	mustExec(t, s, "UPDATE audit_events SET actor = 'x' WHERE user_id = 'b' AND seq = 2")
	rehash(t, s, "b")
	r, breaks := verify(t, s, first.Checkpoint)
	if len(breaks) != 0 || !r.Changed || r.Sound() {
		t.Errorf("a chain that was written anew: %+v %v; want no break, but a change since", r, breaks)
	}
	s = open(t, filepath.Join(t.TempDir(), "gantry.db"))
	log(t, s, 3)
	mustExec(t, s, "DELETE FROM audit_events WHERE user_id = 'b'")
	mustExec(t, s, "DELETE FROM users WHERE id = 'b'")
	if r, breaks := verify(t, s, first.Checkpoint); len(breaks) != 0 || !r.Changed {
		t.Errorf("a user removed without a trace: %+v %v", r, breaks)
	}
}

func TestChainsOfManyPagesAreWalked(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "gantry.db"))
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		for i := range 1100 {
			if err := logOne(t.Context(), tx, fmt.Sprintf("usr_%05d", i), 2); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	r, err := users.Verify(t.Context(), s, users.VerifyConfig{Progress: func(int64) { calls++ }})
	if err != nil || !r.Sound() || r.Users != 1100 || r.Events != 2200 || calls < 3 {
		t.Errorf("Verify = %+v, %v, %d calls", r, err, calls)
	}
	mustExec(t, s, "UPDATE audit_events SET actor = 'x' WHERE user_id IN ('usr_00999', 'usr_01000', 'usr_01099') AND seq = 2")
	if _, breaks := verify(t, s, users.Checkpoint{}); len(breaks) != 3 || !strings.HasPrefix(breaks[1], "usr_01000 event 2") {
		t.Errorf("%d breaks", len(breaks))
	}
}

// TestOldEventsAreSealed brings a file of the first schema up to date.
func TestOldEventsAreSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gantry.db")
	if err := prepare(path); err != nil {
		t.Fatal(err)
	}
	old := connect(path, 1)
	first, err := migrations.ReadFile("migrations/00001_users.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(first), "-- +goose Down")
	for _, statement := range []string{
		up,
		"CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))",
		"INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1)",
		"INSERT INTO users (id, issuer, subject, version, created_at, updated_at) VALUES ('a', 'i', 'a', 1, 1, 1), ('b', 'i', 'b', 2, 2, 2)",
		"INSERT INTO audit_events (user_id, kind, actor, fields, at) VALUES ('a', 'user.created', 'a', '', 1), ('b', 'user.created', 'b', '', 2), ('b', 'user.updated', 'b', 'bio locale', 3)",
	} {
		if _, err := old.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	old.Close()
	s := open(t, path)
	if r, breaks := verify(t, s, users.Checkpoint{}); !r.Sound() || r.Users != 2 || r.Events != 3 {
		t.Errorf("Verify = %+v %v", r, breaks)
	}
	if u, err := s.Find(t.Context(), "i", "b"); err != nil || u.Status != users.Active || u.Events != 2 || u.Version != 2 {
		t.Errorf("an old user = %+v, %v", u, err)
	}
}
