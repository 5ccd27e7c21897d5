package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryhq/gantry/identity/devissuer"
)

// binary is the real program, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gantry-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gantry")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// issuer is the development issuer of all doors but the first: to make an RSA key takes longer than
// most of the tests.
var issuer = sync.OnceValues(func() (*devissuer.Issuer, error) {
	path, err := binary()
	if err != nil {
		return nil, err
	}
	return devissuer.Load(filepath.Join(filepath.Dir(path), keyFile))
})

const keyFile = "dev-issuer.pem"

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // the tests wait more than they work
	testscript.Main(cleaned{m}, map[string]func(){"gantry": main, "release": releaseMain})
}

// cleaned removes the binary when all tests have run.
type cleaned struct{ *testing.M }

// Run implements testscript.TestingM.
func (c cleaned) Run() int {
	code := c.M.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	return code
}

// door is a running `gantry serve`.
type door struct {
	t         *testing.T
	dir       string
	wrap      []string // a command that runs the program, and its arguments
	env       []string
	cmd       *exec.Cmd
	url       string
	admin     string
	log       *buffer
	exited    chan error
	client    *http.Client
	transport *http.Transport
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start runs the door in a folder that holds only the issuer's key, on free ports, with nothing set
// but env.
func start(t *testing.T, env ...string) *door {
	t.Helper()
	d := newDoor(t, env...)
	d.shareKey()
	d.run()
	return d
}

// shareKey gives the door the issuer's key that all tests share.
func (d *door) shareKey() {
	d.t.Helper()
	if _, err := issuer(); err != nil {
		d.t.Fatal(err)
	}
	path, _ := binary()
	key, err := os.ReadFile(filepath.Join(filepath.Dir(path), keyFile))
	data := filepath.Join(d.dir, "var")
	if err = errors.Join(err, os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, keyFile), key, 0o600)); err != nil {
		d.t.Fatal(err)
	}
}

// newDoor is a door that does not run yet.
func newDoor(t *testing.T, env ...string) *door {
	t.Helper()
	d := &door{t: t, dir: t.TempDir(), env: append([]string{"LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0"}, env...)}
	d.transport = &http.Transport{MaxIdleConnsPerHost: 200}
	d.client = &http.Client{Transport: d.transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(d.stop)
	return d
}

var openAt = regexp.MustCompile(`door +(https?://\S+)\s+admin +(http://\S+)`)

func (d *door) run() {
	d.t.Helper()
	path, err := binary()
	if err != nil {
		d.t.Fatal(err)
	}
	out := &buffer{}
	d.log, d.exited = &buffer{}, make(chan error, 1)
	d.cmd = d.program(path, "serve")
	d.cmd.Dir, d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = d.dir, d.env, out, d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	exited, cmd := d.exited, d.cmd
	go func() { exited <- cmd.Wait() }()
	d.until(func() bool {
		m := openAt.FindStringSubmatch(out.String())
		if m != nil {
			d.url, d.admin = m[1], m[2]
		}
		return m != nil
	})
	d.until(func() bool {
		res, _ := d.try("GET", "/health/ready", nil, nil)
		return res != nil && res.StatusCode == 200
	})
}

func (d *door) until(ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("it did not come to pass; log:\n%s", d.log)
		}
	}
}

func (d *door) program(path string, args ...string) *exec.Cmd {
	line := append(slices.Clone(d.wrap), append([]string{path}, args...)...)
	return exec.Command(line[0], line[1:]...)
}

func (d *door) stop() {
	d.transport.CloseIdleConnections()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.exited
	d.exited <- nil
}

// token makes one as gantry token does, without a process for each.
func (d *door) token(user string) http.Header {
	d.t.Helper()
	i, err := issuer()
	if err != nil {
		d.t.Fatal(err)
	}
	text, err := i.Mint(devissuer.Claims{Subject: user, SessionID: "sess_test"})
	if err != nil {
		d.t.Fatal(err)
	}
	return http.Header{"Authorization": {"Bearer " + text}}
}

// ownToken asks the program for one.
func (d *door) ownToken(user string) http.Header {
	d.t.Helper()
	text, code := d.command("token", "--user", user)
	if code != 0 {
		d.t.Fatalf("gantry token: exit %d: %s", code, text)
	}
	return http.Header{"Authorization": {"Bearer " + strings.TrimSpace(text)}}
}

func command(t *testing.T, dir string, env []string, args ...string) (string, int) {
	t.Helper()
	return (&door{t: t, dir: dir, env: env}).command(args...)
}

