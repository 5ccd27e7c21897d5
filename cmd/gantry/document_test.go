//go:build linux

package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
)

// documentEnv is the document's .env, word for word.
const documentEnv = `SECRET_KEY=<generated_key_here>
CLERK_SECRET_KEY=<your_clerk_secret>
CLERK_PUBLISHABLE_KEY=<your_clerk_publishable_key>
DATABASE_URL=postgresql://user:pass@host:5432/dbname
VALKEY_URL=redis://localhost:6379/0
ENVIRONMENT=production
DEBUG=False
ALLOWED_HOSTS=api.yourdomain.com
`

// TestDocumentsEnvStartsInProduction fills in real values only. Clerk's host name must lead to the test's
// issuer, so the program runs in a mount namespace of its own with another /etc/hosts.
func TestDocumentsEnvStartsInProduction(t *testing.T) {
	t.Parallel()
	const host = "clerk.gantry-document.example"
	address := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(255), 1+rand.IntN(254))
	issuer, ca := testenv.NewTLSIssuer(t, host, address+":443")
	postgres, redis := testenv.NewPostgres(t), testenv.NewRedis(t)
	d := newDoor(t, "SSL_CERT_FILE="+ca)
	d.wrap = otherHosts(t, address+" "+host)
	text := strings.NewReplacer(
		"<generated_key_here>", fleetSecret, "<your_clerk_secret>", "sk_live_abcdef",
		"<your_clerk_publishable_key>", "pk_live_"+base64.StdEncoding.EncodeToString([]byte(host+"$")),
		"postgresql://user:pass@host:5432/dbname", postgres.URL(postgres.NewDatabase()),
		"redis://localhost:6379/0", "redis://"+redis.Addr+"/0", "api.yourdomain.com", "api.example.org,127.0.0.1",
	).Replace(documentEnv)
	if err := os.WriteFile(filepath.Join(d.dir, ".env"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	out, code := d.command("check", "--live")
	if code != 0 || strings.Contains(out, "FAIL") || strings.Count(out, "good ") != 3 {
		t.Errorf("check --live: exit %d, want database, cache and issuer good:\n%s", code, out)
	}
	d.run()
	if got := loop(d, map[string][]string{"Authorization": {"Bearer " + issuer.Mint(nil)}}, 0); got[200] != 100 || got[429] != 1 {
		t.Errorf("the loop = %v, want 100 x 200, then 429", got)
	}
	if res, text := d.do("GET", "/health", nil, nil); res.StatusCode != 200 {
		t.Errorf("/health = %d %s", res.StatusCode, text)
	}
}

// otherHosts is a command in front of another one that gives it an /etc/hosts with one more line.
func otherHosts(t *testing.T, line string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n"+line+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wrap := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, file}
	if out, err := exec.Command(wrap[0], append(wrap[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("a mount namespace is not to be had here: %v %s", err, out)
	}
	return wrap
}
