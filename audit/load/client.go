package load

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"
)

// ClientConfig says how a Client behaves. The zero value is ready.
type ClientConfig struct {
	Timeout     time.Duration // of one request, from the dial to the last byte; default 30 s
	MaxBody     int64         // bytes of an answer that are read; default 8 MiB, and the rest is cut off
	Connections int           // kept open between requests; default 8192, the most a plan has in flight
	TLS         *tls.Config   // default: the system's authorities
	// Dial opens connections, for one who counts or refuses them. Default: net.Dialer with 10 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Look sees each answer whose body was read, with at most the first 2 KiB of it, for one who
	// seeks the words of an exhausted pool, say. It is called by many at once, and its time
	// is not the server's; the bytes are not to be kept. Default: nobody looks.
	Look func(response *http.Response, start []byte)
}

// Client sends HTTP/1.1 as a load needs it: many connections are kept, nothing is decompressed,
// redirected, remembered or sent through a proxy of the environment, and bodies are read to an end
// that is bounded.
type Client struct {
	transport *http.Transport
	timeout   time.Duration
	maxBody   int64
	look      func(*http.Response, []byte)
}

// NewClient makes a Client; Close ends its idle connections.
func NewClient(c ClientConfig) *Client {
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxBody == 0 {
		c.MaxBody = 8 << 20
	}
	if c.Connections == 0 {
		c.Connections = 8192
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Client{timeout: c.Timeout, maxBody: c.MaxBody, look: c.Look, transport: &http.Transport{
		DialContext:         c.Dial,
		TLSClientConfig:     c.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols,
		DisableCompression:  true,
		MaxIdleConns:        c.Connections,
		MaxIdleConnsPerHost: c.Connections,
		// Below what servers keep idle connections for (gunicorn 2 s, node 5 s), since one that
		// closes just when the next request comes would look like a fault of the server's.
		IdleConnTimeout:        1500 * time.Millisecond,
		MaxResponseHeaderBytes: 64 << 10,
	}}
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Repeat is a Do that sends the same request each time, which therefore has no body.
func (c *Client) Repeat(request *http.Request) Do {
	return func(ctx context.Context, _ int) Answer { return c.Send(ctx, request) }
}

// Send makes one request and reads its answer, whatever its own context.
func (c *Client) Send(ctx context.Context, request *http.Request) (a Answer) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	connections := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections++ },
	})
	request = request.WithContext(ctx)
	a.Start = time.Now()
	response, err := c.transport.RoundTrip(request)
	a.FirstByte = time.Now()
	var start []byte
	if err == nil {
		a.Status = response.StatusCode
		a.Shed = shed(response)
		if a.Status == http.StatusSwitchingProtocols {
			err = errors.Join(errSwitched, response.Body.Close()) // to read on would not heed the context
		} else {
			start, a.Bytes, err = c.read(response.Body)
		}
	}
	a.End = time.Now()
	if c.look != nil && err == nil {
		c.look(response, start)
	}
	a.Resent = connections > 1
	a.Err = err
	return a
}

var errSwitched = errors.New("the server switched to another protocol, unasked")

// read reads a body as far as it is allowed to, and keeps its start for who looks.
func (c *Client) read(body io.ReadCloser) (start []byte, n int64, err error) {
	limited := io.LimitReader(body, c.maxBody)
	if c.look != nil {
		start, err = io.ReadAll(io.LimitReader(limited, 2<<10))
	}
	if err == nil {
		n, err = io.Copy(io.Discard, limited)
	}
	return start, int64(len(start)) + n, errors.Join(err, body.Close())
}

// shed is whether a server refused in order: it said that it is too much, and when to come back.
func shed(r *http.Response) bool {
	return r.StatusCode == http.StatusTooManyRequests ||
		r.StatusCode == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != ""
}
