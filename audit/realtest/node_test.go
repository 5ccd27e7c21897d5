package realtest

import (
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// express serves testdata/node/app.js with Express 4 and more packages, each with its version, as arguments and the
// environment say.
func express(t *testing.T, packages map[string]string, how string, i issuer, env ...string) (url string) {
	t.Helper()
	all := map[string]any{"express": "4.21.2"}
	name := "express-" + how
	for _, library := range slices.Sorted(maps.Keys(packages)) {
		all[library] = packages[library]
		name += "-" + library + "-" + packages[library]
	}
	dir := node(t, name, string(object(t, map[string]any{"private": true, "dependencies": all})))
	app, err := os.ReadFile("testdata/node/app.js")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "app.js"), string(app))
	address := testenv.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command("node", "app.js", how)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "PORT="+port, "PUBLIC_KEY="+i.publicFile), env...)
	url = "http://" + address
	serve(t, cmd, url+"/healthz")
	return url
}

// nodePolicy waits for less: Express has no limit of requests, and app.js cuts slow clients after 5 and 8 s.
var nodePolicy = audit.Policy{SlowClient: 12 * time.Second, RateLimit: 40, RateWindow: 2 * time.Second}

func knowing(t *testing.T, i issuer) func(*audit.Target) {
	return func(target *audit.Target) {
		target.Token, target.JWTKey, target.JWKS = i.token(t, "alice"), i.private(), i.publicFile
		target.ProtectedPaths, target.HealthPath, target.WritePath = []string{"/me"}, "/healthz", "/notes"
	}
}

// TestNodeJose is CVE-2018-0114: until 0.11.0 the library verified a token with the key in the token's own header.
func TestNodeJose(t *testing.T) {
	for _, c := range []struct {
		version  string
		embedded outcome
	}{{"0.10.0", failCritical}, {"0.11.0", passes}} {
		t.Run(c.version, func(t *testing.T) {
			i := newIssuer(t, "at+jwt")
			audited(t, express(t, map[string]string{"node-jose": c.version}, "jose", i), nodePolicy, knowing(t, i), table{
				// The header's own jwk is the key, until 0.11.0 asked for allowEmbeddedKey. Everything else is refused by both.
				"JWT-10": c.embedded,
				"JWT-01": passes, "JWT-02": passes, "JWT-03": passes, "JWT-04": passes, "JWT-05": passes, "JWT-07": passes, "JWT-08": passes,
				"JWT-09": passes, "JWT-11": passes, "JWT-12": passes, "JWT-13": passes, "JWT-25": passes,
				// app.js checks the claims and typ, takes tokens from the header only, and the issuer's key set is sound.
				"JWT-14": passes, "JWT-15": passes, "JWT-16": passes, "JWT-17": passes, "JWT-18": passes, "JWT-19": passes,
				"JWT-27": passes, "JWT-28": passes, "ID-01": passes, "AZ-03": passes,
				// crit: [] is taken, JSON.parse takes the last of two members, and Buffer takes any base64.
				"JWT-20": failsMedium, "JWT-21": failsMedium, "JWT-26": failsLow,
				// Node refuses 16 KiB of headers, app.js slow clients and bodies of more than 64 kB.
				"JWT-22": passes, "LIM-02": passes, "LIM-04": passes, "LIM-05": passes, "LIM-06": passes,
				"RL-01": failCritical, // Express has no limit of requests
				// Node takes the first of two Host lines, and any text for a host.
				"TRN-06": failsMedium,
				"TRN-03": passes, "TRN-04": passes,
				"VAL-01": passes, "ERR-01": passes, "ERR-02": passes, "ERR-03": passes,
				"OBS-01": failsMedium, // there is no request id
				"CFG-01": passes, "CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes, "HLT-01": passes,
			})
		})
	}
}

var jsonwebtoken = map[string]string{"jsonwebtoken": "9.0.2"}

