package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/gantryhq/gantry/internal/testenv"
)

// canary stands in every part of a request that must not leave the door but to the upstream.
const canary = "canary7f3a"

// careless is an upstream that answers as the path says, after noting what it was sent.
type careless struct {
	mu   sync.Mutex
	seen []http.Header
	gone chan struct{}
}

// ServeHTTP answers 500 under /fail, never under /hang, and 200 elsewhere.
func (c *careless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.seen = append(c.seen, r.Header.Clone())
	c.mu.Unlock()
	switch {
	case strings.HasPrefix(r.URL.Path, "/fail"):
		w.WriteHeader(http.StatusInternalServerError)
	case strings.HasPrefix(r.URL.Path, "/hang"):
		<-c.gone
	}
	_, _ = w.Write([]byte(canary))
}

func newCareless(t *testing.T) (*careless, string) {
	t.Helper()
	c := &careless{gone: make(chan struct{})}
	env := upstream(t, c)
	t.Cleanup(func() { close(c.gone) })
	return c, env
}

// carry sends a request that carries canaries wherever it can.
func (d *door) carry(path string) *http.Response {
	h := d.token("user_" + canary)
	h.Set("Cookie", "session="+canary)
	h.Set("X-Api-Key", canary)
	h.Set("User-Agent", canary)
	h.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	h.Set("Tracestate", "vendor=1")
	res, _ := d.do("POST", path+"/"+canary+"@example.org?token="+canary, h, strings.NewReader(canary))
	return res
}

// end sends SIGTERM and returns how long the process took, which must end well.
func (d *door) end() time.Duration {
	d.t.Helper()
	began := time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	err := <-d.exited
	d.exited <- err
	if err != nil {
		d.t.Errorf("gantry serve ended with %v; log:\n%s", err, d.log)
	}
	return time.Since(began)
}

func TestTracesReachACollector(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		c, up := testenv.NewCollector(t), new(careless)
		address := map[string]string{"http/protobuf": c.HTTP, "grpc": c.GRPC}[protocol]
		d := start(t, upstream(t, up), "TRUSTED_PROXIES=127.0.0.1", "OTEL_EXPORTER_OTLP_ENDPOINT="+address, "OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
			"OTEL_EXPORTER_OTLP_HEADERS=api-key=the-vendors", "OTEL_TRACES_SAMPLER=parentbased_always_off", "OTEL_SERVICE_NAME=shop-door", "OTEL_BSP_SCHEDULE_DELAY=10")
		id := d.carry("/things").Header.Get("X-Request-Id")
		if res, _ := d.do("GET", "/v1/users/me", d.token("user_2"), nil); res.StatusCode != 200 { // no caller's trace: not sampled
			t.Errorf("me = %d", res.StatusCode)
		}
		spans := make(map[string]*trace.Span)
		c.Until(func() bool {
			for _, s := range c.Spans() {
				spans[s.GetName()] = s
			}
			return spans["upstream"] != nil && spans["POST /"] != nil
		})
		d.end()
		root, call := spans["POST /"], spans["upstream"]
		if got := testenv.Attributes(root.GetAttributes()); got["gantry.request_id"] != id || got["url.path"] != "/things/[redacted]" || !strings.HasPrefix(got["enduser.pseudo.id"], "u_") {
			t.Errorf("%s: root has %v, want id %s", protocol, got, id)
		}
		if hex.EncodeToString(root.GetTraceId()) != "4bf92f3577b34da6a3ce929d0e0e4736" || hex.EncodeToString(root.GetParentSpanId()) != "00f067aa0ba902b7" {
			t.Errorf("%s: the caller's trace does not go on: %v", protocol, root)
		}
		want := fmt.Sprintf("00-4bf92f3577b34da6a3ce929d0e0e4736-%x-01", call.GetSpanId())
		if h := up.seen[0]; h.Get("Traceparent") != want || h.Get("Tracestate") != "vendor=1" {
			t.Errorf("%s: the upstream got %q and %q, want %q", protocol, h.Get("Traceparent"), h.Get("Tracestate"), want)
		}
		if n := len(c.Spans()); n != 6 || c.Resource()["service.name"] != "shop-door" || c.Resource()["deployment.environment.name"] != "development" {
			t.Errorf("%s: %d spans of %v, want the 6 of the sampled request", protocol, n, c.Resource())
		}
		if text := c.Received(); strings.Contains(text, canary) || !strings.Contains(text, "the-vendors") {
			t.Errorf("%s: a canary left the door, or the key did not", protocol)
		}
		if strings.Contains(d.log.String(), canary) || strings.Contains(d.log.String(), "the-vendors") {
			t.Errorf("%s: the log has a secret:\n%s", protocol, d.log)
		}
		if !strings.Contains(d.log.String(), `"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"`+hex.EncodeToString(root.GetSpanId())) {
			t.Errorf("%s: the log line does not name the span:\n%s", protocol, d.log)
		}
	}
}

