package realtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/openapi"
	"github.com/gantryhq/gantry/internal/testenv"
)

// python is Debian's, which has Debian's Django.
const python = "/usr/bin/python3"

// debianDjango finds the Django, PyJWT and gunicorn of Debian 12, or installs them. Others may behave otherwise, and the outcomes
// are argued for these: PyJWT 2.6.0 with the security update by which it refuses crit.
func debianDjango(t *testing.T) {
	t.Helper()
	const check = "import django, jwt, inspect, cryptography, gunicorn\n" +
		"assert (django.VERSION[:2], jwt.__version__, gunicorn.__version__) == ((3, 2), '2.6.0', '20.1.0'), 'these are not the versions of Debian 12'\n" +
		"assert 'crit' in inspect.getsource(jwt.api_jws), 'PyJWT lacks the security update'"
	there := func() ([]byte, error) { return exec.Command(python, "-c", check).CombinedOutput() }
	if _, err := there(); err == nil {
		return
	}
	packages := []string{"python3-django", "python3-jwt", "python3-cryptography", "gunicorn"}
	if os.Geteuid() != 0 {
		t.Skipf("only root can install Debian's Django: apt-get install %s", strings.Join(packages, " "))
	}
	install(t, "", "apt-get", "update", "-qq")
	install(t, "", "apt-get", append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)...)
	if out, err := there(); err != nil {
		t.Skipf("Debian's Django: %v\n%s", err, tail(out))
	}
}

// gunicorn serves an application of testdata/django with sync workers. Eight of them, because four dripping clients and a
// slow request hold a sync worker each, and what else is asked meanwhile must not wait for them.
func gunicorn(t *testing.T, app string, env []string, options ...string) (url string) {
	t.Helper()
	debianDjango(t)
	address := testenv.FreeAddress(t)
	env = append(env, "DATABASE="+filepath.Join(t.TempDir(), "notes.db"), "PYTHONDONTWRITEBYTECODE=1")
	fill := exec.Command(python, app+".py")
	fill.Dir, fill.Env = "testdata/django", append(os.Environ(), env...)
	if out, err := fill.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", app, err, tail(out))
	}
	cmd := exec.Command("/usr/bin/gunicorn", append([]string{"--bind", address, "--workers", "8", "--preload", app + ":application"}, options...)...)
	cmd.Dir, cmd.Env = fill.Dir, fill.Env
	ownGroup(t, cmd, "http://"+address+"/healthz")
	return "http://" + address
}

// ownGroup serves a program that has children, and ends them with it.
func ownGroup(t *testing.T, cmd *exec.Cmd, url string) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	serve(t, cmd, url)
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
}

// described tells a target what testdata/django/openapi.yaml says.
func described(t *testing.T, target *audit.Target) {
	t.Helper()
	file := "testdata/django/openapi.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openapi.Read(file, data)
	if err != nil {
		t.Fatal(err)
	}
	openapi.Fill(target, d.Operations)
	target.SlowPath, target.HealthPath = "/slow", "/healthz"
	target.ObjectA, target.ObjectB = "/notes/1", "/notes/2"
}

// TestDjangoThatDecodesTokens is the API that the audit exists for. Garbage is refused with 401, and that proves nothing.
func TestDjangoThatDecodesTokens(t *testing.T) {
	url := gunicorn(t, "naive", nil, "--timeout", "120")
	policy := audit.Policy{SlowClient: 6 * time.Second, Deadline: 2 * time.Second, Grace: time.Second, RateLimit: 20, RateWindow: 2 * time.Second}
	audited(t, url, policy, knowingDjango(t), table{
		// Whatever decodes is believed: every forgery that is three parts of base64.
		"JWT-01": failCritical, "JWT-02": failCritical, "JWT-03": failCritical, "JWT-05": failCritical, "JWT-07": failCritical,
		"JWT-09": failCritical, "JWT-10": failCritical, "JWT-11": failCritical, "JWT-12": failCritical, "JWT-13": failCritical,
		"JWT-08": failsHigh, "JWT-25": failsHigh,
		// PyJWT skips the checks of claims together with the signature's. The mints are signed with the secret of JWT-06.
		"JWT-14": failCritical, "JWT-17": failCritical, "JWT-18": failCritical, "JWT-15": failsHigh, "JWT-16": failsHigh,
		// Nobody looks at typ, but this issuer calls every token JWT.
		"JWT-19": failsMedium,
		// Python's json takes the last of two members, and its base64 skips what it does not know.
		"JWT-21": failsMedium, "JWT-26": failsLow,
		// Debian's security update of PyJWT refuses crit, and the original refused b64, even when nothing is verified.
		"JWT-20": passes,
		// gunicorn refuses a header line of more than 8190 bytes.
		"JWT-22": passes,
		// Tokens in the query are not looked at; there is a check on every path.
		"JWT-27": passes, "ID-01": passes, "ID-02": passes, "AZ-03": passes,
		// The secret of the tutorial signs tokens and the cookie.
		"JWT-06": failCritical, "CFG-03": failCritical,
		// Notes are read by number, whosever they are.
		"AZ-01": failCritical,
		// LIKE '%...%' is glued together, and DEBUG is off: only the conditions tell.
		"VAL-03": failCritical,
		// int() and json.loads() of whatever comes.
		"VAL-01": failsHigh, "VAL-02": failsHigh, "ERR-03": failsHigh, "DAT-07": failsHigh,
		// One query fetches a page.
		"DAT-06": passes,
		// Django's own errors are HTML, the API's JSON; there is no WWW-Authenticate. But they tell nothing.
		"ERR-02": failsMedium, "ERR-01": passes, "CFG-01": passes,
		// There is no limit, the slow view is let run for two minutes, and a sync worker waits as long for a header.
		"RL-01": failCritical, "LIM-01": failCritical, "LIM-02": failsHigh,
		// gunicorn caps lines and headers.
		"LIM-05": passes,
		// No Cache-Control, which is what makes a cache guess. SecurityMiddleware sends nosniff.
		"TRN-04": failsLow, "TRN-03": passes,
		// gunicorn 20.1 reads Content-Length with int(), which takes a sign. Two lengths and both framings are refused.
		"TRN-06": failsMedium,
		"OBS-01": failsMedium, // there is no request id
		"HLT-01": passes,      // it is there, and always 200: that it lies needs a fault (HLT-02)
		// A small API has no such files and endpoints; gunicorn 20.1 tells no version.
		"CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
	})
}

