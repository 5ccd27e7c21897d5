package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// Upstream is a backend with its connections and its breaker.
type Upstream struct {
	url       *url.URL
	transport *http.Transport
	fresh     *http.Transport // keeps no connections; for second tries
	breaker   *breaker
	budget    *budget
}

var errAddress = errors.New("address is not allowed for this upstream")

// NewUpstream prepares the connections to target; nothing is dialled yet.
func NewUpstream(target *url.URL, cfg Config) (*Upstream, error) {
	if target == nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, errors.New("upstream: an http or https address is required")
	}
	setDefault(&cfg.DialTimeout, 2*time.Second)
	setDefault(&cfg.HeaderTimeout, 25*time.Second)
	setDefault(&cfg.MaxIdle, 256)
	dialer := &net.Dialer{
		Timeout:   cfg.DialTimeout,
		KeepAlive: 30 * time.Second,
		Control:   addressRule{local: namesLoopback(target.Hostname()), linkLocal: cfg.AllowLinkLocal}.control,
	}
	u := &Upstream{url: target, breaker: newBreaker(), budget: newBudget()}
	u.transport = &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  cfg.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConns:           cfg.MaxIdle,
		MaxIdleConnsPerHost:    cfg.MaxIdle,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // bodies pass byte for byte
		ForceAttemptHTTP2:      true,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
	u.fresh = u.transport.Clone()
	u.fresh.DisableKeepAlives = true
	return u, nil
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// String is the upstream's host and port.
func (u *Upstream) String() string { return u.url.Host }

// Close drops idle connections.
func (u *Upstream) Close() { u.transport.CloseIdleConnections() }

// BreakerOpen says whether requests are being refused for the upstream's sake.
func (u *Upstream) BreakerOpen() bool { return u.breaker.isOpen(time.Now()) }

// Ping asks whether the upstream is there: by GET path when path is not empty, where any answer
// below 500 will do, and otherwise by a TCP connection.
func (u *Upstream) Ping(ctx context.Context, path string) error {
	_, err := u.Health(ctx, path)
	return err
}

// maxHealth is how much of a health answer is read, in bytes.
const maxHealth = 64 << 10

// Health is Ping, and returns the beginning of the answer, up to 64 KiB.
func (u *Upstream) Health(ctx context.Context, path string) ([]byte, error) {
	if path == "" {
		conn, err := u.transport.DialContext(ctx, "tcp", hostPort(u.url))
		if err != nil {
			return nil, err
		}
		return nil, conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url.JoinPath(path).String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := u.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode >= 500 {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	return io.ReadAll(io.LimitReader(res.Body, maxHealth))
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// addressRule keeps a name from leading inside: one that resolves to loopback or link-local is
// refused after resolution, so that a changed DNS record cannot point the door at itself or at a
// cloud's metadata service.
type addressRule struct{ local, linkLocal bool }

func (a addressRule) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errAddress, address)
	}
	addr := at.Addr().Unmap()
	switch {
	case addr.IsLinkLocalUnicast() && !a.linkLocal, addr.IsMulticast(),
		(addr.IsLoopback() || addr.IsUnspecified()) && !a.local:
		return fmt.Errorf("%w: %s", errAddress, addr)
	}
	return nil
}

// namesLoopback says that the configured address itself means this machine.
func namesLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.IsLoopback() || addr.IsUnspecified())
}
