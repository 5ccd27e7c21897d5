package probes

import (
	"testing"

	"github.com/gantryhq/gantry/audit"
)

func TestVersionsAreReadAsServersGiveThem(t *testing.T) {
	for body, want := range map[string]string{
		`{"version":"1.4.2"}`:                                "1.4.2",
		`{"status":"success","data":{"version":"2.42.0"}}`:   "2.42.0",
		`{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}`:      "3.4.23",
		`{"app": "v1.0.0-rc.1+build.7"}`:                     "v1.0.0-rc.1+build.7",
		"2026.11.1\n":                                        "2026.11.1",
		`api_build_info{goversion="go1.26",version="9"} 1`:   "9",
		`{"host":"127.0.0.1","started":"2026-11-26"}`:        "",
		`{"address":"10.0.0.7:8080","note":"since 1.2.3 ."}`: "",
	} {
		if got := versionIn(&audit.Exchange{Status: 200, Body: []byte(body)}); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
