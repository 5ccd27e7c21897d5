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
	"math/rand/v2"
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

func TestNoRandomKeyIsRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const django = "abcdefghijklmnopqrstuvwxyz0123456789!@#$%^&*(-_=+)"
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	kinds := map[string]func() string{
		"django": func() string {
			b := random(50)
			for i := range b {
				b[i] = django[r.IntN(len(django))]
			}
			return string(b)
		},
		"hex":       func() string { return hex.EncodeToString(random(32)) },
		"base64":    func() string { return base64.StdEncoding.EncodeToString(random(48)) },
		"base64url": func() string { return base64.RawURLEncoding.EncodeToString(random(48)) },
	}
	for name, generate := range kinds {
		for range 50_000 {
			if key := generate(); weakness(key) != "" {
				t.Errorf("%s: %q %s", name, key, weakness(key))
			}
		}
	}
}

func TestRules(t *testing.T) {
	public := "pk_live_" + base64.StdEncoding.EncodeToString([]byte("clerk.example.org$"))
	test := "pk_test_" + base64.StdEncoding.EncodeToString([]byte("x.clerk.accounts.dev$"))
	production := []string{
		"ENVIRONMENT=production", "SECRET_KEY=" + goodKey, "DATABASE_URL=sqlite:", "VALKEY_URL=memory:", "ALLOWED_HOSTS=api.example.org",
		"CLERK_PUBLISHABLE_KEY=" + public, "CLERK_SECRET_KEY=sk_live_abc", "CLERK_AUTHORIZED_PARTIES=https://app.example.org",
	}
	for set, want := range map[string]string{
		"X=":                                  "",
		"ENVIRONMENT=prod":                    idInvalid + " ENVIRONMENT",
		"DEBUG=yes":                           idUnsafe + " DEBUG",
		"ALLOWED_HOSTS=*":                     idUnsafe + " ALLOWED_HOSTS",
		"ALLOWED_HOSTS=":                      idMissing + " ALLOWED_HOSTS",
		"CLERK_PUBLISHABLE_KEY=" + test:       idUnsafe + " CLERK_PUBLISHABLE_KEY",
		"CLERK_SECRET_KEY=sk_test_abc":        idUnsafe + " CLERK_SECRET_KEY",
		"CLERK_WEBHOOK_SIGNING_SECRET=abc":    idInvalid + " CLERK_WEBHOOK_SIGNING_SECRET",
		"CLERK_AUTHORIZED_PARTIES=":           idPolicy + " CLERK_AUTHORIZED_PARTIES",
		"AUTH_ISSUER=https://l.example.org":   idMissing + " AUTH_AUDIENCE",
		"DATABASE_URL=":                       idMissing + " DATABASE_URL",
		"DATABASE_URL=mysql://x/y":            idInvalid + " DATABASE_URL",
		"DATABASE_URL=postgresql://u:p@h.x/a": idPolicy + " DATABASE_URL",
		"VALKEY_URL=redis://localhost:6379/0": "",
		"REQUEST_TIMEOUT=0":                   idRange + " REQUEST_TIMEOUT",
		"REQUEST_TIMEOUT=-5":                  idInvalid + " REQUEST_TIMEOUT",
		"RATE_LIMIT_PER_USER=0":               idInvalid + " RATE_LIMIT_PER_USER",
		"RATE_LIMIT_PER_USER=200/s":           idConflict + " RATE_LIMIT_PER_USER",
		"TRUSTED_PROXIES=0.0.0.0/0":           idUnsafe + " TRUSTED_PROXIES",
		"UPSTREAM_URL=http://u:p@h":           idInvalid + " UPSTREAM_URL",
		"UPSTREAM_URL=http://h/path":          idInvalid + " UPSTREAM_URL",
		"LISTEN=:9000":                        idConflict + " ADMIN_LISTEN",
		"ADMIN_LISTEN=0.0.0.0:9000":           idMissing + " ADMIN_TOKEN",
		"TLS_CERT_FILE=/x":                    idMissing + " TLS_KEY_FILE",
		"DB_POOL_MIN=20":                      idConflict + " DB_POOL_MIN",
		"SECRET_KEY_FILE=/nowhere":            idBothFile + " SECRET_KEY",
		"ADMIN_TOKEN_FILE=/nowhere":           idSecretFile + " ADMIN_TOKEN_FILE",
		"RATE_LIMIT_PER_USERS=5":              idNearMiss + " RATE_LIMIT_PER_USERS",
		"GANTRY_LISTEN=x":                     idUnknown + " GANTRY_LISTEN",
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
		if later := cfg.Unsupported(); name == "good" && len(later) != 2 {
			t.Errorf("Unsupported = %+v, want the two stores", later)
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
	cfg := Config{SecretKey: s, Database: Database{URL: s}}
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
