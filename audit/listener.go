package audit

import (
	"net"
	"sync"
)

// maxConns bounds the connections that the target, or anybody, may hold open to a listener of the audit's own.
const maxConns = 200

// few is a listener of which at most maxConns connections are open at once. Further ones wait.
type few struct {
	net.Listener
	open chan struct{}
	over chan struct{}
	end  func()
}

func newFew(ln net.Listener) *few {
	over := make(chan struct{})
	return &few{Listener: ln, open: make(chan struct{}, maxConns), over: over, end: sync.OnceFunc(func() { close(over) })}
}

// Accept the next connection, when there is room for it.
func (f *few) Accept() (net.Conn, error) {
	select {
	case f.open <- struct{}{}:
	case <-f.over:
		return nil, net.ErrClosed
	}
	c, err := f.Listener.Accept()
	if err != nil {
		<-f.open
		return nil, err
	}
	return &counted{c, sync.OnceFunc(func() { <-f.open })}, nil
}

// Close the listener; an Accept that waits for room ends too.
func (f *few) Close() error {
	f.end()
	return f.Listener.Close()
}

type counted struct {
	net.Conn
	free func()
}

// Close the connection and make room for another.
func (c *counted) Close() error {
	c.free()
	return c.Conn.Close()
}
