package load

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a real server, and gives a Do that asks for its root.
func serve(t *testing.T, h http.HandlerFunc) Do {
	t.Helper()
	server := httptest.NewServer(h)
	client := NewClient(ClientConfig{Timeout: 10 * time.Second})
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	request, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return client.Repeat(request)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }

// checkLaws is what every result must obey.
func checkLaws(t *testing.T, w Window) {
	t.Helper()
	if got := w.Answered + w.errors() + w.Cancelled; got != w.Sent {
		t.Errorf("%d answered, in error or cancelled, want %d as sent", got, w.Sent)
	}
	statuses := int64(0)
	for _, n := range w.Statuses {
		statuses += n
	}
	if statuses != w.Answered {
		t.Errorf("%d statuses, want %d as answered", statuses, w.Answered)
	}
	if got := w.Served + w.Errors[Timeout]; w.Latency.Count() != got || w.Service.Count() != got {
		t.Errorf("%d latencies and %d services, want %d", w.Latency.Count(), w.Service.Count(), got)
	}
	if got := w.Judgeable() + w.Shed + w.Cancelled + w.Errors[Local]; got != w.Sent {
		t.Errorf("%d judgeable, shed, cancelled or local, want %d as sent", got, w.Sent)
	}
	if w.Lag.Count() != w.Sent {
		t.Errorf("%d lags, want %d", w.Lag.Count(), w.Sent)
	}
}

func TestOpenRunSendsAllItPlanned(t *testing.T) {
	var seen atomic.Int64
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		ok(w, r)
	})
	plan := Open{Rate: 200, Duration: 2 * time.Second, Windows: 4}
	r, err := plan.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	// A starved machine may leave some unsent, and must say so.
	if r.Sent+r.Unsent != 400 || r.Answered != r.Sent || r.Statuses[200] != r.Sent || seen.Load() != r.Sent || r.Bytes != 2*r.Sent {
		t.Errorf("%d sent, %d unsent, %d answered, %v, %d bytes, %d seen by the server; want 400 of 2 bytes",
			r.Sent, r.Unsent, r.Answered, r.Statuses, r.Bytes, seen.Load())
	}
	if len(r.Windows) != 4 || len(r.Points) != 2 {
		t.Fatalf("%d windows and %d points, want 4 and 2", len(r.Windows), len(r.Points))
	}
	for i, w := range r.Windows {
		checkLaws(t, w)
		if w.Sent+w.Unsent != 100 || w.Length != 500*time.Millisecond {
			t.Errorf("window %d has %d in %v, want 100 in 500ms", i, w.Sent, w.Length)
		}
	}
	if a, b := r.Points[0], r.Points[1]; a.Classes[2] != a.Sent || b.Start != time.Second || a.Sent+b.Sent != r.Sent {
		t.Errorf("the points are %+v", r.Points)
	}
	if want := float64(r.Sent) / 2; r.Rate() != want || r.Throughput() != want {
		t.Errorf("rate %v, throughput %v; want %v", r.Rate(), r.Throughput(), want)
	}
	if r.Stopped != "" {
		t.Errorf("stopped: %s", r.Stopped)
	}
}

// stallOnce answers at once, but for one time in which nobody is answered.
func stallOnce(after, stall time.Duration) http.HandlerFunc {
	began := time.Now()
	return func(w http.ResponseWriter, r *http.Request) {
		if gone := time.Since(began); gone >= after && gone < after+stall {
			select {
			case <-time.After(after + stall - gone):
			case <-r.Context().Done():
			}
		}
		ok(w, r)
	}
}

// A tenth of the run's requests were meant for the time of the stall, so its p99 must be most of the
// stall. To a closed loop it is one slow answer among thousands.
func TestOpenRunShowsTheStallThatAClosedOneHides(t *testing.T) {
	const stall = 250 * time.Millisecond
	open, err := Open{Rate: 200, Duration: 10 * stall}.Run(t.Context(), serve(t, stallOnce(4*stall, stall)))
	if err != nil {
		t.Fatal(err)
	}
	closed, err := Closed{Clients: 1, Duration: 10 * stall}.Run(t.Context(), serve(t, stallOnce(4*stall, stall)))
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, open.Window)
	checkLaws(t, closed.Window)
	if got := open.Latency.Quantile(0.99); got < stall*8/10 {
		t.Errorf("the open run's p99 is %v, want most of %v", got, stall)
	}
	if open.Latency.Quantile(0.92) < stall/20 {
		t.Errorf("the open run's p92 is %v: a tenth were meant for the stall", open.Latency.Quantile(0.92))
	}
	if closed.Latency.Max() < stall*8/10 {
		t.Fatalf("the closed run's longest is %v: it missed the stall of %v", closed.Latency.Max(), stall)
	}
	if got := closed.Latency.Quantile(0.99); got > stall/2 {
		t.Errorf("the closed run's p99 is %v: it was to hide the stall", got)
	}
}

