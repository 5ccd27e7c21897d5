package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// The parts of SARIF 2.1.0 that are used.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"semanticVersion,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Name       string         `json:"name"`
		Short      sarifText      `json:"shortDescription"`
		Full       sarifText      `json:"fullDescription"`
		Help       sarifText      `json:"help"`
		Default    sarifLevel     `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Kind         string            `json:"kind"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
)

// SARIF is the report for code scanning (SARIF 2.1.0). GitHub refuses a file when one result has no place in a file, so
// each has one: the line of the source, else the line of the operation in its description, else the anchor's first.
// What is not proven has the kind open and, as section 3.27.10 wants of everything but a failure, the level none.
func SARIF(w io.Writer, r audit.Report, o Options) error {
	driver := sarifDriver{Name: "gantry", InformationURI: "https://github.com/gantryhq/gantry", Rules: []sarifRule{}}
	results := []sarifResult{}
	index := map[string]int{}
	for _, f := range r.Findings {
		kind, level := sarifKind(f)
		if kind == "" || kind != "fail" && kind != "open" && !o.SARIFAll {
			continue
		}
		if _, known := index[f.Probe]; !known {
			index[f.Probe] = len(driver.Rules)
			driver.Rules = append(driver.Rules, rule(f, find(o.Probes, f.Probe)))
		}
		results = append(results, sarifResult{
			RuleID: f.Probe, RuleIndex: index[f.Probe], Kind: kind, Level: level,
			Message:   sarifText{Text: cmp.Or(Plain(f.Message), Plain(f.Title))},
			Locations: []sarifLocation{location(f, o)}, Fingerprints: map[string]string{"gantry/v1": fingerprint(f, o)},
		})
	}
	return writeJSON(w, sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0",
		Runs: []sarifRun{{Tool: sarifTool{driver}, Results: results}},
	})
}

func sarifKind(f audit.Finding) (kind, level string) {
	switch f.Outcome {
	case audit.Fail:
		return "fail", sarifLevelOf(f.FailedAs)
	case audit.Inconclusive, audit.Attested:
		return "open", "none"
	case audit.Pass:
		return "pass", "none"
	case audit.NotApplicable:
		return "notApplicable", "none"
	}
	return "", ""
}

func sarifLevelOf(s audit.Severity) string {
	switch s {
	case audit.Critical, audit.High:
		return "error"
	case audit.Medium:
		return "warning"
	}
	return "note"
}

func rule(f audit.Finding, p audit.Probe) sarifRule {
	why, fix := cmp.Or(p.Why, f.Title), cmp.Or(p.Fix, "See gantry explain "+f.Probe+".")
	return sarifRule{
		ID: f.Probe, Name: f.Probe, Short: sarifText{Text: f.Title}, Full: sarifText{Text: why},
		Help:    sarifText{Text: fix, Markdown: "**Why.** " + why + "\n\n**Fix.** " + fix + "\n\n" + strings.Join(p.Refs, " · ")},
		Default: sarifLevel{sarifLevelOf(f.Severity)},
		Properties: map[string]any{
			"tags": []string{"security", string(f.Category)}, "precision": "very-high",
			"security-severity": map[audit.Severity]string{audit.Critical: "9.5", audit.High: "7.5", audit.Medium: "5.0", audit.Low: "2.0"}[f.Severity],
		},
	}
}

// location of a finding in a file that the repository has.
func location(f audit.Finding, o Options) sarifLocation {
	at := sarifLocation{Physical: sarifPhysical{sarifArtifact{cmp.Or(o.Anchor, "gantry.yaml")}, sarifRegion{1}}}
	if file, line, ok := fileLine(f.Where); ok {
		at.Physical = sarifPhysical{sarifArtifact{(&url.URL{Path: file}).EscapedPath()}, sarifRegion{line}}
		return at
	}
	if len(f.Evidence) == 0 {
		return at
	}
	at.Logical = []sarifLogical{{Name: f.Evidence[0].Method + " " + Plain(f.Evidence[0].URL), Kind: "resource"}}
	if op, ok := operation(f.Evidence[0], o.Operations); ok && op.File != "" && !strings.Contains(op.File, "://") {
		at.Physical = sarifPhysical{sarifArtifact{(&url.URL{Path: op.File}).EscapedPath()}, sarifRegion{max(1, op.Line)}}
	}
	return at
}

func fileLine(where string) (file string, line int, ok bool) {
	i := strings.LastIndexByte(where, ':')
	if i <= 0 {
		return "", 0, false
	}
	line, err := strconv.Atoi(where[i+1:])
	return where[:i], line, err == nil && line > 0
}

// operation that a piece of evidence was sent to.
func operation(e audit.Evidence, ops []audit.Operation) (audit.Operation, bool) {
	address, _, _ := strings.Cut(e.URL, "?")
	u, err := url.Parse(address)
	if err != nil {
		return audit.Operation{}, false
	}
	for _, op := range ops {
		if op.Method == e.Method && matches(op.Path, u.Path) {
			return op, true
		}
	}
	return audit.Operation{}, false
}

// matches says whether path ends in what the template describes, segment by segment: a base path may stand before.
func matches(template, path string) bool {
	want, got := strings.Split(strings.Trim(template, "/"), "/"), strings.Split(strings.Trim(path, "/"), "/")
	if len(got) < len(want) {
		return false
	}
	got = got[len(got)-len(want):]
	for i, segment := range want {
		if !strings.HasPrefix(segment, "{") && segment != got[i] {
			return false
		}
	}
	return true
}

// fingerprint stays the same from run to run: root, probe, method and path template.
func fingerprint(f audit.Finding, o Options) string {
	key := f.Root + "|" + f.Probe
	if f.Where != "" {
		file, _, _ := fileLine(f.Where)
		key += "|" + file
	} else if len(f.Evidence) > 0 {
		if op, ok := operation(f.Evidence[0], o.Operations); ok {
			key += "|" + op.Method + " " + op.Path
		}
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}
