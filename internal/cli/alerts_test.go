package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/internal/server"
	"github.com/gantryhq/gantry/problem"
)

// flooded is a world in which every other request is refused.
type flooded struct{}

func (flooded) Read(s alert.Signal, _ time.Duration) (alert.Reading, bool) {
	return alert.Reading{Value: 1204}, s == alert.RateLimitHits
}

const adminToken = "aCqJ3n5vTzXw8LmRk2Yp7Bd4Gf6Hs9Qu"

// adminPort is the alerts' part of one, behind a token.
func adminPort(t *testing.T) string {
	t.Helper()
	e, err := alert.NewEngine(alert.Config{Rules: alert.Defaults(), Source: flooded{}, Notify: func(alert.Notification) {}})
	if err != nil {
		t.Fatal(err)
	}
	e.Evaluate(time.Now())
	api := server.AlertsAPI(e)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+adminToken {
			problem.Write(w, r, problem.Unauthenticated)
			return
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func gantry(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	var out, errs bytes.Buffer
	code = Main(t.Context(), Process{Name: "gantry", Args: args, Environ: environ, Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

func TestAlertsOfARunningDoor(t *testing.T) {
	port := adminPort(t)
	env := []string{"ADMIN_TOKEN=" + adminToken, "USER=ada"}
	for _, c := range []struct {
		env    []string
		args   string
		code   int
		stdout string // each line
		stderr string
	}{
		{env, "list", Good, "firing  low  Rate Limit Exceeded  1,204  rate_limit_hits > 100/hour", ""},
		{env, "list --json", Good, `"state": "firing"`, ""},
		{env, "silence rate-limit-exceeded 2h", Good, "Rate Limit Exceeded: firing, silenced until", ""},
		{env, "unsilence rate-limit-exceeded", Good, "Rate Limit Exceeded: firing\n", ""},
		{env, "ack rate-limit-exceeded", Good, "Rate Limit Exceeded: firing, ada is at it", ""},
		{env, "ack high-latency", Failed, "", "the alert is not firing"},
		{env, "ack nobody", Failed, "", "there is no alert of this name"},
		{env, "silence high-latency soon", Failed, "", "a silence lasts from 1s to 720h"},
		{nil, "list", Failed, "", "the door asks for its ADMIN_TOKEN"},
	} {
		code, stdout, stderr := gantry(t, c.env, append(append([]string{"alerts"}, strings.Fields(c.args)...), "--admin", port)...)
		if code != c.code || !strings.Contains(columns(stdout), c.stdout) || !strings.Contains(stderr, c.stderr) || strings.Contains(stderr, adminToken) {
			t.Errorf("alerts %s = %d %s %s, want %d %s%s", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}

// columns makes all gaps between columns two spaces.
func columns(text string) string {
	for strings.Contains(text, "   ") {
		text = strings.ReplaceAll(text, "   ", "  ")
	}
	return text
}

func TestWhereTheAdminPortIs(t *testing.T) {
	for listen, want := range map[string]string{":9000": "127.0.0.1:9000", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1", "10.0.0.1:1": "10.0.0.1:1", "[::1]:1": "[::1]:1"} {
		if got := dialable(listen); got != want {
			t.Errorf("dialable(%q) = %q, want %q", listen, got, want)
		}
	}
}
