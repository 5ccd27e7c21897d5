package config

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goodKey = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9iPpQx1RzVbNk4MwS6HgYeDjCuFaO"

func TestSecretKeyVectors(t *testing.T) {
	text, err := os.ReadFile("../../../shared/vectors/gantry/secret_key_cases.json")
	if err != nil {
		t.Skipf("the shared test vectors are absent: %v", err)
	}
	var file struct {
		Cases []struct {
			Value, Why string
			Valid      bool
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(c.Value), 0o600); err != nil {
			t.Fatal(err)
		}
		_, report := Load(Sources{Dir: t.TempDir(), Environ: []string{"ENVIRONMENT=production", "SECRET_KEY_FILE=" + path}})
		valid := !slices.ContainsFunc(report.Faults, func(f Fault) bool { return f.Name == "SECRET_KEY" })
		if valid != c.Valid {
			t.Errorf("%q accepted = %v, want %v (%s)", c.Value, valid, c.Valid, c.Why)
		}
	}
}

func TestRules(t *testing.T) {
	public := "pk_live_" + base64.StdEncoding.EncodeToString([]byte("clerk.example.org$"))
	test := "pk_test_" + base64.StdEncoding.EncodeToString([]byte("x.clerk.accounts.dev$"))
	production := []string{
		"ENVIRONMENT=production", "SECRET_KEY=" + goodKey, "DATABASE_URL=sqlite:", "VALKEY_URL=memory:", "ALLOWED_HOSTS=api.example.org",
		"CLERK_PUBLISHABLE_KEY=" + public, "CLERK_SECRET_KEY=sk_live_abc", "CLERK_AUTHORIZED_PARTIES=https://app.example.org",
		"SLACK_WEBHOOK_URL=https://hooks.example.org/services/T0/B0/x",
	}
	for set, want := range map[string]string{
		"X=":                               "",
		"ENVIRONMENT=prod":                 idInvalid + " ENVIRONMENT",
		"DEBUG=yes":                        idUnsafe + " DEBUG",
		"ALLOWED_HOSTS=*":                  idUnsafe + " ALLOWED_HOSTS",
		"ALLOWED_HOSTS=":                   idMissing + " ALLOWED_HOSTS",
		"CLERK_PUBLISHABLE_KEY=" + test:    idUnsafe + " CLERK_PUBLISHABLE_KEY",
		"CLERK_SECRET_KEY=sk_test_abc":     idUnsafe + " CLERK_SECRET_KEY",
		"CLERK_WEBHOOK_SIGNING_SECRET=abc": idInvalid + " CLERK_WEBHOOK_SIGNING_SECRET",
		"CLERK_WEBHOOK_SIGNING_SECRET=" + base64.StdEncoding.EncodeToString([]byte(goodKey[:32])): idInvalid + " CLERK_WEBHOOK_SIGNING_SECRET",
		"CLERK_AUTHORIZED_PARTIES=":                                  idPolicy + " CLERK_AUTHORIZED_PARTIES",
		"AUTH_ISSUER=https://l.example.org":                          idMissing + " AUTH_AUDIENCE",
		"DATABASE_URL=":                                              idMissing + " DATABASE_URL",
		"DATABASE_URL=mysql://x/y":                                   idInvalid + " DATABASE_URL",
		"DATABASE_URL=postgresql://u:p@h.x/a":                        idPolicy + " DATABASE_URL",
		"VALKEY_URL=redis://localhost:6379/0":                        "",
		"VALKEY_URL=redis://h.example.org":                           idPolicy + " VALKEY_URL",
		"VALKEY_CA_FILE=/nowhere":                                    "",
		"VALKEY_URL=redis://localhost/99":                            idInvalid + " VALKEY_URL",
		"VALKEY_URL=redis://a,b/1":                                   idInvalid + " VALKEY_URL",
		"SECRET_KEY_FALLBACKS=" + goodKey + ",short":                 idWeakSecret + " SECRET_KEY_FALLBACKS",
		"SECRET_KEY_FALLBACKS=" + goodKey:                            "",
		"CLERK_API_URL=http://evil.example":                          idInvalid + " CLERK_API_URL",
		"INSTANCES=0":                                                idRange + " INSTANCES",
		"REQUEST_TIMEOUT=0":                                          idRange + " REQUEST_TIMEOUT",
		"REQUEST_TIMEOUT=-5":                                         idInvalid + " REQUEST_TIMEOUT",
		"RATE_LIMIT_PER_USER=0":                                      idInvalid + " RATE_LIMIT_PER_USER",
		"RATE_LIMIT_PER_USER=200/s":                                  idConflict + " RATE_LIMIT_PER_USER",
		"TRUSTED_PROXIES=0.0.0.0/0":                                  idUnsafe + " TRUSTED_PROXIES",
		"UPSTREAM_URL=http://u:p@h":                                  idInvalid + " UPSTREAM_URL",
		"UPSTREAM_URL=http://h/path":                                 idInvalid + " UPSTREAM_URL",
		"ROLLOUT_COOKIE=session; path":                               idInvalid + " ROLLOUT_COOKIE",
		"LISTEN=:9000":                                               idConflict + " ADMIN_LISTEN",
		"ADMIN_LISTEN=0.0.0.0:9000":                                  idMissing + " ADMIN_TOKEN",
		"TLS_CERT_FILE=/x":                                           idMissing + " TLS_KEY_FILE",
		"TLS_KEY_FILE=/x":                                            idMissing + " TLS_CERT_FILE",
		"DB_POOL_MIN=20":                                             idConflict + " DB_POOL_MIN",
		"SECRET_KEY_FILE=/nowhere":                                   idBothFile + " SECRET_KEY",
		"ADMIN_TOKEN_FILE=/nowhere":                                  idSecretFile + " ADMIN_TOKEN_FILE",
		"RATE_LIMIT_PER_USERS=5":                                     idNearMiss + " RATE_LIMIT_PER_USERS",
		"GANTRY_LISTEN=x":                                            idUnknown + " GANTRY_LISTEN",
		"SLACK_WEBHOOK_URL=":                                         idPolicy + " PAGERDUTY_ROUTING_KEY",
		"SLACK_WEBHOOK_URL=http://hooks.example.org":                 idInvalid + " SLACK_WEBHOOK_URL",
		"SLACK_WEBHOOK_URL=http://127.0.0.1:1/x":                     "",
		"SLACK_WEBHOOK_URLS=x":                                       idNearMiss + " SLACK_WEBHOOK_URLS",
		"PAGERDUTY_ROUTING_KEY=short":                                idInvalid + " PAGERDUTY_ROUTING_KEY",
		"PAGERDUTY_ROUTING_KEY=" + goodKey[:32]:                      "",
		"SMTP_URL=smtp://mail.example.org":                           idMissing + " ALERT_EMAIL_FROM",
		"ALERT_EMAIL_TO=a@example.org":                               idMissing + " SMTP_URL",
		"ALERT_WEBHOOK_URL=ftp://h":                                  idInvalid + " ALERT_WEBHOOK_URL",
		"ALERT_WEBHOOK_URL=http://h.example.org/x":                   idPolicy + " ALERT_WEBHOOK_URL",
		"ALERT_WEBHOOK_SECRET=abc":                                   idInvalid + " ALERT_WEBHOOK_SECRET",
		"DASHBOARD_URL=gantry.example.org":                           idInvalid + " DASHBOARD_URL",
		"SENTRY_DSN=https://abc@o1.ingest.sentry.io/42":              "",
		"SENTRY_DSN=http://abc@o1.ingest.sentry.io/42":               idPolicy + " SENTRY_DSN",
		"SENTRY_DSN=https://o1.ingest.sentry.io/42":                  idInvalid + " SENTRY_DSN",
		"SENTRY_DSN=https://abc@o1.ingest.sentry.io/":                idInvalid + " SENTRY_DSN",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example.org":  "",
		"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318":                 idInvalid + " OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://u:p@x":           idInvalid + " OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317":          idPolicy + " OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/json":                      idInvalid + " OTEL_EXPORTER_OTLP_PROTOCOL",
		"OTEL_EXPORTER_OTLP_HEADERS=secret":                          idInvalid + " OTEL_EXPORTER_OTLP_HEADERS",
		"OTEL_EXPORTER_OTLP_HEADERS=a b=c":                           idInvalid + " OTEL_EXPORTER_OTLP_HEADERS",
		"OTEL_EXPORTER_OTLP_HEADERS=a=%0a":                           idInvalid + " OTEL_EXPORTER_OTLP_HEADERS",
		"OTEL_EXPORTER_OTLP_COMPRESSION=zstd":                        idInvalid + " OTEL_EXPORTER_OTLP_COMPRESSION",
		"OTEL_EXPORTER_OTLP_TIMEOUT=0":                               idRange + " OTEL_EXPORTER_OTLP_TIMEOUT",
		"OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere":                    idInvalid + " OTEL_EXPORTER_OTLP_CERTIFICATE",
		"OTEL_TRACES_SAMPLER=sometimes":                              idInvalid + " OTEL_TRACES_SAMPLER",
		"OTEL_TRACES_EXPORTER=console":                               idInvalid + " OTEL_TRACES_EXPORTER",
		"OTEL_RESOURCE_ATTRIBUTES=nothing":                           idInvalid + " OTEL_RESOURCE_ATTRIBUTES",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.nr-data.net:4317":  idPolicy + " OTEL_EXPORTER_OTLP_HEADERS",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.us3.datadoghq.com": idPolicy + " OTEL_EXPORTER_OTLP_HEADERS",
	} {
		_, report := Load(Sources{Dir: t.TempDir(), Environ: append(slices.Clone(production), set)})
		var got []string
		for _, f := range report.Faults {
			got = append(got, f.ID+" "+f.Name)
		}
		if want == "" && len(got) > 0 || want != "" && !slices.Contains(got, want) {
			t.Errorf("%s: %v, want %q", set, got, want)
		}
	}
}

