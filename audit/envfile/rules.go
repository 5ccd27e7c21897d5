package envfile

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/secret"
)

// rules are all of them; each looks at the whole file.
var rules = []func(file) []Fault{
	weakSecrets, debug, wildcards, testKeys, plainStores, examplePasswords, placeholders, missing,
	environment, nearMisses,
}

// each makes a rule of a judgement on one entry; ok says that there is a fault.
func each(f file, judge func(entry) (Fault, bool)) []Fault {
	var faults []Fault
	for _, e := range f.entries {
		if fault, ok := judge(e); ok {
			fault.Name, fault.Line = e.name, e.line
			faults = append(faults, fault)
		}
	}
	return faults
}

// shortSecret is enough for keys other than SECRET_KEY: 32 random characters or more.
const shortSecret = 32

func weakSecrets(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		if e.value == "" || !signs(e.name) {
			return Fault{}, false
		}
		length := shortSecret
		if strings.HasSuffix(strings.TrimSuffix(e.name, "_FALLBACKS"), "SECRET_KEY") {
			length = secret.MinLength
		}
		for key := range strings.SplitSeq(e.value, separator(e.name)) {
			if why := secret.WeaknessBelow(key, length); why != "" {
				return Fault{
					ID: WeakSecret, Severity: Critical, Probe: probeSecret, What: why,
					Fix: "set a key of its own from: openssl rand -base64 48",
				}, true
			}
		}
		return Fault{}, false
	})
}

func separator(name string) string {
	if strings.HasSuffix(name, "_FALLBACKS") || strings.HasSuffix(name, "_KEYS") {
		return ","
	}
	return "\x00" // no value has one
}

// signs says that a name is of a key made by its owner to sign or encrypt with. Keys that a provider
// hands out have their form from there, and are looked at as placeholders and test keys only.
func signs(name string) bool {
	name = strings.TrimSuffix(strings.ToUpper(name), "_FALLBACKS")
	switch name {
	case "SECRET", "SECRET_KEY", "SECRET_KEY_BASE", "APP_KEY", "APP_SECRET", "APP_KEYS", "API_TOKEN_SALT":
		return true
	}
	last := name[strings.LastIndexByte(name, '_')+1:]
	switch last {
	case "SECRET", "KEY", "SALT":
	default:
		return false
	}
	for _, word := range strings.Split(name, "_") {
		switch word {
		case "JWT", "SESSION", "COOKIE", "SIGNING", "ENCRYPTION", "CSRF", "HMAC", "NEXTAUTH", "DJANGO", "FLASK", "TOKEN", "REFRESH", "ACCESS", "AUTH", "RAILS":
			return !public(name)
		}
	}
	return false
}

// public names hold what is not secret, or what a provider made.
func public(name string) bool {
	for _, word := range []string{"PUBLIC", "PUBLISHABLE", "AWS", "GOOGLE", "GITHUB", "CLERK", "STRIPE", "AZURE", "TWILIO", "AUTH0", "CLIENT", "OAUTH", "FIREBASE"} {
		if slices.Contains(strings.Split(name, "_"), word) {
			return true
		}
	}
	return false
}

func debug(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		switch e.name {
		case "DEBUG", "APP_DEBUG", "DJANGO_DEBUG", "FLASK_DEBUG", "RAILS_DEBUG", "SERVER_DEBUG":
			return Fault{
				ID: Debug, Severity: Critical, Probe: probeDebug, What: "is on: an error shows settings, code and stack to anyone",
				Fix: "set it to False, and let the service refuse to start with it on in production",
			}, truth(e.value)
		}
		return Fault{}, false
	})
}

func truth(value string) bool {
	switch strings.ToLower(value) {
	case "1", "true", "yes", "on", "t", "y", "enabled":
		return true
	}
	return false
}