// With one place in flight the requests cannot leave while the server stalls; they have waited all
// the same, and Latency says so where Service does not.
func TestLatencyCountsTheWaitToLeave(t *testing.T) {
	const stall = 250 * time.Millisecond
	plan := Open{Rate: 100, Duration: 10 * stall, MaxInFlight: 1}
	r, err := plan.Run(t.Context(), serve(t, stallOnce(4*stall, stall)))
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.InFlight != 1 {
		t.Errorf("%d in flight, want 1", r.InFlight)
	}
	if r.Latency.Quantile(0.95) < stall/3 || r.Latency.Quantile(0.99) < stall*8/10 {
		t.Errorf("p99 is %v, want most of %v", r.Latency.Quantile(0.99), stall)
	}
	if r.Service.Quantile(0.95) > stall/2 {
		t.Errorf("uncorrected p95 is %v: only one request was under way", r.Service.Quantile(0.95))
	}
	if !strings.Contains(r.Bottleneck, "in flight") || !strings.Contains(r.Bottleneck, "left late") {
		t.Errorf("bottleneck: %q, want it to name the lag and the places in flight", r.Bottleneck)
	}
}

func TestAbsurdRateIsOwnedUpTo(t *testing.T) {
	do := serve(t, ok)
	r, err := Open{Rate: 2_000_000, Duration: 500 * time.Millisecond, MaxInFlight: 64}.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Sent+r.Unsent != 1_000_000 {
		t.Errorf("%d sent and %d not, want 1000000 together", r.Sent, r.Unsent)
	}
	if !strings.Contains(r.Bottleneck, "left late") || !strings.Contains(r.Bottleneck, "never left") {
		t.Errorf("bottleneck: %q", r.Bottleneck)
	}
}

func TestClosedRunHasItsClientsAndNoMore(t *testing.T) {
	var now, most atomic.Int64
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		<-time.After(5 * time.Millisecond)
		now.Add(-1)
		ok(w, r)
	})
	r, err := Closed{Clients: 8, Duration: 500 * time.Millisecond, Windows: 2}.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if most.Load() != 8 || r.InFlight != 8 {
		t.Errorf("%d at once in the server, %d in the result; want 8", most.Load(), r.InFlight)
	}
	if r.Latency.Min() < 5*time.Millisecond || r.Throughput() > 8/0.005 || r.Throughput() <= 0 {
		t.Errorf("from %v, %v a second: more than 8 clients can at 5 ms", r.Latency.Min(), r.Throughput())
	}
	if len(r.Windows) != 2 || r.Windows[0].Sent == 0 || r.Windows[1].Sent == 0 {
		t.Errorf("windows: %+v", r.Windows)
	}
}

func TestBurstIsReleasedTogether(t *testing.T) {
	const n = 40
	var arrived, armed sync.WaitGroup
	arrived.Add(n)
	armed.Add(n)
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait() // none is answered until all are here
		ok(w, r)
	})
	arm := func(ctx context.Context, i int) (func(context.Context) Answer, error) {
		armed.Done()
		return func(ctx context.Context) Answer {
			armed.Wait() // would hang if one were released before all are armed
			return do(ctx, i)
		}, nil
	}
	r, err := Burst{Requests: n}.Run(t.Context(), arm)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Statuses[200] != n || r.InFlight != n {
		t.Errorf("%v with %d in flight, want %d of 200 at once", r.Statuses, r.InFlight, n)
	}
}

func TestBurstSharesItsConnections(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]int{}
	do := serve(t, ok)
	counted := Do(func(ctx context.Context, i int) Answer {
		mu.Lock()
		seen[i]++
		mu.Unlock()
		return do(ctx, i)
	})
	r, err := Burst{Requests: 50, Connections: 4}.Run(t.Context(), counted.Arm)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Sent != 50 || len(seen) != 50 || r.InFlight > 4 {
		t.Errorf("%d sent, %d different, %d at once; want 50, 50 and at most 4", r.Sent, len(seen), r.InFlight)
	}
}

func TestBurstCountsWhatCouldNotBeArmed(t *testing.T) {
	do := serve(t, ok)
	arm := func(ctx context.Context, i int) (func(context.Context) Answer, error) {
		if i == 1 {
			return nil, errors.New("no such recipe")
		}
		return do.Arm(ctx, i)
	}
	r, err := Burst{Requests: 3}.Run(t.Context(), arm)
	if err != nil {
		t.Fatal(err)
	}
	if r.Answered != 2 || r.Errors[Other] != 1 || r.Samples[Other] != "no such recipe" {
		t.Errorf("%d answered, %v, %v", r.Answered, r.Errors, r.Samples)
	}
}

