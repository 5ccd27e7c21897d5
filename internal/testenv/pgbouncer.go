//go:build unix

package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// PgBouncer is a throwaway connection pooler in transaction mode before a [Postgres].
type PgBouncer struct {
	// Port it listens on.
	Port int

	t      testing.TB
	dir    string
	server *exec.Cmd
	exited chan struct{}
}

// NewPgBouncer starts a pooler that passes every database on to p. Settings are lines of its
// configuration, such as "default_pool_size = 5". It ends with the test. GANTRY_TEST_PGBOUNCER names
// another program than that of the PATH. The test is skipped where there is none, and where settings
// name max_prepared_statements and the program is older than 1.21.
func NewPgBouncer(t testing.TB, p *Postgres, settings ...string) *PgBouncer {
	t.Helper()
	path := pgbouncerBin(t)
	if strings.Contains(strings.Join(settings, "\n"), "max_prepared_statements") {
		needPrepared(t, path)
	}
	account := unprivileged(t)
	b := &PgBouncer{Port: FreePort(t), t: t, dir: folderOf(t, account)}
	config := filepath.Join(b.dir, "pgbouncer.ini")
	if err := os.WriteFile(config, []byte(b.config(p, settings)), 0o644); err != nil {
		t.Fatal(err)
	}
	b.server, b.exited = start(t, b.dir, account, path, config)
	t.Cleanup(b.end)
	wait(t, "PgBouncer to listen", b.Log, b.listens)
	return b
}

func (b *PgBouncer) config(p *Postgres, settings []string) string {
	return fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\n"+
		"unix_socket_dir =\nauth_type = trust\nauth_file = %s\npool_mode = transaction\nmax_client_conn = 500\n%s\n",
		p.Port, b.Port, b.userList(), strings.Join(settings, "\n"))
}

// userList writes down who may log in.
func (b *PgBouncer) userList() string {
	path := filepath.Join(b.dir, "userlist.txt")
	if err := os.WriteFile(path, []byte("\"gantry\" \"\"\n\"postgres\" \"\"\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *PgBouncer) listens() bool {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.Port))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Log is what the pooler has written so far.
func (b *PgBouncer) Log() string { return logOf(b.dir) }

func (b *PgBouncer) end() {
	_ = b.server.Process.Signal(syscall.SIGKILL) // gone already is as good
	await(b.t, b.exited, "PgBouncer to go")
}

// URL of a database behind the pooler, as the plain role "gantry".
func (b *PgBouncer) URL(database string) string {
	return fmt.Sprintf("postgres://gantry@127.0.0.1:%d/%s?sslmode=disable", b.Port, database)
}

func pgbouncerBin(t testing.TB) string {
	t.Helper()
	for _, name := range []string{os.Getenv("GANTRY_TEST_PGBOUNCER"), "pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	t.Skip("PgBouncer is not installed; apt-get install pgbouncer")
	return ""
}

// needPrepared skips where named prepared statements are not carried through transaction mode.
func needPrepared(t testing.TB, path string) {
	t.Helper()
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatalf("pgbouncer --version: %v", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		t.Fatalf("pgbouncer --version printed %q", out)
	}
	if major == 1 && minor < 21 {
		t.Skipf("PgBouncer %d.%d has no max_prepared_statements; name one from 1.21 on in GANTRY_TEST_PGBOUNCER", major, minor)
	}
}
