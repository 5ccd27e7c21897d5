package realtest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// prometheus scrapes itself. Its read timeout is set to what the policy allows; the default is 5 minutes.
func prometheus(t *testing.T) string {
	t.Helper()
	program := debian(t, "prometheus", "prometheus")
	dir := t.TempDir()
	port := testenv.FreePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	config := filepath.Join(dir, "prometheus.yml")
	write(t, config, fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: itself\n  static_configs: [{targets: ['127.0.0.1:%d']}]\n", port))
	serve(t, exec.Command(program, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", fmt.Sprintf("127.0.0.1:%d", port), "--web.read-timeout", "2s", "--log.level", "error"), url+"/-/ready")
	return url
}

func TestPrometheus(t *testing.T) {
	audited(t, prometheus(t), audit.Policy{SlowClient: 4 * time.Second}, func(k *audit.Target) {
		k.ListPath, k.WritePath, k.VersionPath = "/api/v1/labels", "/api/v1/query", "/api/v1/status/buildinfo"
		k.Declared = map[string]string{"OBS-03": "a server of metrics publishes its own"}
	}, table{
		"CFG-01": passes, "CFG-02": passes, "CFG-05": passes, "CFG-06": passes,
		// Profiles, with the command line, to anybody: built in, with no way to turn it off.
		"CFG-04": failCritical,
		// OBS-03 does not apply: /metrics is what it is for, and that is declared.
		"HLT-01": passes, // /-/ready is found
		"LCH-01": passes,
		"LIM-02": passes,                   // one read timeout for head and body
		"LIM-04": passes,                   // a form of 10 MB is the most that net/http reads
		"LIM-05": failsLow,                 // net/http's own cap of 1 MiB: 64 KiB of header are served
		"LIM-06": passes, "VAL-01": passes, // no query in it: 400
		"ERR-01": passes, "ERR-03": passes,
		"TRN-03": passes,
		"TRN-06": failsHigh, // net/http, as with go-httpbin
		"OBS-01": failsMedium,
	})
}
