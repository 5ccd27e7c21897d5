package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/envfile"
	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/postgres"
	"github.com/gantryhq/gantry/audit/observe/valkey"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/audit/report"
	"github.com/gantryhq/gantry/audit/source"
)

// points are the vantage points behind and beside the target.
type points struct {
	postgres, valkey string
	envFile, source  string
}

func (v *points) flags(fs *flag.FlagSet) {
	fs.StringVar(&v.postgres, "observe-postgres", "", "DSN of the target's database, with a role that may read statistics (pg_monitor)")
	fs.StringVar(&v.valkey, "observe-valkey", "", "URL of the target's Valkey or Redis")
	fs.StringVar(&v.envFile, "env-file", "", "the target's .env")
	fs.StringVar(&v.source, "source", "", "the folder of the target's source code")
}

// open connects to what was named. What a vantage point cannot see is said once, before the start.
func (v *points) open(ctx context.Context, j *auditJob) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if v.postgres != "" {
		o, err := postgres.Open(ctx, v.postgres)
		if err != nil {
			return fmt.Errorf("--observe-postgres: %w", err)
		}
		j.closers = append(j.closers, func() { _ = o.Close(context.WithoutCancel(ctx)) })
		j.cfg.Database = o
		j.sees("postgres", o.Capabilities())
	}
	if v.valkey != "" {
		o, err := valkey.Open(ctx, v.valkey)
		if err != nil {
			return fmt.Errorf("--observe-valkey: %w", err)
		}
		j.closers = append(j.closers, func() { _ = o.Close(context.WithoutCancel(ctx)) })
		j.cfg.Cache = o
		j.sees(report.ValkeyPoint, o.Capabilities())
	}
	if err := v.readEnvironment(j); err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	if err := v.readSource(ctx, j); err != nil {
		return fmt.Errorf("--source: %w", err)
	}
	return nil
}

// readEnvironment adds the faults of the target's environment file to the report.
func (v *points) readEnvironment(j *auditJob) error {
	if v.envFile == "" {
		return nil
	}
	f, err := os.Open(v.envFile)
	if err != nil {
		return err
	}
	defer f.Close()
	faults, err := envfile.Check(f, v.envFile)
	if err != nil {
		return err
	}
	j.cfg.Points = append(j.cfg.Points, report.EnvironmentPoint)
	for _, fault := range faults {
		id := "ENV-" + cmp.Or(fault.Name, fault.ID)
		finding := beside(fault.Probe, id, report.EnvironmentPoint)
		finding.Title = "Environment file: " + cmp.Or(fault.Name, fault.ID)
		finding.Message, finding.Hint = fault.Name+" "+fault.What, fault.Fix
		finding.Where = fmt.Sprintf("%s:%d", v.envFile, max(1, fault.Line))
		if err := finding.Severity.UnmarshalText([]byte(fault.Severity)); err != nil {
			return err
		}
		finding.FailedAs = finding.Severity
		j.cfg.Vantage = append(j.cfg.Vantage, finding)
	}
	return nil
}

// graveRules are those whose holes are critical; what the others find is high: it may be handled elsewhere.
var graveRules = []string{"jwt-not-verified", "jwt-algorithm-none", "secret-default"}

// mostHoles is how many holes of the source the report lists.
const mostHoles = 200

// readSource adds the holes of the target's code to the report.
func (v *points) readSource(ctx context.Context, j *auditJob) error {
	if v.source == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	found, err := source.Scan(ctx, os.DirFS(v.source), source.Config{MaxHoles: mostHoles})
	if err != nil {
		return err
	}
	read := 0
	for _, n := range found.Files {
		read += n
	}
	if read == 0 {
		return fmt.Errorf("%s: there is no Python, JavaScript, TypeScript, Go, Ruby or Java in it", v.source)
	}
	j.cfg.Points = append(j.cfg.Points, fmt.Sprintf("source (%d files)", read))
	if found.Partial != "" {
		j.notes = append(j.notes, "the source was read in part: "+found.Partial)
	}
	for _, h := range found.Holes {
		j.cfg.Vantage = append(j.cfg.Vantage, holeFinding(h))
	}
	return nil
}

func holeFinding(h source.Hole) audit.Finding {
	f := beside(h.Probe, "SRC-"+h.Rule, "source")
	f.Severity = audit.High
	if slices.Contains(graveRules, h.Rule) {
		f.Severity = audit.Critical
	}
	f.FailedAs = f.Severity
	f.Title, f.Message, f.Hint = "Source code: "+h.Rule, h.Why+": "+h.Code, h.Fix
	f.Where = fmt.Sprintf("%s:%d", h.File, h.Line)
	for _, r := range source.Rules() {
		if r.ID == h.Rule {
			f.Title = r.Title
		}
	}
	return f
}

// beside is a finding from beside the wire, under the root of the probe with the same concern.
func beside(probe, id, point string) audit.Finding {
	f := audit.Finding{Probe: id, Root: id, Category: audit.Configuration, Outcome: audit.Fail, Vantage: point}
	if p, ok := probes.Find(probe); ok {
		f.Root, f.Category = p.RootName(), p.Category
	}
	return f
}

// sees names a vantage point in the report, and what it lacks before the start.
func (j *auditJob) sees(name string, list []observe.Capability) {
	j.cfg.Points = append(j.cfg.Points, name)
	for _, c := range list {
		if !c.Available {
			j.notes = append(j.notes, fmt.Sprintf("%s cannot show %s: %s; %s", name, c.Name, c.Why, c.Fix))
		}
	}
}
