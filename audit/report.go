package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Schema names the JSON form of a Report. A new number means that old readers cannot read it.
const Schema = "gantry-report/1"

// Report is everything an audit found. All forms of output are made from it.
type Report struct {
	Schema      string            `json:"schema"`
	Gantry      string            `json:"gantry"` // version
	Catalogue   Catalogue         `json:"catalogue"`
	Target      string            `json:"target"`
	Build       string            `json:"build,omitempty"` // of the target, as LCH-01 found it
	Started     time.Time         `json:"started"`
	Took        time.Duration     `json:"took"`             // nanoseconds
	Waited      time.Duration     `json:"waited,omitempty"` // of Took: for the target's rate limit, by probes that may run side by side
	Seed        uint64            `json:"seed"`
	Modes       string            `json:"modes"` // letters: PS, PSAL
	Knobs       []string          `json:"knobs"` // what the auditor was told, without any value that is a secret
	Points      []string          `json:"points,omitempty"`
	Policy      Policy            `json:"policy"`
	Budget      Budget            `json:"budget"`
	Requests    int               `json:"requests"` // sent, load apart
	LoadSent    int               `json:"loadRequests"`
	Received    int64             `json:"bytesReceived"`
	Calibration CalibrationReport `json:"calibration"`
	Findings    []Finding         `json:"findings"`
	Score       Score             `json:"score"`
	Health      []HealthSample    `json:"health,omitempty"` // at most 600
	Waivers     []Waiver          `json:"waivers,omitempty"`
	Attested    []Attestation     `json:"attestations,omitempty"`
	Incomplete  string            `json:"incomplete,omitempty"` // why the run did not reach its end
	Stages      []StageTime       `json:"stages"`
}

// Catalogue identifies the probes that a report was made with.
type Catalogue struct {
	Probes int    `json:"probes"`
	Hash   string `json:"hash"` // SHA-256 of ids, severities, modes and roots; eight digits
}

// CalibrationReport is what the report says of the calibration.
type CalibrationReport struct {
	Path     string     `json:"path"`
	Tells    bool       `json:"tells"`
	Why      string     `json:"why,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// HealthSample is a health sample on the run's clock.
type HealthSample struct {
	Second float64 `json:"second"`
	Status int     `json:"status"`
	Took   float64 `json:"tookMs"`
}

// StageTime is how long a stage took.
type StageTime struct {
	Stage    string        `json:"stage"`
	Took     time.Duration `json:"took"` // nanoseconds
	Requests int           `json:"requests"`
}

func catalogue(probes []Probe) Catalogue {
	h := sha256.New()
	for _, p := range probes {
		fmt.Fprintf(h, "%s|%s|%s|%s|%s\n", p.ID, p.Severity, p.Mode, p.Category, p.RootName())
	}
	return Catalogue{Probes: len(probes), Hash: hex.EncodeToString(h.Sum(nil))[:8]}
}

// Find the finding of a probe.
func (r Report) Find(id string) (Finding, bool) {
	for _, f := range r.Findings {
		if f.Probe == id {
			return f, true
		}
	}
	return Finding{}, false
}