func TestSentryHearsOf5xxAnd504(t *testing.T) {
	t.Parallel()
	s := testenv.NewSentry(t)
	_, up := newCareless(t)
	d := start(t, up, "SENTRY_DSN="+s.DSN, "REQUEST_TIMEOUT=300ms")
	statuses := make(map[string]string) // by request id
	for _, path := range []string{"/things", "/fail", "/hang"} {
		res := d.carry(path)
		statuses[res.Header.Get("X-Request-Id")] = strconv.Itoa(res.StatusCode)
	}
	d.end() // what is under way is sent before the end
	events := s.Events()
	if len(events) != 2 {
		t.Fatalf("%d events, want one for the 500 and one for the 504", len(events))
	}
	for _, e := range events {
		tags, _ := e["tags"].(map[string]any)
		id, _ := tags["request_id"].(string)
		if tags["status"] != statuses[id] || statuses[id] == "200" || e["environment"] != "development" {
			t.Errorf("%v is said of a request that was answered %s", tags, statuses[id])
		}
	}
	if strings.Contains(s.Received(), canary) {
		t.Errorf("a canary left the door: %s", s.Received())
	}
}

// TestReceiversThatHangHoldNobodyUp: requests end as if nobody listened, all that is lost is said to be,
// and so does the process.
func TestReceiversThatHangHoldNobodyUp(t *testing.T) {
	t.Parallel()
	c, s := testenv.NewCollector(t), testenv.NewSentry(t)
	c.Break(testenv.ReceiverHangs)
	s.Break(testenv.ReceiverHangs)
	_, up := newCareless(t)
	d := start(t, up, "SENTRY_DSN="+s.DSN, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.HTTP, "OTEL_BSP_SCHEDULE_DELAY=10", "OTEL_BSP_MAX_QUEUE_SIZE=5", "RATE_LIMIT_PER_USER=1000")
	h := d.token("user_1")
	for i := range 200 { // in turn: one that waited would keep all others waiting
		if res, _ := d.do("GET", "/fail"+strconv.Itoa(i%7), h, nil); res.StatusCode != 500 {
			t.Fatalf("request %d = %d", i, res.StatusCode)
		}
	}
	c.Until(func() bool { return c.Calls() > 0 })
	s.Until(func() bool { return s.Calls() > 0 })
	if took := d.end(); took > 10*time.Second {
		t.Errorf("the process took %v to end", took)
	}
}

// admin returns a setting for an admin port, and its address.
func admin(t *testing.T) (setting, address string) {
	t.Helper()
	address = testenv.FreeAddress(t)
	return "ADMIN_LISTEN=" + address, "http://" + address
}

