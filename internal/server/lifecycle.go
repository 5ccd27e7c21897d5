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
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	work, broken := errgroup.WithContext(background)
	for _, run := range s.work {
		work.Go(func() error { return run(background) })
	}
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
// when no connection has anything to say any more. When the process is replaced, all its connections are older
// than that, and have DrainDelay to be told to go.
func (s *Server) drain(now context.Context) error {
	replaced := s.replaced.Load()
	s.log.Info("draining", "delay", s.cfg.DrainDelay, "timeout", s.cfg.DrainTimeout, "replaced", replaced)
	var err error
	if replaced {
		err = s.mainPort.Close()
	} else {
		s.health.Drain()
	}
	s.draining.Store(true)
	s.wait(now)
	limit, cancel := context.WithTimeout(now, s.cfg.DrainTimeout)
	defer cancel()
	if !replaced {
		err = s.mainPort.Close()
	}
	s.deadlines.CutStreams()
	s.busy.wait(limit)
	return errors.Join(err, shutdown(limit, s.main), s.admin.Close())
}

// shutdown lets the requests of a server whose port is closed come to their end. Shutdown closes the port
// again when Serve has not yet seen that it is closed; that error means nothing.
func shutdown(limit context.Context, server *http.Server) error {
	if err := server.Shutdown(limit); err != nil && !errors.Is(err, net.ErrClosed) {
		return errors.Join(ErrCutShort, server.Close())
	}
	return nil
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
