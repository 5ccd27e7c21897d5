package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/proxy"
)

// upgraded is an upstream that switches protocols and hands the connection to serve.
func upgraded(t *testing.T, serve func(net.Conn, *bufio.Reader)) *url.URL {
	t.Helper()
	var open sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		open.Add(1)
		defer open.Done()
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		serve(conn, rw.Reader)
	}))
	t.Cleanup(func() { open.Wait(); s.Close() })
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// dialUpgraded opens an upgraded connection through the guard and the proxy.
func dialUpgraded(t *testing.T, target *url.URL, d *guard.Deadlines) (net.Conn, *bufio.Reader) {
	t.Helper()
	p, err := proxy.New(proxy.Config{Upstream: target})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(guard.Pipeline{Recover: guard.Recover(nil), Shape: guard.Shape(guard.ShapeConfig{}), Deadline: d.Middleware}.Then(p))
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("upgrade = %v, %v", res, err)
	}
	return c, in
}

func TestUpgradedConnectionsEndWhenIdle(t *testing.T) {
	target := upgraded(t, func(_ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
	_, in := dialUpgraded(t, target, guard.NewDeadlines(guard.DeadlineConfig{Cooperative: true, Timeout: 100 * time.Millisecond, StreamIdle: 200 * time.Millisecond}))
	started := time.Now()
	if _, err := in.ReadByte(); err == nil || time.Since(started) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(started), err)
	}
}

func TestUpgradedConnectionsEndInTheEnd(t *testing.T) {
	target := upgraded(t, func(c net.Conn, in *bufio.Reader) { _, _ = io.Copy(c, in) })
	c, in := dialUpgraded(t, target, guard.NewDeadlines(guard.DeadlineConfig{Cooperative: true, Timeout: 100 * time.Millisecond, StreamIdle: time.Minute, StreamLifetime: 500 * time.Millisecond}))
	started, echoes := time.Now(), 0
	for ; ; echoes++ { // never idle, past the deadline of requests
		if _, err := c.Write([]byte("x")); err != nil {
			break
		}
		if _, err := in.ReadByte(); err != nil {
			break
		}
	}
	if lasted := time.Since(started); echoes == 0 || lasted < 300*time.Millisecond || lasted > 5*time.Second {
		t.Errorf("it lasted %v and %d echoes, want half a second", lasted, echoes)
	}
}

func TestUpgradedConnectionsAreCutOnDrain(t *testing.T) {
	target := upgraded(t, func(_ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) })
	d := guard.NewDeadlines(guard.DeadlineConfig{Cooperative: true})
	_, in := dialUpgraded(t, target, d)
	d.CutStreams()
	if _, err := in.ReadByte(); err == nil {
		t.Error("it went on")
	}
}

func TestUpgradedConnectionsHalfClose(t *testing.T) {
	heard := make(chan string, 1)
	target := upgraded(t, func(c net.Conn, in *bufio.Reader) {
		fmt.Fprint(c, "upstream is done")
		_ = c.(*net.TCPConn).CloseWrite()
		text, _ := io.ReadAll(in)
		heard <- string(text)
	})
	c, in := dialUpgraded(t, target, guard.NewDeadlines(guard.DeadlineConfig{Cooperative: true}))
	if text, err := io.ReadAll(in); err != nil || string(text) != "upstream is done" {
		t.Errorf("the client got %q, %v", text, err)
	}
	fmt.Fprint(c, "the client went on")
	_ = c.(*net.TCPConn).CloseWrite()
	if got := <-heard; got != "the client went on" {
		t.Errorf("after its half-close the upstream got %q", got)
	}
}
