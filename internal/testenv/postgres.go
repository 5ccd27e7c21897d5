//go:build unix

package testenv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to come up or to go.
const patience = 30 * time.Second

// Postgres is a throwaway database server on a free loopback port, with data of its own. Everybody on
// the machine may log in as anybody, without a password. It does not wait for the disk: what it
// acknowledged survives kill -9 of its processes, not a power cut; start it with "fsync=on" for more.
type Postgres struct {
	// Port stays the same over stops and starts.
	Port int

	t        testing.TB
	bin, dir string
	settings []string
	account  *syscall.Credential
	server   *exec.Cmd
	exited   chan struct{}
	made     atomic.Int64
}

// NewPostgres starts a server with settings such as "max_connections=20". It ends with the test. The
// test is skipped where Postgres is not installed.
func NewPostgres(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	bin := postgresBin()
	if bin == "" {
		t.Skip("Postgres is not installed; apt-get install postgresql")
	}
	p := &Postgres{Port: FreePort(t), t: t, bin: bin, settings: settings, account: unprivileged(t)}
	p.dir = folderOf(t, p.account)
	template, err := postgresTemplate()
	if err != nil {
		t.Fatal(err)
	}
	p.run(exec.Command("cp", "-a", template, p.data()))
	t.Cleanup(p.end)
	p.Start()
	p.Exec("postgres", "CREATE ROLE gantry LOGIN")
	return p
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// postgresBin finds the newest installation, "" without one. Debian keeps the server out of the PATH.
func postgresBin() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) + strings.Compare(b, a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	for _, path := range found {
		if path, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path)
		}
	}
	return ""
}

// unprivileged is the account that servers run as when the tests run as root, whom they refuse.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	account, err := lookupUnprivileged()
	if err != nil {
		t.Fatal(err)
	}
	return account
}

func lookupUnprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		found, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.Atoi(found.Uid)
	gid, err2 := strconv.Atoi(found.Gid)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("account %s has no numeric ids", found.Username)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// folderOf makes a folder that the account owns. That of t.TempDir lies in one that only root may enter.
func folderOf(t testing.TB, account *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-testenv-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the server's folder: %v", err)
		}
	})
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// postgresTemplate is a fresh data folder to copy, made by initdb once per machine: a copy takes a
// tenth of the time. Processes that make it together each make one, and the first to finish wins.
var postgresTemplate = sync.OnceValues(func() (string, error) {
	account, err := lookupUnprivileged()
	if err != nil {
		return "", err
	}
	initdb := filepath.Join(postgresBin(), "initdb")
	version, err := exec.Command(initdb, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("initdb: %w", err)
	}
	name := strings.NewReplacer(" ", "-", "(", "", ")", "", "/", "-").Replace(strings.TrimSpace(string(version)))
	parent := filepath.Join(os.TempDir(), fmt.Sprintf("gantry-testenv-%d-%s", os.Getuid(), name))
	template := filepath.Join(parent, "data")
	if _, err := os.Stat(template); err == nil {
		return template, nil
	}
	return template, makeTemplate(initdb, parent, template, account)
})

func makeTemplate(initdb, parent, template string, account *syscall.Credential) error {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if account != nil {
		if err := os.Chown(parent, int(account.Uid), int(account.Gid)); err != nil {
			return err
		}
	}
	mine := template + "-" + strconv.Itoa(os.Getpid())
	cmd := exec.Command(initdb, "--pgdata", mine, "--username=postgres", "--auth=trust", "--encoding=UTF8",
		"--locale=C.UTF-8", "--no-sync", "--no-instructions")
	cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Credential: account}, "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if err := os.Rename(mine, template); err != nil {
		_ = os.RemoveAll(mine) // another process was faster
		_, err = os.Stat(template)
		return err
	}
	return nil
}