const placeholders = `SECRET_KEY=<generated_key_here>
CLERK_SECRET_KEY=<your_clerk_secret>
CLERK_PUBLISHABLE_KEY=<your_clerk_publishable_key>
DATABASE_URL=postgresql://user:pass@host:5432/dbname
VALKEY_URL=redis://localhost:6379/0
ENVIRONMENT=production
DEBUG=False
ALLOWED_HOSTS=api.yourdomain.com
`

// TestDocumentsEnvironment keeps what an operator reads for the document's .env in five states.
func TestDocumentsEnvironment(t *testing.T) {
	good := strings.NewReplacer(
		"<generated_key_here>", goodKey, "<your_clerk_secret>", "sk_live_abcdef", "user:pass@host", "app:s3cr3t@db.example.org",
		"<your_clerk_publishable_key>", "pk_live_"+base64.StdEncoding.EncodeToString([]byte("clerk.example.org$")), "yourdomain.com", "example.org",
	).Replace(placeholders)
	for name, text := range map[string]string{
		"placeholders": placeholders,
		"missing":      strings.ReplaceAll(good, "SECRET_KEY="+goodKey+"\n", ""),
		"short":        strings.ReplaceAll(good, goodKey, goodKey[:30]),
		"example":      strings.ReplaceAll(good, goodKey, "django-insecure-change-this-in-production"),
		"good":         good,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, report := Load(Sources{Dir: dir})
		var b strings.Builder
		if err := report.WriteText(&b); err != nil || report.OK() != (name == "good") {
			t.Errorf("%s: ok = %v, %v", name, report.OK(), err)
		}
		if strings.Contains(b.String(), "s3cr3t") || strings.Contains(b.String(), goodKey[:30]) {
			t.Errorf("%s: a value is shown", name)
		}
		golden(t, filepath.Join("testdata", name+".golden"), b.String())
		if name == "good" && (cfg.Database.Kind != Postgres || cfg.Cache.Kind != Valkey) {
			t.Errorf("stores = %v, %v", cfg.Database.Kind, cfg.Cache)
		}
	}
}

