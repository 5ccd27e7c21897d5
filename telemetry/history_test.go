package telemetry

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// noon is in the middle of a slot of either kind.
var noon = time.Date(2026, 3, 1, 12, 2, 33, 0, time.UTC)

func TestQuantilesAreOffByAtMostFivePercent(t *testing.T) {
	for d := 100 * time.Microsecond; d <= time.Minute; d += max(time.Microsecond, d/97) {
		var b Buckets
		b.Observe(d)
		if got := b.Quantile(0.95); math.Abs(float64(got-d)) > 0.05*float64(d) {
			t.Errorf("quantile of %v alone = %v, %.1f %% off", d, got, 100*float64(got-d)/float64(d))
		}
	}
}

func TestQuantileIsOfTheRightRank(t *testing.T) {
	var b Buckets
	for i := range 100 {
		b.Observe(time.Duration(i+1) * 10 * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0: 10 * time.Millisecond, 0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 1: time.Second} {
		if got := b.Quantile(q); math.Abs(float64(got-want)) > 0.05*float64(want) {
			t.Errorf("Quantile(%v) = %v, want %v", q, got, want)
		}
	}
	if got := new(Buckets).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
}

func TestHalfASecondIsJudgedExactly(t *testing.T) {
	const limit = 500 * time.Millisecond
	var b Buckets
	for range 19 {
		b.Observe(limit)
	}
	b.Observe(limit + 1)
	if got := b.Over(limit); got != 0.05 {
		t.Errorf("Over(500 ms) = %v, want 1 of 20", got)
	}
	if got := b.Quantile(0.95); got > limit {
		t.Errorf("p95 = %v although 95 %% took no longer than 500 ms", got)
	}
	if got := b.Quantile(0.951); got <= limit {
		t.Errorf("p95.1 = %v although that one took longer", got)
	}
}

func TestShareAboveFallsEvenlyAcrossAClass(t *testing.T) {
	var b Buckets
	for range 1000 {
		b.Observe(time.Duration(20+20*rand.Float64()) * time.Millisecond)
	}
	for _, d := range []time.Duration{5 * time.Millisecond, 25 * time.Millisecond, 30 * time.Millisecond, time.Second} {
		want := min(1, max(0, float64(40*time.Millisecond-d)/float64(20*time.Millisecond)))
		if got := b.Over(d); math.Abs(got-want) > 0.15 {
			t.Errorf("Over(%v) = %.2f, want about %.2f", d, got, want)
		}
	}
}

// answer is one at a time that took d.
func answer(at time.Time, status int, d time.Duration) *Answer {
	return &Answer{Route: "/", Method: "GET", Status: status, Duration: d, At: at}
}

func TestWindowHoldsWhatHappenedInIt(t *testing.T) {
	h := NewHistory(noon)
	for i := range 24 * 3600 { // a day, a request a second
		h.answered(answer(noon.Add(time.Duration(i)*time.Second), 200, time.Millisecond))
	}
	now := noon.Add(24*time.Hour - time.Second)
	for window, slack := range map[time.Duration]time.Duration{
		time.Minute: fineSlot, 5 * time.Minute: fineSlot, 15 * time.Minute: fineSlot,
		30 * time.Minute: coarseSlot/2 + time.Second, time.Hour: coarseSlot/2 + time.Second, 24 * time.Hour: coarseSlot / 2,
	} {
		s := h.Over(window, now)
		if off := time.Duration(s.Requests)*time.Second - window; off.Abs() > slack {
			t.Errorf("the last %v hold %d requests at one a second", window, s.Requests)
		}
		if span := now.Sub(s.From) + time.Second; time.Duration(s.Requests)*time.Second != span {
			t.Errorf("the last %v hold %d requests, but they begin %v ago", window, s.Requests, span)
		}
		if s.Latency.Count() != s.Requests {
			t.Errorf("the last %v hold %d requests and %d durations", window, s.Requests, s.Latency.Count())
		}
	}
}

func TestSeriesIsSlotBySlot(t *testing.T) {
	h := NewHistory(noon)
	for i := range 3600 {
		h.answered(answer(noon.Add(time.Duration(i)*time.Second), 500, time.Second))
	}
	now := noon.Add(time.Hour - time.Second)
	for window, want := range map[time.Duration]struct{ slots, each int }{15 * time.Minute: {180, 5}, 24 * time.Hour: {288, 300}} {
		series := h.Series(window, now)
		if len(series) != want.slots {
			t.Fatalf("%v has %d slots, want %d", window, len(series), want.slots)
		}
		total := 0
		for i, s := range series {
			total += int(s.Errors)
			if i > 0 && !s.From.Equal(series[i-1].To) {
				t.Errorf("slot %d begins at %v, the one before ends at %v", i, s.From, series[i-1].To)
			}
			inside := s.From.After(noon) && !s.To.After(now)
			if inside && int(s.Errors) != want.each {
				t.Errorf("slot %d of %v has %d errors, want %d", i, window, s.Errors, want.each)
			}
		}
		if last := series[len(series)-1]; last.From.After(now) || !last.To.After(now) {
			t.Errorf("the last slot is %v to %v, and it is %v", last.From, last.To, now)
		}
		if want := min(3600, int(window.Seconds())); total > want || total < want-5 {
			t.Errorf("%v has %d errors in all, want %d", window, total, want)
		}
	}
}

func TestWhatIsOldIsForgotten(t *testing.T) {
	h := NewHistory(noon)
	h.answered(answer(noon, 500, time.Second))
	later := noon.Add(25 * time.Hour)
	if s := h.Over(24*time.Hour, later); s.Requests != 0 {
		t.Errorf("a request of 25 h ago is among the last 24 h: %+v", s.Requests)
	}
	h.answered(answer(later, 200, time.Second)) // in slots that the other had, or not
	if s := h.Over(24*time.Hour, later); s.Requests != 1 || s.Errors != 0 {
		t.Errorf("%d requests and %d errors, want the new one", s.Requests, s.Errors)
	}
}

func TestStatusesAreToldApart(t *testing.T) {
	h := NewHistory(noon)
	for _, status := range []int{200, 404, 429, 429, 499, 500, 503, 504} {
		h.answered(answer(noon, status, time.Millisecond))
	}
	panicked := answer(noon, 500, time.Millisecond)
	panicked.Panicked = true
	h.answered(panicked)
	h.count(tokensRefused, noon, 2)
	s := h.Over(time.Minute, noon)
	got := [...]uint64{s.Requests, s.Errors, s.RateLimited, s.Timeouts, s.Panics, s.TokenRefusals}
	if want := [...]uint64{9, 4, 2, 1, 1, 2}; got != want {
		t.Errorf("requests, errors, 429, 504, panics, refusals = %v, want %v", got, want)
	}
}

func TestGaugesTellTheWorst(t *testing.T) {
	h := NewHistory(noon)
	if s := h.Over(time.Minute, noon); s.Health != 0 || s.PoolMax != 0 {
		t.Errorf("nobody has looked, and health is %d, the pool %v", s.Health, s.PoolMax)
	}
	for i, seen := range [][gauges]int64{{200, 1, 10, 3}, {503, 9, 10, 7}, {200, 2, 10, 1}} {
		h.gauge(noon.Add(time.Duration(i)*10*time.Second), &seen)
	}
	now := noon.Add(20 * time.Second)
	if s := h.Over(time.Minute, now); s.Health != 503 || s.PoolUsed != 9 || s.PoolMax != 10 || s.InFlight != 7 {
		t.Errorf("health %d, pool %v of %v, in flight %d; want 503, 9 of 10, 7", s.Health, s.PoolUsed, s.PoolMax, s.InFlight)
	}
	if s := h.Over(5*time.Second, now); s.Health != 200 {
		t.Errorf("health now = %d, want 200", s.Health)
	}
}

func TestATimeBeforeTheFirstSlotCountsInIt(t *testing.T) {
	h := NewHistory(noon)
	h.answered(answer(noon.Add(-time.Hour), 200, time.Second))
	if s := h.Over(time.Hour, noon.Add(time.Minute)); s.Requests != 1 {
		t.Errorf("%d requests, want 1", s.Requests)
	}
}

func TestNothingIsLostWhenSlotsAreUsedAgain(t *testing.T) {
	h := NewHistory(noon)
	const writers, each = 8, 20_000
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each { // 5 h, so that every slot is given away 20 times
				h.answered(answer(noon.Add(time.Duration(i)*5*time.Hour/each), 200+w, time.Millisecond))
			}
		})
	}
	all.Wait()
	if s := h.Over(24*time.Hour, noon.Add(5*time.Hour)); s.Requests != writers*each {
		t.Errorf("%d requests, want %d", s.Requests, writers*each)
	}
}

func TestHistoryTakesHalfAMiB(t *testing.T) {
	if size := unsafe.Sizeof(History{}); size > 512<<10 || size < 256<<10 {
		t.Errorf("a history takes %d KiB; its comment says half a MiB", size>>10)
	}
	h := NewHistory(noon)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		h.answered(answer(noon.Add(time.Duration(i)*time.Second), 200, time.Millisecond))
	}); n > 0 {
		t.Errorf("recording allocates %v times", n)
	}
}
