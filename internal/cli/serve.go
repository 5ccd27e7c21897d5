package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

func serve(ctx context.Context, p Process) int {
	fs := flags(p, "serve", "Runs the front door until SIGTERM or Ctrl-C, then drains. Without any configuration it is a\ndevelopment door on 127.0.0.1:8000 with its own token issuer.")
	src := sources(fs, p)
	if code, ok := parse(fs, p); !ok {
		return code
	}
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
	return run(ctx, p, cfg)
}

func run(ctx context.Context, p Process, cfg config.Config) int {
	log, closeLog, err := openLog(cfg.Log, p.Stderr)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	defer closeLog()
	s, err := server.New(ctx, cfg, log)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry:", err)
		return Failed
	}
	greet(p, cfg, s)
	switch err := s.Run(ctx, p.Now); {
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

// openLog logs JSON lines to LOG_FILE, or to stderr.
func openLog(cfg config.Log, stderr io.Writer) (*slog.Logger, func(), error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.File == "" {
		return slog.New(slog.NewJSONHandler(stderr, options)), func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.File), 0o750); err != nil {
		return nil, nil, fmt.Errorf("LOG_FILE: %w", err)
	}
	f, err := os.OpenFile(cfg.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("LOG_FILE: %w", err)
	}
	return slog.New(slog.NewJSONHandler(f, options)), func() { _ = f.Close() }, nil
}
