package testenv

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Redis is a throwaway valkey-server or redis-server on a loopback port, without persistence. Its
// methods may be called from any goroutine.
type Redis struct {
	// Addr is host:port, the same over restarts.
	Addr string
	// CA is what a client must trust when the server speaks TLS; nil when it does not.
	CA *x509.CertPool
	// CAFile is the same as a file in PEM form; "" without TLS.
	CAFile string

	t    testing.TB
	dir  string
	args []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// NewRedis starts a server that ends with the test, or skips the test where neither valkey-server
// nor redis-server is installed. The arguments are put after the usual ones, for example "--maxmemory", "10mb".
func NewRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r := newRedis(t)
	r.args = append([]string{
		"--bind", "127.0.0.1", "--port", r.port(), "--save", "", "--appendonly", "no", "--dir", r.dir,
		"--enable-debug-command", "local", "--loglevel", "warning",
	}, args...)
	r.Start()
	return r
}

// NewTLSRedis is NewRedis for a server that speaks TLS only.
func NewTLSRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r := newRedis(t)
	certFile, keyFile, pool := Certificate(t, r.dir, time.Now().Add(time.Hour))
	r.CA, r.CAFile = pool, certFile
	r.args = append([]string{
		"--bind", "127.0.0.1", "--port", "0", "--tls-port", r.port(), "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no", "--save", "", "--dir", r.dir, "--loglevel", "warning",
	}, args...)
	r.Start()
	return r
}

func newRedis(t testing.TB) *Redis {
	t.Helper()
	if redisBinary() == "" {
		t.Skip("neither valkey-server nor redis-server is installed: apt-get install redis-server")
	}
	r := &Redis{Addr: FreeAddress(t), t: t, dir: t.TempDir()}
	t.Cleanup(r.Kill)
	return r
}

func redisBinary() string {
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (r *Redis) port() string { return r.Addr[strings.LastIndexByte(r.Addr, ':')+1:] }

// Start starts the server after Kill, and waits until it answers. It is empty, but for what a test
// had it SAVE. The arguments are put after those of NewRedis.
func (r *Redis) Start(args ...string) {
	r.t.Helper()
	r.mu.Lock()
	cmd := exec.Command(redisBinary(), slices.Concat(r.args, args)...)
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatalf("redis: %v", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatalf("redis: %v", err)
	}
	done := make(chan struct{})
	r.cmd, r.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait() // killed
		_ = log.Close()
	}()
	r.mu.Unlock()
	r.awaitStart()
}

// awaitStart waits until the port takes connections; when the server has ended instead, its log says why.
func (r *Redis) awaitStart() {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := r.Do("PING"); err == nil || strings.HasPrefix(err.Error(), "NOAUTH") || strings.HasPrefix(err.Error(), "LOADING") {
			return
		}
		select {
		case <-r.done:
			log, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			r.t.Fatalf("redis ended: %s", log)
		case <-time.After(5 * time.Millisecond):
		}
	}
	r.t.Fatal("redis: no answer in 20 seconds")
}

// Kill ends the server as kill -9 does, and waits until it is gone.
func (r *Redis) Kill() {
	r.mu.Lock()
	cmd, done := r.cmd, r.done
	r.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it may have ended
	<-done
}

// Stall stops the server without closing anything, as SIGSTOP does; Continue lets it go on.
func (r *Redis) Stall()    { r.signal(syscall.SIGSTOP) }
func (r *Redis) Continue() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(s syscall.Signal) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("redis: %v", err)
	}
}

// CPU is the processor time the server has used.
func (r *Redis) CPU() time.Duration {
	info := r.Must("INFO", "cpu")
	var total float64
	for _, name := range []string{"used_cpu_sys:", "used_cpu_user:"} {
		_, rest, _ := strings.Cut(info, name)
		seconds, _ := strconv.ParseFloat(strings.TrimSpace(strings.SplitN(rest, "\r", 2)[0]), 64)
		total += seconds
	}
	return time.Duration(total * float64(time.Second))
}

// Must is Do; an error ends the test.
func (r *Redis) Must(args ...string) string {
	r.t.Helper()
	reply, err := r.Do(args...)
	if err != nil {
		r.t.Fatalf("redis: %s: %v", args[0], err)
	}
	return reply
}

// Do sends one command on a connection of its own and returns the reply as text, a list one entry
// a line. It is for what a test does to the server, not for what is under test.
func (r *Redis) Do(args ...string) (string, error) {
	conn, err := r.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return "", err
	}
	return readReply(bufio.NewReader(conn))
}

func (r *Redis) dial() (net.Conn, error) {
	if r.CA != nil {
		return tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", r.Addr, &tls.Config{RootCAs: r.CA})
	}
	return net.DialTimeout("tcp", r.Addr, time.Second)
}

func readReply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, line := line[0], strings.TrimRight(line[1:], "\r\n")
	if kind == '-' {
		return "", errors.New(line)
	}
	if kind != '$' && kind != '*' {
		return line, nil
	}
	n, err := strconv.Atoi(line)
	if err != nil || n < 0 {
		return "", err
	}
	if kind == '$' {
		text := make([]byte, n+2)
		_, err := io.ReadFull(in, text)
		return string(text[:n]), err
	}
	list := make([]string, n)
	for i := range list {
		if list[i], err = readReply(in); err != nil {
			return "", err
		}
	}
	return strings.Join(list, "\n"), nil
}

// NewRedisCluster starts a cluster of three nodes without replicas, ready for use.
func NewRedisCluster(t testing.TB) []*Redis {
	t.Helper()
	nodes := make([]*Redis, 3)
	for i := range nodes {
		nodes[i] = NewRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
	}
	for i, node := range nodes {
		slots := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * 16384 / 3; slot < (i+1)*16384/3; slot++ {
			slots = append(slots, strconv.Itoa(slot))
		}
		node.Must(slots...)
		node.Must("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			nodes[0].Must("CLUSTER", "MEET", "127.0.0.1", node.port())
		}
	}
	for _, node := range nodes {
		node.awaitCluster()
	}
	return nodes
}

func (r *Redis) awaitCluster() {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		info := r.Must("CLUSTER", "INFO")
		if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	r.t.Fatalf("redis: no cluster in 30 seconds:\n%s", r.Must("CLUSTER", "INFO"))
}
