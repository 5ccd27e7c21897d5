package load

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"time"
)

const maxPoints = 300

// tally counts a run while it goes on.
type tally struct {
	began    time.Time
	duration time.Duration
	stopAt   float64
	stop     context.CancelCauseFunc // of the sending

	mu       sync.Mutex
	windows  []Window
	points   []Window
	samples  map[Kind]string
	inFlight int
	cpu      []cpuMark // in the order of time
}

// cpuMark is how much processor time this process had used at some time.
type cpuMark struct {
	at   time.Time
	used time.Duration
	ok   bool
}

// newTally begins a run now.
func newTally(duration time.Duration, windows int, stopAt float64, stop context.CancelCauseFunc) *tally {
	points := min(max(int(duration/time.Second), 1), maxPoints)
	return &tally{
		began: time.Now(), duration: duration, stopAt: stopAt, stop: stop,
		windows: spans(duration, windows), points: spans(duration, points),
		samples: map[Kind]string{},
	}
}

// spans divides a duration into n windows that touch.
func spans(duration time.Duration, n int) []Window {
	list := make([]Window, n)
	for i := range list {
		list[i].Start = boundary(duration, i, n)
		list[i].Length = boundary(duration, i+1, n) - list[i].Start
	}
	return list
}

// boundary divides before it multiplies, lest a long duration overflow.
func boundary(duration time.Duration, i, n int) time.Duration {
	whole, rest := duration/time.Duration(n), duration%time.Duration(n)
	return whole*time.Duration(i) + rest*time.Duration(i)/time.Duration(n)
}

// spanOf finds the window in which an offset lies; what is past the end belongs to the last.
func spanOf(list []Window, offset time.Duration) *Window {
	i := int(float64(offset) / float64(list[len(list)-1].Start+list[len(list)-1].Length) * float64(len(list)))
	i = min(max(i, 0), len(list)-1)
	for i > 0 && offset < list[i].Start {
		i--
	}
	for i < len(list)-1 && offset >= list[i+1].Start {
		i++
	}
	return &list[i]
}

// leave counts a request that leaves now. full says that it took the last place in flight.
func (t *tally) leave(intended time.Time, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight++
	w := spanOf(t.windows, intended.Sub(t.began))
	if len(t.cpu) == 0 || t.cpu[len(t.cpu)-1].at.Before(t.began.Add(w.Start)) {
		t.markCPU()
	}
	w.InFlight = max(w.InFlight, t.inFlight)
	if full {
		w.capped++
	}
}

// endNow makes the run as long as it has been going on.
func (t *tally) endNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.duration = time.Since(t.began)
	t.windows[0].Length, t.points[0].Length = t.duration, t.duration
}

// markEnd is the end of the sending.
func (t *tally) markEnd() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markCPU()
}

func (t *tally) markCPU() {
	used, ok := cpuTime()
	t.cpu = append(t.cpu, cpuMark{time.Now(), used, ok})
}

// unsent counts a request that is given up.
func (t *tally) unsent(offset time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	spanOf(t.windows, offset).Unsent++
}

// arrive counts an answer, and stops the sending when too many of this moment's failed.
func (t *tally) arrive(intended time.Time, a Answer, kind Kind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	w := spanOf(t.windows, intended.Sub(t.began))
	w.add(intended, a, kind)
	w.Lag.Record(a.Start.Sub(intended))
	if timed(a, kind) {
		w.Service.Record(a.End.Sub(a.Start))
	}
	now := spanOf(t.points, intended.Sub(t.began))
	now.add(intended, a, kind)
	if _, seen := t.samples[kind]; !seen && kind != None && kind != Cancelled {
		t.samples[kind] = brief(a.Err)
	}
	if t.stopAt > 0 && now.Judgeable() >= 50 && now.ErrorRate() > t.stopAt {
		t.stop(errTooManyFailed)
	}
}

func brief(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}

// finish makes the result of a run whose sending ended at the given time.
func (t *tally) finish(ended time.Time, stopped string, trust Trust) Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Result{Stopped: stopped, Samples: t.samples}
	sending := t.duration
	if stopped != "" {
		sending = min(sending, ended.Sub(t.began))
	}
	for _, w := range t.windows {
		if w.Length = min(w.Length, sending-w.Start); w.Length <= 0 {
			break
		}
		w.CPU = cpuShare(t.cpu, t.began.Add(w.Start), t.began.Add(w.Start+w.Length))
		w.Bottleneck = w.bottleneck(trust)
		r.Windows = append(r.Windows, w)
		r.Window.merge(w)
	}
	r.CPU = cpuShare(t.cpu, t.began, ended)
	r.Bottleneck = r.Window.bottleneck(trust)
	for _, p := range t.points {
		if p.Length = min(p.Length, sending-p.Start); p.Length <= 0 {
			break
		}
		r.Points = append(r.Points, p.point())
	}
	return r
}

// cpuShare is the processor time used between two times, as a share of what there was, taken between
// the marks nearest to them.
func cpuShare(marks []cpuMark, from, to time.Time) float64 {
	if len(marks) < 2 {
		return -1
	}
	first, last := nearest(marks, from), nearest(marks, to)
	wall := last.at.Sub(first.at)
	// The system counts processor time in steps of up to 10 ms.
	if !first.ok || !last.ok || wall < 100*time.Millisecond {
		return -1
	}
	return float64(last.used-first.used) / float64(wall) / float64(runtime.GOMAXPROCS(0))
}

func nearest(marks []cpuMark, at time.Time) cpuMark {
	best := marks[0]
	for _, m := range marks[1:] {
		if m.at.Sub(at).Abs() < best.at.Sub(at).Abs() {
			best = m
		}
	}
	return best
}

// merge adds a later window of the same run.
func (w *Window) merge(other Window) {
	w.Length += other.Length
	w.Sent += other.Sent
	w.Unsent += other.Unsent
	w.Answered += other.Answered
	w.Served += other.Served
	w.Shed += other.Shed
	w.Failed += other.Failed
	w.Cancelled += other.Cancelled
	w.Resent += other.Resent
	w.Bytes += other.Bytes
	w.capped += other.capped
	w.InFlight = max(w.InFlight, other.InFlight)
	mergeCounts(&w.Statuses, other.Statuses)
	mergeCounts(&w.Errors, other.Errors)
	w.Latency.Merge(other.Latency)
	w.Service.Merge(other.Service)
	w.Lag.Merge(other.Lag)
}

func mergeCounts[K comparable](into *map[K]int64, from map[K]int64) {
	for k, n := range from {
		increment(into, k)
		(*into)[k] += n - 1
	}
}