func TestExplainSaysWhatBecameOfARequest(t *testing.T) {
	t.Parallel()
	const token = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9"
	setting, address := admin(t)
	_, up := newCareless(t)
	d := start(t, up, setting, "ADMIN_TOKEN="+token, "RATE_LIMIT_PER_USER=3", "REQUEST_TIMEOUT=200ms")
	id := func(res *http.Response) string { return res.Header.Get("X-Request-Id") }
	me, _ := d.do("GET", "/v1/users/me", d.token("user_1"), nil)
	forged, _ := d.do("GET", "/things?token="+canary, http.Header{"Authorization": {"Bearer a.b." + canary}}, nil)
	refused, failed, late := "", id(d.carry("/fail")), id(d.carry("/hang"))
	for range 3 {
		res, _ := d.do("GET", "/things", d.token("user_1"), nil)
		refused = id(res)
	}
	for want, request := range map[string]string{
		`handler .*\n +store .* find\n +store .* transaction`:              id(me),
		`401  token:malformed(?s:.*)identity .* malformed\n(?s:.*)address`: id(forged),
		`429  quota:user(?s:.*)refused: user(?s:.*)user +3  3/1m0s.*<- `:   refused,
		`500  the handler's own answer(?s:.*)answered 500`:                 failed,
		`504  upstream:header-timeout(?s:.*)gave no answer`:                late,
	} {
		text, code := d.command("explain", "--admin", address, request)
		if !matches(want, text) || code != 0 || strings.Contains(text, canary) && request == id(forged) {
			t.Errorf("exit %d, want %s:\n%s", code, want, text)
		}
	}
	var said struct{ Decision, Caller string }
	text, _ := d.command("explain", "--json", refused) // ADMIN_LISTEN and ADMIN_TOKEN are in its environment
	if err := json.Unmarshal([]byte(text), &said); err != nil || said.Decision != "quota:user" || !strings.HasPrefix(said.Caller, "u_") {
		t.Errorf("%v: %s", err, text)
	}
	if text, code := d.command("explain", "AAAAAAAAAAAAAAAAAAAAAAAAAA"); code != 1 || !strings.Contains(text, "does not remember") {
		t.Errorf("an unknown request: exit %d, %s", code, text)
	}
	if text, code := command(t, d.dir, []string{"ADMIN_LISTEN=" + strings.TrimPrefix(address, "http://")}, "explain", refused); code != 1 || !strings.Contains(text, "ADMIN_TOKEN") {
		t.Errorf("without the token: exit %d, %s", code, text)
	}
	r, _ := http.NewRequest("GET", address+"/api/requests?refused=1&limit=2", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list []struct{ ID string }
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || len(list) != 2 || list[0].ID != refused {
		t.Errorf("%v: the last refused are %v, want %s first", err, list, refused)
	}
}

func TestCheckLiveAsksTheCollectorAndSentry(t *testing.T) {
	t.Parallel()
	c, s := testenv.NewCollector(t), testenv.NewSentry(t)
	env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.HTTP, "SENTRY_DSN=" + s.DSN}
	dir := t.TempDir()
	if text, code := command(t, dir, env, "check", "--live"); code != 0 || !matches(`traces +good(?s:.*)sentry +good`, text) {
		t.Errorf("exit %d: %s", code, text)
	}
	c.Break(testenv.ReceiverFails)
	s.Vanish()
	if text, code := command(t, dir, env, "check", "--live"); code != 78 || !matches(`traces +FAIL .*500(?s:.*)sentry +FAIL`, text) || strings.Contains(text, "0123456789abcdef") {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestSecretsOfTelemetryMayStandInFiles(t *testing.T) {
	t.Parallel()
	c := testenv.NewCollector(t)
	path := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(path, []byte("api-key=from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="+c.HTTP+"/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_HEADERS_FILE="+path,
		"OTEL_EXPORTER_OTLP_HEADERS="+canary) // malformed, and not in force
	d.do("GET", "/nothing", nil, nil)
	d.end()
	if !strings.Contains(c.Received(), "from-a-file") || len(c.Spans()) == 0 {
		t.Error("the header of the file did not arrive")
	}
	if strings.Contains(d.log.String(), canary) {
		t.Errorf("a header is logged:\n%s", d.log)
	}
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
