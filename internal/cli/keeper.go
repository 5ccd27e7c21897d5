package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

// keeper looks after a running server: it reads the configuration again on SIGHUP, and on SIGUSR2 starts a successor
// and lets it take over.
type keeper struct {
	process Process
	src     config.Sources
	server  *server.Server
	reopen  func() error
	log     *slog.Logger
	left    inheritance
}

// run serves until ctx ends, or a successor has taken over.
func (k *keeper) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	over := make(chan error, 1)
	go func() { over <- k.server.Run(ctx, k.process.Now) }()
	ready := make(chan error, 1)
	go func() { ready <- k.left.announce(ctx, k.process, k.server) }()
	var next chan *os.Process // not nil while a successor is starting
	for {
		select {
		case err := <-over:
			return err
		case err := <-ready:
			if ready = nil; err != nil {
				k.log.Error("this process ends", "error", err)
				stop()
			}
		case <-k.process.Hangup:
			k.reload()
		case <-k.process.Replace:
			if next == nil {
				next = k.replace(ctx)
			}
		case heir := <-next:
			if next = nil; heir != nil {
				k.handOver(heir)
				stop()
			}
		}
	}
}

// replace starts a successor, which comes through the channel when it serves; nil when it does not.
func (k *keeper) replace(ctx context.Context) chan *os.Process {
	k.log.Info("starting a new process to take over")
	started := make(chan *os.Process, 1)
	go func() {
		heir, err := successor(ctx, k.process, k.server)
		if err != nil {
			k.log.Error("not replaced, this process stays", "error", err)
		}
		started <- heir
	}()
	return started
}

func (k *keeper) handOver(heir *os.Process) {
	k.log.Info("replaced by a new process", "pid", heir.Pid)
	if err := tell(k.process.Environ, fmt.Sprintf("MAINPID=%d\nREADY=1", heir.Pid)); err != nil {
		k.log.Warn("systemd was not told of the new process", "error", err)
	}
	k.server.Replaced()
	_ = heir.Release() // it outlives this process
}

// reload reads files and the secrets in them, since the environment of a process does not change. All of it is good
// and takes effect, or none of it does and the log says why.
func (k *keeper) reload() {
	if err := k.reopen(); err != nil {
		k.log.Error("log file was not opened again", "error", err)
	}
	cfg, report := config.Load(k.src)
	if faults := append(report.Errors(), cfg.Unsupported()...); len(faults) > 0 {
		for _, f := range faults {
			k.log.Error("configuration not reloaded, the old one stays", "id", f.ID, "name", f.Name, "source", f.Source, "problem", f.Problem)
		}
		k.server.NotReloaded(fmt.Sprintf("%s %s: %s", faults[0].ID, faults[0].Name, faults[0].Problem))
		return
	}
	restart, err := k.server.Reload(cfg)
	if err != nil {
		k.log.Error("configuration not reloaded, the old one stays", "error", err)
		k.server.NotReloaded(err.Error())
		return
	}
	k.log.Info("configuration reloaded", "needs_restart", restart)
}
