package load

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is a whole run: its counts in total, in windows, and over time.
type Result struct {
	Window           // of the whole run
	Windows []Window // the equal parts of Duration in order
	Points  []Point  // over time, for charts: at most 300, each of a second or more

	// Stopped is why the sending ended before its time, and empty when it did not.
	Stopped string
	// Samples has the text of the first error of each kind, at most 200 bytes. The server may have a
	// hand in it, so escape it.
	Samples map[Kind]string
}

// Window is what happened to the requests that were meant to leave in one span of time, whenever
// their answers came.
type Window struct {
	Start  time.Duration // since the start of the run
	Length time.Duration // of the sending: shorter than planned if it was stopped

	Sent      int64 // requests that left; each is Answered, Cancelled or counted in Errors
	Unsent    int64 // requests that were due and never left, because the generator was too far behind
	Answered  int64 // whole answers of any status
	Served    int64 // of Answered: neither shed nor failed
	Shed      int64 // of Answered: refused in order, by 429 or by 503 with Retry-After
	Failed    int64 // of Sent: every error but Local, and every status of 500 or above that is not shed
	Cancelled int64 // of Sent: ended by the caller's context, so it says nothing of the server
	Resent    int64 // of Sent: left twice, see Answer.Resent
	Bytes     int64 // of bodies
	Statuses  map[int]int64
	Errors    map[Kind]int64

	// Latency runs from the intended time to the last byte. It has what was served, and timeouts as
	// long as they were waited for; what was shed or failed at once would only flatter it.
	Latency Histogram
	// Service is the same from the moment the request really left.
	Service Histogram
	// Lag is how late the requests left.
	Lag Histogram

	InFlight int     // the most requests that waited for an answer at one time
	CPU      float64 // of this process while sending, as a share of the cores it may use; -1 is unknown

	// Bottleneck says in what the generator itself limited this, and is empty when it did not. The
	// figures of a limited window are no evidence about the server.
	Bottleneck string

	capped int64 // how often a request took the last place in flight
}

// Point is a short time of a run.
type Point struct {
	Start         time.Duration // since the start of the run
	Length        time.Duration
	Sent          int64
	P50, P95, P99 time.Duration // as Window.Latency
	Failed        int64
	Shed          int64
	Errors        int64
	Classes       [6]int64 // answers by the first digit of their status; 0 is any other
}

// Rate is how many requests left in a second.
func (w Window) Rate() float64 { return perSecond(w.Sent, w.Length) }

// Throughput is how many requests were served in a second.
func (w Window) Throughput() float64 { return perSecond(w.Served, w.Length) }

// Judgeable is how many requests say something about the server: those served and those failed.
func (w Window) Judgeable() int64 { return w.Served + w.Failed }

// ErrorRate is the share of judgeable requests that failed; 0 when there were none.
func (w Window) ErrorRate() float64 {
	if w.Judgeable() == 0 {
		return 0
	}
	return float64(w.Failed) / float64(w.Judgeable())
}

func (w Window) errors() int64 {
	var n int64
	for _, k := range w.Errors {
		n += k
	}
	return n
}

// Median is the window whose latency at quantile p is in the middle; of an even number of windows it
// is the slower of the two in the middle.
func (r Result) Median(p float64) Window {
	if len(r.Windows) == 0 {
		return r.Window
	}
	ordered := slices.SortedFunc(slices.Values(r.Windows), func(a, b Window) int {
		return cmp.Compare(a.Latency.Quantile(p), b.Latency.Quantile(p))
	})
	return ordered[len(ordered)/2]
}

// Trust is up to where the generator is believed. Zero fields are the defaults.
type Trust struct {
	MaxLag time.Duration // of how late requests leave, at p99; 5 ms
	MaxCPU float64       // of this process, as a share of the cores it may use; 0.8
}

func (t Trust) withDefaults() Trust {
	if t.MaxLag == 0 {
		t.MaxLag = 5 * time.Millisecond
	}
	if t.MaxCPU == 0 {
		t.MaxCPU = 0.8
	}
	return t
}

// bottleneck words every way in which the generator was the limit.
func (w Window) bottleneck(t Trust) string {
	t = t.withDefaults()
	var why []string
	if lag := w.Lag.Quantile(0.99); lag > t.MaxLag {
		why = append(why, fmt.Sprintf("requests left late: the p99 of the lag is %v, above %v", lag.Round(time.Microsecond), t.MaxLag))
	}
	if w.CPU > t.MaxCPU {
		why = append(why, fmt.Sprintf("this process used %.0f %% of its cores, above %.0f %%", 100*w.CPU, 100*t.MaxCPU))
	}
	if w.capped > 0 {
		why = append(why, fmt.Sprintf("all %d places in flight were taken, %d times", w.InFlight, w.capped))
	}
	if w.Unsent > 0 {
		why = append(why, fmt.Sprintf("%d of %d requests never left", w.Unsent, w.Unsent+w.Sent))
	}
	if n := w.Errors[Local]; n > 0 {
		why = append(why, fmt.Sprintf("%d requests found no free port or file descriptor on this machine", n))
	}
	return strings.Join(why, "; ")
}

func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// add counts one request, and its latency if it has one.
func (w *Window) add(intended time.Time, a Answer, kind Kind) {
	w.Sent++
	w.Bytes += a.Bytes
	if a.Resent {
		w.Resent++
	}
	switch kind {
	case None:
		w.Answered++
		w.status(a)
	case Cancelled:
		w.Cancelled++
	case Local:
		increment(&w.Errors, kind)
	default:
		increment(&w.Errors, kind)
		w.Failed++
	}
	if timed(a, kind) {
		w.Latency.Record(a.End.Sub(intended))
	}
}

// timed is whether the time of an answer tells how fast the server serves.
func timed(a Answer, kind Kind) bool {
	return kind == Timeout || kind == None && !a.Shed && a.Status < 500
}

func (w *Window) status(a Answer) {
	increment(&w.Statuses, a.Status)
	switch {
	case a.Shed:
		w.Shed++
	case a.Status >= 500:
		w.Failed++
	default:
		w.Served++
	}
}

func increment[K comparable](m *map[K]int64, key K) {
	if *m == nil {
		*m = map[K]int64{}
	}
	(*m)[key]++
}

// point is a window as a chart needs it.
func (w Window) point() Point {
	p := Point{
		Start: w.Start, Length: w.Length, Sent: w.Sent, Failed: w.Failed, Shed: w.Shed, Errors: w.errors(),
		P50: w.Latency.Quantile(0.50), P95: w.Latency.Quantile(0.95), P99: w.Latency.Quantile(0.99),
	}
	for status, n := range w.Statuses {
		if class := status / 100; class >= 1 && class <= 5 {
			p.Classes[class] += n
		} else {
			p.Classes[0] += n
		}
	}
	return p
}
