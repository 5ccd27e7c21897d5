package probes

import (
	"context"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// sample is one line of a page in the Prometheus text format.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// page of metrics: its samples, and the type of each family that says one.
type page struct {
	types   map[string]string
	samples []sample
}

// maxSamples of a page are read.
const maxSamples = 200_000

// parsePage reads the Prometheus text format (and OpenMetrics, as far as they agree). Lines that are neither are skipped.
func parsePage(text string) page {
	p := page{types: map[string]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			p.types[name] = strings.TrimSpace(kind)
			continue
		}
		if s, ok := parseSample(line); ok && len(p.samples) < maxSamples {
			p.samples = append(p.samples, s)
		}
	}
	return p
}

var sampleName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)

func parseSample(line string) (sample, bool) {
	s := sample{name: sampleName.FindString(line), labels: map[string]string{}}
	rest := line[len(s.name):]
	if s.name == "" {
		return s, false
	}
	if strings.HasPrefix(rest, "{") {
		var ok bool
		if rest, ok = parseLabels(rest[1:], s.labels); !ok {
			return s, false
		}
	} else if !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "\t") {
		return s, false
	}
	fields := strings.Fields(rest) // value, perhaps a time, perhaps an exemplar
	if len(fields) == 0 {
		return s, false
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	s.value = value
	return s, err == nil
}

// parseLabels reads name="value" pairs up to the brace, and returns what follows it.
func parseLabels(text string, into map[string]string) (rest string, ok bool) {
	for {
		text = strings.TrimLeft(text, ", \t")
		if after, end := strings.CutPrefix(text, "}"); end {
			return after, true
		}
		name, value, found := strings.Cut(text, `="`)
		if !found {
			return "", false
		}
		end := closingQuote(value)
		if end < 0 {
			return "", false
		}
		into[strings.TrimSpace(name)] = value[:end] // escapes stay: nothing here compares them
		text = value[end+1:]
	}
}

