package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/identity/devissuer"
)

// metrics scrapes the door, and returns the text and the values by series.
func (d *door) metrics() (text string, series map[string]float64) {
	d.t.Helper()
	res, err := d.client.Get(d.admin + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		d.t.Fatalf("/metrics = %d %v", res.StatusCode, err)
	}
	series = make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[space+1:]), 64)
		if err != nil {
			d.t.Errorf("line %q: %v", line, err)
		}
		series[line[:space]] = v
	}
	return string(body), series
}

// wantMetrics waits for the numbers: a request is counted when it is over, which is after its client has the answer.
func (d *door) wantMetrics(want map[string]float64) {
	d.t.Helper()
	var got map[string]float64
	right := func() bool {
		_, got = d.metrics()
		for series, n := range want {
			if v, found := got[series]; !found || v != n {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(5 * time.Second); !right() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	for series, n := range want {
		if v, found := got[series]; !found || v != n {
			d.t.Errorf("%s = %v (there: %v), want %v", series, v, found, n)
		}
	}
}

func TestDocumentsLoopIsCounted(t *testing.T) {
	t.Parallel()
	d := start(t)
	loop(d, d.token("user_1"), 0)
	const requests = `http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="%d",http_route="/v1/users/"}`
	d.wantMetrics(map[string]float64{
		`gantry_ratelimit_decisions_total{outcome="allowed",policy="user"}`:   100,
		`gantry_ratelimit_decisions_total{outcome="allowed",policy="global"}`: 100,
		`gantry_ratelimit_decisions_total{outcome="refused",policy="user"}`:   1,
		fmt.Sprintf(requests, 200):                                  100,
		fmt.Sprintf(requests, 429):                                  1,
		"gantry_tokens_accepted_total":                              101,
		"http_server_active_requests":                               0,
		`gantry_health_http_status{endpoint="health"}`:              200,
		`gantry_health_http_status{endpoint="ready"}`:               200,
		`gantry_cache_requests_total{cache="tokens",result="miss"}`: 1,
		`gantry_cache_requests_total{cache="tokens",result="hit"}`:  100,
	})
	if res, _ := d.do("GET", "/metrics", d.token("user_2"), nil); res.StatusCode != 404 {
		t.Errorf("/metrics on the door = %d, want 404", res.StatusCode)
	}
}

func TestASlowUpstreamIsATimeoutInItsPhase(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	d := start(t, "REQUEST_TIMEOUT=1s", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
	})))
	defer close(release)
	for path, want := range map[string]int{"/slow": 504, "/fast": 200} {
		if res, text := d.do("GET", path, d.token("user_1"), nil); res.StatusCode != want {
			t.Errorf("%s = %d %s, want %d", path, res.StatusCode, text, want)
		}
	}
	d.wantMetrics(map[string]float64{
		`gantry_request_timeouts_total{http_route="/",phase="upstream"}`:                                                       1,
		`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="504",http_route="/"}`: 1,
		`gantry_upstream_errors_total{reason="header-timeout",version="stable"}`:                                               1,
		`gantry_upstream_request_duration_seconds_count{version="stable"}`:                                                     1,
		`gantry_upstream_breaker_open{version="stable"}`:                                                                       0,
	})
}

func TestForgedTokensAreCountedByReason(t *testing.T) {
	t.Parallel()
	d := start(t)
	good := d.token("user_1").Get("Authorization")
	first := strings.LastIndexByte(good, '.') + 1 // of the signature's characters
	forged := good[:first] + map[bool]string{true: "B", false: "A"}[good[first] == 'A'] + good[first+1:]
	i, err := issuer()
	if err != nil {
		t.Fatal(err)
	}
	expired, err := i.Mint(devissuer.Claims{Subject: "user_1", TTL: -time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{forged, forged, "Bearer " + expired, "Bearer nonsense"} {
		if res, _ := d.do("GET", "/v1/users/me/", http.Header{"Authorization": {token}}, nil); res.StatusCode != 401 {
			t.Errorf("%.20s... = %d, want 401", token, res.StatusCode)
		}
	}
	d.do("GET", "/v1/users/me/", nil, nil) // no token is no refusal of one
	d.wantMetrics(map[string]float64{
		`gantry_token_refusals_total{reason="bad_signature"}`: 2, `gantry_token_refusals_total{reason="expired"}`: 1,
		`gantry_token_refusals_total{reason="malformed"}`: 1, `gantry_tokens_accepted_total`: 0,
	})
}

func TestMetricsAnswerUnderAnAttack(t *testing.T) {
	t.Parallel()
	d := start(t, "RATE_LIMIT_GLOBAL=1000000", "RATE_LIMIT_ANONYMOUS=1000000")
	const attackers, each = 4, 2500
	var all sync.WaitGroup
	for a := range attackers {
		all.Go(func() {
			for i := range each {
				x := fmt.Sprintf("x%dx%d", a, i)
				_, _ = d.try(strings.ToUpper(x), "/"+x, http.Header{"Authorization": {"Bearer a." + x + ".c"}, "X-User-Id": {x}}, nil)
			}
		})
	}
	attacked := make(chan struct{})
	go func() { all.Wait(); close(attacked) }()
	scrapes := 0
	for going := true; going; scrapes++ {
		select {
		case <-attacked:
			going = false
		default:
		}
		if _, series := d.metrics(); len(series) >= 2000 || series["http_server_active_requests"] > attackers {
			t.Fatalf("%d series, %v requests under way", len(series), series["http_server_active_requests"])
		}
	}
	text, series := d.metrics()
	t.Logf("%d scrapes, %d series", scrapes, len(series))
	if n := series[`gantry_build_info{goversion="`+runtime.Version()+`",version="dev"}`]; n != 1 {
		t.Error("nobody knows which build this is")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	const minds = `db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix` // OpenTelemetry's name
	if out, _ := cmd.CombinedOutput(); strings.TrimSpace(string(out)) != minds {
		t.Errorf("promtool check metrics:\n%s", out)
	}
}
