package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

// usersCommands are the commands of `gantry users`.
func usersCommands() []command {
	return []command{
		{"audit", "verify the audit log", usersAudit},
		{"reconcile", "make the users table true to Clerk", reconcile},
	}
}

func usersCommand(ctx context.Context, p Process) int {
	return dispatch(ctx, p, "gantry users", usersCommands(), usersUsage)
}

func usersUsage(w io.Writer) {
	fmt.Fprint(w, "usage: gantry users COMMAND [flags]\n\n")
	for _, c := range usersCommands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.synopsis)
	}
}

func reconcile(ctx context.Context, p Process) int {
	fs := flags(p, "users reconcile", "Compares the users table with Clerk's list of users, makes who is missing, updates who is outdated, and\nremoves who is gone. Nothing is changed before the list is known to be complete. It may be stopped and\nrun again at any time, also while the server runs.")
	src := sources(fs, p)
	o := reconcileFlags(fs)
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, report := config.Load(*src)
	if !report.OK() {
		_ = report.WriteText(p.Stderr)
		return BadSetup
	}
	bar := newProgress(p.Stderr)
	drift, err := server.Reconcile(ctx, cfg, quietLog(p.Stderr), clerk.ReconcileConfig{
		DryRun: o.dryRun, Force: o.force, Progress: func(phase clerk.Phase, done, total int) { bar.show(string(phase), done, total) },
	})
	bar.end()
	if err != nil {
		return reconcileFailed(ctx, p, drift, err)
	}
	if err := o.print(p.Stdout, drift); err != nil {
		fmt.Fprintln(p.Stderr, "gantry users reconcile:", err)
		return Failed
	}
	return Good
}

type reconcileOptions struct {
	dryRun, force, asJSON bool
}

func reconcileFlags(fs *flag.FlagSet) *reconcileOptions {
	o := new(reconcileOptions)
	fs.BoolVar(&o.dryRun, "dry-run", false, "only say how far the table is from Clerk")
	fs.BoolVar(&o.force, "force", false, "remove users even if they are more than ten and more than a tenth of the table")
	fs.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	return o
}

// reconcileFailed says what happened and what to do about it.
func reconcileFailed(ctx context.Context, p Process, d clerk.Drift, err error) int {
	fmt.Fprintln(p.Stderr, "gantry users reconcile:", err)
	switch {
	case errors.Is(err, server.ErrNoClerk), errors.Is(err, clerk.ErrBackendKey), errors.Is(err, clerk.ErrSecretKey):
		return BadSetup
	case errors.Is(err, clerk.ErrUnsafe):
		fmt.Fprintln(p.Stderr, "Nothing was changed. Are the keys those of this table's instance? If they are, run it again with --force.")
	case ctx.Err() != nil:
		fmt.Fprintf(p.Stderr, "Stopped after %d changes and %d removals; what was done is done, and the next run does the rest.\n", d.Applied, d.Removed)
	}
	return Failed
}

func (o *reconcileOptions) print(w io.Writer, d clerk.Drift) error {
	if o.asJSON {
		return json.NewEncoder(w).Encode(d)
	}
	_, err := fmt.Fprintf(w, "Clerk has %d users, the table had %d\n", d.Listed, d.Local)
	for _, line := range []struct {
		n    int
		what string
	}{
		{d.Missing, "were missing from the table"},
		{d.Outdated, "were outdated"},
		{d.Gone, "are no longer at Clerk"},
		{d.Buried, "are at Clerk, were deleted here, and stay so"},
	} {
		if line.n > 0 && err == nil {
			_, err = fmt.Fprintf(w, "%7d %s\n", line.n, line.what)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case d.None():
		_, err = fmt.Fprintln(w, "the table is true to Clerk")
	case o.dryRun:
		_, err = fmt.Fprintln(w, "nothing was changed (dry run)")
	default:
		_, err = fmt.Fprintf(w, "%d applied, %d removed\n", d.Applied, d.Removed)
	}
	return err
}
