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
	Environment Environment
	Debug       bool
	// SecretKey is the root of the keys for cursors, sessions and pseudonyms. In development
	// without one, a throwaway key is made.
	SecretKey Secret
	// DataDir holds what is written: the SQLite file, the development issuer's key.
	DataDir             string
	Listen, AdminListen string
	AdminToken          Secret
	AllowedHosts        []string
	TrustedProxies      []netip.Prefix
	CORSOrigins         []string
	Database            Database
	Cache               Store
	Issuers             []identity.Issuer
	// DevIssuer says that Gantry signs its own tokens: development without an issuer.
	DevIssuer              bool
	ClerkSecretKey         Secret
	ClerkWebhookSecret     Secret
	Limits                 Limits
	RequestTimeout         time.Duration
	MaxBody                int64
	Upstream               *url.URL // nil: only the built-in routes answer
	UpstreamHealthPath     string
	UpstreamAllowLinkLocal bool
	Routes                 []Route
	// DrainDelay is how long the door stays open after readiness has gone; DrainTimeout is how
	// long requests then have to finish.
	DrainDelay, DrainTimeout time.Duration
	DBPool                   Pool
	Log                      Log
	TLS                      TLS
	SentryDSN                Secret
	SlackWebhookURL          Secret
	PagerDutyRoutingKey      Secret
}

// Database says where users are kept.
type Database struct {
	Kind string // SQLite or Postgres
	Path string // of the SQLite file
	URL  Secret // of Postgres
}

// Store says where shared, short-lived state is kept.
type Store struct {
	Kind string // Memory or Valkey
	URL  Secret
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
	Line    int
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

// TLS is the certificate of the main port.
type TLS struct {
	CertFile, KeyFile string
	ACMEDomains       []string
}
