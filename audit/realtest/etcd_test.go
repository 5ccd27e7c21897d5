package realtest

import (
	"os/exec"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// etcd is a cluster of one, as the package runs it: its API is gRPC, and JSON over HTTP through a gateway. Its tokens are
// not bearer tokens, and access control is off until it is asked for, so it is audited without.
func etcd(t *testing.T) string {
	t.Helper()
	program := debian(t, "etcd", "etcd-server")
	url := "http://" + testenv.FreeAddress(t)
	peer := "http://" + testenv.FreeAddress(t)
	serve(t, exec.Command(program, "--name", "one", "--data-dir", t.TempDir(), "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one="+peer, "--log-level", "error"), url+"/health")
	return url
}

func TestEtcd(t *testing.T) {
	audited(t, etcd(t), audit.Policy{SlowClient: 3 * time.Second}, func(k *audit.Target) {
		k.WritePath, k.VersionPath = "/v3/kv/range", "/version"
	}, table{
		"CFG-01": passes, "CFG-02": passes, "CFG-05": passes, "CFG-06": passes,
		// expvar on the clients' port: the command line and the memory of the process, to anybody.
		"CFG-04": failsHigh,
		// The same port has /metrics; nobody declared it public.
		"OBS-03": failsHigh,
		"HLT-01": passes, // {"health":"true"}
		"LCH-01": passes, // {"etcdserver":"3.4.23",...}
		// No timeout is set on the server of HTTP, and no cap on heads but net/http's own of 1 MiB.
		"LIM-02": failsHigh, "LIM-05": failsLow,
		// The gateway decodes 32 MiB before it finds them broken; the cap of 1.5 MiB is that of gRPC, behind it.
		"LIM-04": failsMedium,
		"LIM-06": passes, "VAL-01": passes, // 400 for what is no JSON of its schema
		"ERR-01": passes, "ERR-03": passes,
		"TRN-03": passes,    // any origin, and no credentials with it
		"TRN-06": failsHigh, // net/http, as with go-httpbin
		"OBS-01": failsMedium,
	})
}