func wildcards(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		name := strings.ToUpper(e.name)
		fault := Fault{ID: Wildcard, Severity: High, Fix: "list the names of production, separated by commas"}
		origins := strings.Contains(name, "CORS") || strings.HasSuffix(name, "ALLOWED_ORIGINS") || strings.HasSuffix(name, "TRUSTED_ORIGINS")
		switch {
		case strings.HasSuffix(name, "ALLOWED_HOSTS") && slices.ContainsFunc(items(e.value), anything):
			fault.What = "has *: links and caches can be made with any Host header"
		case origins && strings.HasSuffix(name, "ALLOW_ALL"), origins && strings.HasSuffix(name, "ALLOW_ALL_ORIGINS"):
			fault.What, fault.Probe = "is on: any web site may read answers", probeCORS
			return fault, truth(e.value)
		case origins && strings.Contains(name, "ORIGIN") && slices.ContainsFunc(items(e.value), anything):
			fault.What, fault.Probe = "has *: any web site may read answers", probeCORS
		default:
			return Fault{}, false
		}
		return fault, true
	})
}

// items reads a list as frameworks write it: commas, spaces or JSON.
func items(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(", []\"';", r) })
}

func anything(item string) bool {
	return item == "*" || item == "http://*" || item == "https://*" || item == ".*"
}

func testKeys(f file) []Fault {
	if !f.production() {
		return nil
	}
	return each(f, func(e entry) (Fault, bool) {
		fault := Fault{ID: TestKey, Severity: Critical, Probe: probeBinding, Fix: "set the key of the live instance"}
		v := e.value
		switch {
		case strings.HasPrefix(v, "pk_test_"), strings.HasPrefix(v, "sk_test_"), strings.HasPrefix(v, "rk_test_"):
			fault.What = "is a test key: in production it lets test accounts in and real ones out"
		case strings.HasPrefix(e.name, "CLERK_") && strings.Contains(v, ".accounts.dev"):
			fault.What = "is a development instance of Clerk, where anyone may register"
		default:
			return Fault{}, false
		}
		if !strings.Contains(e.name, "CLERK") {
			fault.Severity, fault.Probe = High, "" // a payment that never happens is no way in
			fault.What = "is a test key: nothing it does is real"
		}
		return fault, true
	})
}

// plainStores looks at addresses by their scheme, whatever their name.
func plainStores(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		scheme, rest, _ := strings.Cut(e.value, "://")
		scheme, _, _ = strings.Cut(strings.ToLower(scheme), "+") // postgresql+asyncpg
		host, query := address(rest)
		if local(host) {
			return Fault{}, false
		}
		fault := Fault{ID: PlainDatabase, Severity: High, Probe: probePlaintext}
		switch scheme {
		case "postgres", "postgresql", "postgis":
			fault.What, fault.Fix = plainPostgres(f, query), "add sslmode=verify-full and the server's CA"
		case "mysql", "mysql2", "mariadb":
			fault.What, fault.Fix = plainUnless(query, "ssl", "tls", "sslmode", "ssl-mode", "ssl_mode", "sslca", "ssl-ca", "ssl_ca", "usessl"), "add ssl-mode=VERIFY_IDENTITY, or what the driver calls it"
		case "mongodb": // mongodb+srv is encrypted unless it says otherwise
			if strings.HasPrefix(e.value, "mongodb+srv:") {
				return Fault{}, false
			}
			fault.What, fault.Fix = plainUnless(query, "tls", "ssl"), "add tls=true"
		case "redis", "valkey":
			fault.ID, fault.What, fault.Fix = PlainCache, plain, "use rediss:// with a password"
		}
		if !strings.Contains(strings.Trim(host, "[]"), ".") && !strings.Contains(host, ":") {
			fault.Severity = Medium // a name of one word is often a container on the same machine
		}
		return fault, fault.What != ""
	})
}

const plain = "is not encrypted: what passes can be read and changed on the way"

func plainPostgres(f file, query url.Values) string {
	mode := strings.ToLower(first(query, "sslmode", "ssl"))
	if e, ok := f.get("PGSSLMODE", "DB_SSLMODE", "DATABASE_SSLMODE", "DB_SSL_MODE"); mode == "" && ok {
		mode = strings.ToLower(e.value)
	}
	switch mode {
	case "verify-full", "verify-ca":
		return ""
	case "require", "true", "1", "on":
		return "is encrypted, but does not prove whose server answers"
	}
	return plain
}

func plainUnless(query url.Values, names ...string) string {
	for name, values := range query {
		if slices.Contains(names, strings.ToLower(name)) {
			switch strings.ToLower(strings.Join(values, "")) {
			case "", "0", "false", "disabled", "disable", "off", "preferred":
			default:
				return ""
			}
		}
	}
	return plain
}

