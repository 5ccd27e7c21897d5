package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
	"github.com/gantryhq/gantry/users/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ways are the ways to the server that a Store must not differ on.
func ways(t *testing.T, p *testenv.Postgres, try func(*testing.T, func(database string) postgres.Config)) {
	t.Run("direct", func(t *testing.T) {
		try(t, func(db string) postgres.Config { return postgres.Config{URL: p.URL(db)} })
	})
	t.Run("direct, nothing prepared", func(t *testing.T) {
		try(t, func(db string) postgres.Config {
			return postgres.Config{URL: p.URL(db), Prepare: postgres.PrepareNever}
		})
	})
	t.Run("through PgBouncer", func(t *testing.T) {
		b := testenv.NewPgBouncer(t, p)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(b.Log())
			}
		})
		try(t, func(db string) postgres.Config { return postgres.Config{URL: b.URL(db)} })
	})
	t.Run("through PgBouncer with max_prepared_statements", func(t *testing.T) {
		b := testenv.NewPgBouncer(t, p, "max_prepared_statements = 50")
		try(t, func(db string) postgres.Config {
			return postgres.Config{URL: b.URL(db), Prepare: postgres.PrepareAlways}
		})
	})
}

// Requirement D6 among them: every law holds through PgBouncer in transaction mode.
func TestStoreObeysTheLaws(t *testing.T) {
	p := testenv.NewPostgres(t, "max_connections=200")
	ways(t, p, func(t *testing.T, to func(string) postgres.Config) {
		storetest.Run(t, func(t *testing.T) users.Store { return open(t, to(p.NewDatabase())) })
	})
}

func TestConfigTellsAllFaultsAndNoSecret(t *testing.T) {
	err := postgres.Config{URL: "postgres://u:hush@[/x", Max: -1, Lifetime: -1, StatementTimeout: 1, Prepare: 7}.Validate()
	for _, field := range []string{"URL", "Max", "Lifetime", "StatementTimeout", "Prepare"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("Validate = %v; want %s in it", err, field)
		}
	}
	_, err2 := postgres.Open(t.Context(), postgres.Config{URL: "postgres://u:hush@127.0.0.1:1/x"})
	if strings.Contains(err.Error()+err2.Error(), "hush") {
		t.Errorf("the password shows: %v; %v", err, err2)
	}
	if !errors.Is(err2, users.ErrUnavailable) {
		t.Errorf("Open of nothing = %v, want ErrUnavailable", err2)
	}
}

// eventually polls until ok, for as long as patience.
func eventually(t *testing.T, patience time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; {
		if ok() {
			return time.Since(start)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
