package postgres_test

import (
	"sync"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users/postgres"
)

func TestInstancesThatStartTogetherMigrateOnce(t *testing.T) {
	p := testenv.NewPostgres(t)
	ways(t, p, func(t *testing.T, to func(string) postgres.Config) {
		db := p.NewDatabase()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				s, err := postgres.Open(t.Context(), to(db))
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Ping(t.Context()); err != nil {
					t.Error(err)
				}
				_ = s.Close()
			})
		}
		all.Wait()
		if got := p.Exec(db, "SELECT string_agg(version_id::text, ' ' ORDER BY id) FROM goose_db_version"); got != "0 1" {
			t.Errorf("migrations run = %q, want 0 1", got)
		}
	})
}

// An instance of the version before must start again while a newer one is rolled back.
func TestANewerSchemaIsFine(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	_ = open(t, postgres.Config{URL: p.URL(db)}).Close()
	p.Exec(db, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true); ALTER TABLE users ADD COLUMN later text")
	s := open(t, postgres.Config{URL: p.URL(db)})
	store(t, s, newUser("user_1"))
	if _, err := s.Find(t.Context(), "iss", "user_1"); err != nil {
		t.Error(err)
	}
}
