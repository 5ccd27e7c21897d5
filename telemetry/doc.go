// Package telemetry tells what the door does: metrics for Prometheus, a day's history in memory, traces, logs
// and errors.
//
// Begin with [NewHistory] and [NewMetrics]; call [Metrics.Answered] once a request, and serve [Metrics.Handler]
// on a private port:
//
//	history := telemetry.NewHistory(time.Now())
//	m, err := telemetry.NewMetrics(telemetry.MetricsConfig{History: history})
//	m.Answered(telemetry.Answer{Route: "/v1/things/{id}", Method: "GET", Status: 200, Duration: took, At: end})
//
// The surprise: nothing a client sends can make a new series once a metric has its limit of them (see
// [Metric.Limit]). What comes later is counted in one series whose labels say _OTHER.
package telemetry
