package probes

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func exposure() []audit.Probe {
	return []audit.Probe{
		{
			ID: "CFG-02", Title: "Secret files served", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Configuration, Confirms: true,
			Sends:  "GET of three dozen paths such as /.env, /.git/HEAD, /config.json, /backup.sql, /id_rsa, without a credential",
			Passes: "none is served",
			Fails:  "what comes back has the content of such a file",
			Guard:  "the content must match, and must differ from what three random names beside it get; a first kilobyte is read, and none of it is shown",
			Refs:   []string{"CWE-538", "ASVS 13.4.1"},
			Why:    "These are the first paths that every scanner on the internet asks for, and they hold the keys to everything else.",
			Fix:    "Serve from an allow-list, and block names that begin with a dot.",
			Run:    secretFiles,
		},
		{
			ID: "CFG-04", Title: "Operational endpoints in public", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Configuration, Confirms: true,
			Sends:  "GET of a score of paths such as /actuator/env, /debug/pprof/, /server-status, /console and GraphQL introspection, without a credential; 16 bytes of a heap dump",
			Passes: "401, 403, 404, or something else than the endpoint",
			Fails:  "what comes back is the endpoint: critical for environment, dumps, profiles and consoles, high for the others, medium for an administration's log-in page",
			Guard:  "the content must match, and must differ from what three random names beside it get; no dump is downloaded. Public GraphQL introspection may be declared",
			Refs:   []string{"OWASP API8:2023", "CWE-215", "ASVS 13.4.5"},
			Why:    "Strangers read the environment with its passwords, the memory with its tokens, or run code.",
			Fix:    "Bind operational endpoints to a port of their own that is not public.",
			Run:    operationalEndpoints,
		},
	}
}

// exposed is a path and what its content looks like when it is really there. All patterns must match.
type exposed struct {
	path     string
	content  []*regexp.Regexp
	severity audit.Severity // zero is the probe's
	header   http.Header
	limit    int64
	follow   bool
}

func looks(patterns ...string) []*regexp.Regexp {
	var list []*regexp.Regexp
	for _, p := range patterns {
		list = append(list, regexp.MustCompile(p))
	}
	return list
}

// filePaths are grouped by what their content looks like. Names of a public configuration (config.json) count only with
// a secret in them.
func filePaths() []exposed {
	notHTML := `(?is)\A\s*[^<\s]`
	var list []exposed
	for _, g := range []struct {
		paths   string
		content []*regexp.Regexp
	}{
		{"/.env /.env.local /.env.production /.env.bak /api/.env /.env.save", looks(notHTML, `(?m)^(?:export\s+)?[A-Z][A-Z0-9_]{2,}\s*=\s*\S`)},
		{"/.git/HEAD", looks(`\A(?:ref: refs/|[0-9a-f]{40}\s*\z)`)},
		{"/.git/config", looks(`(?m)^\[core\]`, `repositoryformatversion`)},
		{"/.svn/entries", looks(`\A\d+\s*\n`, `(?m)^(?:dir|file|svn:)`)},
		{"/.aws/credentials", looks(`(?m)^\[[\w-]+\]`, `aws_secret_access_key`)},
		{"/.npmrc", looks(notHTML, `_auth(?:Token)?\s*=`)},
		{"/.docker/config.json", looks(`"auths"\s*:`)},
		{"/.htpasswd", looks(`(?m)\A[\w.@-]+:(?:\$(?:apr1|2[aby]|5|6)\$|\{SHA\})`)},
		{"/id_rsa /.ssh/id_rsa /server.key /privkey.pem /private.key", looks(`-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----`)},
		{
			"/config.json /settings.json /appsettings.json /secrets.json /credentials.json",
			looks(`\A\s*\{`, `(?i)"[\w.-]*(?:password|passwd|secret|private_?key|connectionstring)[\w.-]*"\s*:\s*"[^"]{6,}"`),
		},
		{"/settings.py /config.py /local_settings.py", looks(notHTML, `(?m)^\s*(?:SECRET_KEY|DATABASES|SQLALCHEMY_DATABASE_URI|[A-Z_]*PASSWORD)\s*=`)},
		{"/config/database.yml", looks(`(?m)^\s+adapter:`, `(?m)^\s+(?:password|database):`)},
		{"/config/master.key", looks(`\A[0-9a-f]{32}\s*\z`)},
		{"/docker-compose.yml", looks(`(?m)^services:`, `(?m)^\s+(?:image|build):`)},
		{"/backup.sql /dump.sql /db.sql", looks(notHTML, `(?m)^(?:-- (?:MySQL|MariaDB|PostgreSQL)[^\n]* dump|CREATE TABLE |INSERT INTO )`)},
		{"/db.sqlite3", looks(`\ASQLite format 3\x00`)},
		{"/.DS_Store", looks(`\A\x00\x00\x00\x01Bud1`)},
		{"/wp-config.php.bak", looks(`DB_PASSWORD`, `define\s*\(`)},
		{"/terraform.tfstate", looks(`"terraform_version"\s*:`, `"resources"\s*:`)},
	} {
		for path := range strings.FieldsSeq(g.paths) {
			list = append(list, exposed{path: path, content: g.content, limit: 1 << 10})
		}
	}
	return list
}

