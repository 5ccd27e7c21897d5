package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatWasLoadedIsToldWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	key := "k9Jd82hfLq01mZxTbWv7RpYc3sNgUe64aBtQoXiMwErDyKzS5u"
	for name, text := range map[string]string{
		".env":        "RATE_LIMIT_PER_USER=50\nDATABASE_URL=postgres://ann:hunter2hunter2@localhost/x\n",
		"gantry.yaml": "routes:\n  - path: /public/\n    auth: none\n",
		"key":         key + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(env ...string) Loaded {
		t.Helper()
		cfg, report := Load(Sources{Dir: dir, Environ: append([]string{"UPSTREAM_HEALTH_PATH=http://me:hunter2@x", "SECRET_KEY_FILE=" + filepath.Join(dir, "key")}, env...)})
		_ = report // some of it is refused, and shown all the same
		return cfg.Loaded
	}
	l := load()
	shown := fmt.Sprint(l)
	for _, hidden := range []string{"hunter2", key} {
		if strings.Contains(shown, hidden) {
			t.Errorf("%q is shown: %s", hidden, shown)
		}
	}
	for _, want := range []Setting{
		{"RATE_LIMIT_PER_USER", "50", ".env:1"},
		{"DATABASE_URL", redacted, ".env:2"},
		{"SECRET_KEY", redacted, "environment"},
		{"UPSTREAM_HEALTH_PATH", "http://[redacted]@x", "environment"},
		{"gantry.yaml", "1 routes, 0 plans, 3 lines", "gantry.yaml"},
	} {
		if !slices.Contains(l.Settings, want) {
			t.Errorf("%v is not among %v", want, l.Settings)
		}
	}
	if again := load(); again.Hash != l.Hash {
		t.Errorf("the hash is %s, and %s when nothing has changed", l.Hash, again.Hash)
	}
	for _, change := range []string{"RATE_LIMIT_PER_USER=51", "DATABASE_URL=postgres://ann:hunter3hunter3@localhost/x", "LOG_LEVEL=debug"} {
		if other := load(change); other.Hash == l.Hash {
			t.Errorf("the hash does not tell %s", change)
		}
	}
}
