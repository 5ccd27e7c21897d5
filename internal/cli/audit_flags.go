package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/openapi"
	"github.com/gantryhq/gantry/audit/probes"
	"github.com/gantryhq/gantry/audit/report"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/ratelimit"
)

// auditFlags are the flags of `gantry audit`, as typed.
type auditFlags struct {
	p   Process
	src *config.Sources

	target audit.Target
	cfg    audit.Config

	protected, admin        string
	openapi, canary, cacert string
	rateLimit, only, skip   string
	claims, min             string
	format, baseline        string
	files                   map[string]*string
	quiet, verbose, strict  bool
	sarifAll, checklist     bool
	selftest, through       bool
	points                  points
	write                   string
}

func newAuditFlags(fs *flag.FlagSet, p Process) *auditFlags {
	a := &auditFlags{p: p, src: &config.Sources{Environ: p.Environ}, files: map[string]*string{}}
	a.credentials(fs)
	a.paths(fs)
	a.risks(fs)
	a.points.flags(fs)
	a.outputs(fs)
	return a
}

func (a *auditFlags) credentials(fs *flag.FlagSet) {
	t := &a.target
	fs.StringVar(&t.Token, "token", "", "a valid access token (here and below: @FILE reads a file)")
	fs.StringVar(&t.TokenB, "token-b", "", "the same of a second user")
	fs.StringVar(&t.AdminToken, "admin-token", "", "the same of an administrator")
	fs.StringVar(&t.TokenExpired, "token-expired", "", "a token that has expired")
	fs.StringVar(&t.TokenOtherAudience, "token-other-aud", "", "a token of the same issuer for another client")
	fs.StringVar(&t.IDToken, "id-token", "", "an ID token, which is no access token")
	fs.StringVar(&t.RefreshToken, "refresh-token", "", "a refresh token, which is no access token")
	fs.StringVar(&t.JWTKey, "jwt-key", "", "the staging signing key (HMAC secret or PEM): lets the audit mint tokens")
	fs.StringVar(&t.JWKS, "jwks", "", "URL or file of the public keys; discovered when not given")
	fs.StringVar(&a.cfg.Harness, "issuer-harness", "", "address on which the audit is the issuer that the staging target trusts, such as 127.0.0.1:9555")
	fs.StringVar(&a.claims, "claims", "", "claims of the harness's tokens as JSON, such as {\"aud\":\"api\"}")
}

func (a *auditFlags) paths(fs *flag.FlagSet) {
	t := &a.target
	fs.StringVar(&a.protected, "protected-path", "", "paths that need a credential, separated by commas")
	fs.StringVar(&a.admin, "admin-path", "", "paths that need an administrator")
	fs.StringVar(&t.ObjectA, "object-a", "", "path of an object that --token owns")
	fs.StringVar(&t.ObjectB, "object-b", "", "path of an object that --token-b owns")
	fs.StringVar(&t.HealthPath, "health-path", "", "readiness; found when it has a usual name")
	fs.StringVar(&t.FastPath, "fast-path", "", "a cheap GET; the protected path when not given")
	fs.StringVar(&t.SlowPath, "slow-path", "", "a GET that is slow, or hangs")
	fs.StringVar(&t.ListPath, "list-path", "", "a collection")
	fs.StringVar(&t.PageParam, "page-param", "", "its page-size parameter (limit)")
	fs.StringVar(&t.PageNumber, "page-number", "", "its page-number or offset parameter")
	fs.StringVar(&t.DBPath, "db-path", "", "a GET that reads the database")
	fs.StringVar(&t.WritePath, "write-path", "", "a path that takes POST")
	fs.StringVar(&t.VersionPath, "version-path", "", "says which build runs")
	fs.StringVar(&t.MetricsURL, "metrics-url", "", "Prometheus metrics; may be another port")
	fs.StringVar(&a.openapi, "openapi", "", "OpenAPI description, a file or a URL")
	fs.StringVar(&a.canary, "canary", "", "regular expression that matches the body of an accepted request")
	fs.StringVar(&a.cacert, "cacert", "", "PEM file of a private certificate authority")
	fs.StringVar(&a.src.YAML, "config", "", "read this instead of ./gantry.yaml")
}