func TestValkeyAddresses(t *testing.T) {
	for text, want := range map[string]Store{
		"redis://localhost":                 {Addrs: []string{"localhost:6379"}},
		"valkey://[::1]:7000/3":             {Addrs: []string{"[::1]:7000"}, DB: 3},
		"rediss://app:p%40ss@a:1,b,[::2]:3": {Addrs: []string{"a:1", "b:6379", "[::2]:3"}, Username: "app", Password: NewSecret("p@ss"), TLS: true},
		"redis://:only@h:6379/0":            {Addrs: []string{"h:6379"}, Password: NewSecret("only")},
	} {
		got, err := parseValkey(text)
		want.Kind = Valkey
		if err != nil || got.Password.Reveal() != want.Password.Reveal() {
			t.Errorf("%s: %v", text, err)
		}
		got.Password, want.Password = Secret{}, Secret{}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, text := range []string{"redis://", "redis://h:port", "http://h", "redis:h", "redis://h/x", "redis://h/0?x=1", "redis://h,/0"} {
		if got, err := parseValkey(text); err == nil {
			t.Errorf("%s was read as %+v", text, got)
		}
	}
}

func TestValkeysAuthorityIsCheckedWithTheRest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "garbage.pem"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(dir, "nowhere.pem"), filepath.Join(dir, "garbage.pem")} {
		_, report := Load(Sources{Dir: dir, Environ: []string{"VALKEY_URL=rediss://localhost", "VALKEY_CA_FILE=" + file}})
		if len(report.Faults) != 1 || report.Faults[0].ID != idInvalid || report.Faults[0].Name != "VALKEY_CA_FILE" {
			t.Errorf("%s: %+v", file, report.Faults)
		}
	}
}

