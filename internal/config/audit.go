package config

import (
	"fmt"
	"regexp"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/ratelimit"
)

// Audit is the audit section of gantry.yaml: what `gantry audit` knows about the API without being told by flags.
// Credentials have no place in it.
type Audit struct {
	ProtectedPaths []string                `yaml:"protected_paths"`
	AdminPaths     []string                `yaml:"admin_paths"`
	ObjectA        string                  `yaml:"object_a"`
	ObjectB        string                  `yaml:"object_b"`
	HealthPath     string                  `yaml:"health_path"`
	FastPath       string                  `yaml:"fast_path"`
	SlowPath       string                  `yaml:"slow_path"`
	ListPath       string                  `yaml:"list_path"`
	PageParam      string                  `yaml:"page_param"`
	PageNumber     string                  `yaml:"page_number"`
	DBPath         string                  `yaml:"db_path"`
	WritePath      string                  `yaml:"write_path"`
	VersionPath    string                  `yaml:"version_path"`
	MetricsURL     string                  `yaml:"metrics_url"`
	OpenAPI        string                  `yaml:"openapi"` // file or URL
	JWKS           string                  `yaml:"jwks"`
	Canary         string                  `yaml:"canary"`
	Policy         AuditPolicy             `yaml:"policy"`
	Recipes        map[string]audit.Recipe `yaml:"recipes"`
	Declare        map[string]string       `yaml:"declare"` // probe: reason why it does not apply, or is intended
	Accept         []AuditWaiver           `yaml:"accept"`
	Attest         []AuditAttestation      `yaml:"attest"`
}

// AuditPolicy is what the audit holds the API to; empty fields are the document's numbers.
type AuditPolicy struct {
	RateLimit string  `yaml:"rate_limit"` // 100/min
	Deadline  string  `yaml:"deadline"`   // 30s
	RPS       float64 `yaml:"rps"`        // expected load
	Workers   int     `yaml:"workers"`
	PageCap   int     `yaml:"page_cap"`
	Soak      string  `yaml:"soak"`
	Recovery  string  `yaml:"recovery"` // until all is well after a fault or an overload
	P95       string  `yaml:"p95"`
	P99       string  `yaml:"p99"`
}

// AuditWaiver accepts a failure until a day.
type AuditWaiver struct {
	ID      string `yaml:"id"`
	Reason  string `yaml:"reason"`
	Owner   string `yaml:"owner"`
	Expires string `yaml:"expires"` // 2026-12-31
}

// AuditAttestation vouches for a launch probe.
type AuditAttestation struct {
	ID      string `yaml:"id"`
	Owner   string `yaml:"owner"`
	Date    string `yaml:"date"`
	Link    string `yaml:"link"`
	Expires string `yaml:"expires"`
}

var auditKeys = []string{
	"audit", "protected_paths", "admin_paths", "object_a", "object_b", "health_path", "fast_path", "slow_path", "list_path",
	"page_param", "page_number", "db_path", "write_path", "version_path", "metrics_url", "openapi", "jwks", "canary", "policy",
	"recipes", "declare", "accept", "attest", "rate_limit", "deadline", "rps", "workers", "page_cap", "soak", "recovery", "p95", "p99", "id",
	"reason", "owner", "expires", "date", "link", "method", "body", "read", "field", "delete", "unique",
}

// LoadAudit reads the audit section alone: an audit of somebody's API needs no configured door.
func LoadAudit(src Sources) (Audit, Report) {
	l := &loader{}
	_, doc, ok := l.document(src)
	if !ok {
		return Audit{}, l.report
	}
	return doc.Audit, l.report
}

// Apply sets what the section says on a target and a configuration that flags have not set.
func (a Audit) Apply(t *audit.Target, c *audit.Config) error {
	for _, f := range []struct {
		into *string
		text string
	}{
		{&t.ObjectA, a.ObjectA},
		{&t.ObjectB, a.ObjectB},
		{&t.HealthPath, a.HealthPath},
		{&t.FastPath, a.FastPath},
		{&t.SlowPath, a.SlowPath},
		{&t.ListPath, a.ListPath},
		{&t.PageParam, a.PageParam},
		{&t.PageNumber, a.PageNumber},
		{&t.DBPath, a.DBPath},
		{&t.WritePath, a.WritePath},
		{&t.VersionPath, a.VersionPath},
		{&t.MetricsURL, a.MetricsURL},
		{&t.JWKS, a.JWKS},
	} {
		if *f.into == "" {
			*f.into = f.text
		}
	}
	if len(t.ProtectedPaths) == 0 {
		t.ProtectedPaths = a.ProtectedPaths
	}
	if len(t.AdminPaths) == 0 {
		t.AdminPaths = a.AdminPaths
	}
	t.Recipes, t.Declared = a.Recipes, a.Declare
	if a.Canary != "" && t.Canary == nil {
		pattern, err := regexp.Compile(a.Canary)
		if err != nil {
			return fmt.Errorf("gantry.yaml: audit.canary: %w", err)
		}
		t.Canary = pattern
	}
	if err := a.Policy.apply(&c.Policy); err != nil {
		return fmt.Errorf("gantry.yaml: audit.policy: %w", err)
	}
	return a.signed(c)
}

func (p AuditPolicy) apply(into *audit.Policy) error {
	if p.RateLimit != "" && into.RateLimit == 0 {
		rate, err := ratelimit.ParseRate(p.RateLimit)
		if err != nil {
			return fmt.Errorf("rate_limit: %w", err)
		}
		into.RateLimit, into.RateWindow = rate.Limit, rate.Window
	}
	for _, f := range []struct {
		name, text string
		into       *time.Duration
	}{
		{"deadline", p.Deadline, &into.Deadline},
		{"soak", p.Soak, &into.Soak},
		{"recovery", p.Recovery, &into.Recovery},
		{"p95", p.P95, &into.P95},
		{"p99", p.P99, &into.P99},
	} {
		if f.text == "" || *f.into != 0 {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil || d <= 0 {
			return fmt.Errorf("%s: give a time such as 30s", f.name)
		}
		*f.into = d
	}
	setIfZero(&into.Rate, p.RPS)
	setIfZero(&into.Workers, p.Workers)
	setIfZero(&into.PageCap, p.PageCap)
	return nil
}

func setIfZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// signed turns waivers and attestations into those of the audit, which checks that they are complete.
func (a Audit) signed(c *audit.Config) error {
	for _, w := range a.Accept {
		expires, err := time.Parse(time.DateOnly, w.Expires)
		if err != nil {
			return fmt.Errorf("gantry.yaml: audit.accept %q: expires must be a day such as 2026-12-31", w.ID)
		}
		c.Waivers = append(c.Waivers, audit.Waiver{ID: w.ID, Reason: w.Reason, Owner: w.Owner, Expires: expires.AddDate(0, 0, 1)})
	}
	for _, t := range a.Attest {
		date, err := time.Parse(time.DateOnly, t.Date)
		expires, err2 := time.Parse(time.DateOnly, t.Expires)
		if err != nil || err2 != nil {
			return fmt.Errorf("gantry.yaml: audit.attest %q: date and expires must be days such as 2026-12-31", t.ID)
		}
		c.Attested = append(c.Attested, audit.Attestation{ID: t.ID, Owner: t.Owner, Link: t.Link, Date: date, Expires: expires.AddDate(0, 0, 1)})
	}
	return nil
}