func (a *auditFlags) risks(fs *flag.FlagSet) {
	c := &a.cfg
	fs.BoolVar(&c.Active, "active", false, "write to objects of the audit's own, through recipes")
	fs.BoolVar(&c.Load, "load", false, "send load")
	fs.StringVar(&c.Hooks.Fault, "fault-cmd", "", "command that stops a dependency; needs --restore-cmd")
	fs.StringVar(&c.Hooks.Restore, "restore-cmd", "", "command that starts it again; also run on Ctrl-C")
	fs.StringVar(&c.Hooks.Hang, "hang-cmd", "", "command that makes a dependency hang; --restore-cmd mends it")
	fs.StringVar(&c.Hooks.Restart, "restart-cmd", "", "command that restarts the API with SIGTERM")
	fs.StringVar(&c.Hooks.Deploy, "deploy-cmd", "", "command that deploys a new version")
	fs.StringVar(&c.Hooks.Rollback, "rollback-cmd", "", "command that goes back to the previous one")
	fs.StringVar(&c.Hooks.RestoreDrill, "restore-drill-cmd", "", "command that restores a backup elsewhere and prints what came back")
	fs.StringVar(&c.Hooks.Log, "log-cmd", "", "command that prints the API's recent log")
	fs.StringVar(&c.Hooks.AlertWebhook, "alert-webhook", "", "address where the audit waits for the alert that a fault must cause")
	fs.StringVar(&c.Authorized, "i-am-authorized", "", "the target's host: needed for --active, --load and faults beyond private addresses")
	fs.StringVar(&c.Callback, "callback", "", "address of the audit's own listener that the target may be lured to call")
	fs.StringVar(&c.OTLPSink, "otlp-sink", "", "address where the target sends its traces (OTLP over HTTP)")
	fs.StringVar(&a.rateLimit, "rate-limit", "", "the limit a user should meet (100/min)")
	fs.DurationVar(&c.Policy.Deadline, "deadline", 0, "when a slow request should be cut (30s)")
	fs.Float64Var(&c.Policy.Rate, "rps", 0, "expected load in requests per second (20)")
	fs.IntVar(&c.Policy.Workers, "workers", 0, "the API's declared workers (32)")
	fs.DurationVar(&c.Policy.Soak, "soak", 0, "run the soak, for so long (such as 10m)")
	fs.DurationVar(&c.Policy.LoadWindow, "load-window", 0, "length of a load window; there are three (34s)")
	fs.Float64Var(&c.Pace, "pace", 0, "requests per second of the safe probes (10)")
	fs.IntVar(&c.Budget.Requests, "max-requests", 0, "budget of requests (3000)")
	fs.DurationVar(&c.Budget.Time, "max-time", 0, "budget of time (15m; 1h with load or faults)")
	fs.Uint64Var(&c.Seed, "seed", 0, "of everything random (42)")
	fs.StringVar(&a.only, "only", "", "run these probes only, separated by commas")
	fs.StringVar(&a.skip, "skip", "", "leave these probes out")
	fs.BoolVar(&c.NoDeclared, "no-declared-na", false, "take no probe for not applicable because gantry.yaml says so")
}

