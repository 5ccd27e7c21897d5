package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/gantryhq/gantry/health"
)

// Ports are listeners that somebody else has bound: systemd, or the Gantry that this one replaces. A nil one is
// bound as the configuration says.
type Ports struct{ Door, Admin net.Listener }

// bind takes the ports, so that a port in use is an error at once and with its name.
func (s *Server) bind(ctx context.Context) error {
	return errors.Join(
		s.listen(ctx, &s.mainPort, "LISTEN", s.cfg.Listen),
		s.listen(ctx, &s.adminPort, "ADMIN_LISTEN", s.cfg.AdminListen),
	)
}

func (s *Server) listen(ctx context.Context, port *net.Listener, name, address string) (err error) {
	if *port == nil {
		var lc net.ListenConfig
		if *port, err = lc.Listen(ctx, "tcp", address); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	s.closers = append(s.closers, (*port).Close)
	return nil
}

// Files are the two ports for another process to accept on, before this one lets go of them: no connection is
// refused in between, since both stand for the same queue of the kernel's. The caller closes them.
func (s *Server) Files() (door, admin *os.File, err error) {
	if door, err = fileOf(s.mainPort); err != nil {
		return nil, nil, err
	}
	if admin, err = fileOf(s.adminPort); err != nil {
		return nil, nil, errors.Join(err, door.Close())
	}
	return door, admin, nil
}

func fileOf(port net.Listener) (*os.File, error) {
	tcp, ok := port.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("a listener of type %T cannot be handed on", port)
	}
	return tcp.File()
}

// WaitReady returns when the process is ready, or with an error that names what is not when ctx ends.
func (s *Server) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		report := s.health.ReadyReport()
		if report.Status != health.Fail {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %s", failing(report))
		}
	}
}

// failing names the first check that fails.
func failing(report health.Report) string {
	for _, f := range report.Findings {
		if f.Status == health.Fail {
			return fmt.Sprintf("%s (%s) %v", f.Name, f.Last.Reason, f.Last.Err)
		}
	}
	return report.Phase
}

// Replaced says that another process accepts on the same ports: the end of this one must not be seen from
// outside, so readiness stays and the ports are let go of at once.
func (s *Server) Replaced() { s.replaced.Store(true) }
