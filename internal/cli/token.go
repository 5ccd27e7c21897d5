package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

func token(_ context.Context, p Process) int {
	fs := flags(p, "token", "Prints a token of the development issuer, signed with the key in DATA_DIR.")
	src := sources(fs, p)
	user := fs.String("user", "user_1", "the subject")
	email := fs.String("email", "", "the e-mail claim")
	name := fs.String("name", "", "the name claim")
	plan := fs.String("plan", "", "the plan claim")
	ttl := fs.Duration("ttl", time.Hour, "how long it is valid")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, report := config.Load(*src)
	if !report.OK() || !cfg.DevIssuer {
		fmt.Fprintln(p.Stderr, "gantry token: only a development door without an issuer of its own signs tokens; see gantry check")
		return BadSetup
	}
	issuer, err := server.DevIssuer(cfg)
	if err == nil {
		var text string
		text, err = issuer.Mint(devissuer.Claims{Subject: *user, Email: *email, Name: *name, Plan: *plan, TTL: *ttl, SessionID: "sess_development"})
		if err == nil {
			fmt.Fprintln(p.Stdout, text)
			return Good
		}
	}
	fmt.Fprintln(p.Stderr, "gantry token:", err)
	return Failed
}
