package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
)

// healer is `gantry users reconcile` in a folder of its own, and the Clerk it asks.
type healer struct {
	t     *testing.T
	dir   string
	clerk *testenv.Clerk
	env   []string
}

func newHealer(t *testing.T, n int) *healer {
	t.Helper()
	h := &healer{t: t, dir: t.TempDir(), clerk: testenv.NewClerk(t)}
	h.clerk.SecretKey = "sk_test_" + strings.TrimPrefix(h.clerk.SecretKey, "sk_live_")
	h.env = []string{
		"CLERK_PUBLISHABLE_KEY=pk_test_" + base64.StdEncoding.EncodeToString([]byte("quiet-fox-1.clerk.accounts.dev$")),
		"CLERK_SECRET_KEY=" + h.clerk.SecretKey, "DATA_DIR=data", "CLERK_API_URL=" + h.clerk.URL,
	}
	for i := range n {
		h.clerk.Create(fmt.Sprintf("U%d", i))
	}
	return h
}

func (h *healer) command(args ...string) (*exec.Cmd, *buffer, *buffer) {
	h.t.Helper()
	path, err := binary()
	if err != nil {
		h.t.Fatal(err)
	}
	out, log := &buffer{}, &buffer{}
	cmd := exec.Command(path, append([]string{"users", "reconcile"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.dir, h.env, out, log
	return cmd, out, log
}

// run returns the exit code and both outputs.
func (h *healer) run(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	cmd, out, log := h.command(args...)
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		h.t.Fatal(err)
	}
	if strings.Contains(out.String()+log.String(), h.clerk.SecretKey) {
		h.t.Errorf("the secret key is printed: %s%s", out, log)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

func (h *healer) store() *sqlite.Store {
	h.t.Helper()
	s, err := sqlite.Open(h.t.Context(), sqlite.Config{Path: filepath.Join(h.dir, "data", "gantry.db")})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	return s
}

// live returns the e-mail addresses in the table by subject.
func live(t *testing.T, s users.Store) map[string]string {
	t.Helper()
	out := make(map[string]string)
	page, err := s.List(t.Context(), users.Query{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range page {
		if u.Status != users.Deleted {
			out[u.Subject] = u.Email
		}
	}
	return out
}

func (h *healer) same(s users.Store) {
	h.t.Helper()
	got, want := live(h.t, s), h.clerk.Users()
	if len(got) != len(want) {
		h.t.Errorf("%d users, Clerk has %d", len(got), len(want))
	}
	for id, u := range want {
		if got[id] != u.Email {
			h.t.Errorf("%s is %q, at Clerk %q", id, got[id], u.Email)
		}
	}
}

// TestReconcileSurvivesKill kills the process at work with SIGKILL, twice, and runs it again.
func TestReconcileSurvivesKill(t *testing.T) {
	h := newHealer(t, 800)
	s := h.store()
	for round := range 2 {
		cmd, _, log := h.command()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		before := len(live(t, s))
		for end := time.Now().Add(30 * time.Second); len(live(t, s)) < before+30; {
			if time.Now().After(end) {
				t.Fatalf("nothing happens: %s", log)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-exited
		if n := len(live(t, s)); n < before+30 || n >= 800 {
			t.Fatalf("round %d: killed with %d of 800 done: not in the middle", round, n)
		}
	}
	half := len(live(t, s))
	code, out, log := h.run("--json")
	var d clerk.Drift
	if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil || d.Missing != 800-half || d.Applied != d.Missing {
		t.Errorf("after two kills with %d done: exit %d, %s %s", half, code, out, log)
	}
	h.same(s)
	t.Logf("killed twice with %d done in all; the third run did %d", half, d.Applied)
}

func TestReconcileSaysWhatItDid(t *testing.T) {
	h := newHealer(t, 30)
	if code, out, _ := h.run("--dry-run"); code != 0 || !strings.Contains(out, "30 were missing") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("dry run: exit %d, %s", code, out)
	}
	s := h.store()
	if n := len(live(t, s)); n != 0 {
		t.Errorf("a dry run made %d users", n)
	}
	if code, out, log := h.run(); code != 0 || !strings.Contains(out, "30 applied, 0 removed") || !strings.Contains(log, "30 of 30") {
		t.Errorf("exit %d, %s %s", code, out, log)
	}
	h.same(s)
	if code, out, _ := h.run(); code != 0 || !strings.Contains(out, "true to Clerk") {
		t.Errorf("again: exit %d, %s", code, out)
	}
	for id := range h.clerk.Users() {
		if len(h.clerk.Users()) > 15 {
			h.clerk.Delete(id)
		}
	}
	if code, _, log := h.run(); code != 1 || !strings.Contains(log, "--force") || len(live(t, s)) != 30 {
		t.Errorf("half of them gone: exit %d, %s", code, log)
	}
	if code, out, _ := h.run("--force"); code != 0 || !strings.Contains(out, "0 applied, 15 removed") {
		t.Errorf("forced: exit %d, %s", code, out)
	}
	h.same(s)
}

func TestReconcileExitCodes(t *testing.T) {
	h := newHealer(t, 1)
	good := h.env
	for name, tt := range map[string]struct {
		env  []string
		args []string
		want int
	}{
		"without Clerk":        {nil, nil, 78},
		"without a secret key": {good[:1], nil, 78},
		"a wrong secret key":   {append(slices.Clone(good), "CLERK_SECRET_KEY=sk_test_wrong"), nil, 78},
		"a bad configuration":  {append([]string{"DEBUG=perhaps"}, good...), nil, 78},
		"an unknown flag":      {good, []string{"--nonsense"}, 2},
		"a stray argument":     {good, []string{"now"}, 2},
		"a secret in clear":    {append(slices.Clone(good), "CLERK_API_URL=http://api.clerk.example"), nil, 78},
		"help":                 {good, []string{"-h"}, 0},
	} {
		h.env = tt.env
		if code, out, log := h.run(tt.args...); code != tt.want || code != 0 && log == "" {
			t.Errorf("%s: exit %d, want %d: %s%s", name, code, tt.want, out, log)
		}
	}
}

func TestReconcileStopsAtCtrlC(t *testing.T) {
	h := newHealer(t, 800)
	s := h.store()
	cmd, _, log := h.command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); len(live(t, s)) < 50 && time.Now().Before(end); {
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	n := len(live(t, s))
	if code := cmd.ProcessState.ExitCode(); code != 1 || n < 50 || n >= 800 || !bytes.Contains([]byte(log.String()), []byte("the next run does the rest")) {
		t.Errorf("exit %d with %d done: %s", code, n, log)
	}
}
