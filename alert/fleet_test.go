package alert

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// The files of deploy/ are used as they are but for addresses, and for times: nobody waits for a minute here.
var faster = strings.NewReplacer(
	"scrape_interval: 15s", "scrape_interval: 1s", "evaluation_interval: 15s", "evaluation_interval: 1s",
	"interval: 15s", "interval: 1s", "keep_firing_for: 1m", "keep_firing_for: 1s",
	"group_wait: 10s", "group_wait: 0s", "group_interval: 1m", "group_interval: 1s",
)

const fleetRules = `
- name: Health Check Failed
  condition: health_check_status != 200
  for: 0s
  severity: critical
  notify: oncall, slack
- name: Rate Limit Exceeded
  condition: rate_limit_hits > 100/hour
  severity: low
  notify: engineering
- name: Database Pool Nearly Full
  condition: pool_utilization > 80%
  for: 0s
  severity: high
  notify: hook
- name: Disk Nearly Full
  condition: disk_free < 10%
  for: 0s
  severity: high
  notify: oncall, slack, engineering, hook
`

func TestAFleetsAlertsReachTheirReceivers(t *testing.T) {
	t.Parallel()
	prometheus, alertmanager := installed(t, "prometheus"), installed(t, "prometheus-alertmanager")
	well, dir := newFleet(t), t.TempDir()
	messages := make(chan string, 1000)
	in := receiving(t, messages)
	office := openPostOffice(t, func(*postOffice) {})
	go func() {
		for mail := range office.mails {
			messages <- "mail " + mail.text
		}
	}()

	secret := func(name, text string) string { return write(t, filepath.Join(dir, name), []byte(text)) }
	contacts, err := Alertmanager([]Contact{
		{Name: "oncall", PagerDuty: secret("key", strings.Repeat("k", 32))},
		{Name: "slack", Slack: secret("slack", in.URL+"/slack")},
		{Name: "engineering", Email: []string{"team@example.org"}},
		{Name: "hook", Webhook: in.URL + "/hook"},
	}, Mailer{Smarthost: office.Addr().String(), From: "gantry@example.org", Username: "gantry", PasswordFile: secret("password", "p@ss word")})
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(faster.Replace(string(contacts)), "global:\n", "global:\n  pagerduty_url: "+in.URL+"/pagerduty\n", 1)
	ports := [2]int{testenv.FreePort(t), testenv.FreePort(t)}
	cmd := exec.Command(alertmanager, "--config.file", secret("alertmanager.yml", config), "--storage.path", filepath.Join(dir, "am"),
		"--web.listen-address", fmt.Sprintf("127.0.0.1:%d", ports[0]), "--cluster.listen-address", "")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: in.Certificate().Raw})
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+secret("ca.pem", string(authority)))
	start(t, cmd, fmt.Sprintf("http://127.0.0.1:%d/-/ready", ports[0]))

	deploy, err := os.ReadFile("../deploy/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	secret("gantry-rules.yml", faster.Replace(string(exported(t, mustParse(t, fleetRules)))))
	config = strings.NewReplacer("127.0.0.1:9093", fmt.Sprintf("127.0.0.1:%d", ports[0]), "127.0.0.1:9000", well.Listener.Addr().String()).Replace(faster.Replace(string(deploy)))
	start(t, exec.Command(prometheus, "--config.file", secret("prometheus.yml", config), "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", fmt.Sprintf("127.0.0.1:%d", ports[1])), fmt.Sprintf("http://127.0.0.1:%d/-/ready", ports[1]))

	for range 3 {
		<-well.scraped
	}
	select {
	case m := <-messages:
		t.Fatalf("while all is well: %s", m)
	default:
	}
	well.ill.Store(true)
	await(t, messages,
		"pagerduty trigger Health Check Failed", "slack FIRING Health Check Failed", "mail FIRING Rate Limit Exceeded", "hook firing Database Pool Nearly Full",
		"pagerduty trigger Disk Nearly Full", "slack FIRING Disk Nearly Full", "mail FIRING Disk Nearly Full", "hook firing Disk Nearly Full")
	well.ill.Store(false)
	await(t, messages,
		"pagerduty resolve Health Check Failed", "slack RESOLVED Health Check Failed", "hook resolved Database Pool Nearly Full", "mail RESOLVED Disk Nearly Full")
}

func installed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install prometheus prometheus-alertmanager", program)
	}
	return path
}

// fleet publishes what Gantry does, of one instance that is well or ill.
type fleet struct {
	*httptest.Server
	ill     atomic.Bool
	scraped chan struct{}
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{scraped: make(chan struct{}, 1000)}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, hits, used, free := 200, 3, 4, 0.5
		if f.ill.Load() {
			status, hits, used, free = 503, 154, 9, 0.05
		}
		fmt.Fprintf(w, "gantry_health_http_status{endpoint=\"health\"} %d\n", status)
		fmt.Fprintf(w, "http_server_request_duration_seconds_count{http_response_status_code=\"429\"} %d\n", hits)
		fmt.Fprintf(w, "db_client_connection_count{state=\"used\"} %d\ndb_client_connection_max 10\ngantry_disk_free_ratio %g\n", used, free)
		select {
		case f.scraped <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// receiving is Slack, PagerDuty and a webhook, by their paths.
func receiving(t *testing.T, messages chan<- string) *httptest.Server {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		messages <- strings.TrimPrefix(r.URL.Path, "/") + " " + string(body)
		if strings.HasPrefix(r.URL.Path, "/pagerduty") {
			w.WriteHeader(http.StatusAccepted)
		}
		fmt.Fprint(w, `{"status":"success"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

// await waits until every message that is wanted has come; one has come when all its words stand in it.
func await(t *testing.T, messages <-chan string, want ...string) {
	t.Helper()
	late := time.After(45 * time.Second)
	for len(want) > 0 {
		select {
		case m := <-messages:
			var open []string
			for _, w := range want {
				kind, rest, _ := strings.Cut(w, " ")
				what, name, _ := strings.Cut(rest, " ")
				if !strings.HasPrefix(m, kind) || !strings.Contains(m, what) || !strings.Contains(m, name) {
					open = append(open, w)
				}
			}
			want = open
		case <-late:
			t.Fatalf("never came: %q", want)
		}
	}
}

// start starts a server, which ends with the test, and waits until it is ready.
func start(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s wrote:\n%s", filepath.Base(cmd.Path), text)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; {
		res, err := http.Get(ready)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v", filepath.Base(cmd.Path), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
