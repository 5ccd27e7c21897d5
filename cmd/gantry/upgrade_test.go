package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
)

var replacedBy = regexp.MustCompile(`"replaced by a new process","pid":(\d+)`)

// upgrade replaces the process pid and returns its successor's number.
func (d *door) upgrade(pid int) (next int) {
	d.t.Helper()
	before := len(replacedBy.FindAllString(d.log.String(), -1))
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		d.t.Fatal(err)
	}
	d.until(func() bool {
		found := replacedBy.FindAllStringSubmatch(d.log.String(), -1)
		if len(found) > before {
			next, _ = strconv.Atoi(found[len(found)-1][1])
		}
		return next != 0
	})
	d.t.Cleanup(func() { _ = syscall.Kill(next, syscall.SIGKILL) })
	return next
}

// flood calls the door from 20 clients that keep their connections and 20 that do not, until ctx ends. Only the
// order of the kernel's and the client's own events can fail a request on a kept connection that was closed before
// it was sent, which net/http then repeats by itself.
func flood(ctx context.Context, d *door) (count func() (good int, failed []string), wait func()) {
	h := d.token("user_1")
	var clients sync.WaitGroup
	var mu sync.Mutex
	good, failed := 0, []string{}
	for i := range 40 {
		transport := &http.Transport{DisableKeepAlives: i%2 == 0}
		client := &http.Client{Transport: transport}
		clients.Go(func() {
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				req, _ := http.NewRequest("GET", d.url+"/v1/users/me/", nil)
				req.Header = h
				res, err := client.Do(req)
				mu.Lock()
				switch {
				case err != nil:
					failed = append(failed, err.Error())
				case res.StatusCode != 200:
					failed = append(failed, res.Status)
				default:
					good++
				}
				mu.Unlock()
				if err == nil {
					res.Body.Close()
				}
			}
		})
	}
	return func() (int, []string) { mu.Lock(); defer mu.Unlock(); return good, failed }, clients.Wait
}

func TestUpgradesUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	d := start(t, "DRAIN_DELAY=1s", "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	count, wait := flood(ctx, d)
	more := func() {
		before, _ := count()
		d.until(func() bool { now, _ := count(); return now > before+300 })
	}
	pid := d.cmd.Process.Pid
	for range 3 {
		more()
		pid = d.upgrade(pid)
	}
	more()
	cancel()
	wait()
	if good, failed := count(); len(failed) > 0 {
		t.Errorf("%d good, %d failed: %.600v", good, len(failed), failed)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	if err := <-d.exited; err != nil {
		t.Errorf("the first process ended with %v", err)
	}
	d.exited <- nil
}

func TestSuccessorThatCannotStartChangesNothing(t *testing.T) {
	t.Parallel()
	d := start(t)
	if err := os.WriteFile(filepath.Join(d.dir, "gantry.yaml"), []byte("routes: nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Process.Signal(syscall.SIGUSR2)
	d.until(func() bool { return strings.Contains(d.log.String(), "not replaced, this process stays") })
	if res, _ := d.do("GET", "/health", nil, nil); res.StatusCode != 200 {
		t.Errorf("/health answers %d", res.StatusCode)
	}
	if !strings.Contains(d.log.String(), "gantry.yaml") {
		t.Errorf("the log does not say what is wrong:\n%s", d.log)
	}
}

func TestSystemdHandsOverItsSockets(t *testing.T) {
	t.Parallel()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("no systemd-socket-activate here: apt install systemd")
	}
	port, admin := testenv.FreeAddress(t), testenv.FreeAddress(t)
	told := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: told, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	d := newDoor(t, "NOTIFY_SOCKET="+told)
	d.shareKey()
	d.wrap = []string{activate, "-l", port, "-l", admin, "--fdname=door:admin", "-E", "NOTIFY_SOCKET"}
	d.url = "http://" + port
	knock := make(chan string, 1)
	go func() { // the first connection starts the door and waits for it in the queue
		d.until(func() bool {
			res, err := http.Get(d.url + "/health/live")
			if err == nil {
				res.Body.Close()
				knock <- res.Status
			}
			return err == nil
		})
	}()
	d.run()
	if got := <-knock; got != "200 OK" {
		t.Errorf("the waiting connection got %s", got)
	}
	if d.url != "http://"+port {
		t.Errorf("the door is at %s, want systemd's socket %s", d.url, port)
	}
	text := make([]byte, 100)
	n, err := notify.Read(text)
	if err != nil || string(text[:n]) != "READY=1" {
		t.Errorf("systemd heard %q, %v", text[:n], err)
	}
}

func TestInheritedPortMustFitTheEnvironment(t *testing.T) {
	t.Parallel()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("no systemd-socket-activate here: apt install systemd")
	}
	port := fmt.Sprintf(":%d", testenv.FreePort(t))
	d := newDoor(t)
	d.wrap = []string{activate, "-l", "0.0.0.0" + port, "--fdname=door"}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := d.program(path, "serve")
	cmd.Dir, cmd.Env, d.log = d.dir, d.env, &buffer{}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.until(func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 78 || !strings.Contains(d.log.String(), "LISTEN") {
		t.Errorf("development on all addresses: exit %d, %s", cmd.ProcessState.ExitCode(), d.log)
	}
}
