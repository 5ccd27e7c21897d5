package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
	"github.com/gantryhq/gantry/audit/report"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

// auditThrough audits the target, then the same target behind a door of our own, and prints both.
func auditThrough(ctx context.Context, p Process, job *auditJob) int {
	before, code := job.run(ctx, p)
	if code != Good {
		return code
	}
	settings := doorSettings(p, job)
	behind, code := runBehind(ctx, p, job, settings)
	if code != Good {
		return code
	}
	if err := compare(p.Stdout, before, behind, job); err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return Failed
	}
	if code := job.keepSettings(p, settings); code != Good {
		return code
	}
	return job.gate.code(behind)
}

// runBehind opens a door in front of the target and audits the door.
func runBehind(ctx context.Context, p Process, job *auditJob, settings []string) (audit.Report, int) {
	d, err := openDoor(ctx, p, settings)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit:", err)
		return audit.Report{}, Failed
	}
	defer d.close()
	again := *job
	target := *job.target
	again.target = &target
	if target.URL, err = url.Parse("http://" + d.server.Addr() + job.target.URL.EscapedPath()); err != nil {
		return audit.Report{}, Failed
	}
	target.HealthPath = "" // the door has its own, under the usual name
	if target.MetricsURL == "" {
		target.MetricsURL = "http://" + d.server.AdminAddr() + "/metrics"
	}
	return again.run(ctx, p)
}

// doorSettings are what a door in front of the target needs. They come from what the audit was told and from the
// environment; the target's own .env is not read: a door for an audit must not touch the target's database.
func doorSettings(p Process, job *auditJob) []string {
	c := job.cfg.Defaults()
	origin := *job.target.URL
	origin.Path = ""
	settings := []string{
		"UPSTREAM_URL=" + origin.String(),
		fmt.Sprintf("RATE_LIMIT_PER_USER=%d/%s", c.Policy.RateLimit, c.Policy.RateWindow),
		fmt.Sprintf("REQUEST_TIMEOUT=%s", c.Policy.Deadline),
	}
	return append(settings, issuerSettings(p, job.target)...)
}

// issuerSettings name the issuer of the token that the audit was given.
func issuerSettings(p Process, t *audit.Target) []string {
	var list []string
	for _, name := range []string{"CLERK_PUBLISHABLE_KEY", "CLERK_AUTHORIZED_PARTIES", "AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL"} {
		if value := getenv(p.Environ, name); value != "" {
			list = append(list, name+"="+value)
		}
	}
	token, err := jws.Parse(t.Token)
	if len(list) > 0 || err != nil {
		return list
	}
	issuer, audience := jws.Member(token.Payload, "iss"), jws.Member(token.Payload, "aud")
	if issuer == "" || audience == "" {
		return nil
	}
	list = append(list, "AUTH_ISSUER="+issuer, "AUTH_AUDIENCE="+audience)
	if strings.HasPrefix(t.JWKS, "http") {
		list = append(list, "AUTH_JWKS_URL="+t.JWKS)
	}
	return list
}

// keepSettings writes the door's settings where --write says.
func (j *auditJob) keepSettings(p Process, settings []string) int {
	if j.write == "" {
		fmt.Fprintln(p.Stdout, "\nThe door's settings (--write FILE keeps them):")
		for _, s := range settings {
			fmt.Fprintln(p.Stdout, "  "+s)
		}
		return Good
	}
	text := "# Written by gantry audit --through. Read it, then: gantry serve --env-file " + filepath.Base(j.write) + "\n" +
		strings.Join(settings, "\n") + "\n"
	if err := create(j.write, text); err != nil {
		fmt.Fprintln(p.Stderr, "gantry audit: --write:", err)
		return Failed
	}
	fmt.Fprintf(p.Stdout, "\nwrote %s; start the door with: gantry serve --env-file %s\n", j.write, j.write)
	return Good
}

// auditDoor is a door that an audit opened, with its own folder for data.
type auditDoor struct {
	server *server.Server
	cfg    config.Config
	dir    string
	stop   context.CancelFunc
	ended  chan error
}

// openDoor starts a door on free ports of loopback. Anonymous traffic is let through at a rate that the audit, which
// is all of it, does not reach: it has its own pace.
func openDoor(ctx context.Context, p Process, settings []string) (_ *auditDoor, err error) {
	d := &auditDoor{ended: make(chan error, 1)}
	if d.dir, err = os.MkdirTemp("", "gantry-audit-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(d.dir)
		}
	}()
	environ := slices.Concat(settings, []string{
		"LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0", "DATA_DIR=" + d.dir, "RATE_LIMIT_ANONYMOUS=6000", "RATE_LIMIT_GLOBAL=100000",
		"DRAIN_DELAY=0s", "DRAIN_TIMEOUT=1s",
	})
	cfg, found := config.Load(config.Sources{Environ: environ, Dir: d.dir})
	if !found.OK() {
		var text strings.Builder
		_ = found.WriteText(&text)
		return nil, fmt.Errorf("the door would not start:\n%s", text.String())
	}
	d.cfg = cfg
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if d.server, err = server.New(ctx, cfg, server.Ports{}, log); err != nil {
		return nil, fmt.Errorf("the door would not start: %w", err)
	}
	now := p.Now
	if now == nil {
		now = ctx
	}
	running, stop := context.WithCancel(ctx)
	d.stop = stop
	go func() { d.ended <- d.server.Run(running, now) }()
	return d, nil
}

func (d *auditDoor) close() {
	d.stop()
	select {
	case <-d.ended:
	case <-time.After(5 * time.Second):
	}
	os.RemoveAll(d.dir)
}

// compare prints both audits side by side.
func compare(w io.Writer, before, after audit.Report, job *auditJob) error {
	return report.SideBySide(w, before, after, report.Options{Colour: job.out.colour, Probes: job.probes})
}
