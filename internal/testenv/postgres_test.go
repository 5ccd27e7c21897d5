//go:build unix

package testenv_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

func TestPostgresKeepsWhatItAcknowledged(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	p.Exec(db, "CREATE TABLE seen (n int)")
	for n, fault := range map[string]func(){"1": p.Restart, "2": func() { p.Kill(); p.Start() }, "3": func() { p.Freeze(); p.Thaw() }} {
		p.Exec(db, "INSERT INTO seen VALUES ("+n+")")
		fault()
	}
	if got := p.Exec(db, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM seen"); got != "1 2 3" {
		t.Errorf("rows = %q, want 1 2 3", got)
	}
}

func TestPostgresFrozenDoesNotAnswer(t *testing.T) {
	p := testenv.NewPostgres(t)
	p.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "psql", "-XAtqc", "SELECT 1", p.URL("postgres")).CombinedOutput(); err == nil {
		t.Errorf("a frozen server answered %q", out)
	}
	p.Thaw()
	if got := p.Exec("postgres", "SELECT 1"); got != "1" {
		t.Errorf("thawed: %q, want 1", got)
	}
}

func TestPgBouncerPassesOn(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	b := testenv.NewPgBouncer(t, p)
	out, err := exec.Command("psql", "-XAtqc", "SELECT current_user", b.URL(db)).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "gantry" {
		t.Errorf("current_user = %q, %v; want gantry", out, err)
	}
}