// endpointPaths of servers and frameworks.
func endpointPaths(s *audit.Session) []exposed {
	bytes16 := audit.Header("Range", "bytes=0-15")
	list := []exposed{
		{path: "/actuator/env", content: looks(`"propertySources"\s*:`, `"activeProfiles"\s*:`)},
		{path: "/env", content: looks(`"systemProperties"\s*:`, `"systemEnvironment"\s*:`)},
		{path: "/actuator/heapdump", content: looks(`\A(?:JAVA PROFILE 1\.|\x1f\x8b)`), header: bytes16, limit: 16},
		{path: "/actuator", content: looks(`"_links"\s*:`, `/actuator/(?:env|heapdump|beans|loggers|mappings|threaddump)"`), severity: audit.High},
		{path: "/debug/pprof/", content: looks(`/debug/pprof/`, `Types of profiles available`)},
		{path: "/debug/vars", content: looks(`"memstats"\s*:`, `"cmdline"\s*:`), severity: audit.High},
		{path: "/console", content: looks(`Interactive Console`, `EVALEX|__debugger__`)},
		{path: "/h2-console/", content: looks(`H2 Console`)},
		{path: "/server-status", content: looks(`Apache Server Status for`, `Server uptime`), severity: audit.High},
		{path: "/phpinfo.php", content: looks(`phpinfo\(\)`, `PHP Version`), severity: audit.High},
		{path: "/info.php", content: looks(`phpinfo\(\)`, `PHP Version`), severity: audit.High},
		{path: "/_profiler/", content: looks(`Symfony Profiler`), severity: audit.High, follow: true},
		{path: "/telescope", content: looks(`window\.Telescope|<title>[^<]*Telescope`, `(?i)laravel|telescope`), severity: audit.High},
		{path: "/rails/info/properties", content: looks(`Rails version`, `Ruby version`), severity: audit.High},
		{path: "/elmah.axd", content: looks(`Error Log for`, `ELMAH`), severity: audit.High},
		{path: "/jolokia/version", content: looks(`"agent"\s*:`, `"protocol"\s*:`), severity: audit.High},
		{path: "/admin/", content: looks(`Site administration`, `(?i)recent actions|id="user-tools"`), severity: audit.High},
		{path: "/admin/", content: looks(`(?i)<form`, `csrfmiddlewaretoken`, `Django (?:site admin|administration)`), severity: audit.Medium, follow: true},
	}
	if s.Declared() != "" { // the declaration is about what may be public: the query language
		return list
	}
	return append(list, exposed{
		path: "/graphql?query=%7B__schema%7BqueryType%7Bname%7D%7D%7D", content: looks(`"__schema"\s*:\s*\{`, `"queryType"\s*:`),
		severity: audit.High, header: audit.Header("Content-Type", "application/json", "Apollo-Require-Preflight", "true"),
	})
}

func secretFiles(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	return hunt(ctx, s, filePaths(), "secret files")
}

func operationalEndpoints(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	return hunt(ctx, s, endpointPaths(s), "operational endpoints")
}

// hunt asks for each path, and fails with the worst that are really there.
func hunt(ctx context.Context, s *audit.Session, list []exposed, what string) (audit.Verdict, error) {
	var found []find
	var last *audit.Exchange
	silent := 0
	for _, e := range list {
		x, err := s.Do(ctx, e.request())
		if err != nil {
			return audit.Verdict{}, err
		}
		last = x
		if x.Status == 0 || x.Status == http.StatusBadGateway || x.Status == http.StatusServiceUnavailable || x.Status == http.StatusGatewayTimeout {
			silent++
			continue
		}
		there, err := really(ctx, s, e, x)
		if err != nil {
			return audit.Verdict{}, err
		}
		if there {
			found = append(found, find{e, withheld(x)})
		}
	}
	switch {
	case len(found) > 0:
		return foundVerdict(found), nil
	case silent > 0:
		return audit.Unproven("%d of %d paths got no answer from the API", silent, len(list)).With(last), nil
	}
	return audit.Passed("none of %d %s is there", len(list), what).With(last), nil
}

type find struct {
	exposed
	x *audit.Exchange
}

func foundVerdict(found []find) audit.Verdict {
	worst := audit.Low
	var paths []string
	v := audit.Verdict{}
	for _, f := range found {
		severity := f.severity
		if severity == 0 {
			severity = audit.Critical
		}
		worst = max(worst, severity)
		if len(paths) < 5 {
			path, _, _ := strings.Cut(f.path, "?")
			paths, v = append(paths, path), v.With(f.x)
		}
	}
	more := ""
	if len(found) > len(paths) {
		more = fmt.Sprintf(" and %d more", len(found)-len(paths))
	}
	return audit.Failed("anybody can read %s%s", strings.Join(paths, ", "), more).As(worst).With(v.Evidence...)
}

func (e exposed) request() audit.Request {
	return audit.Request{Path: e.path, Header: e.header, Limit: e.limit, Follow: e.follow, Label: "no credential"}
}

func (e exposed) matches(x *audit.Exchange) bool {
	if !x.OK() {
		return false
	}
	for _, c := range e.content {
		if !c.Match(x.Body) {
			return false
		}
	}
	return true
}

// really says whether the content is there, again at a second look, and not at random names beside it.
func really(ctx context.Context, s *audit.Session, e exposed, x *audit.Exchange) (bool, error) {
	if !e.matches(x) {
		return false, nil
	}
	absent, err := s.Absent(ctx, x)
	if err != nil || absent {
		return false, err
	}
	return s.Repeats(ctx, e.request(), e.matches)
}

// withheld is the exchange without the body: what was found there is nobody's business, the report's readers included.
func withheld(x *audit.Exchange) *audit.Exchange {
	c := x.Noted("%d bytes came back; they are left out of the report", len(x.Body))
	c.Body = bytes.Clone([]byte("(left out)"))
	return c
}
