package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/secret"
)

// Sources are what Load reads. The environment is passed in, read once by the caller.
type Sources struct {
	Environ []string // as os.Environ gives it
	Dir     string   // where .env and gantry.yaml are looked for; default the working directory
	EnvFile string   // instead of Dir/.env; must exist when named
	YAML    string   // instead of Dir/gantry.yaml; must exist when named
	Version string   // names the build that runs, which is no setting
}

// Load reads and checks everything. The environment wins over .env; gantry.yaml holds what a flat
// list cannot: routes, plans. The Config is complete only when the report is OK.
func Load(src Sources) (Config, Report) {
	l := &loader{environ: make(map[string]string), names: sortedNames(), referred: make(map[string]bool), read: make(map[string]string), cfg: Config{Version: src.Version, Alerting: Alerting{Names: make(map[string][]string)}}}
	for _, pair := range src.Environ {
		name, text, _ := strings.Cut(pair, "=")
		l.environ[name] = text
	}
	if text, file, ok := l.file(src.EnvFile, src.Dir, ".env"); ok {
		l.dotenv = parseEnv(text, file, l.fault)
	}
	l.yaml(src)
	l.checkNames()
	for _, step := range []func(){
		l.mode, l.ports, l.secrets, l.stores, l.issuers, l.limits, l.times, l.upstream, l.hosts, l.pool, l.outputs, l.traces, l.sentry, l.receivers, l.cross, l.loaded,
	} {
		step()
	}
	l.report.sort()
	return l.cfg, l.report
}

type loader struct {
	environ map[string]string
	dotenv  map[string]value
	names   []string
	// yamlName is what gantry.yaml is called in faults; yamlText is all of it.
	yamlName, yamlText string
	read               map[string]string // secrets, by the names that they were asked for
	// referred are the names that gantry.yaml takes secrets from.
	referred map[string]bool
	cfg      Config
	report   Report
}

func (l *loader) fault(f Fault) { l.report.Faults = append(l.report.Faults, f) }

// bad reports a setting that has a value, with the place it came from.
func (l *loader) bad(id, name, problem, example string) {
	l.fault(Fault{ID: id, Name: name, Source: l.source(name), Problem: problem, Example: name + "=" + example})
}

// source is where a setting came from, its file form included.
func (l *loader) source(name string) string {
	if _, source := l.lookup(name); source != "" {
		return source
	}
	_, source := l.lookup(name + "_FILE")
	return source
}

// missing reports one that has none.
func (l *loader) missing(name, problem, example string) {
	l.fault(Fault{ID: idMissing, Name: name, Problem: problem, Example: name + "=" + example})
}

const maxFile = 1 << 20

// file reads a configuration file. One that was named must exist; the default one may be absent.
func (l *loader) file(named, dir, standard string) (text, name string, ok bool) {
	path := named
	if path == "" {
		path = filepath.Join(dir, standard)
	}
	data, err := readFile(path, maxFile)
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return "", "", false
	}
	if err != nil {
		l.fault(Fault{ID: idSyntax, Name: filepath.Base(path), Source: path, Problem: "cannot be read: " + reason(err), Example: "a readable UTF-8 file of at most 1 MiB"})
		return "", "", false
	}
	return data, filepath.Base(path), true
}

func readFile(path string, limit int64) (string, error) {
	info, err := os.Stat(path) // before opening: a pipe would wait for its writer
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return "", err
	case int64(len(data)) > limit:
		return "", fmt.Errorf("larger than %d bytes", limit)
	case !utf8.Valid(data):
		return "", errors.New("not UTF-8")
	}
	return string(data), nil
}

// reason is an error without the path, which the fault already names.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// lookup returns a setting and its source. An empty value counts as unset, as "NAME=" in a .env means.
func (l *loader) lookup(name string) (text, source string) {
	if text, ok := l.environ[name]; ok && text != "" {
		return text, "environment"
	}
	if v, ok := l.dotenv[name]; ok && v.text != "" {
		return v.text, v.source
	}
	return "", ""
}

func (l *loader) text(name, standard string) string {
	if text, _ := l.lookup(name); text != "" {
		return text
	}
	return standard
}

func (l *loader) list(name string) []string {
	text, _ := l.lookup(name)
	return items(text)
}