func closingQuote(value string) int {
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// isPage says whether an answer is a page of metrics, and not a page that answers everything.
func isPage(x *audit.Exchange) bool {
	return x.OK() && len(parsePage(x.Text()).samples) >= 3 &&
		(strings.Contains(x.Text(), "# TYPE ") || strings.Contains(x.Header.Get("Content-Type"), "openmetrics") ||
			strings.Contains(x.Header.Get("Content-Type"), "version=0.0.4"))
}

var (
	aboutRequests = regexp.MustCompile(`(?i)request|http`)
	aboutLatency  = regexp.MustCompile(`(?i)dur|latenc|seconds|_ms|millis|time`)
	ofScrapes     = regexp.MustCompile(`^(promhttp|scrape|prometheus)_`)
	statusLabel   = regexp.MustCompile(`(?i)^(.*_)?(code|status|class|outcome)$`)
	routeLabel    = regexp.MustCompile(`(?i)^(.*_)?(path|route|handler|endpoint|uri|url|view|template|target)$`)
)

// counts says whether the sample counts requests: a counter, or the count of a histogram or summary.
func (p page) counts(s sample) bool {
	if !aboutRequests.MatchString(s.name) || ofScrapes.MatchString(s.name) || strings.HasSuffix(s.name, "_created") {
		return false
	}
	family := strings.TrimSuffix(s.name, "_total")
	return p.types[s.name] == "counter" || p.types[family] == "counter" ||
		strings.HasSuffix(s.name, "_count") || strings.HasSuffix(s.name, "_total")
}

// totals sums what counts requests: each family, and each route of it.
func (p page) totals() map[string]float64 {
	sums := map[string]float64{}
	for _, s := range p.samples {
		if !p.counts(s) {
			continue
		}
		sums[s.name] += s.value
		for label, value := range s.labels {
			if routeLabel.MatchString(label) {
				sums[s.name+"{"+label+"="+value+"}"] += s.value
			}
		}
	}
	return sums
}

// has says whether the page has a latency histogram, and a split of requests by status.
func (p page) has() (histogram, split bool) {
	for _, s := range p.samples {
		if !aboutRequests.MatchString(s.name) || ofScrapes.MatchString(s.name) {
			continue
		}
		histogram = histogram || (strings.HasSuffix(s.name, "_bucket") && s.labels["le"] != "" && aboutLatency.MatchString(s.name))
		for label := range s.labels {
			split = split || statusLabel.MatchString(label)
		}
	}
	return histogram, split
}

// counted50 is how many requests the counter is held against.
const counted50 = 50

func trueMetrics(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	public, err := s.Do(ctx, audit.Request{Path: "/metrics", Limit: 1 << 20, Label: "metrics, no credential"})
	if err != nil {
		return audit.Verdict{}, err
	}
	open := isPage(public)
	switch {
	case open && s.Declared() == "":
		return audit.Failed("the metrics are public: GET /metrics answers anybody").With(public), nil
	case s.Target().MetricsURL == "":
		return audit.Unproven("the metrics are not public at /metrics; nobody said where they are").With(public).Unlock("--metrics-url"), nil
	}
	return counterMoves(ctx, s, public)
}

// counterMoves reads the page, sends exactly 50 requests, and reads it again.
func counterMoves(ctx context.Context, s *audit.Session, public *audit.Exchange) (audit.Verdict, error) {
	x, err := s.Metrics(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	before := parsePage(x.Text())
	if !x.OK() || len(before.samples) == 0 {
		return audit.Unproven("the metrics URL has no Prometheus text: %d, %d bytes", x.Status, len(x.Body)).With(x), nil
	}
	since, refused := time.Now(), 0
	for range counted50 {
		one, err := s.Do(ctx, audit.Request{Path: s.Calibration().Path, Token: s.Target().Token, Label: "one of 50 to be counted", Expect429: true})
		if err != nil {
			return audit.Verdict{}, err
		}
		if one.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	c := count{before: before.totals(), refused: refused}
	for try := range 2 {
		if x, err = s.Metrics(ctx); err != nil {
			return audit.Verdict{}, err
		}
		c.after, c.others = parsePage(x.Text()), healthSamples(s, since)
		if c.right() || try == 1 {
			break
		}
		if err := audit.Sleep(ctx, s.Policy().Grace); err != nil { // some exporters count late
			return audit.Verdict{}, err
		}
	}
	return c.verdict(x, public), nil
}

// healthSamples that the engine took meanwhile: they count, too.
func healthSamples(s *audit.Session, since time.Time) int {
	health, _ := s.Timeline()
	n := 0
	for _, sample := range health {
		if sample.At.After(since) {
			n++
		}
	}
	return n
}

// count compares two pages.
type count struct {
	before          map[string]float64
	after           page
	refused, others int // 429s among the 50; requests of the engine beside them
}

// moves gives each counter's growth, and the largest.
func (c count) moves() (all []float64, most float64) {
	for name, value := range c.after.totals() {
		d := value - c.before[name]
		all, most = append(all, d), max(most, d)
	}
	return all, most
}

// right: some counter moved by the 50, or by those of them that a limiter did not take away before they were counted.
func (c count) right() bool {
	all, _ := c.moves()
	for _, d := range all {
		if math.Abs(d-counted50) <= 2 || (d > counted50 && d <= float64(counted50+2+c.others)) ||
			(c.refused > 0 && math.Abs(d-float64(counted50-c.refused)) <= 2) {
			return true
		}
	}
	return false
}

func (c count) verdict(x, public *audit.Exchange) audit.Verdict {
	all, most := c.moves()
	histogram, split := c.after.has()
	var v audit.Verdict
	switch {
	case !x.OK():
		return audit.Unproven("the metrics URL answered %d the second time", x.Status).With(x)
	case len(all) == 0:
		v = audit.Failed("no counter of requests is among %d metrics", len(c.after.samples))
	case most <= 2:
		v = audit.Failed("no counter of requests moved while %d were sent", counted50)
	case !c.right():
		v = audit.Unproven("%d requests moved the counter by %s: others move it as well, or each process counts for itself",
			counted50, strconv.FormatFloat(most, 'f', -1, 64))
	case !histogram && !split:
		v = audit.Failed("requests are counted, but there is neither a latency histogram nor a split by status").As(audit.Medium)
	case !histogram:
		v = audit.Failed("requests are counted, but there is no latency histogram").As(audit.Medium)
	case !split:
		v = audit.Failed("requests are counted, but there is no split by status").As(audit.Medium)
	default:
		v = audit.Passed("%d requests moved the counter by as many; a latency histogram and a split by status are there; GET /metrics without a credential: %s",
			counted50, result(public))
	}
	return v.With(x, public).Measured("moved", most)
}
