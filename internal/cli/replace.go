package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/internal/server"
)

// readyWithin is how long a successor has to become ready. Until then, and if it does not, nothing changes.
const readyWithin = 30 * time.Second

// successor starts the program again, perhaps a newer one at the same path, with this one's ports, and returns when
// it serves. It is the same command line and environment.
func successor(ctx context.Context, p Process, s *server.Server) (*os.Process, error) {
	path, err := programOf(p.Name)
	if err != nil {
		return nil, err
	}
	door, admin, err := s.Files()
	if err != nil {
		return nil, err
	}
	defer door.Close()
	defer admin.Close()
	heard, ready, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer heard.Close()
	cmd := exec.Command(path, append([]string{"serve"}, p.Args...)...)
	cmd.Args[0], cmd.Env = p.Name, heirEnviron(p.Environ)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{door, admin, ready}
	err = cmd.Start()
	_ = ready.Close() // so that the pipe ends with the successor
	if err != nil {
		return nil, err
	}
	if err := waitReady(ctx, heard); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), reap(cmd))
	}
	return cmd.Process, nil
}

// reap forgets a successor that was killed; how it ended is of no interest.
func reap(cmd *exec.Cmd) error {
	_ = cmd.Wait()
	return nil
}

// programOf is where the program is now: a link that an upgrade has moved leads to the new one.
func programOf(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func heirEnviron(environ []string) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		return strings.HasPrefix(pair, "LISTEN_FDS=") || strings.HasPrefix(pair, "LISTEN_PID=") || strings.HasPrefix(pair, "LISTEN_FDNAMES=")
	})
	return append(env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), "LISTEN_FDS=3",
		"LISTEN_FDNAMES="+strings.Join([]string{doorName, adminName, readyName}, ":"))
}

// waitReady waits for the successor's word.
func waitReady(ctx context.Context, heard *os.File) error {
	defer context.AfterFunc(ctx, func() { _ = heard.SetReadDeadline(time.Now()) })()
	if err := heard.SetReadDeadline(time.Now().Add(readyWithin)); err != nil {
		return err
	}
	switch _, err := heard.Read(make([]byte, 1)); {
	case err == io.EOF:
		return errors.New("the new process ended before it was ready; what it said is above")
	case err != nil:
		return fmt.Errorf("the new process was not ready within %v", readyWithin)
	}
	return nil
}

// announce says that this process serves: to the one it replaces and to systemd. A replaced process must know, or it
// would keep its ports for ever; so one that does not get ready ends.
func (in inheritance) announce(ctx context.Context, p Process, s *server.Server) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin-time.Second)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil && in.ready != nil {
		return errors.Join(err, in.ready.Close())
	}
	if in.ready != nil {
		if _, err := in.ready.Write([]byte{1}); err != nil {
			return fmt.Errorf("the process to be replaced: %w", err)
		}
		return in.ready.Close()
	}
	return tell(p.Environ, "READY=1")
}
