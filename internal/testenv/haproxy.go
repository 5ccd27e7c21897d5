package testenv

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// HAProxy is a load balancer in front of several doors, as a team would run it: HTTP mode, round
// robin, taking a server out when its readiness fails twice and back when it passes once.
type HAProxy struct {
	// URL is where it listens.
	URL string

	t     testing.TB
	stats string
}

const haproxyConfig = `
global
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 75s
  option forwardfor
  option redispatch
  retries 2
frontend door
  bind 127.0.0.1:%d
  default_backend doors
backend doors
  balance roundrobin
  option httpchk
  http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host localhost
  http-check expect status 200
  default-server check inter 250ms fastinter 100ms fall 2 rise 1
%s
frontend stats
  bind 127.0.0.1:%d
  stats enable
  stats uri /
`

// NewHAProxy starts haproxy in front of servers (host:port each) and waits until it answers. Without
// haproxy on this machine the test is skipped.
func NewHAProxy(t testing.TB, servers ...string) *HAProxy {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path = "/usr/sbin/haproxy"; !executable(path) {
			t.Skip("haproxy is not installed; make test installs it when run as root")
		}
	}
	port, stats := FreePort(t), FreePort(t)
	var list strings.Builder
	for i, server := range servers {
		fmt.Fprintf(&list, "  server door%d %s\n", i, server)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, port, &list, stats), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-db", "-f", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	h := &HAProxy{t: t, URL: fmt.Sprintf("http://127.0.0.1:%d", port), stats: fmt.Sprintf("http://127.0.0.1:%d/;csv", stats)}
	h.Until(len(servers))
	return h
}

// Until waits until exactly n servers are up.
func (h *HAProxy) Until(n int) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); h.up() != n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("haproxy sees %d servers up, want %d", h.up(), n)
		}
	}
}

// up counts the servers that haproxy sends to, by its own statistics (CSV: field 18 is the status).
func (h *HAProxy) up() int {
	res, err := http.Get(h.stats)
	if err != nil {
		return -1
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return -1
	}
	up := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ",")
		if len(fields) > 17 && fields[0] == "doors" && strings.HasPrefix(fields[1], "door") && strings.HasPrefix(fields[17], "UP") {
			up++
		}
	}
	return up
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