// TestJSONWebToken asks what concerns tokens and errors: the rest of the application is the one above. Its issuer calls every
// token JWT, so that a foreign typ is of medium severity.
func TestJSONWebToken(t *testing.T) {
	t.Run("decode", func(t *testing.T) {
		i := newIssuer(t, "JWT")
		categories := []audit.Category{audit.Identity, audit.Configuration, audit.Validation, audit.Errors, audit.Transport}
		auditedIn(t, categories, express(t, jsonwebtoken, "decode", i), nodePolicy, knowing(t, i), table{
			// Whatever decodes is believed. JWT-04 has the issuer's public key to sign with.
			"JWT-01": failCritical, "JWT-02": failCritical, "JWT-03": failCritical, "JWT-04": failCritical, "JWT-05": failCritical,
			"JWT-07": failCritical, "JWT-09": failCritical, "JWT-10": failCritical, "JWT-11": failCritical, "JWT-12": failCritical,
			"JWT-13": failCritical, "JWT-08": failsHigh, "JWT-25": failsHigh,
			"JWT-14": failCritical, "JWT-17": failCritical, "JWT-18": failCritical, "JWT-15": failsHigh, "JWT-16": failsHigh,
			"JWT-19": failsMedium, "JWT-20": failsMedium, "JWT-21": failsMedium, "JWT-26": failsLow,
			"JWT-22": passes, // Node refuses 16 KiB of headers
			"JWT-27": passes, "JWT-28": passes, "ID-01": passes, "AZ-03": passes,
			// Express is in development unless told otherwise: a broken body shows the stack, in HTML.
			"CFG-01": failCritical, "ERR-01": failsHigh, "ERR-02": failsMedium,
			// Every fault is the caller's all the same.
			"VAL-01": passes, "ERR-03": passes,
			"TRN-03": passes, "TRN-04": failsLow, "TRN-06": failsMedium,
			// X-Powered-By says Express, and no version.
			"CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		})
	})
	t.Run("verify", func(t *testing.T) {
		i := newIssuer(t, "JWT")
		auditedIn(t, []audit.Category{audit.Identity}, express(t, jsonwebtoken, "verify", i), nodePolicy, knowing(t, i), table{
			"JWT-01": passes, "JWT-02": passes, "JWT-03": passes, "JWT-04": passes, "JWT-05": passes, "JWT-07": passes, "JWT-08": passes,
			"JWT-09": passes, "JWT-10": passes, "JWT-11": passes, "JWT-12": passes, "JWT-13": passes, "JWT-25": passes,
			"JWT-14": passes, "JWT-15": passes, "JWT-16": passes, "JWT-17": passes, "JWT-18": passes,
			// verify looks neither at typ nor at crit, and JSON.parse takes the last of two members. All of it is medium.
			"JWT-19": failsMedium, "JWT-20": failsMedium, "JWT-21": failsMedium, "JWT-26": failsLow,
			"JWT-22": passes, "JWT-27": passes, "JWT-28": passes, "ID-01": passes, "AZ-03": passes,
		})
	})
}

// TestExpressRateLimit asks about the limiter that most Express APIs have. It counts in windows that begin with the first
// request, and sends Retry-After and the RateLimit fields.
func TestExpressRateLimit(t *testing.T) {
	for _, c := range []struct {
		by       string
		bypassed outcome
	}{
		{"subject", passes},
		{"address", failsHigh}, // trust proxy is on, and nobody in front of it writes X-Forwarded-For
	} {
		t.Run(c.by, func(t *testing.T) {
			i := newIssuer(t, "JWT")
			url := express(t, map[string]string{"jsonwebtoken": "9.0.2", "express-rate-limit": "7.5.1"}, "verify", i, "LIMIT="+c.by)
			auditedIn(t, []audit.Category{audit.Abuse}, url, nodePolicy, knowing(t, i), table{
				"RL-01": passes, "RL-02": c.bypassed, "RL-03": passes,
			})
		})
	}
}
