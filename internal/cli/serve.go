package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

func serve(ctx context.Context, p Process) int {
	fs := flags(p, "serve", "Runs the front door until SIGTERM or Ctrl-C, then drains. Without any configuration it is a\ndevelopment door on 127.0.0.1:8000 with its own token issuer.")
	src := sources(fs, p)
	if code, ok := parse(fs, p); !ok {
		return code
	}
	left, err := inherit(p.Environ)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	src.Environ = left.settings(src.Environ)
	cfg, report := config.Load(*src)
	if len(report.Faults) > 0 {
		if err := report.WriteText(p.Stderr); err != nil {
			return Failed
		}
	}
	if !report.OK() {
		return BadSetup
	}
	if later := cfg.Unsupported(); len(later) > 0 {
		for _, f := range later {
			fmt.Fprintf(p.Stderr, "gantry: %s: %s: %s; for now use %s\n", f.ID, f.Name, f.Problem, f.Example)
		}
		return BadSetup
	}
	tuneGC(p.Environ)
	return run(ctx, p, cfg, *src, left)
}

// gcPercent lets the heap grow to five times what is live before it is collected (runtime/debug.SetGCPercent; Go's own
// default doubles it). What a door keeps is small and what it throws away is much: under 1,000 clients
// this is a quarter less CPU for a request, for a resident set of 316 instead of 166 MiB
// (bench/django/run.sh -l read1000, with GOGC=100 and without).
const gcPercent = 400

// tuneGC leaves an operator's own GOGC alone.
func tuneGC(environ []string) {
	if !slices.ContainsFunc(environ, func(pair string) bool { return strings.HasPrefix(pair, "GOGC=") }) {
		debug.SetGCPercent(gcPercent)
	}
}

func run(ctx context.Context, p Process, cfg config.Config, src config.Sources, left inheritance) int {
	log, reopen, shut, err := openLog(cfg.Log, p.Stderr)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	defer func() { _ = shut() }()
	s, err := server.New(ctx, cfg, left.ports, log)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	greet(p, cfg, s)
	k := &keeper{process: p, src: src, server: s, reopen: reopen, log: log, left: left}
	switch err := k.run(ctx); {
	case errors.Is(err, server.ErrCutShort):
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return CutShort
	case err != nil:
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	return Good
}

// greet says where the door is and what to try next.
func greet(p Process, cfg config.Config, s *server.Server) {
	w := p.Stdout
	scheme := "http"
	if cfg.TLS.CertFile != "" {
		scheme = "https"
	}
	fmt.Fprintf(w, "gantry is open (%s)\n  door   %s://%s\n  admin  http://%s\n", cfg.Environment, scheme, s.Addr(), s.AdminAddr())
	if cfg.Upstream != nil {
		fmt.Fprintf(w, "  guards %s\n", cfg.Upstream)
	}
	if cfg.DevIssuer {
		fmt.Fprintf(w, "\ntry\n  curl %s://%s/health\n  curl -H \"Authorization: Bearer $(%s token --user user_1)\" %s://%s/v1/users/me/\n", scheme, s.Addr(), p.Name, scheme, s.Addr())
	}
}
