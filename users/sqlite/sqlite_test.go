package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/storetest"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStoreObeysTheLaws(t *testing.T) {
	storetest.Run(t, func(t *testing.T) users.Store { return open(t, filepath.Join(t.TempDir(), "sub dir", "a?b#c.db")) })
}

func TestNoRouteNeedsMoreStatements(t *testing.T) {
	var seen storetest.Statements
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "gantry.db"), Trace: seen.Seen})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.Budget(t, s, &seen)
	if _, err := s.Standings(t.Context(), users.Position{}, 1); err != nil {
		t.Error(err)
	}
	if _, err := s.Revocations(t.Context(), users.Position{}, 1); err != nil {
		t.Error(err)
	}
	if _, err := s.Sweep(t.Context(), time.Now(), 1); err != nil {
		t.Error(err)
	}
	if _, err := users.Verify(t.Context(), s, users.VerifyConfig{}); err != nil {
		t.Error(err)
	}
	if all := seen.All(); len(all) < 15 {
		t.Errorf("only %d statements were seen", len(all))
	}
	for _, statement := range seen.All() {
		needsNoScan(t, s, statement)
	}
}

// needsNoScan asks the engine how it would run a statement.
func needsNoScan(t *testing.T, s *Store, statement string) {
	t.Helper()
	_, statement, _ = strings.Cut(statement, "\n") // the name
	args := make([]any, 200)
	rows, err := s.write.Query("EXPLAIN QUERY PLAN "+statement, args...)
	if err != nil {
		t.Errorf("%s: %v", statement, err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		if table, found := strings.CutPrefix(detail, "SCAN "); found && !strings.HasPrefix(table, "CONSTANT") {
			t.Errorf("a scan: %s in\n%s", detail, statement)
		}
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

func TestFileIsOnlyItsOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "gantry.db")
	open(t, path)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestTwoStartTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gantry.db")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := Open(t.Context(), Config{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
}

func TestUnusableFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	s := open(t, newer)
	if _, err := s.write.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{garbage: "not a database", newer: "schema 99", dir: "is a directory"} {
		s, err := Open(t.Context(), Config{Path: path})
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	s, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "gantry.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	u := users.User{ID: "1", Issuer: "i", Subject: "s", Status: users.Active, Version: 1}
	err = s.Tx(b.Context(), func(tx users.Tx) error {
		_, err := tx.Insert(b.Context(), u)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Find(b.Context(), u.Issuer, u.Subject); err != nil {
			b.Fatal(err)
		}
	}
}

func TestStatsCountTheWriterToo(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "users.db"))
	err := s.Tx(t.Context(), func(users.Tx) error {
		if st := s.Stats(); st.InUse != 1 || st.MaxOpenConnections != 5 {
			t.Errorf("in a transaction %d of %d connections are in use, want 1 of 5", st.InUse, st.MaxOpenConnections)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
