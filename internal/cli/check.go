package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

// sources adds the flags that say where the configuration is.
func sources(fs *flag.FlagSet, p Process) *config.Sources {
	src := &config.Sources{Environ: p.Environ, Version: p.Version}
	fs.StringVar(&src.EnvFile, "env-file", "", "read this instead of ./.env")
	fs.StringVar(&src.YAML, "config", "", "read this instead of ./gantry.yaml")
	return src
}

func check(ctx context.Context, p Process) int {
	fs := flags(p, "check", "Reads the configuration as serve would and reports everything that is wrong with it.")
	src := sources(fs, p)
	asJSON := fs.Bool("json", false, "print the report as JSON")
	live := fs.Bool("live", false, "also dial the database, the cache, the issuers, the upstream, the receivers of alerts and of traces, and Sentry")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, report := config.Load(*src)
	write := report.WriteText
	if *asJSON {
		write = report.WriteJSON
	}
	if err := write(p.Stdout); err != nil {
		return Failed
	}
	switch {
	case !report.OK():
		return BadSetup
	case *live:
		return checkLive(ctx, p, cfg)
	}
	return Good
}

// checkLive dials what the configuration names, each within five seconds.
func checkLive(ctx context.Context, p Process, cfg config.Config) int {
	code := Good
	for _, d := range server.Dials(cfg) {
		if isTerminal(p.Stderr) {
			fmt.Fprintf(p.Stderr, "%-9s ...\r", d.Name)
		}
		started := time.Now()
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := d.Dial(limited)
		cancel()
		took := time.Since(started).Round(100 * time.Microsecond)
		if err != nil {
			code = BadSetup
			fmt.Fprintf(p.Stdout, "%-9s FAIL  %8v  %v\n", d.Name, took, err)
			continue
		}
		fmt.Fprintf(p.Stdout, "%-9s good  %8v  %s\n", d.Name, took, d.What)
	}
	return code
}
