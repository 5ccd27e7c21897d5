// Package cli is the command line: one file a command.
//
// Begin with [Main]. The surprise: it is a plain function of its arguments, its environment and three
// streams, so that tests call exactly what main calls.
package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
)

// Exit codes, the same for every command.
const (
	Good       = 0
	Failed     = 1  // could not run
	Usage      = 2  // the command line is wrong
	Incomplete = 3  // the audit's target does not answer, or the audit did not reach its end
	CutShort   = 4  // shutdown lost requests: a second signal, or the drain time was over
	BadSetup   = 78 // configuration refused (EX_CONFIG of sysexits.h)
)

// Process is what a command sees of the outside.
type Process struct {
	Name           string   // how the program was called
	Args           []string // without the program's name
	Environ        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string
	// Now ends when the process should stop without waiting any longer.
	Now context.Context
	// Hangup tells serve to read its configuration again; nil never does.
	Hangup <-chan os.Signal
	// Replace tells serve to start its successor and let it take over; nil never does.
	Replace <-chan os.Signal
}

type command struct {
	name, synopsis string
	run            func(context.Context, Process) int
}

func commands() []command {
	return []command{
		{"serve", "run the front door", serve},
		{"check", "check the configuration, and with --live what it points to", check},
		{"alerts", "show and silence alerts, and try whom they reach", alertsCommand},
		{"token", "print a development token", token},
		{"top", "watch a running door in the terminal", top},
		{"users", "look after the users table", usersCommand},
		{"rollout", "move traffic to a new version, which must prove itself", rolloutCommand},
		{"audit", "score a running API for production readiness", auditCommand},
		{"score", "score a report again", scoreCommand},
		{"replay", "ask again what a report found", replay},
		{"explain", "say what a probe asks, or what became of a request", explain},
		{"demo", "show the whole story in two minutes", demoCommand},
		{"version", "print the version", version},
	}
}

// Main runs the command that p.Args name and returns the exit code. When ctx ends, it stops cleanly.
func Main(ctx context.Context, p Process) int {
	return dispatch(ctx, p, "gantry", commands(), usage)
}

// dispatch runs the command that the first argument names, or says which there are.
func dispatch(ctx context.Context, p Process, program string, list []command, usage func(io.Writer)) int {
	if len(p.Args) == 0 {
		usage(p.Stderr)
		return Usage
	}
	name := p.Args[0]
	p.Args = p.Args[1:]
	for _, c := range list {
		if c.name == name {
			return c.run(ctx, p)
		}
	}
	if name == "help" || name == "-h" || name == "--help" {
		usage(p.Stdout)
		return Good
	}
	fmt.Fprintf(p.Stderr, "%s: there is no command %q\n\n", program, name)
	usage(p.Stderr)
	return Usage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Gantry takes an HTTP API to production.\n\nusage: gantry COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.synopsis)
	}
	fmt.Fprint(w, "\ngantry COMMAND -h shows its flags.\nexit codes: 0 good, 1 could not run, or below the gate, 2 usage, 3 audit incomplete, 4 shutdown cut short, 78 configuration refused\n")
}

// flags makes a command's flag set; parse reports whether to go on, and the code if not.
func flags(p Process, name, about string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(p.Stderr)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: gantry %s [flags]\n\n%s\n\n", name, about)
		fs.PrintDefaults()
	}
	return fs
}

func parse(fs *flag.FlagSet, p Process) (code int, ok bool) {
	switch err := fs.Parse(p.Args); {
	case err == flag.ErrHelp:
		return Good, false
	case err != nil:
		return Usage, false
	case fs.NArg() > 0:
		fmt.Fprintf(p.Stderr, "gantry %s: unexpected argument %q\n", fs.Name(), fs.Arg(0))
		return Usage, false
	}
	return Good, true
}

func version(_ context.Context, p Process) int {
	fmt.Fprintln(p.Stdout, "gantry", p.Version)
	return Good
}
