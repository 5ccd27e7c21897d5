//go:build unix

package postgres_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/rollout/postgres"
	"github.com/gantryhq/gantry/rollout/storetest"
	users "github.com/gantryhq/gantry/users/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, url string) *postgres.Store {
	t.Helper()
	server, err := users.Open(t.Context(), users.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.Migrate(t.Context(), users.Schema{Files: postgres.Migrations, Table: postgres.Versions, Newest: postgres.Schema}); err != nil {
		t.Fatal(err)
	}
	return postgres.New(server.Pool())
}

func TestStoreObeysTheLaws(t *testing.T) {
	p := testenv.NewPostgres(t, "max_connections=200")
	storetest.Run(t, func(t *testing.T) (fleet.Store, fleet.Store) {
		url := p.URL(p.NewDatabase())
		return open(t, url), open(t, url)
	})
}

// Nobody hears of anything through a pooler, so it is the one that writes.
func TestTheLawsHoldThroughAPooler(t *testing.T) {
	p := testenv.NewPostgres(t, "max_connections=200")
	b := testenv.NewPgBouncer(t, p)
	storetest.Run(t, func(t *testing.T) (fleet.Store, fleet.Store) {
		db := p.NewDatabase()
		return open(t, b.URL(db)), open(t, p.URL(db))
	})
}

func TestCommitsReachTheDisk(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	p.Exec("postgres", "ALTER DATABASE "+db+" SET synchronous_commit = off")
	p.Exec(db, "CREATE TABLE commits (how text)")
	s := open(t, p.URL(db))
	p.Exec(db, `GRANT ALL ON commits TO gantry;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO commits VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END';
CREATE TRIGGER note AFTER INSERT ON rollout_journal FOR EACH ROW EXECUTE FUNCTION note()`)
	l := fleet.Line{Place: fleet.Place{Launch: 1, Revision: 1}, Text: "x"}
	if err := s.Append(t.Context(), fleet.Place{}, l); err != nil {
		t.Fatal(err)
	}
	if got := p.Exec(db, "SELECT how FROM commits"); got != "on" {
		t.Errorf("synchronous_commit of the journal = %q, want on", got)
	}
}
