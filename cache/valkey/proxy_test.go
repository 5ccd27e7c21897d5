package valkey_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is a link to a server, which a test cuts.
type proxy struct {
	Addr string

	mu     sync.Mutex
	to     string
	cut    bool
	conns  map[net.Conn]bool
	copies sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Addr: listener.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	p.copies.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.serve(conn)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.copies.Wait()
	})
	return p
}

func (p *proxy) serve(near net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	far, err := net.Dial("tcp", p.to)
	if err != nil || p.cut {
		_ = near.Close()
		if err == nil {
			_ = far.Close()
		}
		return
	}
	p.conns[near], p.conns[far] = true, true
	p.copies.Go(func() { p.copy(near, far) })
	p.copies.Go(func() { p.copy(far, near) })
}

func (p *proxy) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from) // until either is closed
	_, _ = to.Close(), from.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, from)
}

// Cut ends all connections and takes no new ones until Heal.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// To leads new connections elsewhere, and ends the old ones.
func (p *proxy) To(address string) {
	p.Cut()
	p.mu.Lock()
	p.to = address
	p.mu.Unlock()
	p.Heal()
}