// knowingDjango tells a target about naive.py.
func knowingDjango(t *testing.T) func(*audit.Target) {
	return func(target *audit.Target) {
		secret := []byte("django-insecure-change-me")
		target.Token, target.TokenB = signed(t, "alice", "JWT", "HS256", secret), signed(t, "bob", "JWT", "HS256", secret)
		described(t, target)
	}
}

// TestDjangoInDebugMode asks what DEBUG changes: what errors tell.
func TestDjangoInDebugMode(t *testing.T) {
	url := gunicorn(t, "naive", []string{"DEBUG=1"}, "--timeout", "120")
	auditedIn(t, []audit.Category{audit.Configuration, audit.Errors, audit.Validation}, url, audit.Policy{}, knowingDjango(t), table{
		"CFG-01": failCritical, "ERR-01": failsHigh,
		"VAL-03": failCritical, // the debug page quotes the database
		// As without DEBUG.
		"CFG-03": failCritical, "VAL-01": failsHigh, "VAL-02": failsHigh, "ERR-03": failsHigh,
		"CFG-02": passes, "CFG-04": passes, "CFG-06": passes,
		// The page hides SECRET_KEY and what is called like it.
		"CFG-05": passes,
	})
}

// TestDjangoThatVerifiesTokens is the same API as it ought to be. Four things are true of it all the same, the first two of
// which only something in front of it mends.
func TestDjangoThatVerifiesTokens(t *testing.T) {
	i := newIssuer(t, "at+jwt")
	url := gunicorn(t, "sound", []string{"PUBLIC_KEY=" + i.publicFile}, "--timeout", "6")
	policy := audit.Policy{SlowClient: 12 * time.Second, Deadline: 6 * time.Second, Grace: time.Second, RateLimit: 20, RateWindow: 2 * time.Second}
	audited(t, url, policy, func(target *audit.Target) {
		target.Token, target.TokenB, target.JWTKey = i.token(t, "alice"), i.token(t, "bob"), i.private()
		described(t, target)
	}, table{
		// Neither Django nor gunicorn has a limit of requests.
		"RL-01": failCritical,
		// gunicorn's --timeout kills the worker: the client sees a reset and no 504. But it does end slow clients.
		"LIM-01": failCritical, "LIM-02": passes,
		// gunicorn 20.1 reads Content-Length with int(), which takes a sign.
		"TRN-06": failsMedium,
		// Python's json takes the last of two members, and its base64 skips what it does not know.
		"JWT-21": failsMedium, "JWT-26": failsLow,

		// PyJWT with a key, a list of algorithms, aud, iss and required claims; JWT-04 knows the key from the published set.
		"JWT-01": passes, "JWT-02": passes, "JWT-03": passes, "JWT-04": passes, "JWT-05": passes, "JWT-07": passes, "JWT-08": passes,
		"JWT-09": passes, "JWT-10": passes, "JWT-11": passes, "JWT-12": passes, "JWT-13": passes, "JWT-14": passes, "JWT-15": passes,
		"JWT-16": passes, "JWT-17": passes, "JWT-18": passes, "JWT-25": passes, "JWT-27": passes, "JWT-28": passes,
		// The view refuses crit and every typ but at+jwt by itself.
		"JWT-19": passes, "JWT-20": passes,
		"JWT-22": passes, // gunicorn refuses a header line of more than 8190 bytes
		"ID-01":  passes, "ID-02": passes, "AZ-01": passes, "AZ-03": passes,
		// Inputs are checked, queries bound, bodies capped (DATA_UPLOAD_MAX_MEMORY_SIZE), errors are JSON.
		"VAL-01": passes, "VAL-02": passes, "VAL-03": passes, "ERR-01": passes, "ERR-02": passes, "ERR-03": passes,
		"LIM-04": passes, "LIM-05": passes, "LIM-06": passes,
		// Pages have 100 rows at most, and one query fetches one. DAT-08 needs more rows than there are.
		"DAT-06": passes, "DAT-07": passes,
		"CFG-01": passes, "CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		"TRN-03": passes, "TRN-04": passes, "OBS-01": passes, "HLT-01": passes,
	})
}
