package audit

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Conn is a connection on which a probe writes the bytes itself. It counts against the budget as one request,
// and what passes is kept as a transcript.
type Conn struct {
	net.Conn
	read   *bufio.Reader
	x      *Exchange
	wire   *wire
	start  time.Time
	script strings.Builder
	public bool        // in clear, beside the origin: no credential may go over it
	room   int64       // bytes that the answer may still have
	let    func() bool // lets go of the context
}

// Dial opens a connection to the target, with TLS when the target speaks it, and no ALPN: HTTP/1.1.
// label says in the report what is sent on it. Close it with [Conn.Done], which gives the exchange.
func (s *Session) Dial(ctx context.Context, label string) (*Conn, error) {
	raw, err := s.tcp(ctx, s.target.Address())
	if err != nil {
		return nil, err
	}
	if s.target.URL.Scheme == "https" {
		secure := tls.Client(raw, s.wire.serverName())
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS with %s: %w", s.target.Address(), err)
		}
		raw = secure
	}
	return s.conn(ctx, raw, label), nil
}

func (s *Session) conn(ctx context.Context, raw net.Conn, label string) *Conn {
	x := s.wire.begin(s.probe.ID, Request{Method: "RAW", Label: label})
	x.At = s.wire.now()
	c := &Conn{Conn: raw, x: x, wire: s.wire, start: time.Now()}
	c.read = bufio.NewReaderSize(allowance{c}, 4096)
	c.let = context.AfterFunc(ctx, func() { raw.Close() }) // so that the end of the run waits for no deadline
	return c
}

var errTooLong = errors.New("the answer is longer than the audit reads")

// allowance reads what the target sends, as much as [Conn.Receive] allows: an answer whose header never ends is an error.
type allowance struct{ *Conn }

func (c allowance) Read(p []byte) (int, error) {
	if c.room <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.room)])
	c.room -= int64(n)
	c.wire.bytes.Add(int64(n))
	return n, err
}

func (w *wire) serverName() *tls.Config {
	c := w.tls.Clone()
	c.ServerName = w.target.URL.Hostname()
	return c
}

// Send writes bytes as they are.
func (c *Conn) Send(text string) error {
	if c.public && slices.ContainsFunc(c.wire.target.secrets(), func(s string) bool { return strings.Contains(text, s) }) {
		return ErrSecret
	}
	c.note("> ", text)
	_, err := io.WriteString(c.Conn, text)
	return err
}

// Receive reads one answer within d. The body is read up to limit bytes.
func (c *Conn) Receive(d time.Duration, limit int64) (*http.Response, []byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, nil, err
	}
	c.room = maxHeaderBytes + limit + 1
	res, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return nil, nil, c.failed(err)
	}
	body, _, err := readBody(res.Body, limit)
	c.x.Status, c.x.Header, c.x.Body, c.x.Took = res.StatusCode, res.Header, body, time.Since(c.start)
	c.note("< ", fmt.Sprintf("%s %s\r\n\r\n%s", res.Proto, res.Status, cut(string(body), 400)))
	if err != nil {
		return res, body, c.failed(err)
	}
	return res, body, nil
}

// Closed waits at most d for the target to close the connection, dropping at most 1 MiB of what comes before.
func (c *Conn) Closed(d time.Duration) bool {
	if c.SetReadDeadline(time.Now().Add(d)) != nil {
		return true
	}
	c.room = 1 << 20
	_, err := io.Copy(io.Discard, c.read)
	timeout, ok := err.(net.Error)
	closed := (!ok || !timeout.Timeout()) && !errors.Is(err, errTooLong)
	if closed {
		c.note("< ", "(closed)")
	}
	return closed
}

func (c *Conn) failed(err error) error {
	c.x.Err = brief(err)
	c.note("< ", "("+c.x.Err.Error()+")")
	return c.x.Err
}

func (c *Conn) note(arrow, text string) {
	for line := range strings.Lines(text) {
		if c.script.Len() > 8<<10 {
			return
		}
		c.script.WriteString(arrow + c.wire.hide.text(fmt.Sprintf("%q", line), 200) + "\n")
	}
}

// Done closes the connection and returns the exchange with its transcript.
func (c *Conn) Done() *Exchange {
	c.let()
	c.Conn.Close()
	set(&c.x.Took, time.Since(c.start))
	c.x.Raw = c.script.String()
	c.wire.record(c.x)
	return c.x
}
