package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
	"github.com/gantryhq/gantry/users"
)

// usersAudit verifies the audit log. Breaks go to stdout, a line each, and the code is 1.
func usersAudit(ctx context.Context, p Process) int {
	fs := flags(p, "users audit", "Verifies the audit log of all users: each user's events are a chain of hashes, whose end the user's row\nknows. A checkpoint kept elsewhere also shows whether somebody wrote whole chains anew. The server may\ngo on running meanwhile.")
	src := sources(fs, p)
	verify := fs.Bool("verify", false, "read every event and check its hash (required: there is nothing else to do yet)")
	checkpoint := fs.String("checkpoint", "", "a file: compare with the checkpoint in it, if there is one, and leave the new one there")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	if !*verify {
		fmt.Fprintln(p.Stderr, "gantry users audit: say --verify")
		return Usage
	}
	cfg, report := config.Load(*src)
	if !report.OK() {
		_ = report.WriteText(p.Stderr)
		return BadSetup
	}
	found, err := verifyAudit(ctx, p, cfg, *checkpoint)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry users audit:", err)
		return Failed
	}
	return printAudit(p, found)
}

func verifyAudit(ctx context.Context, p Process, cfg config.Config, file string) (found users.Report, err error) {
	since, err := readCheckpoint(file)
	if err != nil {
		return found, err
	}
	store, err := server.OpenUsers(ctx, cfg)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	bar := newProgress(p.Stderr)
	found, err = users.Verify(ctx, store, users.VerifyConfig{
		Since:    since,
		Broken:   func(b users.Break) { bar.end(); fmt.Fprintln(p.Stdout, b) },
		Progress: func(events int64) { bar.show("verifying", int(events), 0) },
	})
	bar.end()
	if err == nil && found.Sound() && file != "" {
		err = writeCheckpoint(file, found.Checkpoint)
	}
	return found, err
}

func printAudit(p Process, found users.Report) int {
	if found.Changed {
		fmt.Fprintln(p.Stdout, "events up to the checkpoint are not what they were")
	}
	if !found.Sound() {
		fmt.Fprintf(p.Stdout, "users %d, events %d: NOT SOUND, breaks %d\n", found.Users, found.Events, found.Breaks)
		return Failed
	}
	fmt.Fprintf(p.Stdout, "users %d, events %d: sound\ncheckpoint %s, up to event %d\n", found.Users, found.Events, found.Checkpoint.Digest, found.Checkpoint.LastID)
	return Good
}

func readCheckpoint(file string) (c users.Checkpoint, err error) {
	if file == "" {
		return c, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}

// writeCheckpoint replaces the file in one step, so that a crash leaves the old one or the new one.
func writeCheckpoint(file string, c users.Checkpoint) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return os.Rename(next, file)
}