// TestKeysAreReadAsAList is the rotation of secrets: the first signs, all verify.
func TestKeysAreReadAsAList(t *testing.T) {
	second := strings.ToLower(goodKey[:30]) + strings.ToUpper(goodKey[30:])
	cfg, report := Load(Sources{Dir: t.TempDir(), Environ: []string{
		"SECRET_KEY=" + goodKey, "SECRET_KEY_FALLBACKS=" + second + "," + goodKey,
		"CLERK_WEBHOOK_SIGNING_SECRET=whsec_" + base64.StdEncoding.EncodeToString([]byte(goodKey[:24])) + ", whsec_" + base64.StdEncoding.EncodeToString([]byte(goodKey[24:48])),
	}})
	if !report.OK() || len(cfg.SecretKeys) != 3 || cfg.SecretKeys[0].Reveal() != goodKey || cfg.SecretKeys[1].Reveal() != second || len(cfg.ClerkWebhookSecrets) != 2 {
		t.Errorf("%d keys, %d webhook secrets, %+v", len(cfg.SecretKeys), len(cfg.ClerkWebhookSecrets), report.Faults)
	}
}

// TestEverySettingIsDocumented keeps the table of docs/configuration.md whole, and without strangers.
func TestEverySettingIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for name := range strings.SplitSeq(cells[1], ",") {
				documented[strings.TrimSpace(name)] = true
			}
		}
	}
	for _, s := range settings {
		if !documented[s.name] {
			t.Errorf("%s is not in docs/configuration.md", s.name)
		}
	}
	ours := known()
	for name := range documented {
		if _, ok := ours[name]; !ok && name == strings.ToUpper(name) && isName(name) {
			t.Errorf("docs/configuration.md names %s, which is no setting", name)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v %s", path, err, cmp.Diff(string(want), got))
	}
}

func yamlFaults(t testing.TB, text string) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gantry.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, report := Load(Sources{Dir: dir})
	var b strings.Builder
	for _, f := range report.Faults {
		fmt.Fprintln(&b, f.ID, f.Name, f.Source, f.Problem)
	}
	return cfg, b.String()
}

func TestYAML(t *testing.T) {
	cfg, faults := yamlFaults(t, "plans:\n  pro: 1000/min\nroutes:\n  - path: /public/\n    auth: none\n  - path: /login\n    methods: [POST]\n    limit: 10/min\n")
	if faults != "" || len(cfg.Routes) != 2 || cfg.Routes[1].Pattern != "POST /login" || cfg.Routes[1].Limit.Limit != 10 || cfg.Limits.Plans["pro"].Limit != 1000 {
		t.Errorf("%+v %v", cfg.Routes, faults)
	}
	for text, want := range map[string]string{
		"routes:\n  - path: /a\n    atuh: none\n":                     "gantry.yaml:3:5 is not a key; did you mean auth?",
		"routes:\n  - path: /a/{x}/b\n  - path: /a/b/{y}\n":           "gantry.yaml:3",
		"routes:\n  - path: /a\n    auth: maybe\n":                    "none of required",
		"a: &x 1\nb: *x\n":                                            "without anchors",
		"routes: []\n---\nroutes: []\n":                               "one document",
		"routes:\n  - path: /a\n    max_body: 99999999999999999999\n": "wrong type",
		"routes: [":          "not valid YAML",
		"plans:\n  pro: 0\n": "plans.pro",
	} {
		if _, faults := yamlFaults(t, text); !strings.Contains(faults, want) || strings.Contains(faults, "99999999") {
			t.Errorf("%q: %v, want %q", text, faults, want)
		}
	}
}

