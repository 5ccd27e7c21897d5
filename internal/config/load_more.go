package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/secret"
)

func (l *loader) issuers() {
	l.clerk()
	l.oidc()
	if len(l.cfg.Issuers) > 0 || l.attempted("CLERK_PUBLISHABLE_KEY", "CLERK_ISSUER", "AUTH_ISSUER") {
		return
	}
	if l.development() {
		l.cfg.DevIssuer = true
		return
	}
	l.missing("CLERK_PUBLISHABLE_KEY", "an issuer must be named: Clerk's publishable key, or AUTH_ISSUER and AUTH_AUDIENCE for another one", "pk_live_...")
}

// attempted says that one of the names has a value, good or bad, so that its own fault is enough.
func (l *loader) attempted(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { text, _ := l.lookup(n); return text != "" })
}

func (l *loader) clerk() {
	l.cfg.ClerkSecretKey = l.secret("CLERK_SECRET_KEY")
	l.clerkSecretKey()
	l.clerkWebhook()
	l.clerkAPI()
	key, _ := l.lookup("CLERK_PUBLISHABLE_KEY")
	if key == "" {
		if l.attempted("CLERK_SECRET_KEY", "CLERK_ISSUER") {
			l.missing("CLERK_PUBLISHABLE_KEY", "must be set with the other Clerk settings", "pk_live_...")
		}
		return
	}
	instance, err := clerk.ParsePublishableKey(key)
	if err != nil {
		l.bad(idInvalid, "CLERK_PUBLISHABLE_KEY", "is not a publishable key (pk_live_ or pk_test_ and a base64 host name)", "pk_live_...")
		return
	}
	if instance.Development() && l.cfg.Environment == Production {
		l.bad(idUnsafe, "CLERK_PUBLISHABLE_KEY", "is a test key", "pk_live_...")
	}
	l.clerkIssuer(instance)
}

func (l *loader) clerkIssuer(instance clerk.Instance) {
	issuer := identity.Issuer{
		URL: l.text("CLERK_ISSUER", instance.Issuer), JWKSURL: instance.JWKSURL,
		Profile: identity.Clerk, AuthorizedParties: l.list("CLERK_AUTHORIZED_PARTIES"),
	}
	if pem := l.secret("CLERK_JWT_KEY").Reveal(); pem != "" {
		issuer.Static = []byte(strings.ReplaceAll(pem, `\n`, "\n"))
	}
	if len(issuer.AuthorizedParties) == 0 {
		l.fault(Fault{
			ID: idPolicy, Name: "CLERK_AUTHORIZED_PARTIES",
			Problem: "is not set: tokens made for any web origin of your Clerk instance are accepted, and the session cookie is not",
			Example: "CLERK_AUTHORIZED_PARTIES=https://app.example.com",
		})
	}
	l.addIssuer("CLERK_ISSUER", issuer)
}

func (l *loader) addIssuer(name string, issuer identity.Issuer) {
	if err := issuer.Validate(); err != nil {
		l.bad(idInvalid, name, "does not make a usable issuer (https address, keys)", "https://clerk.example.com")
		return
	}
	l.cfg.Issuers = append(l.cfg.Issuers, issuer)
}

func (l *loader) clerkSecretKey() {
	secret, public := l.cfg.ClerkSecretKey.Reveal(), l.text("CLERK_PUBLISHABLE_KEY", "")
	test := strings.HasPrefix(secret, "sk_test_")
	switch {
	case secret == "":
	case !test && !strings.HasPrefix(secret, "sk_live_"):
		l.bad(idInvalid, "CLERK_SECRET_KEY", "begins with neither sk_live_ nor sk_test_", "sk_live_...")
	case test && l.cfg.Environment == Production:
		l.bad(idUnsafe, "CLERK_SECRET_KEY", "is a test key", "sk_live_...")
	case public != "" && test != strings.HasPrefix(public, "pk_test_"):
		l.bad(idConflict, "CLERK_SECRET_KEY", "and CLERK_PUBLISHABLE_KEY are of different instances (one test, one live)", "both from the same page of the Clerk dashboard")
	}
}

// clerkWebhook reads the signing secrets: several, while one replaces another.
func (l *loader) clerkWebhook() {
	for _, text := range items(l.secret("CLERK_WEBHOOK_SIGNING_SECRET").Reveal()) {
		key, err := clerk.DecodeWebhookSecret(text)
		if err != nil || !strings.HasPrefix(text, "whsec_") {
			l.bad(idInvalid, "CLERK_WEBHOOK_SIGNING_SECRET", "is not whsec_ and 24 to 64 bytes in base64", "whsec_...")
			return
		}
		l.cfg.ClerkWebhookSecrets = append(l.cfg.ClerkWebhookSecrets, NewSecret(string(key)))
	}
}

