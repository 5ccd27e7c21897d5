package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/audit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hostile is what a target may send: HTML, an escape sequence, a bidirectional override, Markdown.
const hostile = "<script>alert(1)</script>\x1b[31m\u202e| `x` [a](http://evil.example) @team"

func sample() audit.Report {
	at := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	seen := audit.Evidence{
		ID: "7f3a11aa", Method: "GET", URL: "http://127.0.0.1:8000/users/7?q=" + hostile, Label: "another sub, signature kept", Status: 200,
		Request: http.Header{"Authorization": {"Bearer sha256:1a2b3c4d"}}, Header: http.Header{"Content-Type": {"application/json"}, "X-Odd": {hostile}},
		Body: `{"sub":"admin","note":"` + hostile + `"}`, At: at, TTFB: 1.2, Took: 1.4, Curl: `curl -i -H "Authorization: Bearer $TOKEN" 'http://127.0.0.1:8000/users/7'`,
	}
	findings := []audit.Finding{
		{Probe: "JWT-01", Title: "Payload changed, original signature kept", Root: "jwt-signature", Category: audit.Identity, Severity: audit.Critical, FailedAs: audit.Critical, Mode: audit.Safe, Outcome: audit.Fail, Message: "accepted like the valid token: another sub", Evidence: []audit.Evidence{seen}},
		{Probe: "JWT-02", Title: "Signature stripped", Root: "jwt-signature", Category: audit.Identity, Severity: audit.Critical, FailedAs: audit.Critical, Mode: audit.Safe, Outcome: audit.Fail, Message: "accepted: " + hostile},
		{Probe: "SRC-jwt", Title: "Signature verification switched off", Root: "jwt-signature", Category: audit.Identity, Severity: audit.Critical, FailedAs: audit.Critical, Outcome: audit.Fail, Vantage: "source", Where: "apps/users/middleware.py:31", Message: "verify_signature is False"},
		{Probe: "LIM-04", Title: "Body size cap", Root: "LIM-04", Category: audit.Limits, Severity: audit.High, FailedAs: audit.High, Mode: audit.Safe, Outcome: audit.Fail, Message: "32 MiB were read"},
		{Probe: "OBS-01", Title: "Request id", Root: "OBS-01", Category: audit.Observability, Severity: audit.Medium, FailedAs: audit.Medium, Mode: audit.Safe, Outcome: audit.Fail, Message: "no request id comes back"},
		{Probe: "RL-01", Title: "Per-user limit enforced", Root: "RL-01", Category: audit.Abuse, Severity: audit.Critical, Mode: audit.Safe, Outcome: audit.Pass, Message: "the 101st request in a minute was refused", Evidence: []audit.Evidence{seen}},
		{Probe: "HLT-01", Title: "Health and readiness exist", Root: "HLT-01", Category: audit.Health, Severity: audit.High, Mode: audit.Safe, Outcome: audit.Pass, Message: "/health answers 200"},
		{Probe: "HLT-02", Title: "Readiness says 503 when a dependency is down", Root: "HLT-02", Category: audit.Health, Severity: audit.Critical, Mode: audit.Fault, Message: "needs --fault-cmd", Hint: "--fault-cmd"},
		{Probe: "LIM-01", Title: "Slow handler is cut at the deadline", Root: "LIM-01", Category: audit.Limits, Severity: audit.Critical, Mode: audit.Safe, Message: "no slow path is known", Hint: "--slow-path"},
		{Probe: "TRN-01", Title: "TLS on, plaintext refused", Root: "TRN-01", Category: audit.Transport, Severity: audit.Critical, Mode: audit.Safe, Outcome: audit.NotApplicable, Message: "loopback"},
		{Probe: "LCH-04", Title: "Backup restores", Root: "LCH-04", Category: audit.Launch, Severity: audit.High, Mode: audit.Fault, Outcome: audit.Attested, Message: "attested by ops"},
		{Probe: "ENV-SENTRY_DSN", Title: "Environment file", Root: "ENV-SENTRY_DSN", Category: audit.Configuration, Severity: audit.Medium, FailedAs: audit.Medium, Outcome: audit.Fail, Vantage: EnvironmentPoint, Where: ".env:7", Message: "is not set"},
		{
			Probe: "PERF-01", Title: "Error rate and latency at expected load", Root: "PERF-01", Category: audit.Performance, Severity: audit.High, Mode: audit.Load, Outcome: audit.Pass, Message: "p95 12 ms",
			Charts: []audit.Chart{{Title: "Latency " + hostile, X: "seconds", Y: "ms", Series: []audit.Series{{Name: "p50 " + hostile, X: []float64{0, 1, 2}, Y: []float64{3, 4, 3}}, {Name: "p99", X: []float64{0, 1, 2}, Y: []float64{12, 15, 11}}}, Limits: []audit.Limit{{Name: "p95 limit", Y: 20}}}},
		},
	}
	return audit.Report{
		Schema: audit.Schema, Gantry: "v0.0.0", Catalogue: audit.Catalogue{Probes: 93, Hash: "3fa21c00"}, Target: "http://127.0.0.1:8000", Build: "9c1e2d " + hostile,
		Started: at, Took: 41 * time.Second, Seed: 42, Modes: "PSL", Knobs: []string{"token", "protected-path"}, Points: []string{EnvironmentPoint, "source"},
		Requests: 412, LoadSent: 9000, Calibration: audit.CalibrationReport{Path: "/me", Tells: true}, Findings: findings, Score: audit.Rate(findings),
		Health:  []audit.HealthSample{{Second: 0, Status: 200, Took: 1}, {Second: 1, Status: 503, Took: 3}, {Second: 2, Status: 200, Took: 1}},
		Waivers: []audit.Waiver{{ID: "OBS-01", Reason: "the proxy adds it", Owner: "ana", Expires: at.AddDate(0, 1, 0)}},
		Stages:  []audit.StageTime{{Stage: "calibration", Took: time.Second, Requests: 9}, {Stage: "identity", Took: 30 * time.Second, Requests: 300}},
	}
}

