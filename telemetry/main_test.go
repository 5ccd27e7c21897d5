package telemetry

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when all requests of these tests began.
var start = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

const ms = Millis(time.Millisecond)

// request is a request of a user's through all stages to an upstream.
func request(id string, status int) *Request {
	r := &Request{
		ID: id, Start: start, Method: "GET", Host: "api.example.org:8443", Path: "/v1/things/7", Route: "GET /v1/things/{id}",
		Outcome: Outcome{Status: status, Duration: 40 * ms},
		Client:  netip.MustParseAddr("192.0.2.7"), Caller: "u_2c80f694c664", FirstByte: 30 * ms, Timeout: 30_000 * ms, Written: 12,
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7", ParentID: "1111111111111111", CallID: "2222222222222222", Sampled: true,
		Upstream: Upstream{Name: "10.0.0.9:3000", Status: status},
	}
	for _, s := range []Step{
		{"shape", "passed", 0, 1 * ms},
		{"identity", "passed", 1 * ms, 5 * ms},
		{"quota", "allowed", 5 * ms, 6 * ms},
		{"handler", "", 6 * ms, 40 * ms},
		{"upstream", "answered", 7 * ms, 30 * ms},
	} {
		r.Steps.Add(s)
	}
	r.Limits.Add(Limit{Policy: "user", Limit: 100, Used: 3, Window: 60_000 * ms, Reset: 59_000 * ms})
	return r
}

// running runs f until stop is called, which waits for its end and returns how long that took.
func running(t *testing.T, f func(context.Context) error) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	var took time.Duration
	stop = func() time.Duration {
		if ctx.Err() == nil {
			began := time.Now()
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			took = time.Since(began)
		}
		return took
	}
	t.Cleanup(func() { stop() })
	return stop
}

// dropped returns the counters that are not 0.
func dropped(list []Drop) map[string]uint64 {
	found := make(map[string]uint64)
	for _, d := range list {
		if d.Count > 0 {
			found[d.Cause] = d.Count
		}
	}
	return found
}

func total(list []Drop) (n uint64) {
	for _, d := range list {
		n += d.Count
	}
	return n
}

// listen returns a logger and what it is told, which tests wait for.
func listen() (*slog.Logger, <-chan string) {
	said := make(lines, 100)
	return slog.New(slog.NewTextHandler(said, nil)), said
}

type lines chan string

// Write implements io.Writer.
func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}
