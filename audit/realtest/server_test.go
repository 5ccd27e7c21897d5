package realtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cache is where programs are kept between runs.
func cache(t *testing.T, parts ...string) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("no folder to install into: %v", err)
	}
	return filepath.Join(append([]string{base, "gantry-realtest"}, parts...)...)
}

// debian finds a program, or installs the package that holds it when root may; else the test is skipped.
func debian(t *testing.T, program, pkg string) string {
	t.Helper()
	if path := found(program); path != "" {
		return path
	}
	if os.Geteuid() != 0 {
		t.Skipf("%s is not installed, and only root can install it: apt-get install %s", program, pkg)
	}
	install(t, "", "apt-get", "update", "-qq")
	install(t, "", "apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg)
	path := found(program)
	if path == "" {
		t.Skipf("%s is not in Debian's package %s", program, pkg)
	}
	return path
}

// found looks where Debian keeps daemons, too.
func found(program string) string {
	for _, name := range []string{program, filepath.Join("/usr/sbin", program)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// node installs what a package.json names into the cache, and returns the folder. The manifest is a part of the folder's
// life: another one is another installation.
func node(t *testing.T, name, manifest string) string {
	t.Helper()
	if found("npm") == "" || found("node") == "" {
		t.Skip("node and npm are not installed")
	}
	dir := cache(t, name)
	marker := filepath.Join(dir, "installed.json")
	if have, err := os.ReadFile(marker); err == nil && string(have) == manifest {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "package.json"), manifest)
	install(t, dir, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts")
	write(t, marker, manifest)
	return dir
}

// install runs an installer for three minutes at most. What it cannot install skips the test: registries may be away.
func install(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s %s: %v\n%s", program, strings.Join(args, " "), err, tail(out))
	}
}

func tail(text []byte) []byte { return text[max(0, len(text)-2000):] }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// serve starts a server that ends with the test, and waits until url answers at all.
func serve(t *testing.T, cmd *exec.Cmd, url string) {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log") // a file: what the server leaves running must not hold a pipe open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its workers too
		<-ended
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s wrote:\n%s", filepath.Base(cmd.Path), tail(text))
		}
	})
	if err := await(url, ended); err != nil {
		t.Fatalf("%s: %v", filepath.Base(cmd.Path), err)
	}
}

// await asks until an answer comes, for half a minute at most.
func await(url string, ended <-chan struct{}) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(30 * time.Second); ; {
		res, err := client.Get(url)
		if err == nil {
			return res.Body.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("no answer in half a minute: %w", err)
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended before it answered")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