func first(query url.Values, names ...string) string {
	for _, name := range names {
		if v := query.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// address takes host and query out of what follows "://". url.Parse is not asked: passwords in real
// files have characters that it refuses.
func address(rest string) (host string, query url.Values) {
	rest, text, _ := strings.Cut(rest, "?")
	query, _ = url.ParseQuery(text) // what could be read of it
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	host, _, _ = strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, ",") // of several hosts the first
	if end := strings.LastIndexByte(host, ']'); end > 0 {
		return host[:end+1], query
	}
	host, _, _ = strings.Cut(host, ":")
	if host == "" {
		host = query.Get("host")
	}
	return host, query
}

func local(host string) bool {
	if host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "%2F") {
		return true // none, or the path of a socket
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// commonPasswords are the first that anyone tries. They are compared whole.
var commonPasswords = []string{
	"password", "passwd", "pass", "postgres", "postgresql", "mysql", "root", "admin", "secret", "changeme", "change-me",
	"123456", "12345678", "123456789", "example", "guest", "redis", "test", "user", "mongo", "rabbitmq", "default", "toor",
	"letmein", "qwerty", "password1", "password123", "admin123", "mypassword", "dev", "development", "foobared", "django",
}

func examplePasswords(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		fault := Fault{
			ID: ExamplePass, Severity: High, Probe: probeDefault, What: "has a password that everyone tries first",
			Fix: "set a random password, and change it on the server",
		}
		name := strings.ToUpper(e.name)
		if strings.HasSuffix(name, "PASSWORD") || strings.HasSuffix(name, "PASSWD") || strings.HasSuffix(name, "_PASS") {
			return fault, common(e.value)
		}
		_, rest, found := strings.Cut(e.value, "://")
		rest, _, _ = strings.Cut(rest, "?")
		at := strings.LastIndexByte(rest, '@')
		if !found || at < 0 {
			return Fault{}, false
		}
		user, password, _ := strings.Cut(rest[:at], ":")
		if host, _ := address(rest); local(host) {
			fault.Severity = Medium
		}
		return fault, common(password) || password != "" && password == user
	})
}

func common(password string) bool {
	return slices.Contains(commonPasswords, strings.ToLower(password))
}

func placeholders(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		return Fault{
			ID: Placeholder, Severity: High, What: "is still the example of a document, or a template that was never filled in",
			Fix: "set the value of production",
		}, !signs(e.name) && secret.IsPlaceholder(e.value)
	})
}

// need is something that production has to be told, under any of its names.
type need struct {
	names    []string // the document's first
	severity string
	when     string // only if a name with this prefix is set; "" always
	what     string
	probe    string
}

