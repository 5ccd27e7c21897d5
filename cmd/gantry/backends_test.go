package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mccutchen/go-httpbin/v2/httpbin"

	"github.com/gantryhq/gantry/internal/testenv"
)

// What stands behind the door here was not made for it.

func TestHTTPBinBehindTheDoor(t *testing.T) {
	t.Parallel()
	d := start(t, upstream(t, httpbin.New().Handler()))
	h := d.token("user_1")
	for path, want := range map[string]int{
		"/get?a=1;b=2&a=": 200, "/status/418": 418, "/status/500": 500, "/redirect/1": 302, "/gzip": 200, "/stream/5": 200,
		"/bytes/100000?seed=1": 200, "/image/png": 200, "/etag/abc": 200, "/drip?duration=0.1&numbytes=5": 200, "/trailers?x=y": 200,
	} {
		if res, text := d.do("GET", path, h, nil); res.StatusCode != want {
			t.Errorf("GET %s = %d %.200s, want %d", path, res.StatusCode, text, want)
		}
	}
	res, text := d.do("GET", "/get?a=1;b=2&a=", h, nil)
	if !strings.Contains(text, "user_1") || strings.Contains(text, "evil") || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("httpbin saw %s", text)
	}
	if res, text := d.do("HEAD", "/get", h, nil); res.StatusCode != 200 || text != "" {
		t.Errorf("HEAD = %d %q", res.StatusCode, text)
	}
	conditional := h.Clone()
	conditional.Set("If-None-Match", `"abc"`)
	if res, _ := d.do("GET", "/etag/abc", conditional, nil); res.StatusCode != 304 {
		t.Errorf("If-None-Match = %d, want 304", res.StatusCode)
	}
}

// background runs a server until the test ends, and waits for its port.
func background(t *testing.T, port int, dir, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path = "/usr/sbin/" + name; !exists(path) {
			t.Skipf("%s is not installed; make test installs it when run as root", name)
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen", name)
		}
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func TestNginxBehindTheDoor(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testenv.FreePort(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 4<<20) // 64 MiB
	if err := os.WriteFile(filepath.Join(dir, "big.bin"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log; events {} http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s; server { listen 127.0.0.1:%[2]d; root %[1]s; } }", dir, port)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	background(t, port, dir, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	d := start(t, "UPSTREAM_URL=http://127.0.0.1:"+strconv.Itoa(port))
	h := d.token("user_1")
	if res, text := d.do("GET", "/big.bin", h, nil); res.StatusCode != 200 || sha256.Sum256([]byte(text)) != sha256.Sum256(content) {
		t.Errorf("64 MiB = %d, %d bytes", res.StatusCode, len(text))
	}
	h.Set("Range", "bytes=16-31,100-")
	h.Set("Range", "bytes=16-47")
	if res, text := d.do("GET", "/big.bin", h, nil); res.StatusCode != 206 || text != string(content[16:48]) || res.Header.Get("Content-Range") == "" {
		t.Errorf("range = %d %q", res.StatusCode, text)
	}
}

func TestPythonBehindTheDoor(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testenv.FreePort(t)
	if err := os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	background(t, port, dir, "python3", "-m", "http.server", strconv.Itoa(port), "--bind", "127.0.0.1")
	d := start(t, "UPSTREAM_URL=http://127.0.0.1:"+strconv.Itoa(port))
	h := d.token("user_1")
	if res, text := d.do("GET", "/hello.txt", h, nil); res.StatusCode != 200 || text != "hello\n" {
		t.Errorf("GET = %d %q", res.StatusCode, text)
	}
	if res, text := d.do("HEAD", "/hello.txt", h, nil); res.StatusCode != 200 || text != "" || res.ContentLength != 6 {
		t.Errorf("HEAD = %d %q %d", res.StatusCode, text, res.ContentLength)
	}
}

func TestWebSocketBehindTheDoor(t *testing.T) {
	t.Parallel()
	d := start(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, d.url+"/echo", nil); err == nil {
		t.Error("an upgrade without a token was let through")
	}
	c, _, err := websocket.Dial(ctx, d.url+"/echo", &websocket.DialOptions{HTTPHeader: d.token("user_1")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for i := range 100 {
		want := strings.Repeat("x", i*100)
		if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != want {
			t.Fatalf("echo %d: %d bytes, %v", i, len(got), err)
		}
	}
}

func TestEachEventArrivesBeforeTheNextIsSent(t *testing.T) {
	t.Parallel()
	received := make(chan struct{})
	d := start(t, "REQUEST_TIMEOUT=500ms", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-received:
			case <-r.Context().Done():
				return
			}
		}
	})))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", d.url+"/events", nil)
	req.Header = d.token("user_1")
	res, err := d.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i := range 5 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
			t.Fatalf("event %d = %q, %v", i, lines.Text(), lines.Err())
		}
		time.Sleep(150 * time.Millisecond) // the stream as a whole outlives the deadline
		received <- struct{}{}
	}
}

// zeros is an upload that is never in memory as a whole.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUploadOf100MiBKeepsMemoryFlat(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	d := start(t, "MAX_BODY_BYTES=209715200", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})))
	before := resident(t, d)
	res, text := d.do("POST", "/upload", d.token("user_1"), io.LimitReader(zeros{}, size))
	if res.StatusCode != 200 || text != fmt.Sprint(size, error(nil)) {
		t.Errorf("upload = %d %q", res.StatusCode, text)
	}
	if grown := resident(t, d) - before; grown > 32<<10 {
		t.Errorf("the process grew by %d KiB", grown)
	}
	if res, _ := d.do("POST", "/upload", d.token("user_1"), io.LimitReader(zeros{}, 201<<20)); res.StatusCode != 413 {
		t.Errorf("too large = %d, want 413", res.StatusCode)
	}
}

// resident is the door's resident set in KiB.
func resident(t *testing.T, d *door) (kib int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Skipf("resident memory cannot be read here: %v", err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestBreakerOpensAndAnswersAtOnce(t *testing.T) {
	t.Parallel()
	d := start(t, "UPSTREAM_URL=http://127.0.0.1:1")
	h := d.token("user_1")
	for range 10 {
		d.do("GET", "/", h, nil)
	}
	res, _ := d.do("GET", "/", h, nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("after ten failures = %d %v, want 503 with Retry-After", res.StatusCode, res.Header)
	}
}