func (l *loader) clerkAPI() {
	const standard = "https://api.clerk.com"
	u, err := url.Parse(l.text("CLERK_API_URL", standard))
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname()+":0")) {
		l.bad(idInvalid, "CLERK_API_URL", "is not an https address", standard)
		return
	}
	l.cfg.ClerkAPI = u
}

func (l *loader) oidc() {
	address, _ := l.lookup("AUTH_ISSUER")
	audience, _ := l.lookup("AUTH_AUDIENCE")
	switch {
	case address == "" && audience != "":
		l.missing("AUTH_ISSUER", "must be set with AUTH_AUDIENCE", "https://login.example.com")
	case address != "" && audience == "":
		l.missing("AUTH_AUDIENCE", "must be set with AUTH_ISSUER: without it a token made for another service would pass", "my-api")
	case address != "":
		l.addIssuer("AUTH_ISSUER", identity.Issuer{
			URL: address, JWKSURL: l.text("AUTH_JWKS_URL", ""), Profile: identity.OIDC, Audience: audience,
		})
	}
}

func (l *loader) limits() {
	minute := func(n int) ratelimit.Rate { return ratelimit.Rate{Limit: n, Window: time.Minute} }
	c := &l.cfg.Limits
	c.PerUser = l.rate("RATE_LIMIT_PER_USER", minute(100))
	c.Anonymous = l.rate("RATE_LIMIT_ANONYMOUS", minute(100))
	c.Global = l.rate("RATE_LIMIT_GLOBAL", minute(10_000))
	c.AnonymousShare = l.percent("RATE_LIMIT_ANONYMOUS_SHARE", 50)
	c.OnStoreFailure = l.text("RATE_LIMIT_ON_STORE_FAILURE", "local")
	if !slices.Contains([]string{"local", "refuse", "allow"}, c.OnStoreFailure) {
		l.bad(idInvalid, "RATE_LIMIT_ON_STORE_FAILURE", "is none of local, refuse, allow", "local")
	}
	if c.PerUser.Limit > c.Global.Limit || c.PerUser.Window <= c.Global.Window && int64(c.PerUser.Limit)*int64(c.Global.Window/time.Second) > int64(c.Global.Limit)*int64(c.PerUser.Window/time.Second) {
		l.bad(idConflict, "RATE_LIMIT_PER_USER", "is above RATE_LIMIT_GLOBAL", "100")
	}
}

func (l *loader) percent(name string, standard int) int {
	text := strings.TrimSuffix(l.text(name, strconv.Itoa(standard)), "%")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 100 {
		l.bad(idRange, name, "is not a percentage from 1% to 100%", "50%")
		return standard
	}
	return n
}

func (l *loader) times() {
	l.cfg.RequestTimeout = l.duration("REQUEST_TIMEOUT", 30*time.Second, 10*time.Millisecond, time.Hour)
	delay := 10 * time.Second
	if l.development() {
		delay = 0
	}
	l.cfg.DrainDelay = l.duration("DRAIN_DELAY", delay, 0, 10*time.Minute)
	l.cfg.DrainTimeout = l.duration("DRAIN_TIMEOUT", 30*time.Second, time.Second, time.Hour)
	l.cfg.MaxBody = l.integer("MAX_BODY_BYTES", 10<<20, 1, 1<<40)
	l.cfg.MaxURL = int(l.integer("MAX_URL_BYTES", 8<<10, 256, 32<<10))
	l.cfg.Instances = int(l.integer("INSTANCES", 1, 1, 10_000))
}

func (l *loader) upstream() {
	l.cfg.UpstreamAllowLinkLocal = l.flag("UPSTREAM_ALLOW_LINK_LOCAL")
	l.cfg.UpstreamHealthPath = l.text("UPSTREAM_HEALTH_PATH", "")
	if p := l.cfg.UpstreamHealthPath; p != "" && !strings.HasPrefix(p, "/") {
		l.bad(idInvalid, "UPSTREAM_HEALTH_PATH", "does not begin with a slash", "/healthz")
	}
	l.cfg.RolloutCookie = l.text("ROLLOUT_COOKIE", "")
	if strings.ContainsAny(l.cfg.RolloutCookie, " \t=;,\"") {
		l.bad(idInvalid, "ROLLOUT_COOKIE", "is not the name of a cookie", "sessionid")
	}
	text, _ := l.lookup("UPSTREAM_URL")
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		l.bad(idInvalid, "UPSTREAM_URL", "is not http or https, host and port alone", "http://127.0.0.1:3000")
		return
	}
	l.cfg.Upstream = u
}