func (d *door) command(args ...string) (string, int) {
	t := d.t
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := d.program(path, args...)
	cmd.Dir, cmd.Env = d.dir, d.env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (d *door) try(method, path string, h http.Header, body io.Reader) (*http.Response, string) {
	req, err := http.NewRequest(method, d.url+path, body)
	if err != nil {
		d.t.Error(err)
		return nil, ""
	}
	for name, values := range h {
		req.Header[name] = values
	}
	res, err := d.client.Do(req)
	if err != nil {
		return nil, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err.Error()
	}
	return res, string(text)
}

func (d *door) do(method, path string, h http.Header, body io.Reader) (*http.Response, string) {
	d.t.Helper()
	res, text := d.try(method, path, h, body)
	if res == nil {
		d.t.Fatalf("%s %s: %s", method, path, text)
	}
	return res, text
}

func upstream(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "UPSTREAM_URL=http://" + l.Addr().String()
}

func TestDocumentsHealthLine(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.run()
	res, text := d.do("GET", "/health", nil, nil)
	for _, name := range []string{"database", "cache", "disk"} {
		if !strings.Contains(text, name) {
			t.Errorf("/health does not name %s: %s", name, text)
		}
	}
	if res.StatusCode != 200 {
		t.Errorf("status = %d, want 200", res.StatusCode)
	}
}

// loop is the document's: for i in {1..101}; do curl .../v1/users/me/; done
func loop(d *door, h http.Header, pause time.Duration) map[int]int {
	got := make(map[int]int)
	tick := time.NewTicker(max(pause, 1)) // the pace of the loop is what is tested
	defer tick.Stop()
	for i := range 101 {
		res, _ := d.do("GET", "/v1/users/me/", h, nil)
		got[res.StatusCode]++
		if res.Header.Get("X-Gantry-Ratelimit-Mode") != "" {
			got[alone]++
		}
		if i == 100 && got[alone] == 0 && (res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || res.Header.Get("Content-Type") != "application/problem+json") {
			d.t.Errorf("request 101 = %d %v, want 429 problem+json with Retry-After", res.StatusCode, res.Header)
		}
		<-tick.C
	}
	return got
}

func TestDocumentsLoopWithoutAToken(t *testing.T) {
	t.Parallel()
	if got := loop(start(t), nil, 0); got[401] != 100 || got[429] != 1 {
		t.Errorf("statuses = %v, want 100 x 401, then 429", got)
	}
}

func TestDocumentsLoopWithAToken(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	d.run()
	if got := loop(d, d.ownToken("user_1"), 0); got[200] != 100 || got[429] != 1 {
		t.Errorf("statuses = %v, want 100 x 200, then 429", got)
	}
	if res, _ := d.do("GET", "/v1/users/me/", d.ownToken("user_2"), nil); res.StatusCode != 200 {
		t.Errorf("another user = %d, want 200", res.StatusCode)
	}
}

func TestDocumentsLoopSlowedTo50Seconds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 50 s")
	}
	if got := loop(start(t), nil, 495*time.Millisecond); got[401] != 100 || got[429] != 1 {
		t.Errorf("statuses = %v, want 100 x 401, then 429", got)
	}
}

func TestSlowUpstreamIs504AtTheRequestTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	d := start(t, "REQUEST_TIMEOUT=300ms", upstream(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })))
	res, text := d.do("GET", "/slow", d.token("user_1"), nil)
	if res.StatusCode != 504 || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer = %d %s", res.StatusCode, text)
	}
}

func TestUpstreamThatIsDownIs502(t *testing.T) {
	t.Parallel()
	d := start(t, "UPSTREAM_URL=http://127.0.0.1:1")
	if res, text := d.do("GET", "/", d.token("user_1"), nil); res.StatusCode != 502 {
		t.Errorf("answer = %d %s, want 502", res.StatusCode, text)
	}
}

