// Command gantry takes an HTTP API to production. Run it without arguments for its commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/gantryhq/gantry/internal/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, now, stop := signals()
	defer stop()
	hangup, replace := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	signal.Notify(replace, syscall.SIGUSR2)
	os.Exit(cli.Main(ctx, cli.Process{
		Name: os.Args[0], Args: os.Args[1:], Environ: os.Environ(), Version: version, Now: now,
		Hangup: hangup, Replace: replace,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}

// signals turns the first SIGTERM or Ctrl-C into the end of ctx, and the second into the end of now.
func signals() (ctx, now context.Context, stop func()) {
	ctx, begin := context.WithCancel(context.Background())
	now, hurry := context.WithCancel(context.Background())
	heard := make(chan os.Signal, 2)
	signal.Notify(heard, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-heard
		begin()
		<-heard
		hurry()
	}()
	return ctx, now, func() { signal.Stop(heard); begin(); hurry() }
}
