//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/internal/testenv"
)

// pager receives what would wake people: Slack's incoming webhook at /slack and PagerDuty's Events API v2.
type pager struct {
	*httptest.Server
	mu    sync.Mutex
	heard []page
}

type page struct {
	at            time.Time
	service, text string // text is Slack's whole message, or PagerDuty's summary
	action, dedup string // of PagerDuty
}

func newPager(t *testing.T) *pager {
	p := &pager{}
	p.Server = httptest.NewServer(http.HandlerFunc(p.hear))
	t.Cleanup(p.Close)
	return p
}

func (p *pager) hear(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	heard := page{at: time.Now(), service: "slack", text: string(body)}
	if r.URL.Path == "/v2/enqueue" {
		var event struct {
			Action  string                   `json:"event_action"`
			Dedup   string                   `json:"dedup_key"`
			Payload struct{ Summary string } `json:"payload"`
		}
		_ = json.Unmarshal(body, &event)
		heard.service, heard.action, heard.dedup, heard.text = "pagerduty", event.Action, event.Dedup, event.Payload.Summary
		w.WriteHeader(http.StatusAccepted)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, heard)
}

// find returns the first message of a service that has all the words.
func (p *pager) find(service string, words ...string) (found page, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
next:
	for _, h := range p.heard {
		for _, word := range append(words, service) {
			if !strings.Contains(h.service+" "+h.action+" "+h.text, word) {
				continue next
			}
		}
		return h, true
	}
	return page{}, false
}

func (p *pager) env() []string {
	return []string{
		"SLACK_WEBHOOK_URL=" + p.URL + "/slack", "PAGERDUTY_URL=" + p.URL, "PAGERDUTY_ROUTING_KEY=0123456789abcdef0123456789abcdef",
	}
}

// expect waits for a message, and returns how long it took.
func (p *pager) expect(t *testing.T, limit time.Duration, service string, words ...string) page {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if h, ok := p.find(service, words...); ok {
			return h
		}
		if time.Now().After(end) {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, h := range p.heard {
				t.Logf("%s heard: %s %.200s", h.service, h.action, h.text)
			}
			t.Fatalf("%s did not hear of %q within %v", service, words, limit)
		}
	}
}

func TestLostDatabaseWakesSomebodyAndIsResolved(t *testing.T) {
	t.Parallel()
	database, people := testenv.NewPostgres(t), newPager(t)
	start(t, append(people.env(), "DATABASE_URL="+database.URL(database.NewDatabase()))...)
	killed := time.Now()
	database.Kill()
	trigger := people.expect(t, time.Minute, "pagerduty", "trigger", "Health Check Failed")
	people.expect(t, time.Minute, "slack", "Health Check Failed", "database")
	t.Logf("woken %v after the database died", trigger.at.Sub(killed).Round(time.Second))
	database.Start()
	resolve := people.expect(t, 3*time.Minute, "pagerduty", "resolve")
	if resolve.dedup != trigger.dedup || trigger.dedup == "" {
		t.Errorf("resolved %q, want the incident that was triggered, %q", resolve.dedup, trigger.dedup)
	}
	people.expect(t, 20*time.Second, "slack", "RESOLVED", "Health Check Failed")
}

// hurried are rules as an operator may write them for a service in which minutes count, so that the test need not wait.
const hurried = `alerts:
- name: High Latency
  condition: p95_latency > 500ms
  severity: medium
  notify: engineering
  window: 10s
  for: 2s
- name: Rate Limit Exceeded
  condition: rate_limit_hits > 100/hour
  severity: low
  notify: engineering
- name: High Error Rate
  condition: error_rate > 1%
  severity: high
  notify: oncall
  window: 10s
  for: 2s
- name: Token Refusals
  condition: token_refusals > 20
  window: 1m
  for: 0s
  severity: medium
  notify: engineering
- name: Requests Timing Out
  condition: timeouts > 1
  window: 1m
  for: 0s
  severity: high
  notify: oncall
- name: Database Pool Nearly Full
  condition: pool_utilization > 80%
  window: 10s
  for: 2s
  severity: high
  notify: oncall
`

// TestDocumentsMetricsAndAlerts does to a door what each of the document's key metrics and alerts is about.
func TestDocumentsMetricsAndAlerts(t *testing.T) {
	t.Parallel()
	database, people := testenv.NewPostgres(t), newPager(t)
	name := database.NewDatabase()
	d := newDoor(t, append(people.env(), "DATABASE_URL="+database.URL(name), "DB_POOL_MAX=4", "DB_POOL_MIN=1",
		"REQUEST_TIMEOUT=1", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/slow":
				<-r.Context().Done()
			case "/sluggish":
				time.Sleep(700 * time.Millisecond)
			}
		})))...)
	d.shareKey()
	if err := os.WriteFile(filepath.Join(d.dir, "gantry.yaml"), []byte(hurried), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run()
	h := d.token("user_1")

	for range 101 + 101 { // the document's loop, and then as much again: its rule is "more than 100 in an hour"
		d.do("GET", "/anything", h, nil)
	}
	d.metric(`http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="429"`, 100)
	d.metric(`gantry_ratelimit_decisions_total{outcome="refused",policy="user"}`, 100)

	forged := http.Header{"Authorization": {h.Get("Authorization")[:len(h.Get("Authorization"))-8] + "AAAAAAAA"}}
	for range 30 {
		d.do("GET", "/anything", forged, nil)
	}
	d.metric(`gantry_token_refusals_total{reason="bad_signature"}`, 30)

	for range 3 {
		if res, _ := d.do("GET", "/slow", d.token("user_2"), nil); res.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("slow upstream: %d, want 504", res.StatusCode)
		}
	}
	d.metric(`gantry_request_timeouts_total`, 3)
	d.metric(`gantry_health_http_status{endpoint="health"}`, 200)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(stop)
	for i := range 4 { // all that follows is slow, and now and then late
		clients.Go(func() { d.repeat(stop, "/sluggish", d.token(fmt.Sprint("user_", 10+i))) })
	}
	lockUsers(t, database.URLAs("postgres", name))
	for i := range 8 { // more than the pool has connections
		clients.Go(func() { d.repeat(stop, "/v1/users/me/", d.token(fmt.Sprint("user_", 20+i))) })
	}
	people.expect(t, 30*time.Second, "pagerduty", "trigger", "Requests Timing Out")
	people.expect(t, 30*time.Second, "slack", "Token Refusals")
	people.expect(t, 30*time.Second, "slack", "High Latency")
	people.expect(t, 30*time.Second, "pagerduty", "trigger", "High Error Rate")
	people.expect(t, 40*time.Second, "pagerduty", "trigger", "Database Pool Nearly Full")
	people.expect(t, 60*time.Second, "slack", "Rate Limit Exceeded")
}

// repeat sends a request after the other.
func (d *door) repeat(stop <-chan struct{}, path string, h http.Header) {
	for {
		select {
		case <-stop:
			return
		default:
			d.try("GET", path, h, nil)
			time.Sleep(700 * time.Millisecond)
		}
	}
}

// lockUsers makes every statement about users wait.
func lockUsers(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
}

// metric wants a sample that begins so to be at least least.
func (d *door) metric(prefix string, least float64) {
	d.t.Helper()
	res, err := http.Get(d.admin + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, prefix); found {
			var v float64
			if _, err := fmt.Sscan(value[strings.LastIndexByte(value, ' ')+1:], &v); err != nil || v < least {
				d.t.Errorf("%s is %s want at least %v", prefix, strings.TrimSpace(value), least)
			}
			return
		}
	}
	d.t.Errorf("there is no metric %s", prefix)
}