// Start starts the server on its port and waits until it answers.
func (p *Postgres) Start() {
	p.t.Helper()
	args := []string{
		"-D", p.data(), "-p", strconv.Itoa(p.Port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "autovacuum=off",
		"-c", "log_line_prefix=%m [%p] %a ",
	}
	for _, setting := range p.settings {
		args = append(args, "-c", setting)
	}
	p.server, p.exited = start(p.t, p.dir, p.account, filepath.Join(p.bin, "postgres"), args...)
	wait(p.t, "Postgres to answer", p.Log, func() bool { return p.ready() == nil })
}

func (p *Postgres) ready() error {
	return exec.Command(filepath.Join(p.bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-t", "1").Run()
}

// Stop shuts the server down as "pg_ctl stop -m fast" does: clients are cut off, data is written.
func (p *Postgres) Stop() { p.leave(syscall.SIGINT) }

// Kill ends all processes of the server as kill -9 does.
func (p *Postgres) Kill() { p.leave(syscall.SIGKILL) }

// Restart stops the server and starts it again on the same port.
func (p *Postgres) Restart() {
	p.t.Helper()
	p.Stop()
	p.Start()
}

func (p *Postgres) leave(how syscall.Signal) {
	p.t.Helper()
	if how == syscall.SIGKILL {
		p.signal(syscall.SIGSTOP) // so that it makes no new process meanwhile
		children := p.children()
		p.signal(syscall.SIGKILL)
		for _, pid := range children {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
		}
		wait(p.t, "the processes of Postgres to go", p.Log, func() bool { return !slices.ContainsFunc(children, alive) })
	} else {
		p.signal(how)
	}
	await(p.t, p.exited, "Postgres to go")
}

// alive is false also for a process that nobody has waited for: it holds nothing any more.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// Freeze stops all processes of the server as SIGSTOP does: connections stay, nothing answers.
func (p *Postgres) Freeze() {
	p.signal(syscall.SIGSTOP)
	// A signal takes effect when the process next runs, and until then the server may start another one.
	for end := time.Now().Add(5 * time.Second); !p.frozen(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Error("Postgres does not stop")
			return
		}
	}
}

// frozen stops what is not stopped yet, and says whether there was nothing left to stop.
func (p *Postgres) frozen() bool {
	all := isStopped(p.server.Process.Pid)
	for _, pid := range p.children() {
		if !isStopped(pid) {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // one that is gone needs no stopping
			all = false
		}
	}
	return all
}

// isStopped says that a process does nothing: it is stopped, gone, or was not waited for yet.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") T ")) || bytes.Contains(stat, []byte(") Z "))
}

// Thaw undoes Freeze.
func (p *Postgres) Thaw() {
	for _, pid := range p.children() {
		_ = syscall.Kill(pid, syscall.SIGCONT) // one that is gone needs no waking
	}
	p.signal(syscall.SIGCONT)
}

// Alive says whether the server's process is there, stopped by [Postgres.Freeze] or not.
func (p *Postgres) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *Postgres) signal(s syscall.Signal) {
	if err := p.server.Process.Signal(s); err != nil {
		p.t.Errorf("signal Postgres: %v", err)
	}
}

// children are the server's other processes; each leads a group of its own, so a signal to the
// server's group does not reach them.
func (p *Postgres) children() []int {
	pid := p.server.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		p.t.Errorf("children of Postgres: %v", err)
	}
	var all []int
	for _, field := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// end is the cleanup: whatever state the server is in, it is gone afterwards.
func (p *Postgres) end() {
	select {
	case <-p.exited:
	default:
		p.Kill()
	}
}

// Log is what the server has written so far.
func (p *Postgres) Log() string { return logOf(p.dir) }

// Bin is the folder of the server's programs: pg_dump, psql.
func (p *Postgres) Bin() string { return p.bin }

// URL of a database, as the plain role "gantry".
func (p *Postgres) URL(database string) string { return p.URLAs("gantry", database) }

// URLAs is URL for another role; "postgres" is the superuser.
func (p *Postgres) URLAs(role, database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", role, p.Port, database)
}

// NewDatabase makes an empty database that the plain role owns, and returns its name.
func (p *Postgres) NewDatabase() string {
	p.t.Helper()
	name := fmt.Sprintf("gantry_%d", p.made.Add(1))
	p.Exec("postgres", "CREATE DATABASE "+name+" OWNER gantry")
	return name
}

// Exec runs SQL in a database as the superuser, and returns what it printed: a line per row, columns
// separated by "|".
func (p *Postgres) Exec(database, sql string) string {
	p.t.Helper()
	out := p.run(exec.Command(filepath.Join(p.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", p.URLAs("postgres", database), "-c", sql))
	return strings.TrimSpace(out)
}

func (p *Postgres) run(cmd *exec.Cmd) string {
	p.t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v: %s", filepath.Base(cmd.Path), err, stderr.String())
	}
	return string(out)
}

// start runs a server as account, in a group of its own so that an interrupt from the keyboard does not
// reach it. Its output goes to a file in dir, and exited is closed when it is gone.
func start(t testing.TB, dir string, account *syscall.Credential, path string, args ...string) (*exec.Cmd, chan struct{}) {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", filepath.Base(path), err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return cmd, exited
}

func logOf(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, "log")) // nothing written yet is an empty log
	return string(text)
}

// wait polls until ready, and fails the test with the server's log when it takes too long.
func wait(t testing.TB, what string, log func() string, ready func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s:\n%s", patience, what, log())
		}
	}
}

func await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
}
