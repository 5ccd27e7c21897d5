package realtest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// httpbin is the version that go.mod names, with the limits of its own command: 1 s for a head, 5 s for a body, 16 KiB of
// headers, 1 MiB of body.
func httpbin(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "go-httpbin")
	install(t, "", "go", "build", "-o", program, "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin")
	port := testenv.FreePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	serve(t, exec.Command(program, "-host", "127.0.0.1", "-port", fmt.Sprint(port)), url+"/status/200")
	return url
}

var httpbinPolicy = audit.Policy{SlowClient: 8 * time.Second, Deadline: 2 * time.Second, Grace: time.Second}

func TestHTTPBinByItsURL(t *testing.T) {
	audited(t, httpbin(t), httpbinPolicy, nil, table{
		// No files, no debug page, nothing operational, no banner: what it does not know is a short 404.
		"CFG-01": passes, "CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		"ERR-01": passes, "ERR-03": passes,
		// Timeouts of head and body; a cap of 16 KiB on the whole head, which net/http lets a URL of that length just slip under.
		"LIM-02": passes, "LIM-05": passes,
		// None of its paths says how it is, /status/200 least of all without being told so.
		"HLT-01": failsHigh,
		// It reflects any Origin with Access-Control-Allow-Credentials: true; no cookie signs anybody in, so high and not critical.
		"TRN-03": failsHigh,
		// net/http takes Content-Length beside Transfer-Encoding and keeps the connection: RFC 9112 section 6.1 has it closed.
		"TRN-06": failsHigh,
		"OBS-01": failsMedium, // no request id in any answer
	})
}

// /bearer asks for a bearer token and takes any. The canary is what makes that a failure: without one the same answer to a
// valid and to a garbage token might as well be an error told in a 200.
func TestHTTPBinWithATokenThatAnyOtherIsAsGoodAs(t *testing.T) {
	audited(t, httpbin(t), httpbinPolicy, func(k *audit.Target) {
		k.Token, k.ProtectedPaths = "b6c0e7d1f5a94c3e8d27", []string{"/bearer"}
		k.Canary = regexp.MustCompile(`"authenticated": true`)
		k.HealthPath, k.SlowPath, k.WritePath = "/status/200", "/delay/6", "/post"
	}, table{
		"ID-01": failCritical, // "Bearer x" is served; nothing else of identity can be told there
		// As by the URL alone.
		"CFG-01": passes, "CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		"ERR-01": passes, "ERR-03": passes, "LIM-02": passes, "LIM-05": passes,
		"TRN-03": failsHigh, "TRN-06": failsHigh, "OBS-01": failsMedium,
		"HLT-01": passes, // the path that was named
		// It sleeps for as long as it is told and answers 200: the deadline of the policy passes unseen.
		"LIM-01": failCritical,
		"LIM-04": passes, // 400 when 1 MiB are exceeded, long before the end
		"LIM-06": passes, // 400 for broken ones; whole arrays, with --active, make its handler panic on the echo of 200 MB
		// VAL-01 stays open: an echo takes any body, and no description says that fields are required.
		"ERR-02": failsMedium, // JSON for 400, plain text for 404
	})
}