func options() Options {
	old := sample()
	old.Started = old.Started.AddDate(0, 0, -7)
	old.Findings[3].Outcome, old.Findings[5].Outcome = audit.Pass, audit.Fail
	old.Score = audit.Rate(old.Findings)
	return Options{
		Probes:     []audit.Probe{{ID: "JWT-01", Why: "Anybody can be anybody.", Fix: "Call verify, never decode.", Refs: []string{"RFC 8725 section 3.1"}}},
		Operations: []audit.Operation{{Method: "GET", Path: "/users/{id}", File: "openapi.yaml", Line: 12}},
		Baseline:   &old, Gate: "below the gate: READY FOR CONTROLLED LAUNCH or better", Anchor: "gantry.yaml",
	}
}

func render(t *testing.T, w Writer, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := w(&b, sample(), o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReportsLookAsAgreed(t *testing.T) {
	verbose := options()
	verbose.Verbose = true
	for name, c := range map[string]struct {
		w Writer
		o Options
	}{
		"report.txt": {Text, options()}, "explained.txt": {Text, verbose}, "report.md": {Markdown, options()}, "report.html": {HTML, options()},
		"report.sarif": {SARIF, options()}, "report.xml": {JUnit, options()}, "checklist.md": {Checklist, options()}, "badge.json": {Badge, options()},
	} {
		t.Run(name, func(t *testing.T) {
			got := render(t, c.w, c.o)
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (write it anew with -update after looking):\n%s", file, diff)
			}
		})
	}
}

func TestNothingOfTheTargetActsInAReport(t *testing.T) {
	for name, w := range formats {
		text := render(t, w, options())
		if name == "json" {
			text = strings.ReplaceAll(text, "\u202e", "") // data, which no terminal shows; the engine has made it visible before
		}
		if strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("%s passes control characters on", name)
		}
	}
	if page := render(t, HTML, options()); strings.Contains(page, "<script") || strings.Contains(page, "alert(1)</script>") {
		t.Error("the page holds the target's markup")
	}
	if md := render(t, Markdown, options()); regexp.MustCompile(`[^\\]\[a\]\(`).MatchString(md) || strings.Contains(md, "@team") || strings.Contains(md, "<script") {
		t.Errorf("Markdown holds the target's link, mention or markup:\n%s", md)
	}
}

func TestPageLoadsNothingAndIsSmall(t *testing.T) {
	page := render(t, HTML, options())
	for _, bad := range []string{"<script", " src=", "<link", "@import", "url(", "<iframe", " style=", " onload="} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if len(page) > 500_000 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

func TestTerminalReportFitsEightyColumns(t *testing.T) {
	o := options()
	o.Verbose = true
	for line := range strings.Lines(render(t, Text, o)) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > width && !strings.HasPrefix(line, "gantry audit") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestMachineFormatsParse(t *testing.T) {
	var log map[string]any
	if err := json.Unmarshal([]byte(render(t, SARIF, Options{SARIFAll: true, Anchor: "gantry.yaml"})), &log); err != nil {
		t.Error(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal([]byte(render(t, JUnit, Options{Strict: true})), &suites); err != nil {
		t.Error(err)
	}
	if errors := suites.Suites[1].Errors; suites.Suites[1].Name != "limits" || errors != 1 {
		t.Errorf("suite %s has %d errors, want limits with 1: what is not proven", suites.Suites[1].Name, errors)
	}
	var again audit.Report
	if err := json.Unmarshal([]byte(render(t, JSON, Options{})), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample().Score, audit.Rate(again.Findings)); diff != "" {
		t.Errorf("a stored report scores differently:\n%s", diff)
	}
}

func TestCommentOnAPullRequestIsShort(t *testing.T) {
	r := sample()
	for range 200 {
		f := r.Findings[3]
		f.Root = f.Root + "x"
		r.Findings = append(r.Findings, f)
	}
	var b bytes.Buffer
	if err := Markdown(&b, r, Options{}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n > markdownLines {
		t.Errorf("%d lines, want at most %d", n, markdownLines)
	}
}

// Every result has a place in a file, which GitHub insists on; a finding in the source has its line.
func TestEveryResultHasAPlace(t *testing.T) {
	var log sarifLog
	if err := json.Unmarshal([]byte(render(t, SARIF, options())), &log); err != nil {
		t.Fatal(err)
	}
	places := map[string]string{}
	for _, r := range log.Runs[0].Results {
		at := r.Locations[0].Physical
		places[r.RuleID] = at.Artifact.URI
		if at.Artifact.URI == "" || at.Region.StartLine < 1 || strings.Contains(at.Artifact.URI, "://") {
			t.Errorf("%s has no place in a file: %+v", r.RuleID, at)
		}
	}
	for id, want := range map[string]string{"JWT-01": "openapi.yaml", "SRC-jwt": "apps/users/middleware.py", "LIM-04": "gantry.yaml"} {
		if places[id] != want {
			t.Errorf("%s is in %q, want %q", id, places[id], want)
		}
	}
}

func BenchmarkHTML(b *testing.B) {
	for b.Loop() {
		if err := HTML(io.Discard, sample(), options()); err != nil {
			b.Fatal(err)
		}
	}
}
