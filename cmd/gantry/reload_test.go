package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// reload writes .env and sends SIGHUP, and waits for what the door says of it.
func (d *door) reload(env, says string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, ".env"), []byte(env), 0o600); err != nil {
		d.t.Fatal(err)
	}
	before := strings.Count(d.log.String(), says)
	_ = d.cmd.Process.Signal(syscall.SIGHUP)
	d.until(func() bool { return strings.Count(d.log.String(), says) > before })
}

const (
	reloaded    = "configuration reloaded"
	notReloaded = "configuration not reloaded, the old one stays"
)

func TestHangupTakesOverGoodSettingsAndRefusesBadOnes(t *testing.T) {
	t.Parallel()
	d := start(t)
	h := d.token("user_1")
	remaining := func() string {
		res, _ := d.do("GET", "/v1/users/me/", h, nil)
		return res.Header.Get("X-RateLimit-Remaining")
	}
	if got := remaining(); got != "99" {
		t.Fatalf("remaining = %s, want 99", got)
	}
	d.reload("RATE_LIMIT_PER_USER=50\n", reloaded)
	if got := remaining(); got != "48" {
		t.Errorf("remaining after the limit went to 50 = %s, want 48: what was used still counts", got)
	}
	d.reload("RATE_LIMIT_PER_USER=70\nSECRET_KEY=short\n", notReloaded)
	if got := remaining(); got != "47" || !strings.Contains(d.log.String(), "config.E010") || strings.Contains(d.log.String(), `"short"`) {
		t.Errorf("remaining after a bad reload = %s, want 47 of the old limit; log:\n%s", got, d.log)
	}
	d.reload("RATE_LIMIT_PER_USER=70\nREQUEST_TIMEOUT=7\n", `"needs_restart":["RequestTimeout"]`)
	if got := remaining(); got != "66" {
		t.Errorf("remaining = %s, want 66", got)
	}
}

func TestSecretsRotateWithoutDowntime(t *testing.T) {
	t.Parallel()
	old, new := strings.Repeat("q8Zr2vXnT5", 4), strings.Repeat("yKd0WmEoGc", 4)
	d := start(t)
	write := func(token string) {
		if err := os.WriteFile(filepath.Join(d.dir, "token"), []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sees := func(token string) bool {
		_, text := d.do("GET", "/health", http.Header{"Authorization": {"Bearer " + token}}, nil)
		return strings.Contains(text, "observedValue")
	}
	write(old)
	const env = "ADMIN_TOKEN_FILE=token\n"
	d.reload(env, reloaded)
	if !sees(old) || sees(new) {
		t.Error("the first token is not the one in force")
	}
	write(new)
	d.reload(env, reloaded)
	if sees(old) || !sees(new) {
		t.Error("the second token is not the one in force")
	}
	write("short")
	d.reload(env, notReloaded)
	if !sees(new) {
		t.Error("a bad token replaced a good one")
	}
}

func TestReloadsUnderLoadFailNoRequest(t *testing.T) {
	t.Parallel()
	d := start(t, "RATE_LIMIT_GLOBAL=1000000", "RATE_LIMIT_PER_USER=1000000")
	h := d.token("user_1")
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if res, text := d.try("GET", "/v1/users/me/", h, nil); res == nil || res.StatusCode != 200 {
					t.Errorf("answer = %v %s", res, text)
					return
				}
			}
		})
	}
	for range 20 {
		d.reload("MAX_BODY_BYTES=1000\n", reloaded)
	}
	cancel()
	clients.Wait()
}

func TestHangupOpensTheLogFileAgain(t *testing.T) {
	t.Parallel()
	d := start(t, "LOG_FILE=logs/gantry.log")
	path := filepath.Join(d.dir, "logs", "gantry.log")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Process.Signal(syscall.SIGHUP)
	d.until(func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), reloaded)
	})
}
