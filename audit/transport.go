package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// ErrSecret says that a probe was about to send a real credential where it must not go.
var ErrSecret = errors.New("a real credential must not travel in clear")

// Handshake opens a TLS connection that offers the versions from least to most only, and closes it. The certificate is
// not verified: judging it is the probe's matter. A refused handshake is in the exchange, with the state empty.
func (s *Session) Handshake(ctx context.Context, label string, least, most uint16) (tls.ConnectionState, *Exchange, error) {
	raw, err := s.tcp(ctx, s.target.Address())
	if err != nil {
		return tls.ConnectionState{}, nil, err
	}
	defer raw.Close()
	x := s.wire.begin(s.probe.ID, Request{Method: "TLS", Label: label})
	x.At = s.wire.now()
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	secure := tls.Client(raw, offer(s.wire.serverName(), least, most))
	x.Err = secure.HandshakeContext(ctx)
	x.Took = time.Since(start)
	state := secure.ConnectionState()
	if x.Err != nil {
		state = tls.ConnectionState{}
		x.Raw = fmt.Sprintf("offered %s to %s: %v", tls.VersionName(least), tls.VersionName(most), x.Err)
	} else {
		x.Raw = fmt.Sprintf("offered %s to %s: agreed on %s, %s",
			tls.VersionName(least), tls.VersionName(most), tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	}
	s.wire.record(x)
	return state, x, nil
}

// offer every cipher suite there is, the weak ones too: only the version is asked about.
func offer(c *tls.Config, least, most uint16) *tls.Config {
	c.MinVersion, c.MaxVersion, c.InsecureSkipVerify, c.VerifyConnection = least, most, true, nil
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	return c
}

// DialPlain opens a connection without TLS to a port of the target's host, to see what answers there. What is sent on it
// must hold no real credential; [Conn.Send] refuses to.
func (s *Session) DialPlain(ctx context.Context, port, label string) (*Conn, error) {
	raw, err := s.tcp(ctx, net.JoinHostPort(s.target.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	c := s.conn(ctx, raw, label)
	c.public = true
	return c, nil
}

// tcp connects at the polite pace, as one request of the budget.
func (s *Session) tcp(ctx context.Context, address string) (net.Conn, error) {
	if err := s.wire.pace.wait(ctx); err != nil {
		return nil, err
	}
	if err := s.wire.spend(); err != nil {
		return nil, err
	}
	raw, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return raw, nil
}