func (l *loader) hosts() {
	l.cfg.AllowedHosts = l.list("ALLOWED_HOSTS")
	switch {
	case len(l.cfg.AllowedHosts) == 0 && !l.development():
		l.missing("ALLOWED_HOSTS", "must be set: the host names this door answers to", "api.example.com")
	case len(l.cfg.AllowedHosts) == 0:
		l.cfg.AllowedHosts = []string{"localhost", "127.0.0.1", "[::1]"}
	case slices.Contains(l.cfg.AllowedHosts, "*") && l.cfg.Environment == Production:
		l.bad(idUnsafe, "ALLOWED_HOSTS", "must not be * in production", "api.example.com")
	case l.cfg.Environment == Production && slices.ContainsFunc(l.cfg.AllowedHosts, secret.IsPlaceholder):
		l.bad(idPlaceholder, "ALLOWED_HOSTS", "is still the example from the documentation", "api.example.com")
	}
	for _, host := range l.cfg.AllowedHosts {
		if strings.ContainsAny(host, "/@ ") || strings.Contains(host, "://") {
			l.bad(idInvalid, "ALLOWED_HOSTS", "holds something that is not a host name", "api.example.com,.example.org")
			break
		}
	}
	l.proxies()
	l.origins()
}

func (l *loader) proxies() {
	for _, item := range l.list("TRUSTED_PROXIES") {
		p, err := netip.ParsePrefix(item)
		if a, err2 := netip.ParseAddr(item); err2 == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			l.bad(idInvalid, "TRUSTED_PROXIES", "holds something that is neither an address nor a CIDR", "10.0.0.0/8")
			return
		case p.Bits() < 8:
			l.bad(idUnsafe, "TRUSTED_PROXIES", "trusts a large part of the internet: its clients could claim any address", "10.0.0.0/8")
			return
		}
		l.cfg.TrustedProxies = append(l.cfg.TrustedProxies, p.Masked())
	}
}

func (l *loader) origins() {
	for _, item := range l.list("CORS_ORIGINS") {
		u, err := url.Parse(item)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			l.bad(idInvalid, "CORS_ORIGINS", "holds something that is not an origin", "https://app.example.com")
			return
		}
		l.cfg.CORSOrigins = append(l.cfg.CORSOrigins, item)
	}
}

func (l *loader) pool() {
	p := &l.cfg.DBPool
	p.Min = int(l.integer("DB_POOL_MIN", 2, 0, 1000))
	p.Max = int(l.integer("DB_POOL_MAX", 10, 1, 1000))
	p.Lifetime = l.duration("DB_POOL_LIFETIME", 10*time.Minute, time.Second, 24*time.Hour)
	if p.Min > p.Max {
		l.bad(idConflict, "DB_POOL_MIN", "is above DB_POOL_MAX", "2")
	}
}

func (l *loader) outputs() {
	l.cfg.Log = Log{File: l.text("LOG_FILE", ""), Level: strings.ToLower(l.text("LOG_LEVEL", "info"))}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.cfg.Log.Level) {
		l.bad(idInvalid, "LOG_LEVEL", "is none of debug, info, warn, error", "info")
	}
	l.tls()
}

// cross checks what only several settings together can get wrong.
func (l *loader) cross() {
	for _, r := range l.cfg.Routes {
		if r.Stream && r.Timeout > 0 {
			l.fault(Fault{ID: idConflict, Name: "routes", Source: fmt.Sprintf("gantry.yaml:%d", r.Line), Problem: "a stream has no timeout; it has idle and lifetime limits", Example: "stream: true"})
		}
	}
}

// Unsupported lists settings that are right but whose feature is not in this release, so that a
// process never starts with less than it was asked for.
func (c Config) Unsupported() []Fault {
	var out []Fault
	if len(c.TLS.ACMEDomains) > 0 {
		out = append(out, Fault{ID: idLater, Name: "TLS_ACME_DOMAINS", Problem: "automatic certificates arrive later", Example: "TLS_CERT_FILE and TLS_KEY_FILE"})
	}
	return out
}
