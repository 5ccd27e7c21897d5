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
)

// Exit codes, the same for every command.
const (
	Good     = 0
	Failed   = 1  // could not run
	Usage    = 2  // the command line is wrong
	CutShort = 4  // shutdown lost requests: a second signal, or the drain time was over
	BadSetup = 78 // configuration refused (EX_CONFIG of sysexits.h)
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
}

type command struct {
	name, synopsis string
	run            func(context.Context, Process) int
}

func commands() []command {
	return []command{
		{"serve", "run the front door", serve},
		{"check", "check the configuration, and with --live what it points to", check},
		{"token", "print a development token", token},
		{"version", "print the version", version},
	}
}

// Main runs the command that p.Args name and returns the exit code. When ctx ends, it stops cleanly.
func Main(ctx context.Context, p Process) int {
	if len(p.Args) == 0 {
		usage(p.Stderr)
		return Usage
	}
	name := p.Args[0]
	p.Args = p.Args[1:]
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, p)
		}
	}
	if name == "help" || name == "-h" || name == "--help" {
		usage(p.Stdout)
		return Good
	}
	fmt.Fprintf(p.Stderr, "gantry: there is no command %q\n\n", name)
	usage(p.Stderr)
	return Usage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Gantry takes an HTTP API to production.\n\nusage: gantry COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.synopsis)
	}
	fmt.Fprint(w, "\ngantry COMMAND -h shows its flags.\nexit codes: 0 good, 1 could not run, 2 usage, 4 shutdown cut short, 78 configuration refused\n")
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
