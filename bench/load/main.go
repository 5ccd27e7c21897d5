// Command load is one turn of compare.sh: Gantry's generator or vegeta's, or a server for them.
//
// Begin with compare.sh, which needs nothing else. Each generator runs in a process of its own and
// prints one line of JSON. The surprise: vegeta's latency begins when its request leaves, so beside
// Gantry's figures, which begin when it was meant to leave, stand those that begin as vegeta's do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/gantryhq/gantry/audit/load"
	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// turn is what a generator saw. Latencies are in microseconds.
type turn struct {
	Server     string  `json:"server,omitempty"`
	Tool       string  `json:"tool"`
	Rate       float64 `json:"rate"`
	Sent       int64   `json:"sent"`
	P50        int64   `json:"p50"`
	P95        int64   `json:"p95"`
	P99        int64   `json:"p99"`
	Errors     int64   `json:"errors"`
	ServiceP50 int64   `json:"service_p50,omitempty"`
	ServiceP95 int64   `json:"service_p95,omitempty"`
	ServiceP99 int64   `json:"service_p99,omitempty"`
	LagP50     int64   `json:"lag_p50,omitempty"`
	LagP99     int64   `json:"lag_p99,omitempty"`
	CPU        float64 `json:"cpu,omitempty"` // of all cores
	Bottleneck string  `json:"bottleneck,omitempty"`

	Samples map[load.Kind]string `json:"samples,omitempty"` // of errors
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("one of ours, closed, vegeta, serve, table")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	url := fs.String("url", "", "what to ask for")
	rate := fs.Int("rate", 2000, "requests per second")
	clients := fs.Int("clients", 20, "of a closed run")
	duration := fs.Duration("duration", 20*time.Second, "of the sending")
	listen := fs.String("listen", "", "where to serve")
	stall := fs.Duration("stall", 0, "answer at once, but for one pause of this length after 8 s")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "ours":
		return ours(ctx, "gantry", *url, load.Open{Rate: float64(*rate), Duration: *duration}.Run)
	case "closed":
		return ours(ctx, "gantry, closed", *url, load.Closed{Clients: *clients, Duration: *duration}.Run)
	case "vegeta":
		return theirs(*url, *rate, *duration)
	case "table":
		return table(os.Stdout, os.Stdin)
	case "serve":
		return serve(ctx, *listen, *stall)
	}
	return fmt.Errorf("%s is none of ours, closed, vegeta, serve, table, table", args[0])
}

func ours(ctx context.Context, tool, url string, plan func(context.Context, load.Do) (load.Result, error)) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := load.NewClient(load.ClientConfig{})
	defer client.Close()
	r, err := plan(ctx, client.Repeat(request))
	if err != nil {
		return err
	}
	return say(turn{
		Tool: tool, Rate: r.Rate(), Sent: r.Sent, Errors: r.Failed + r.Shed,
		P50: us(r.Latency, 0.5), P95: us(r.Latency, 0.95), P99: us(r.Latency, 0.99),
		ServiceP50: us(r.Service, 0.5), ServiceP95: us(r.Service, 0.95), ServiceP99: us(r.Service, 0.99),
		LagP50: us(r.Lag, 0.5), LagP99: us(r.Lag, 0.99), CPU: r.CPU, Bottleneck: r.Bottleneck, Samples: r.Samples,
	})
}

func us(h load.Histogram, p float64) int64 { return h.Quantile(p).Microseconds() }

func theirs(url string, rate int, duration time.Duration) error {
	attacker := vegeta.NewAttacker(vegeta.KeepAlive(true), vegeta.HTTP2(false), vegeta.Connections(8192))
	targeter := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: url})
	var m vegeta.Metrics
	for r := range attacker.Attack(targeter, vegeta.Rate{Freq: rate, Per: time.Second}, duration, "") {
		m.Add(r)
	}
	m.Close()
	return say(turn{
		Tool: "vegeta", Rate: m.Rate, Sent: int64(m.Requests), Errors: int64(m.Requests) - int64(float64(m.Requests)*m.Success+0.5),
		P50: m.Latencies.P50.Microseconds(), P95: m.Latencies.P95.Microseconds(), P99: m.Latencies.P99.Microseconds(),
	})
}

func say(t turn) error { return json.NewEncoder(os.Stdout).Encode(t) }

// serve answers after 1 to 20 ms, as even a chance as can be, or at once but for a stall.
func serve(ctx context.Context, address string, stall time.Duration) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	handler := http.HandlerFunc(delayed)
	if stall > 0 {
		handler = stalled(stall)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func delayed(w http.ResponseWriter, _ *http.Request) {
	time.Sleep(time.Millisecond + time.Duration(rand.Int64N(int64(19*time.Millisecond))))
	_, _ = w.Write([]byte("after a while\n"))
}

// stalled answers nobody in one pause, 8 s after the first request.
func stalled(stall time.Duration) http.HandlerFunc {
	var first sync.Once
	var from time.Time
	return func(w http.ResponseWriter, _ *http.Request) {
		first.Do(func() { from = time.Now().Add(8 * time.Second) })
		if gone := time.Since(from); gone >= 0 && gone < stall {
			time.Sleep(stall - gone)
		}
		_, _ = w.Write([]byte("at once\n"))
	}
}