func TestUpstreamLearnsWhoCalls(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	d := start(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- r.Header })))
	h := d.token("user_7")
	h["X-User-Id"], h["X_user_id"], h["x-Auth-claims"] = []string{"evil"}, []string{"evil"}, []string{"evil"}
	d.do("GET", "/x", h, nil)
	got := <-seen
	if got.Get("X-User-Id") != "user_7" || got.Get("X-Request-Id") == "" || got.Get("X-Request-Timeout-Ms") == "" || got.Get("X-Auth-Claims") == "" {
		t.Errorf("upstream got %v", got)
	}
	if strings.Contains(fmt.Sprint(got), "evil") {
		t.Errorf("a spoofed header passed: %v", got)
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	t.Parallel()
	const good = "DATABASE_URL=sqlite:"
	for name, tt := range map[string]struct {
		env  []string
		want string
	}{
		"missing": {[]string{"ENVIRONMENT=production", good}, "must be set: 50 or more"},
		"short":   {[]string{"ENVIRONMENT=production", good, "SECRET_KEY=q8Zr2vXnT5yKd0WmEoGc7LhBfU3s"}, "shorter than 50"},
		"example": {[]string{"ENVIRONMENT=production", good, "SECRET_KEY=django-insecure-change-this-in-production"}, "development key"},
	} {
		for _, verb := range []string{"check", "serve"} {
			text, code := command(t, t.TempDir(), tt.env, verb)
			if code != 78 || !strings.Contains(text, tt.want) || !strings.Contains(text, "SECRET_KEY") {
				t.Errorf("%s, %s: exit %d:\n%s", name, verb, code, text)
			}
			if strings.Contains(text, "q8Zr2vXn") {
				t.Errorf("%s, %s: the value is shown", name, verb)
			}
		}
	}
	if text, code := command(t, t.TempDir(), nil, "check"); code != 0 {
		t.Errorf("check with nothing set: exit %d: %s", code, text)
	}
}

func TestRestartUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	d := start(t, "DRAIN_DELAY=1s", "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000")
	h := d.token("user_1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	var mu sync.Mutex
	good, failed := 0, []string{}
	for range 50 {
		clients.Go(func() {
			for ctx.Err() == nil {
				res, text := d.try("GET", "/v1/users/me/", h, nil)
				switch {
				case res == nil && (strings.Contains(text, "connection refused") || strings.Contains(text, "connection reset")):
					return // never accepted: the kernel's answer for a closed port, or for its queue
				case res == nil || res.StatusCode != 200:
					mu.Lock()
					failed = append(failed, text)
					mu.Unlock()
				default:
					mu.Lock()
					good++
					mu.Unlock()
				}
			}
		})
	}
	d.until(func() bool { mu.Lock(); defer mu.Unlock(); return good > 500 })
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	err := <-d.exited
	d.exited <- nil
	cancel()
	clients.Wait()
	if err != nil || len(failed) > 0 {
		t.Errorf("exit %v, %d good, %d failed: %.600v", err, good, len(failed), failed)
	}
}

func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	d := start(t, "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000")
	h := d.token("user_1")
	h.Set("Content-Type", "application/merge-patch+json")
	for round := range 3 {
		last := ""
		for i := 0; ; i++ {
			if i == 50 {
				time.AfterFunc(time.Millisecond, func() { _ = d.cmd.Process.Kill() })
			}
			name := fmt.Sprintf("round %d, %d", round, i)
			res, text := d.try("PATCH", "/v1/users/me/", h, strings.NewReader(`{"display_name":"`+name+`"}`))
			if res == nil {
				break
			}
			if res.StatusCode != 200 {
				t.Fatalf("PATCH = %d %s", res.StatusCode, text)
			}
			last = name
		}
		<-d.exited
		d.run()
		_, text := d.do("GET", "/v1/users/me/", h, nil)
		var n, want int
		fmt.Sscanf(last, fmt.Sprintf("round %d, %%d", round), &want)
		if _, after, ok := strings.Cut(text, fmt.Sprintf("round %d, ", round)); ok {
			fmt.Sscanf(after, "%d", &n)
		}
		if n < want {
			t.Errorf("acknowledged %q, stored %s", last, text)
		}
	}
}

func TestSecretsNeverReachTheLog(t *testing.T) {
	t.Parallel()
	const canary = "kQ8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9iPpQx1RzVbNk4MwS6HgYeDj"
	d := start(t, "SECRET_KEY="+canary, "ADMIN_TOKEN="+canary, "LOG_LEVEL=debug")
	h := d.token("user_secret")
	d.do("GET", "/v1/users/me/?token="+canary, h, nil)
	d.do("GET", "/nope", http.Header{"Authorization": {"Bearer " + canary}}, nil)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.exited
	d.exited <- nil
	for _, secret := range []string{canary, h.Get("Authorization")[7:], "user_secret"} {
		if strings.Contains(d.log.String(), secret) {
			t.Errorf("the log holds %.12s...:\n%s", secret, d.log)
		}
	}
	if !strings.Contains(d.log.String(), `"caller":"u_`) {
		t.Errorf("the log has no pseudonym:\n%s", d.log)
	}
}