var needs = []need{
	{[]string{"SECRET_KEY", "SECRET_KEY_BASE", "APP_KEY", "APP_SECRET", "JWT_SECRET", "JWT_SECRET_KEY", "SESSION_SECRET", "AUTH_SECRET", "NEXTAUTH_SECRET", "DJANGO_SECRET_KEY", "FLASK_SECRET_KEY", "AUTH_ISSUER", "AUTH_JWKS_URL"}, Critical, "", "no key signs sessions and tokens, so a default in the code does", probeSecret},
	{[]string{"DATABASE_URL", "DATABASE_URI", "DATABASE_DSN", "DB_URL", "DB_HOST", "DB_DSN", "PGHOST", "POSTGRES_HOST", "POSTGRES_URL", "MYSQL_HOST", "MYSQL_URL", "MONGO_URL", "MONGO_URI", "MONGODB_URI", "MONGODB_URL", "SQLALCHEMY_DATABASE_URI", "SPRING_DATASOURCE_URL"}, High, "", "the database falls back to what the code says", ""},
	{[]string{"VALKEY_URL", "VALKEY_HOST", "REDIS_URL", "REDIS_URI", "REDIS_HOST", "CACHE_URL", "MEMCACHED_URL", "MEMCACHE_SERVERS", "CACHE_STORE", "CACHE_DRIVER"}, Medium, "", "limits and caches are counted per process, not together", ""},
	{[]string{"SENTRY_DSN", "SENTRY_LARAVEL_DSN", "BUGSNAG_API_KEY", "ROLLBAR_ACCESS_TOKEN", "HONEYBADGER_API_KEY", "NEW_RELIC_LICENSE_KEY", "DD_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT"}, High, "", "nobody hears of errors", probeAlert},
	{environments, High, "", "frameworks then run as in development", probeDebug},
	{[]string{"ALLOWED_HOSTS", "DJANGO_ALLOWED_HOSTS", "APP_URL", "APP_HOST", "BASE_URL", "PUBLIC_URL", "NEXTAUTH_URL", "RAILS_HOSTS"}, Medium, "", "the service cannot tell its own name from a forged Host header", ""},
	{[]string{"CLERK_SECRET_KEY"}, High, "CLERK_", "the other settings of Clerk are there, and this one is needed with them", ""},
	{[]string{"CLERK_PUBLISHABLE_KEY", "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "CLERK_ISSUER", "CLERK_JWT_KEY", "CLERK_FRONTEND_API"}, High, "CLERK_", "without it the tokens' issuer is not known", probeBinding},
}

func missing(f file) []Fault {
	var faults []Fault
	for _, n := range needs {
		if f.has(n.names...) || n.when != "" && !f.hasPrefix(n.when) {
			continue
		}
		fault := Fault{
			ID: Missing, Severity: n.severity, Name: n.names[0], Probe: n.probe,
			What: "is not set: " + n.what, Fix: "set it",
		}
		for _, name := range n.names { // empty is worth its line
			if i, ok := f.index[name]; ok {
				fault.Name, fault.Line, fault.What = name, f.entries[i].line, "is empty: "+n.what
				break
			}
		}
		faults = append(faults, fault)
	}
	return faults
}

func (f file) hasPrefix(prefix string) bool {
	return slices.ContainsFunc(f.entries, func(e entry) bool { return strings.HasPrefix(e.name, prefix) && e.value != "" })
}

func environment(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		if e.value == "" || !slices.Contains(environments, e.name) || slices.Contains(items(strings.ToLower(e.value)), "production") {
			return Fault{}, false
		}
		fault := Fault{
			ID: NotProduction, Severity: High, Probe: probeDebug, What: "does not say production: what protects production stays off",
			Fix: fmt.Sprintf("set %s=production", e.name),
		}
		if isProduction(e.value) || e.name == "SPRING_PROFILES_ACTIVE" {
			fault.Severity = Low
			fault.What = "says production in a word of its own; frameworks compare with the full word"
		}
		return fault, true
	})
}

// documented names are worth a look when one letter is wrong.
var documented = []string{
	"SECRET_KEY", "ENVIRONMENT", "ALLOWED_HOSTS", "DATABASE_URL", "VALKEY_URL", "REDIS_URL", "SENTRY_DSN", "CORS_ORIGINS",
	"CORS_ALLOWED_ORIGINS", "CLERK_SECRET_KEY", "CLERK_PUBLISHABLE_KEY", "JWT_SECRET", "SESSION_SECRET", "NODE_ENV", "APP_DEBUG",
	"RATE_LIMIT_PER_USER", "REQUEST_TIMEOUT", "LOG_LEVEL",
}

// nearMisses reports names one slip away from a documented one that is not there itself: who wrote it
// believes it is set.
func nearMisses(f file) []Fault {
	return each(f, func(e entry) (Fault, bool) {
		name := strings.ToUpper(e.name)
		if known(name) {
			return Fault{}, false
		}
		for _, right := range documented {
			if _, there := f.index[right]; !there && oneSlip(name, right) {
				return Fault{
					ID: NearMiss, Severity: High, What: "is read by nobody; " + right + " is not set and one letter away",
					Fix: "write " + right,
				}, true
			}
		}
		return Fault{}, false
	})
}

func known(name string) bool {
	for _, n := range needs {
		if slices.Contains(n.names, name) {
			return true
		}
	}
	return signs(name)
}

// oneSlip says that a letter was left out, added, changed, or two neighbours were swapped.
func oneSlip(a, b string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	swapped := len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
	return swapped || len(a) <= 1 && len(b) <= 1 && len(a)+len(b) > 0
}
