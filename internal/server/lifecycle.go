package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrCutShort says that requests were still running when the drain time was over, or when a second
// signal came.
var ErrCutShort = errors.New("shutdown was cut short, requests were lost")

// Run serves until ctx ends, then drains: readiness says 503, the door stays open for DrainDelay so
// that load balancers notice, connections are let go, the ports close, streams are cut, requests have
// DrainTimeout to finish, and the stores close last. now, when it ends, skips what is left.
func (s *Server) Run(ctx, now context.Context) error {
	tlsConfig, err := s.certificate()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	s.main.TLSConfig = tlsConfig
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	work, broken := errgroup.WithContext(background)
	work.Go(func() error { return s.verifier.Run(background) })
	work.Go(func() error { return s.health.Run(background) })
	work.Go(func() error { return serve(s.main, s.mainPort) })
	work.Go(func() error { return serve(s.admin, s.adminPort) })
	s.health.Open()

	select {
	case <-ctx.Done():
	case <-broken.Done(): // a port or a worker died; end in order all the same
	}
	ended := s.drain(now)
	stop()
	return errors.Join(ended, work.Wait(), s.Close())
}

func serve(server *http.Server, port net.Listener) error {
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(port, "", "")
	} else {
		err = server.Serve(port)
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drain ends the service without losing a request. net/http's Shutdown alone would: it drops requests
// that it has read but not begun (server.go, conn.serve). So the port closes first, and Shutdown comes
// when no connection has anything to say any more.
func (s *Server) drain(now context.Context) error {
	s.log.Info("draining", "delay", s.cfg.DrainDelay, "timeout", s.cfg.DrainTimeout)
	s.health.Drain()
	s.draining.Store(true)
	s.wait(now)
	limit, cancel := context.WithTimeout(now, s.cfg.DrainTimeout)
	defer cancel()
	err := s.mainPort.Close()
	s.deadlines.CutStreams()
	s.busy.wait(limit)
	if s.main.Shutdown(limit) != nil {
		err = errors.Join(ErrCutShort, s.main.Close())
	}
	return errors.Join(err, s.admin.Close())
}

// connections are those that have begun to say something and are not answered yet.
type connections struct{ open sync.Map }

// follow is an http.Server's ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew, http.StateActive:
		c.open.Store(conn, nil)
	default:
		c.open.Delete(conn)
	}
}

func (c *connections) quiet() bool {
	quiet := true
	c.open.Range(func(any, any) bool { quiet = false; return false })
	return quiet
}

// wait returns when all is quiet, or at the limit. It looks now and then: the end of a process is no
// place for bookkeeping on every request.
func (c *connections) wait(limit context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !c.quiet() {
		select {
		case <-tick.C:
		case <-limit.Done():
			return
		}
	}
}

func (s *Server) wait(now context.Context) {
	pause := time.NewTimer(s.cfg.DrainDelay)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-now.Done():
	}
}