func (a *auditFlags) outputs(fs *flag.FlagSet) {
	fs.StringVar(&a.format, "format", "text", "of standard output: text, json, html, markdown, sarif, junit, checklist, badge")
	for _, f := range []string{"json", "html", "markdown", "sarif", "junit"} {
		a.files[f] = fs.String(f, "", "also write the report as "+f+" to this file")
	}
	fs.BoolVar(&a.checklist, "checklist", false, "print the deployment checklist instead of the report")
	fs.BoolVar(&a.quiet, "quiet", false, "no progress")
	fs.BoolVar(&a.verbose, "explain", false, "print every finding, and why")
	fs.BoolVar(&a.strict, "strict", false, "in JUnit, what is not proven is an error")
	fs.BoolVar(&a.sarifAll, "sarif-all", false, "in SARIF, also what passed")
	fs.StringVar(&a.min, "min", "", "score below which the exit code is 1 (such as 8)")
	fs.StringVar(&a.baseline, "baseline", "", "an older report in JSON to compare with")
	fs.BoolVar(&a.selftest, "selftest", false, "run every probe against a faulty server and its fixed twin")
	fs.BoolVar(&a.through, "through", false, "audit again through a Gantry door in front of the target, and compare")
	fs.StringVar(&a.write, "write", "", "with --through: leave the door's settings in this file")
}

// job checks what was typed and opens what it names.
func (a *auditFlags) job(ctx context.Context, url string) (_ *auditJob, err error) {
	t, err := audit.ParseTarget(url)
	if err != nil {
		return nil, err
	}
	told := a.target
	told.URL = t.URL
	j := &auditJob{target: &told, cfg: a.cfg, probes: probes.All(), write: a.write}
	j.cfg.Version, j.cfg.Faults = a.p.Version, a.faults()
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	for _, step := range []func(context.Context, *auditJob) error{
		a.readSecrets, a.readFile, a.readFlags, a.readOpenAPI, a.points.open, a.readOutputs,
	} {
		if err := step(ctx, j); err != nil {
			return nil, err
		}
	}
	return j, j.cfg.Validate(j.target)
}

func (a *auditFlags) faults() bool {
	h := a.cfg.Hooks
	return h.Fault != "" || h.Hang != "" || h.Restart != "" || h.Deploy != "" || h.Rollback != "" || h.RestoreDrill != "" || h.AlertWebhook != ""
}

// readSecrets takes credentials from files and the environment.
func (a *auditFlags) readSecrets(_ context.Context, j *auditJob) error {
	t := j.target
	for _, s := range []struct {
		into      *string
		flag, env string
	}{
		{&t.Token, "token", "GANTRY_TOKEN"},
		{&t.TokenB, "token-b", "GANTRY_TOKEN_B"},
		{&t.AdminToken, "admin-token", "GANTRY_ADMIN_TOKEN"},
		{&t.TokenExpired, "token-expired", "GANTRY_TOKEN_EXPIRED"},
		{&t.TokenOtherAudience, "token-other-aud", "GANTRY_TOKEN_OTHER_AUD"},
		{&t.IDToken, "id-token", "GANTRY_ID_TOKEN"},
		{&t.RefreshToken, "refresh-token", "GANTRY_REFRESH_TOKEN"},
		{&t.JWTKey, "jwt-key", "GANTRY_JWT_KEY"},
	} {
		if *s.into == "" {
			*s.into = getenv(a.p.Environ, s.env)
		}
		if path, ok := strings.CutPrefix(*s.into, "@"); ok {
			text, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("--%s: %w", s.flag, err)
			}
			*s.into = string(text)
		}
		*s.into = strings.TrimPrefix(strings.TrimSpace(*s.into), "Bearer ")
	}
	return nil
}

