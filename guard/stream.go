package guard

import (
	"bufio"
	"net"
)

// watchedConn is a hijacked connection (a WebSocket, for instance) whose traffic is seen, so that
// an idle one can be cut. It first hands out what the server had already read.
type watchedConn struct {
	net.Conn
	pending   *bufio.Reader
	out       *response
	deadlines *Deadlines // which close it at the end; nil without that stage
}

func watch(conn net.Conn, rw *bufio.ReadWriter, out *response) net.Conn {
	c := &watchedConn{Conn: conn, out: out}
	if out.worker != nil {
		c.deadlines = out.worker.d
		c.deadlines.adopt(c)
	}
	if rw.Reader.Buffered() > 0 {
		c.pending = rw.Reader
	}
	return c
}

// Read counts as activity.
func (c *watchedConn) Read(p []byte) (int, error) {
	if c.pending != nil {
		if n := c.pending.Buffered(); n > 0 {
			return c.pending.Read(p[:min(len(p), n)])
		}
		c.pending = nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.out.touch()
	}
	return n, err
}

// Write counts as activity.
func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.out.touch()
	}
	return n, err
}

// Close closes the connection, and has it forgotten.
func (c *watchedConn) Close() error {
	if c.deadlines != nil {
		c.deadlines.drop(c)
	}
	return c.Conn.Close()
}

// CloseWrite ends one direction, as a TCP or TLS connection can, so that a peer which is done
// speaking still hears the other.
func (c *watchedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return c.Close()
	}
	return half.CloseWrite()
}