func TestCancelledRunReportsWhatThereWas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var seen atomic.Int64
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) > 20 {
			cancel()
			<-r.Context().Done()
			return
		}
		ok(w, r)
	})
	r, err := Open{Rate: 200, Duration: time.Hour}.Run(ctx, do)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	checkLaws(t, r.Window)
	if r.Answered == 0 || r.Cancelled == 0 || r.Failed != 0 || r.Stopped == "" {
		t.Errorf("%d answered, %d cancelled, %d failed, stopped %q", r.Answered, r.Cancelled, r.Failed, r.Stopped)
	}
	if r.Length <= 0 || r.Length > time.Minute {
		t.Errorf("it lasted %v", r.Length)
	}
}

func TestRunStopsWhenTooManyFail(t *testing.T) {
	var seen atomic.Int64
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) > 100 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	r, err := Open{Rate: 1000, Duration: time.Hour, StopAt: 0.2}.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Stopped != errTooManyFailed.Error() || r.Length > time.Minute || r.Unsent != 0 {
		t.Errorf("stopped %q after %v, %d unsent", r.Stopped, r.Length, r.Unsent)
	}
	if r.Failed != r.Statuses[500] || r.Failed == 0 {
		t.Errorf("%d failed, want the %d of 500", r.Failed, r.Statuses[500])
	}
}

func TestSheddingIsNeitherFailureNorSpeed(t *testing.T) {
	var seen atomic.Int64
	do := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch seen.Add(1) % 4 {
		case 0:
			w.WriteHeader(http.StatusTooManyRequests)
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable) // says not when to come back: a failure
		case 3:
			w.WriteHeader(http.StatusNotFound) // an answer, whatever it means
		}
	})
	r, err := Closed{Clients: 1, Duration: 200 * time.Millisecond, StopAt: 1}.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Shed != r.Statuses[429]+r.Statuses[503]-r.Failed || r.Failed == 0 || r.Failed > r.Statuses[503]/2+1 {
		t.Errorf("%d shed, %d failed of %v", r.Shed, r.Failed, r.Statuses)
	}
	if r.Latency.Count() != r.Statuses[404] {
		t.Errorf("%d latencies, want only the %d that were served", r.Latency.Count(), r.Statuses[404])
	}
	if want := float64(r.Failed) / float64(r.Failed+r.Statuses[404]); r.ErrorRate() != want || r.Throughput() == 0 {
		t.Errorf("error rate %v, want %v: the shed do not count", r.ErrorRate(), want)
	}
}

func TestAnswersAreNotAwaitedForEver(t *testing.T) {
	do := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r, err := Open{Rate: 100, Duration: 50 * time.Millisecond, Drain: 50 * time.Millisecond}.Run(t.Context(), do)
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Errors[Timeout] != 5 || r.Failed != 5 || r.Latency.Min() < 50*time.Millisecond {
		t.Errorf("%v, %d failed, from %v; want 5 timeouts that took all there was", r.Errors, r.Failed, r.Latency.Min())
	}
}

func TestNoPortLeftIsTheGeneratorsFault(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	// Dialling from an address that is not of this machine fails as one without a free port does.
	client := NewClient(ClientConfig{Dial: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}).DialContext})
	defer client.Close()
	request, err := http.NewRequest(http.MethodGet, "http://"+taken.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open{Rate: 100, Duration: 50 * time.Millisecond}.Run(t.Context(), client.Repeat(request))
	if err != nil {
		t.Fatal(err)
	}
	checkLaws(t, r.Window)
	if r.Failed != 0 || r.Errors[Local] != 5 || !strings.Contains(r.Bottleneck, "port") {
		t.Errorf("%v, %v, bottleneck %q", r.Errors, r.Samples, r.Bottleneck)
	}
}

func TestPlansNameEveryFault(t *testing.T) {
	_, err := Open{Rate: 0, MaxInFlight: -1, Windows: 101, StopAt: 2, Drain: -1}.Run(t.Context(), nil)
	for _, field := range []string{"rate", "max in flight", "duration", "windows", "stop at", "drain"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	if _, err := (Open{Rate: 1e9, Duration: time.Hour}).Run(t.Context(), nil); err == nil {
		t.Error("3.6e12 requests are a plan")
	}
	if _, err := (Closed{Duration: time.Second}).Run(t.Context(), nil); err == nil {
		t.Error("no clients are a plan")
	}
	if _, err := (Burst{Connections: -1, Drain: -1}).Run(t.Context(), nil); err == nil {
		t.Error("no requests are a volley")
	}
}

func TestMedianIsTheWindowInTheMiddle(t *testing.T) {
	r := Result{Windows: make([]Window, 3)}
	for i, d := range []time.Duration{time.Minute, time.Millisecond, time.Second} {
		r.Windows[i].Latency.Record(d)
	}
	if got := r.Median(0.95).Latency.Max(); got != time.Second {
		t.Errorf("the median window has %v, want 1s", got)
	}
}
