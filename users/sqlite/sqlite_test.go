package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
	u, err := s.Create(b.Context(), users.User{ID: "1", Issuer: "i", Subject: "s", Version: 1}, users.Event{UserID: "1"})
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