func getenv(environ []string, name string) string {
	for _, pair := range environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

func (a *auditFlags) readFile(_ context.Context, j *auditJob) error {
	section, found := config.LoadAudit(*a.src)
	if !found.OK() {
		var text strings.Builder
		_ = found.WriteText(&text)
		return errors.New(strings.TrimSpace(text.String()))
	}
	if a.openapi == "" {
		a.openapi = section.OpenAPI
	}
	j.target.ProtectedPaths, j.target.AdminPaths = list(a.protected), list(a.admin)
	return section.Apply(j.target, &j.cfg)
}

func (a *auditFlags) readFlags(_ context.Context, j *auditJob) error {
	j.cfg.Only, j.cfg.Skip = list(a.only), list(a.skip)
	for _, id := range append(list(a.only), list(a.skip)...) {
		if _, ok := probes.Find(id); !ok {
			return fmt.Errorf("there is no probe %q; gantry explain lists them", id)
		}
	}
	if a.rateLimit != "" {
		rate, err := ratelimit.ParseRate(a.rateLimit)
		if err != nil {
			return fmt.Errorf("--rate-limit: %w", err)
		}
		j.cfg.Policy.RateLimit, j.cfg.Policy.RateWindow = rate.Limit, rate.Window
	}
	if a.canary != "" {
		pattern, err := regexp.Compile(a.canary)
		if err != nil {
			return fmt.Errorf("--canary: %w", err)
		}
		j.target.Canary = pattern
	}
	if a.claims != "" {
		if err := json.Unmarshal([]byte(a.claims), &j.cfg.Claims); err != nil {
			return errors.New("--claims: give a JSON object")
		}
	}
	return a.readCA(j)
}

func (a *auditFlags) readCA(j *auditJob) error {
	if a.cacert == "" {
		return nil
	}
	pem, err := os.ReadFile(a.cacert)
	if err != nil {
		return fmt.Errorf("--cacert: %w", err)
	}
	j.target.CA = x509.NewCertPool()
	if !j.target.CA.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--cacert %s: there is no certificate in it", a.cacert)
	}
	return nil
}

const maxDescription = 8 << 20

// readOpenAPI takes the paths from the description that nobody named; recipes only from gantry.yaml, where somebody
// has read them.
func (a *auditFlags) readOpenAPI(ctx context.Context, j *auditJob) error {
	if a.openapi == "" {
		return nil
	}
	ops, err := operations(ctx, j.target, a.openapi)
	if err != nil {
		return fmt.Errorf("--openapi: %w", err)
	}
	recipes := j.target.Recipes
	openapi.Fill(j.target, ops)
	j.target.Recipes = recipes
	return nil
}

// fetchOrRead reads a URL or a file, at most limit bytes.
func fetchOrRead(ctx context.Context, source string, limit int64) ([]byte, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAtMost(f, source, limit)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{CheckRedirect: sameOrigin}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", source, res.StatusCode)
	}
	return readAtMost(res.Body, source, limit)
}

// sameOrigin lets a description move on its own host, and lets nobody send us to another: not to a metadata service.
func sameOrigin(next *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > 5 || next.URL.Scheme != first.Scheme || next.URL.Host != first.Host {
		return fmt.Errorf("%s leads elsewhere; give the address where the description is", first.Redacted())
	}
	return nil
}

func readAtMost(r io.Reader, name string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, limit>>20)
	}
	return text, err
}

func (a *auditFlags) readOutputs(_ context.Context, j *auditJob) error {
	j.out = output{
		format: a.format, quiet: a.quiet, verbose: a.verbose, strict: a.strict, sarifAll: a.sarifAll,
		colour: isTerminal(a.p.Stdout) && getenv(a.p.Environ, "NO_COLOR") == "",
	}
	if a.checklist {
		j.out.format = "checklist"
	}
	for format, path := range a.files {
		if *path != "" {
			j.out.files = append(j.out.files, fileOutput{format, *path})
		}
	}
	if _, err := report.Format(j.out.format); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	if a.min != "" {
		least, err := strconv.ParseFloat(a.min, 64)
		if err != nil || !(least >= 0 && least <= 10) {
			return errors.New("--min: give a score from 0 to 10")
		}
		j.gate.min = least
	}
	if a.baseline == "" {
		return nil
	}
	old, err := readReport(a.baseline)
	if err != nil {
		return fmt.Errorf("--baseline: %w", err)
	}
	j.out.baseline = &old
	return nil
}
