package telemetry

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// classicBuckets are OpenTelemetry's for durations of requests (semantic conventions for HTTP metrics).
var classicBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// nativeBuckets is enough for 50 µs to a minute at eight to each doubling. Beyond it the resolution is halved.
const nativeBuckets = 160

// pair are the labels of a metric that has at most two; what it does not have is "".
type pair [2]string

// newCounter registers a counter without labels.
func newCounter(r *prometheus.Registry, metric Metric) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: metric.Name, Help: metric.Help})
	r.MustRegister(c)
	return c
}

// newCounters registers a counter of one or two labels.
func newCounters(r *prometheus.Registry, metric Metric) *limited[pair, prometheus.Counter] {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metric.Name, Help: metric.Help}, metric.Labels)
	r.MustRegister(vec)
	return limitedPairs(metric, func(labels []string) prometheus.Counter { return vec.WithLabelValues(labels...) })
}

// newDurations registers a histogram of one or two labels.
func newDurations(r *prometheus.Registry, metric Metric) *limited[pair, prometheus.Observer] {
	vec := newHistogram(r, metric)
	return limitedPairs(metric, func(labels []string) prometheus.Observer { return vec.WithLabelValues(labels...) })
}

func newHistogram(r *prometheus.Registry, metric Metric) *prometheus.HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: metric.Name, Help: metric.Help, Buckets: classicBuckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: nativeBuckets,
	}, metric.Labels)
	r.MustRegister(vec)
	return vec
}

func limitedPairs[V any](metric Metric, child func([]string) V) *limited[pair, V] {
	n := len(metric.Labels)
	open := func(p pair) V { return child(p[:n]) }
	rest := sync.OnceValue(func() V { return open(pair{Other, Other}) })
	return newLimited(metric.Limit, open, func(pair) V { return rest() })
}

// answers are the histograms of requests. Most of the series are kept for answers other than 4xx: strangers
// can have every 4xx there is, and must not use up the room of the rest. What has no room is still counted by
// the status that alerts are about.
type answers struct {
	served, refused *limited[answerKey, prometheus.Observer]
}

type answerKey struct {
	method, route string
	status        int
}

func newAnswers(r *prometheus.Registry) *answers {
	vec := newHistogram(r, requestDuration)
	child := func(k answerKey) prometheus.Observer {
		return vec.WithLabelValues(k.method, k.route, statusLabel(k.status))
	}
	rest := newLimited(len(alertedStatuses)+1, child, child)
	other := func(k answerKey) prometheus.Observer {
		return rest.get(answerKey{Other, Other, alertedStatuses[k.status]})
	}
	return &answers{
		served:  newLimited(requestDuration.Limit-refusedLimit, child, other),
		refused: newLimited(refusedLimit, child, other),
	}
}

const refusedLimit = 30

// alertedStatuses keep their status where there is no room; the others have 0 there.
var alertedStatuses = map[int]int{429: 429, 500: 500, 502: 502, 503: 503, 504: 504}

func (s *answers) of(a *Answer) prometheus.Observer {
	k := answerKey{knownMethod(a.Method), a.Route, a.Status}
	if a.Status < 100 || a.Status > 599 {
		k.status = 0
	}
	if k.status >= 400 && k.status < 500 {
		return s.refused.get(k)
	}
	return s.served.get(k)
}

// statusLabel spells 0 as what has no status of its own.
func statusLabel(status int) string {
	if status == 0 {
		return Other
	}
	return strconv.Itoa(status)
}

// knownMethod lets the nine methods pass that OpenTelemetry knows (RFC 9110 section 9.3 and PATCH).
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return method
	}
	return Other
}
