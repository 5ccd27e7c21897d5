package envfile

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const key = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9iPpQx1RzVbNk4MwS6HgYeDjCuFaO"

// sound is a file with nothing wrong; the cases of the tests below change it.
const sound = `# production
SECRET_KEY=` + key + `
ENVIRONMENT=production
DEBUG=False
ALLOWED_HOSTS=api.acme.org
DATABASE_URL="postgresql://app:kT9-wq.72hLLx@db.acme.org:5432/app?sslmode=verify-full"
VALKEY_URL=rediss://:kT9-wq.72hLLx@cache.acme.org:6379/0
SENTRY_DSN=https://1b2c@o1.ingest.sentry.io/2
CLERK_SECRET_KEY=sk_live_Xw0aaaaaaaaaaaaaaa
export CLERK_PUBLISHABLE_KEY='pk_live_Y2xlcms' # of the live instance
`

func check(t *testing.T, text string) []Fault {
	t.Helper()
	faults, err := Check(strings.NewReader(text), ".env")
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

// brief is what a table compares: "ID severity NAME:line".
func brief(faults []Fault) []string {
	out := []string{}
	for _, f := range faults {
		out = append(out, fmt.Sprintf("%s %s %s:%d", f.ID, f.Severity, f.Name, f.Line))
	}
	return out
}

func TestSoundFilesHaveNoFaults(t *testing.T) {
	for name, text := range map[string]string{
		"the document's": sound,
		"laravel": "APP_ENV=production\nAPP_KEY=base64:" + key[:43] + "=\nAPP_DEBUG=false\nAPP_URL=https://acme.org\n" +
			"DB_HOST=db\nDB_PASSWORD=kT9-wq.72hLLx\nCACHE_DRIVER=redis\nSENTRY_LARAVEL_DSN=https://1b2c@o1.ingest.sentry.io/2\n",
		"express": "NODE_ENV=production\nJWT_SECRET=" + key[:44] + "\nSESSION_SECRET=550e8400-e29b-41d4-a716-446655440000\nMONGO_URL=mongodb+srv://app:kT9wq72@c.mongodb.net/app\n" +
			"REDIS_URL=redis://127.0.0.1:6379\nSENTRY_DSN=https://1b2c@o1.ingest.sentry.io/2\nPUBLIC_URL=https://acme.org\nDEBUG=express:*\nSTRIPE_SECRET_KEY=sk_live_aaaaaaaa\n",
		"rails": "RAILS_ENV=production\nSECRET_KEY_BASE=" + strings.Repeat("0f3c9a17b2d84e65", 1) + "8a1d0e4c7b93f526" + "c2f19d07e5ab8436\nDATABASE_URL=mysql2://app:kT9wq72@db.acme.org/app?sslmode=verify_identity\n" +
			"REDIS_URL=redis://[::1]:6379\nROLLBAR_ACCESS_TOKEN=aaaa\nRAILS_HOSTS=acme.org\nJWT_PUBLIC_KEY=abc\nAWS_SECRET_ACCESS_KEY=short\n",
		"secrets in files":       strings.ReplaceAll(sound, "SECRET_KEY="+key, "SECRET_KEY_FILE=/run/secrets/key"),
		"a key of several lines": sound + "CLERK_JWT_KEY=\"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\"\n",
		"socket":                 strings.ReplaceAll(sound, "@db.acme.org:5432/app?sslmode=verify-full", "@/app?host=/run/postgresql"),
		"ssl by libpq's name":    "PGSSLMODE=verify-full\n" + strings.ReplaceAll(sound, "?sslmode=verify-full", ""),
		"windows line ends":      strings.ReplaceAll(sound, "\n", "\r\n"),
	} {
		if diff := cmp.Diff(brief(check(t, text)), []string{}); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
}

func TestEveryFaultIsNamedWithItsLine(t *testing.T) {
	for _, c := range []struct {
		set  string // replaces the line of its name, or is added
		want []string
	}{
		{"SECRET_KEY=django-insecure-" + key, []string{"env-weak-secret critical SECRET_KEY:2"}},
		{"SECRET_KEY=" + key[:44], []string{"env-weak-secret critical SECRET_KEY:2"}},
		{"SECRET_KEY=<generated_key_here>", []string{"env-weak-secret critical SECRET_KEY:2"}},
		{"SECRET_KEY=", []string{"env-missing critical SECRET_KEY:2"}},
		{"JWT_SECRET=keyboard-cat", []string{"env-weak-secret critical JWT_SECRET:11"}},
		{"SESSION_SECRET=" + strings.Repeat("a", 64), []string{"env-weak-secret critical SESSION_SECRET:11"}},
		{"SECRET_KEY_FALLBACKS=" + key + ",old", []string{"env-weak-secret critical SECRET_KEY_FALLBACKS:11"}},
		{"ENVIRONMENT=staging", []string{"env-not-production high ENVIRONMENT:3"}},
		{"ENVIRONMENT=prod", []string{"env-not-production low ENVIRONMENT:3"}},
		{"ENVIRONMENT=", []string{"env-missing high ENVIRONMENT:3"}},
		{"FLASK_ENV=development", []string{"env-not-production high FLASK_ENV:11"}},
		{"DEBUG=True", []string{"env-debug critical DEBUG:4"}},
		{"FLASK_DEBUG=1", []string{"env-debug critical FLASK_DEBUG:11"}},
		{"ALLOWED_HOSTS=*", []string{"env-wildcard high ALLOWED_HOSTS:5"}},
		{"ALLOWED_HOSTS=[\"api.acme.org\", \"*\"]", []string{"env-wildcard high ALLOWED_HOSTS:5"}},
		{"ALLOWED_HOSTS=api.yourdomain.com", []string{"env-placeholder high ALLOWED_HOSTS:5"}},
		{"CORS_ORIGINS=https://acme.org,*", []string{"env-wildcard high CORS_ORIGINS:11"}},
		{"CORS_ALLOW_ALL_ORIGINS=true", []string{"env-wildcard high CORS_ALLOW_ALL_ORIGINS:11"}},
		{"CLERK_SECRET_KEY=sk_test_aaaaaaaaaaaa", []string{"env-test-key critical CLERK_SECRET_KEY:9"}},
		{"CLERK_PUBLISHABLE_KEY=pk_test_aaaaaaaa", []string{"env-test-key critical CLERK_PUBLISHABLE_KEY:10"}},
		{"CLERK_ISSUER=https://x.accounts.dev", []string{"env-test-key critical CLERK_ISSUER:11"}},
		{"STRIPE_SECRET_KEY=sk_test_aaaaaaaaaaaa", []string{"env-test-key high STRIPE_SECRET_KEY:11"}},
		{"CLERK_SECRET_KEY=", []string{"env-missing high CLERK_SECRET_KEY:9"}},
		{"DATABASE_URL=postgresql://app:kT9wq72@db.acme.org/app", []string{"env-plain-database high DATABASE_URL:6"}},
		{"DATABASE_URL=postgresql+asyncpg://app:kT9wq72@db/app?ssl=disable", []string{"env-plain-database medium DATABASE_URL:6"}},
		{"DATABASE_URL=postgres://app:kT9wq72@10.0.0.7/app?sslmode=require", []string{"env-plain-database high DATABASE_URL:6"}},
		{"DATABASE_URL=mysql://app:kT9wq72@db.acme.org/app?tls=false", []string{"env-plain-database high DATABASE_URL:6"}},
		{"DATABASE_URL=mongodb://app:kT9wq72@db.acme.org/app", []string{"env-plain-database high DATABASE_URL:6"}},
		{"DATABASE_URL=postgresql://user:pass@host:5432/dbname", []string{
			"env-example-pass high DATABASE_URL:6", "env-placeholder high DATABASE_URL:6", "env-plain-database medium DATABASE_URL:6",
		}},
		{"DATABASE_URL=postgresql://postgres:postgres@localhost/app", []string{"env-example-pass medium DATABASE_URL:6"}},
		{"DATABASE_URL=postgresql://acme:acme@db.acme.org/app?sslmode=verify-full", []string{"env-example-pass high DATABASE_URL:6"}},
		{"POSTGRES_PASSWORD=postgres", []string{"env-example-pass high POSTGRES_PASSWORD:11"}},
		{"VALKEY_URL=redis://cache.acme.org:6379/0", []string{"env-plain-cache high VALKEY_URL:7"}},
		{"VALKEY_URL=redis://cache/0", []string{"env-plain-cache medium VALKEY_URL:7"}},
		{"SENTRY_DSN=", []string{"env-missing high SENTRY_DSN:8"}},
		{"OPENAI_TOKEN=${OPENAI_TOKEN}", []string{"env-placeholder high OPENAI_TOKEN:11"}},
		{"RATE_LIMIT_PER_USERS=5", []string{"env-near-miss high RATE_LIMIT_PER_USERS:11"}},
		{"REQUEST_TIEMOUT=5", []string{"env-near-miss high REQUEST_TIEMOUT:11"}},
		{"A=1\nA=2", []string{"env-duplicate medium A:12"}},
		{"not a line", []string{"env-unreadable medium :11"}},
		{"B='open", []string{"env-unreadable medium B:11"}},
		{"B='shut' and more", []string{"env-unreadable medium B:11"}},
	} {
		if diff := cmp.Diff(brief(check(t, replaced(c.set))), c.want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", c.set, diff)
		}
	}
}

// replaced is the sound file with one line changed or added.
func replaced(set string) string {
	name, _, _ := strings.Cut(set, "=")
	lines := strings.Split(sound, "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimPrefix(line, "export "), name+"=") {
			lines[i] = set
			return strings.Join(lines, "\n")
		}
	}
	return sound + set
}

func TestAnEmptyFileMissesWhatTheDocumentRequires(t *testing.T) {
	want := []string{
		"env-missing medium ALLOWED_HOSTS:0", "env-missing high DATABASE_URL:0", "env-missing high ENVIRONMENT:0",
		"env-missing critical SECRET_KEY:0", "env-missing high SENTRY_DSN:0", "env-missing medium VALKEY_URL:0",
	}
	if diff := cmp.Diff(brief(check(t, "")), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestTestKeysAreRightOutsideProduction(t *testing.T) {
	text := strings.Replace(replaced("CLERK_SECRET_KEY=sk_test_aaaaaaaaaaaa"), "=production", "=staging", 1)
	want := []string{"env-not-production high ENVIRONMENT:3"}
	if diff := cmp.Diff(brief(check(t, text)), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}

func TestEveryFaultSaysWhatAndHowToFixIt(t *testing.T) {
	all := "DEBUG=1\nSECRET_KEY=x\nALLOWED_HOSTS=*\nCORS_ORIGINS=*\nDATABASE_URL=postgres://a:a@h.example/x\nREDIS_URL=redis://h.example\nENVIRONMENT=dev\nX\nX=1\nX=2\n"
	faults := check(t, all)
	if len(faults) < 9 {
		t.Fatalf("%d faults, want 9 or more", len(faults))
	}
	for _, f := range faults {
		if f.What == "" || f.Fix == "" || f.Severity == "" {
			t.Errorf("%+v is not complete", f)
		}
	}
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	broken := errors.New("broken")
	for name, r := range map[string]io.Reader{
		"broken": iotest.ErrReader(broken),
		"large":  strings.NewReader(strings.Repeat("#", MaxBytes+1)),
	} {
		faults, err := Check(r, "the.env")
		if err == nil || !strings.Contains(err.Error(), "the.env") || faults != nil {
			t.Errorf("%s: %v, %v; want an error that names the file", name, faults, err)
		}
	}
}

func TestAHostileFileMakesABoundedReport(t *testing.T) {
	if got := len(check(t, strings.Repeat("x\n", 100_000))); got != maxFaults {
		t.Errorf("%d faults, want %d", got, maxFaults)
	}
	if got := len(check(t, strings.Repeat("A='\n", 100_000))); got == 0 || got > maxFaults {
		t.Errorf("%d faults, want 1 to %d", got, maxFaults)
	}
}

func FuzzCheckNeverPrintsAValue(f *testing.F) {
	f.Add(sound, "kT9-wq.72hLLx")
	f.Add("SECRET_KEY=%s\nDEBUG=1", "hunter2hunter2")
	f.Add("DATABASE_URL=postgres://u:%s@h/x?sslmode=%s\nX='%s", "s3cr3tPassw0rd")
	f.Add("export A=\"\\n%s\"\nA=%s\n%s", "\x00'\"=#")
	f.Fuzz(func(t *testing.T, text, value string) {
		const canary = "c4n4ryqzx"
		text = strings.ReplaceAll(text, "%s", canary+value)
		lines := strings.Split(text, "\n")
		faults, err := Check(strings.NewReader(text), ".env")
		if err != nil {
			return
		}
		for _, fault := range faults {
			if strings.Contains(fault.What+fault.Fix, canary) {
				t.Errorf("%+v holds a value", fault)
			}
			if before, _, _ := strings.Cut(lines[max(fault.Line, 1)-1], "="); fault.Line > 0 && !strings.Contains(before, fault.Name) {
				t.Errorf("%+v has a name that is no name in its line", fault)
			}
		}
	})
}
