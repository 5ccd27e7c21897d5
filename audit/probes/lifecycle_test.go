package probes

import (
	"net/http"
	"testing"

	"github.com/gantryhq/gantry/audit"
)

func TestHealthIsFoundUnderTheNamesThatServersGiveIt(t *testing.T) {
	under := func(path string) http.Handler {
		return site(map[string]http.HandlerFunc{"GET " + path: always(200, map[string]any{"status": "ok"})})
	}
	for _, c := range []struct {
		name   string
		server http.Handler
		want   audit.Outcome
		as     audit.Severity
	}{
		{"Kubernetes", under("/readyz"), audit.Pass, 0},
		{"Spring", under("/actuator/health"), audit.Pass, 0},
		{"Prometheus", under("/-/healthy"), audit.Pass, 0},
		{"a registry", under("/-/ping"), audit.Pass, 0},
		{"Rails", under("/up"), audit.Pass, 0},
		{"nowhere", site(nil), audit.Fail, audit.High},
		{"a page for every name", always(200, map[string]any{"status": "ok"}), audit.Fail, audit.High},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, outcomes(t, c.server, nil, "HLT-01"), "HLT-01", c.want, c.as)
		})
	}
}
