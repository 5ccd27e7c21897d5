package sqlite_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/rollout/sqlite"
	"github.com/gantryhq/gantry/rollout/storetest"
	users "github.com/gantryhq/gantry/users/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) (*sqlite.Store, *users.Store) {
	t.Helper()
	file, err := users.Open(t.Context(), users.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Migrate(t.Context(), users.Schema{Files: sqlite.Migrations, Table: sqlite.Versions, Newest: sqlite.Schema}); err != nil {
		t.Fatal(err)
	}
	return sqlite.New(file.Pools()), file
}

func TestStoreObeysTheLaws(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (fleet.Store, fleet.Store) {
		path := filepath.Join(t.TempDir(), "gantry.db")
		one, _ := open(t, path)
		other, _ := open(t, path)
		return one, other
	})
}

// synchronous=FULL (2) is what makes a commit of the journal outlive a power cut.
func TestCommitsReachTheDisk(t *testing.T) {
	_, file := open(t, filepath.Join(t.TempDir(), "gantry.db"))
	write, _ := file.Pools()
	var level int
	if err := write.QueryRow("PRAGMA synchronous").Scan(&level); err != nil || level < 2 {
		t.Errorf("synchronous = %d, %v; want 2", level, err)
	}
}
