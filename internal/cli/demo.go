package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/internal/demo"
)

const demoAbout = `The whole story in under two minutes: starts a small API that is bad in the usual ways, audits it, puts the door in
front, audits again, shows both, and rolls out a next version that fails, until the door has taken it back. Nothing is needed, nothing is left behind; Ctrl-C ends it.`

// demoDeadline is shorter than the default of 30 s, so that nobody waits for it twice.
const demoDeadline = 5 * time.Second

// demoCommand runs the story and leaves both servers running until Ctrl-C.
func demoCommand(ctx context.Context, p Process) int {
	fs := flags(p, "demo", demoAbout)
	once := fs.Bool("once", false, "end when all is told")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	bad, err := demo.Start(ctx)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry demo:", err)
		return Failed
	}
	defer bad.Close()
	d, err := openDoor(ctx, p, []string{
		"UPSTREAM_URL=" + bad.URL, fmt.Sprintf("REQUEST_TIMEOUT=%s", demoDeadline), "RATE_LIMIT_PER_USER=100/10s",
		"AUTH_ISSUER=" + bad.Issuer, "AUTH_AUDIENCE=" + demo.Audience,
	})
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry demo:", err)
		return Failed
	}
	defer d.close()
	fmt.Fprintf(p.Stdout, "a bad API    %s\nthe door     http://%s   in front of it\n\n", bad.URL, d.server.Addr())
	job, err := demoJob(bad)
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry demo:", err)
		return Failed
	}
	if code := tellDemo(ctx, p, job, d); code != Good {
		return code
	}
	if err := tellLaunch(ctx, p, bad, d); err != nil {
		fmt.Fprintln(p.Stderr, "gantry demo:", err)
		return Failed
	}
	if *once {
		return Good
	}
	fmt.Fprintf(p.Stdout, "\nboth are still running; try\n  curl -i %s/api/me -H 'Authorization: Bearer e30.eyJzdWIiOiJhZG1pbiJ9.'\n  curl -i http://%s/api/me -H 'Authorization: Bearer e30.eyJzdWIiOiJhZG1pbiJ9.'\nCtrl-C ends it\n",
		bad.URL, d.server.Addr())
	<-ctx.Done()
	return Good
}

// demoJob is the audit of the bad API. The signing key is known, so that the audit can mint.
func demoJob(bad *demo.API) (*auditJob, error) {
	token, err := bad.Token("user_1")
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(bad.Key)
	if err != nil {
		return nil, err
	}
	t, err := audit.ParseTarget(bad.URL)
	if err != nil {
		return nil, err
	}
	t.Token, t.ProtectedPaths = token, []string{"/api/me"}
	t.JWTKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	t.JWKS = bad.Issuer + "/jwks.json"
	t.SlowPath, t.ListPath, t.WritePath, t.PageParam = "/api/report", "/api/orders", "/api/orders", "limit"
	return &auditJob{
		target: t, probes: probes.All(),
		cfg: audit.Config{
			Pace:   60,
			Policy: audit.Policy{Deadline: demoDeadline, Grace: time.Second, RateLimit: 100, RateWindow: 10 * time.Second, SlowClient: 12 * time.Second},
		},
	}, nil
}

func tellDemo(ctx context.Context, p Process, job *auditJob, d *auditDoor) int {
	before, code := job.run(ctx, p)
	if code != Good {
		return code
	}
	behind := *job
	t := *job.target
	behind.target = &t
	var err error
	if t.URL, err = url.Parse("http://" + d.server.Addr()); err != nil {
		return Failed
	}
	after, code := behind.run(ctx, p)
	if code != Good {
		return code
	}
	if err := compare(p.Stdout, before, after, job); err != nil {
		return Failed
	}
	return Good
}
