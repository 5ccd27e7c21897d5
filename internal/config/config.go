// Package config reads what an operator wrote, and either understands all of it or says everything
// that is wrong with it at once.
//
// Begin with [Load]: environment, .env and gantry.yaml in, a [Config] and a [Report] out. `gantry
// serve` and `gantry check` both call it, so what one accepts the other does.
//
// The surprise: a fault never shows the value it is about. A secret pasted under the wrong name would
// otherwise end in a log.
package config

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/ratelimit"
)

// Environment is where the process runs.
type Environment string

// The environments. Everything but Development is meant to be reachable and checked strictly.
const (
	Development Environment = "development"
	Staging     Environment = "staging"
	Production  Environment = "production"
)

// Kinds of stores.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	Memory   = "memory"
	Valkey   = "valkey"
)

// Config is the checked configuration of one process.
type Config struct {
	Reloadable
	// Version is that of [Sources].
	Version     string
	Environment Environment
	Debug       bool
	// DataDir holds what is written: the SQLite file, the development issuer's key.
	DataDir             string
	Listen, AdminListen string
	Database            Database
	DBPool              Pool
	Cache               Store
	// Instances is how many processes like this one share the database, for the budget of
	// connections and for the limiter's fallback.
	Instances int
	Issuers   []identity.Issuer
	// DevIssuer says that Gantry signs its own tokens: development without an issuer.
	DevIssuer      bool
	ClerkSecretKey Secret
	// ClerkAPI is where Clerk's Backend API is.
	ClerkAPI               *url.URL
	RequestTimeout         time.Duration
	Upstream               *url.URL // nil: only the built-in routes answer
	UpstreamHealthPath     string
	UpstreamAllowLinkLocal bool
	// RolloutCookie names the cookie that tells callers without a token apart in a rollout, "" for none.
	RolloutCookie string
	// DrainDelay is how long the door stays open after readiness has gone; DrainTimeout is how
	// long requests then have to finish.
	DrainDelay, DrainTimeout time.Duration
	Log                      Log
	Traces                   Traces
	SentryDSN                Secret
	Alerting                 Alerting
}

// Reloadable are the settings that a running process takes over on SIGHUP.
type Reloadable struct {
	// SecretKeys are the roots of the keys for cursors, sessions and pseudonyms: the first signs, all
	// verify. In development there may be none, and the process makes one for itself.
	SecretKeys     []Secret
	AdminToken     Secret
	AllowedHosts   []string
	TrustedProxies []netip.Prefix
	CORSOrigins    []string
	// ClerkWebhookSecrets are decoded signing secrets; a webhook may be signed with any of them. Empty:
	// there is no webhook route.
	ClerkWebhookSecrets []Secret
	// AdminSubjects are the verified subjects that may administer users.
	AdminSubjects []string
	Limits        Limits
	MaxBody       int64
	MaxURL        int // bytes of the request target
	Routes        []Route
	TLS           TLS
	// AlertRules are the defaults and gantry.yaml's own.
	AlertRules []alert.Rule
	// Loaded is all that was read, those settings among it that a running process does not take over.
	Loaded Loaded
}

// Database says where users are kept.
type Database struct {
	Kind string // SQLite or Postgres
	Path string // of the SQLite file
	URL  Secret // of Postgres
}

// Store says where shared, short-lived state is kept.
type Store struct {
	Kind     string   // Memory or Valkey
	Addrs    []string // host:port; several are a cluster
	Username string
	Password Secret
	DB       int
	TLS      bool
	CA       []byte // certificates in PEM form; nil means the system's
}

// Limits are the rate limits.
type Limits struct {
	PerUser, Anonymous, Global ratelimit.Rate
	AnonymousShare             int // percent of Global
	OnStoreFailure             string
	Plans                      map[string]ratelimit.Rate
}

// Route is one entry of gantry.yaml's routes.
type Route struct {
	Pattern string // net/http syntax
	Auth    identity.Mode
	Timeout time.Duration
	Limit   ratelimit.Rate
	Stream  bool
	MaxBody int64
	Loose   bool
	// Uncounted requests say nothing about the candidate of a rollout.
	Uncounted bool
	Line      int
}

// Pool bounds database connections.
type Pool struct {
	Min, Max int
	Lifetime time.Duration
}

// Log says where the log goes: File empty is stderr.
type Log struct {
	File  string
	Level string
}

// Traces says where traces go, as the OTEL_ variables do.
type Traces struct {
	Endpoint    *url.URL // the whole address; nil: tracing is off
	Protocol    string   // telemetry.OverGRPC or telemetry.OverHTTP
	Headers     map[string]Secret
	Gzip        bool
	Timeout     time.Duration
	CA          []byte            // certificates in PEM form; nil means the system's
	Resource    map[string]string // attributes of this process
	ParentBased bool
	Ratio       float64
	Queue       int // requests
	Batch       int // spans
	Delay       time.Duration
}

// TLS is the certificate of the main port.
type TLS struct {
	CertFile, KeyFile string
	ACMEDomains       []string
}
