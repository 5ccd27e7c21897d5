package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Hook runs a command of the operator under "sh -c", for at most limit, and returns what it printed (64 KiB at most).
func (s *Session) Hook(ctx context.Context, command string, limit time.Duration) (string, error) {
	return runHook(ctx, command, limit)
}

// Hooks of the operator.
func (s *Session) Hooks() Hooks { return s.cfg.Hooks }

// Broken runs f while the fault command's effect lasts: it breaks, calls f, and mends, even when f fails or the run is
// interrupted. A fault command that failed or was interrupted may have broken something: that is mended too.
func (s *Session) Broken(ctx context.Context, fault string, f func(context.Context) error) (err error) {
	defer func() {
		if _, mend := runHook(context.WithoutCancel(ctx), s.cfg.Hooks.Restore, time.Minute); mend != nil {
			err = errors.Join(fmt.Errorf("restore command: %w; mend it by hand", mend), err)
		}
	}()
	if _, err := runHook(ctx, fault, time.Minute); err != nil {
		return fmt.Errorf("fault command: %w", err)
	}
	return f(ctx)
}

func runHook(ctx context.Context, command string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	out := &bounded{limit: maxBody}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil && !isWaitDelay(err) {
		return out.String(), fmt.Errorf("%w: %s", err, cut(clean(out.String()), 200))
	}
	return out.String(), nil
}

// isWaitDelay: a daemon that the command started keeps its output open; the command itself has ended well.
func isWaitDelay(err error) bool { return err == exec.ErrWaitDelay }

// bounded keeps the first bytes written and drops the rest.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
