package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Clients that are slow on purpose.

// connect opens a raw connection to the door.
func (d *door) connect() net.Conn {
	d.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	return conn
}

// drip sends text at one byte a second until the connection is closed, and says how long that took.
func drip(conn net.Conn, text string) (time.Duration, error) {
	begun, closed := time.Now(), make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		closed <- err
	}()
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for {
		_, _ = io.WriteString(conn, text[:1])
		text = text[1:]
		select {
		case err := <-closed:
			return time.Since(begun), err
		case <-pace.C:
		}
	}
}

const slowHead = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestHeadersAtAByteASecondAreCutAfterFive(t *testing.T) {
	t.Parallel()
	d := start(t)
	took, err := drip(d.connect(), slowHead)
	if took < 4*time.Second || took > 8*time.Second {
		t.Errorf("cut after %v (%v), want 5 s", took, err)
	}
}

// crowd opens connections that have begun to send headers, and keeps on until ctx ends.
func crowd(ctx context.Context, t *testing.T, d *door, size int) {
	addr := strings.TrimPrefix(d.url, "http://")
	conns := make([]net.Conn, 0, size)
	for range size {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Errorf("connection %d: %v", len(conns), err)
			break
		}
		_, _ = io.WriteString(conn, slowHead[:20])
		conns = append(conns, conn)
	}
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for i := 20; i < len(slowHead) && ctx.Err() == nil; i++ {
		for _, conn := range conns {
			_, _ = io.WriteString(conn, slowHead[i:i+1])
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
}

func TestCrowdOfSlowClientsDoesNotSlowAFastOne(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 5,000 connections")
	}
	t.Parallel()
	const size = 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < size+500 {
		t.Skipf("only %d files may be open here (%v)", limit.Cur, err)
	}
	d := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var slow sync.WaitGroup
	slow.Go(func() { crowd(ctx, t, d, size) })
	defer slow.Wait()
	defer cancel()
	d.until(func() bool { return sockets(t, d) > size/2 }) // each is cut after 5 s, and a busy machine opens few in that time
	var took []time.Duration
	for range 300 {
		begun := time.Now()
		if res, text := d.do("GET", "/health/live", nil, nil); res.StatusCode != 200 {
			t.Fatalf("the fast client got %d %s", res.StatusCode, text)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	if p99 := took[len(took)*99/100]; p99 > 100*time.Millisecond {
		t.Errorf("p99 of the fast client = %v, want under 100ms (median %v)", p99, took[len(took)/2])
	} else {
		t.Logf("p99 = %v, median %v, beside %d slow connections", p99, took[len(took)/2], sockets(t, d))
	}
}

// sockets is how many files the door's process has open.
func sockets(t *testing.T, d *door) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		t.Skipf("open files cannot be counted here: %v", err)
	}
	return len(entries)
}

func TestBodyAtAByteASecondIsAnswered408(t *testing.T) {
	t.Parallel()
	d := start(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })))
	conn := d.connect()
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: 100000\r\n\r\n", d.token("user_1").Get("Authorization"))
	go func() {
		for pace := time.NewTicker(time.Second); ; <-pace.C {
			if _, err := io.WriteString(conn, "x"); err != nil {
				pace.Stop()
				return
			}
		}
	}()
	begun := time.Now()
	status, _ := bufio.NewReader(conn).ReadString('\n')
	if took := time.Since(begun); !strings.Contains(status, "408") || took > 15*time.Second {
		t.Errorf("answer = %q after %v, want 408 after 5 s", status, took)
	}
}

func TestReaderThatDoesNotReadIsCutAndCostsNoMemory(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 20)
	d := start(t, "REQUEST_TIMEOUT=3s", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30))
		gone <- struct{}{}
	})))
	before := resident(t, d)
	h := d.token("user_1").Get("Authorization")
	for range cap(gone) {
		fmt.Fprintf(d.connect(), "GET /big HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n", h)
	}
	peak := 0
	d.until(func() bool { peak = max(peak, resident(t, d)); return len(gone) == cap(gone) })
	if grown := peak - before; grown > 64<<10 {
		t.Errorf("20 readers that do not read cost %d KiB", grown)
	}
}

func TestUpgradedConnectionsCloseOnDrain(t *testing.T) {
	t.Parallel()
	d := start(t, "DRAIN_DELAY=0s", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_, _, _ = c.Read(context.WithoutCancel(r.Context()))
			_ = c.CloseNow()
		}
	})))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, d.url+"/socket", &websocket.DialOptions{HTTPHeader: d.token("user_1")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("read = %v, want a closed connection", err)
	}
	err = <-d.exited
	d.exited <- nil
	if err != nil {
		t.Errorf("exit: %v; log:\n%s", err, d.log)
	}
}