func TestEnvFile(t *testing.T) {
	var at []string
	got := parseEnv("\ufeff# c\r\nexport A=1\r\nB='a # b' # c\nC=\"x\\ny\\\"\"\nD=\nE=a # c\nA=2\nnonsense\nF='x\nG='x' y\n", ".env", func(f Fault) { at = append(at, f.ID+" "+f.Source) })
	for name, text := range map[string]string{"A": "1", "B": "a # b", "C": "x\ny\"", "D": "", "E": "a"} {
		if got[name].text != text {
			t.Errorf("%s = %q, want %q", name, got[name].text, text)
		}
	}
	if diff := cmp.Diff([]string{idDuplicate + " .env:7", idSyntax + " .env:8", idSyntax + " .env:9", idSyntax + " .env:10"}, at); diff != "" {
		t.Error(diff)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	s := NewSecret(goodKey)
	cfg := Config{Reloadable: Reloadable{SecretKeys: []Secret{s}}, Database: Database{URL: s}, Cache: Store{Password: s}}
	hidden := struct{ inner Config }{cfg}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{s, cfg, hidden} {
			fmt.Fprintf(&out, verb, v)
		}
	}
	text, err := json.Marshal(cfg)
	out.Write(text)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "cfg", cfg)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "cfg", cfg)
	if err != nil || strings.Contains(out.String(), goodKey) || strings.Contains(out.String(), hex.EncodeToString([]byte(goodKey))) {
		t.Errorf("%v: the secret is in %s", err, out.String())
	}
	if !s.Matches(goodKey) || s.Matches("x") || (Secret{}).Matches("") {
		t.Error("Matches is wrong")
	}
}

func FuzzEnv(f *testing.F) {
	f.Add("A=1\nexport B='x'\n")
	f.Add("A=\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		for name := range parseEnv(text, ".env", func(Fault) {}) {
			if !isName(name) {
				t.Errorf("name %q", name)
			}
		}
	})
}

func FuzzYAML(f *testing.F) {
	f.Add("routes:\n  - path: /a\n")
	f.Add("plans: {a: 1/s}")
	f.Fuzz(func(t *testing.T, text string) { yamlFaults(t, text) })
}

func TestTracesAreOffUntilTheyAreWanted(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"OTEL_TRACES_EXPORTER=otlp": "http://localhost:4318/v1/traces",
		"OTEL_TRACES_EXPORTER=none OTEL_EXPORTER_OTLP_ENDPOINT=http://c":                         "",
		"OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_ENDPOINT=http://c":                            "",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://c/base/":                                            "https://c/base/v1/traces",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://c/base OTEL_EXPORTER_OTLP_ENDPOINT=http://d": "https://c/base",
		"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=grpc":                             "http://localhost:4317",
	} {
		cfg, report := Load(Sources{Dir: t.TempDir(), Environ: strings.Fields(text)})
		got := ""
		if cfg.Traces.Endpoint != nil {
			got = cfg.Traces.Endpoint.String()
		}
		if got != want || !report.OK() {
			t.Errorf("%s: endpoint %q, want %q; %+v", text, got, want, report.Faults)
		}
	}
}

func TestSamplersAreThoseOfTheStandard(t *testing.T) {
	for text, want := range map[string]Traces{
		"":                              {ParentBased: true, Ratio: 1},
		"OTEL_TRACES_SAMPLER=always_on": {Ratio: 1},
		"OTEL_TRACES_SAMPLER=parentbased_always_off":                                  {ParentBased: true},
		"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=0.25":               {Ratio: 0.25},
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.0001": {ParentBased: true, Ratio: 0.0001},
	} {
		cfg, report := Load(Sources{Dir: t.TempDir(), Environ: strings.Fields(text)})
		if got := cfg.Traces; got.ParentBased != want.ParentBased || got.Ratio != want.Ratio || !report.OK() {
			t.Errorf("%s: %v %v, want %v %v", text, got.ParentBased, got.Ratio, want.ParentBased, want.Ratio)
		}
	}
	for _, arg := range []string{"1.1", "-0.1", "NaN", "half"} {
		if _, report := Load(Sources{Dir: t.TempDir(), Environ: []string{"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + arg}}); report.OK() {
			t.Errorf("a share of %s is accepted", arg)
		}
	}
}

func TestHeadersOfTracesAreDecodedAndNeverShown(t *testing.T) {
	cfg, report := Load(Sources{Dir: t.TempDir(), Environ: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318", "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Basic%20canary-1, x-scope = canary-2",
	}})
	if got := cfg.Traces.Headers["authorization"].Reveal(); got != "Basic canary-1" || cfg.Traces.Headers["x-scope"].Reveal() != "canary-2" {
		t.Errorf("headers %q; %+v", got, report.Faults)
	}
	if text := fmt.Sprintf("%+v %#v %s", cfg, cfg, report); strings.Contains(text, "canary") {
		t.Error("a header's value is printed with the configuration")
	}
}