// items splits a list: by lines where there are any, as in a file, and otherwise by commas.
func items(text string) []string {
	separator := ","
	if strings.Contains(text, "\n") {
		separator = "\n"
	}
	var out []string
	for item := range strings.SplitSeq(text, separator) {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// flag reads a boolean in the spellings Django settings use.
func (l *loader) flag(name string) bool {
	text, _ := l.lookup(name)
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on":
		return true
	case "", "false", "0", "no", "off":
		return false
	}
	l.bad(idInvalid, name, "is neither true nor false", "False")
	return false
}

// duration reads seconds or a Go duration, within bounds.
func (l *loader) duration(name string, standard, least, most time.Duration) time.Duration {
	text, _ := l.lookup(name)
	if text == "" {
		return standard
	}
	d, err := time.ParseDuration(text)
	if n, err2 := strconv.ParseUint(text, 10, 32); err2 == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil {
		l.bad(idInvalid, name, "is not a time", "30, or 30s")
		return standard
	}
	if d < least || d > most {
		l.bad(idRange, name, fmt.Sprintf("is outside %v to %v", least, most), standard.String())
		return standard
	}
	return d
}

func (l *loader) integer(name string, standard, least, most int64) int64 {
	text, _ := l.lookup(name)
	if text == "" {
		return standard
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		l.bad(idRange, name, fmt.Sprintf("is not a number from %d to %d", least, most), strconv.FormatInt(standard, 10))
		return standard
	}
	return n
}

func (l *loader) rate(name string, standard ratelimit.Rate) ratelimit.Rate {
	text, _ := l.lookup(name)
	if text == "" {
		return standard
	}
	r, err := ratelimit.ParseRate(text)
	if err != nil {
		l.bad(idInvalid, name, err.Error(), standard.String())
		return standard
	}
	return r
}

// secret reads NAME, or the file that NAME_FILE names.
func (l *loader) secret(name string) Secret {
	text, _ := l.lookup(name)
	path, source := l.lookup(name + "_FILE")
	switch {
	case text != "" && path != "":
		l.fault(Fault{ID: idBothFile, Name: name, Source: source, Problem: "is set, and so is " + name + "_FILE", Example: "only one of the two"})
	case path != "":
		text = l.secretFile(name, path, source)
	}
	l.read[name] = text
	return NewSecret(text)
}

func (l *loader) secretFile(name, path, source string) string {
	text, err := readFile(path, 64<<10)
	if err == nil && strings.ContainsRune(text, 0) {
		err = errors.New("holds a NUL byte")
	}
	if info, err2 := os.Stat(path); err == nil && err2 == nil && info.Mode().Perm()&0o004 != 0 {
		err = errors.New("readable by everybody; chmod 600")
	}
	if err != nil {
		l.fault(Fault{ID: idSecretFile, Name: name + "_FILE", Source: source, Problem: "the file cannot be used: " + reason(err), Example: "a file of at most 64 KiB, mode 600"})
		return ""
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
}

func (l *loader) mode() {
	env := Environment(strings.ToLower(l.text("ENVIRONMENT", string(Development))))
	switch env {
	case Development, Staging, Production:
	default:
		l.bad(idInvalid, "ENVIRONMENT", "is none of development, staging, production", "production")
		env = Production // the strict reading, so that every other fault shows too
	}
	l.cfg.Environment = env
	l.cfg.Debug = l.flag("DEBUG")
	if l.cfg.Debug && env == Production {
		l.bad(idUnsafe, "DEBUG", "must be off in production", "False")
	}
}

func (l *loader) development() bool { return l.cfg.Environment == Development }

func (l *loader) ports() {
	l.cfg.Listen = l.port("LISTEN", "127.0.0.1:8000")
	l.cfg.AdminListen = l.port("ADMIN_LISTEN", "127.0.0.1:9000")
	l.cfg.AdminToken = l.secret("ADMIN_TOKEN")
	if collide(l.cfg.Listen, l.cfg.AdminListen) {
		l.bad(idConflict, "ADMIN_LISTEN", "is the same as LISTEN", "127.0.0.1:9000")
	}
	if l.development() && !isLoopback(l.cfg.Listen) {
		l.bad(idUnsafe, "LISTEN", "reaches beyond this machine, which needs ENVIRONMENT=staging or production", "127.0.0.1:8000")
	}
	token := l.cfg.AdminToken.Reveal()
	if !isLoopback(l.cfg.AdminListen) && token == "" {
		l.missing("ADMIN_TOKEN", "must be set when ADMIN_LISTEN reaches beyond this machine", "(32 or more random characters)")
	}
	if token != "" && (len(token) < 32 || secret.IsPlaceholder(token)) {
		l.bad(idRange, "ADMIN_TOKEN", "is shorter than 32 characters or an example", "(32 or more random characters)")
	}
}

func (l *loader) port(name, standard string) string {
	text := l.text(name, standard)
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		text = fmt.Sprintf(":%d", n)
	}
	_, port, err := net.SplitHostPort(text)
	if _, err2 := strconv.ParseUint(port, 10, 16); err != nil || err2 != nil {
		l.bad(idInvalid, name, "is not host:port", standard)
		return standard
	}
	return text
}

// collide says that two addresses cannot both be listened on.
func collide(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	all := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return portA == portB && portA != "0" && (hostA == hostB || all(hostA) || all(hostB))
}

func isLoopback(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (l *loader) secrets() {
	l.secretKeys()
	l.cfg.DataDir = l.text("DATA_DIR", "var")
	l.cfg.AdminSubjects = l.list("ADMIN_SUBJECTS")
}

// secretKeys reads the key that signs and those that still verify, under one set of rules: a weak old
// key can forge what is accepted today.
func (l *loader) secretKeys() {
	first := l.secret("SECRET_KEY")
	switch {
	case !first.IsZero():
		l.secretKey("SECRET_KEY", first.Reveal())
		l.cfg.SecretKeys = []Secret{first}
	case !l.development():
		l.fault(Fault{ID: idMissing, Name: "SECRET_KEY", Problem: "must be set: 50 or more random characters", Example: secretExample})
	}
	for _, key := range items(l.secret("SECRET_KEY_FALLBACKS").Reveal()) {
		l.secretKey("SECRET_KEY_FALLBACKS", key)
		l.cfg.SecretKeys = append(l.cfg.SecretKeys, NewSecret(key))
	}
}

const secretExample = `a key from: openssl rand -base64 48`

func (l *loader) secretKey(name, key string) {
	if why := secret.Weakness(key); why != "" {
		l.fault(Fault{ID: idWeakSecret, Name: name, Source: l.source(name), Problem: why, Example: secretExample})
	}
}

func (l *loader) stores() {
	l.database()
	text := l.secret("VALKEY_URL").Reveal()
	l.cfg.Cache = Store{Kind: Memory}
	switch {
	case text == "" && l.development(), text == "memory:":
	case text == "":
		l.missing("VALKEY_URL", "must be named outside development; memory: will do for one machine", valkeyExample)
	default:
		l.valkey(text)
	}
}

func (l *loader) database() {
	const example = "postgresql://user:password@db.internal:5432/app?sslmode=verify-full"
	secret := l.secret("DATABASE_URL")
	text := secret.Reveal()
	scheme, rest, _ := strings.Cut(text, ":")
	l.cfg.Database = Database{Kind: SQLite, Path: filepath.Join(l.cfg.DataDir, "gantry.db")}
	switch {
	case text == "" && l.development():
	case text == "":
		l.missing("DATABASE_URL", "must be named outside development; sqlite: will do for one machine", example)
	case scheme == "sqlite":
		if path := strings.TrimPrefix(rest, "//"); path != "" {
			l.cfg.Database.Path = path
		}
	case scheme == "postgres", scheme == "postgresql":
		l.cfg.Database = Database{Kind: Postgres, URL: secret}
		l.postgres(text, example)
	default:
		l.bad(idInvalid, "DATABASE_URL", "begins with none of postgresql:, postgres:, sqlite:", example)
	}
}

func (l *loader) postgres(text, example string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" && u.Query().Get("host") == "" || len(u.Path) < 2:
		l.bad(idInvalid, "DATABASE_URL", "is not an address with host and database", example)
	case secret.IsPlaceholder(text):
		l.bad(idPlaceholder, "DATABASE_URL", "is still the example from the documentation", example)
	case u.Hostname() != "localhost" && !isLoopback(u.Hostname()+":0") && !strings.HasPrefix(u.Query().Get("sslmode"), "verify-"):
		l.bad(idPolicy, "DATABASE_URL", "has no sslmode=verify-full: the connection can be read or redirected on the way", example)
	}
}
