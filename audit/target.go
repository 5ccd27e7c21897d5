package audit

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Target is the API under audit and everything the auditor was told about it. Only URL is required;
// each other field proves more.
type Target struct {
	URL *url.URL // its origin is the scope: nothing is ever sent elsewhere

	// Credentials, without the "Bearer " before them. They never appear in a report.
	Token              string // a valid access token of an ordinary user
	TokenB             string // the same of a second user
	AdminToken         string
	TokenExpired       string // was valid, is no longer
	TokenOtherAudience string // of the same issuer, for another client
	IDToken            string
	RefreshToken       string
	JWTKey             string // the staging signing key: an HMAC secret, or a private key in PEM
	JWKS               string // URL or file of the public keys; found by discovery when empty

	ProtectedPaths []string // need a credential; the first that tells valid from garbage is used throughout
	AdminPaths     []string
	ObjectA        string // path of an object that Token owns
	ObjectB        string // path of an object that TokenB owns
	HealthPath     string
	FastPath       string // a cheap GET; the protected path when empty
	SlowPath       string // answers slowly, or hangs
	ListPath       string // a collection
	PageParam      string // its page-size parameter, limit when empty
	PageNumber     string // its page-number or offset parameter
	DBPath         string // a GET that reads the database
	WritePath      string // takes POST
	VersionPath    string
	MetricsURL     string         // may be another origin: it is read with no credential
	Canary         *regexp.Regexp // matches the body of an accepted request, in place of the shape test

	Operations []Operation // from the OpenAPI description
	Recipes    map[string]Recipe

	// Declared facts, each with its reason, by probe: not applicable, or intended.
	Declared map[string]string
	// CA verifies a private certificate authority; nil is the system's.
	CA *x509.CertPool
}

// Operation is one method and path of the API's own description.
type Operation struct {
	Method, Path string // Path as a template: /users/{id}
	ID           string
	Secured      bool // a security requirement applies
	Tags         []string
	Params       []Param
	Body         []Param // properties of a JSON request body
	Example      string  // of the request body, JSON; built from the schema when none is given
	Statuses     []string
	File         string // where it is described, for anchors in code-scanning results
	Line         int
}

// Param is an input of an operation.
type Param struct {
	Name     string
	In       string // path, query, header, body
	Type     string // of JSON Schema
	Format   string
	Required bool
	Example  string
	Enum     []string
	Minimum  *float64
	Maximum  *float64
	MaxLen   int
}

// Recipe is how to write to the API without harm: everything it makes carries {{marker}} and is deleted.
type Recipe struct {
	Method string `yaml:"method" json:"method"`
	Path   string `yaml:"path" json:"path"`
	Body   string `yaml:"body" json:"body,omitempty"`     // a template; {{marker}} is unique a run, {{n}} a request
	Read   string `yaml:"read" json:"read,omitempty"`     // path to read back; {{id}} is the created id
	Field  string `yaml:"field" json:"field,omitempty"`   // JSON path of the value that is judged: counter, id
	Delete string `yaml:"delete" json:"delete,omitempty"` // path to delete with DELETE
	Unique bool   `yaml:"unique" json:"unique,omitempty"` // a second identical POST must not make a second object
}

// Policy is what the audit holds the target to, and how long its probes wait. Zero fields are the defaults.
type Policy struct {
	RateLimit  int           // requests a window and user; 100
	RateWindow time.Duration // 1 minute
	Deadline   time.Duration // a slow handler is cut here; 30 s
	Grace      time.Duration // and this much later it is late; 2 s
	SlowClient time.Duration // a dripping client is cut by then; 60 s
	Rate       float64       // expected load in requests per second; 20
	LoadWindow time.Duration // of each load window; 34 s, with which --load ends within five minutes
	Soak       time.Duration // of PERF-04, which does not run when it is zero
	Workers    int           // the target's declared workers; 32
	PageCap    int           // rows a page may have at most; 1000
	Recovery   time.Duration // readiness must follow a restored dependency by then; 30 s
	MinSamples int           // answers a load verdict needs; 2000
	Errors     float64       // allowed share of failed requests; 0.001
	P95, P99   time.Duration // allowed; 500 ms, 1 s
	JWTSkew    time.Duration // clock skew a verifier may allow; 60 s
}

// WithDefaults fills what is zero with the document's numbers.
func (p Policy) WithDefaults() Policy {
	set(&p.RateLimit, 100)
	set(&p.RateWindow, time.Minute)
	set(&p.Deadline, 30*time.Second)
	set(&p.Grace, 2*time.Second)
	set(&p.SlowClient, time.Minute)
	set(&p.Rate, 20)
	set(&p.LoadWindow, 34*time.Second)
	set(&p.Workers, 32)
	set(&p.PageCap, 1000)
	set(&p.Recovery, 30*time.Second)
	set(&p.MinSamples, 2000)
	set(&p.Errors, 0.001)
	set(&p.P95, 500*time.Millisecond)
	set(&p.P99, time.Second)
	set(&p.JWTSkew, time.Minute)
	return p
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// secrets of the target that no evidence may show.
func (t *Target) secrets() []string {
	list := []string{
		t.Token, t.TokenB, t.AdminToken, t.TokenExpired, t.TokenOtherAudience, t.IDToken, t.RefreshToken, t.JWTKey,
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// paths that somebody named.
func (t *Target) paths() []string {
	return slices.Concat(t.ProtectedPaths, t.AdminPaths, []string{
		t.ObjectA, t.ObjectB, t.HealthPath, t.FastPath, t.SlowPath, t.ListPath, t.DBPath, t.WritePath, t.VersionPath,
	})
}

// Origin is the scheme, host and port in scope.
func (t *Target) Origin() string { return t.URL.Scheme + "://" + t.URL.Host }

// Local says whether the host is loopback or private, where the risky modes need no authorisation.
// A name is local only when it is localhost: what a name resolves to may change between two requests.
func (t *Target) Local() bool {
	host := t.URL.Hostname()
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsPrivate())
}

// Address is host:port to dial.
func (t *Target) Address() string {
	if t.URL.Port() != "" {
		return t.URL.Host
	}
	if t.URL.Scheme == "https" {
		return t.URL.Host + ":443"
	}
	return t.URL.Host + ":80"
}

// ParseTarget reads the URL of an API: http or https, a host, perhaps a base path; no credentials in it.
func ParseTarget(raw string) (*Target, error) {
	if !strings.Contains(raw, "://") {
		return nil, fmt.Errorf("target %q: give the whole URL, such as http://127.0.0.1:8000", raw)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("target: that is not a URL; give one such as https://api.example.com")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("target %s: the scheme must be http or https", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("target %s: there is no host in it", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("target %s: put no credentials in the URL; use --token", u.Redacted())
	}
	u.Fragment, u.RawQuery = "", ""
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &Target{URL: u}, nil
}
