package load

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func offsets(o Open) (list []time.Duration) {
	s := newSchedule(o)
	for i, offset, ok := s.next(); ok; i, offset, ok = s.next() {
		if i != len(list) {
			panic("a request was numbered out of turn")
		}
		list = append(list, offset)
	}
	return list
}

func TestEvenScheduleIsRateTimesDuration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Open{
			Rate:     rapid.Float64Range(0.1, 5000).Draw(t, "rate"),
			Duration: time.Duration(rapid.Int64Range(1, int64(3*time.Second)).Draw(t, "duration")),
		}
		list := offsets(o)
		want := math.Ceil(o.Rate * o.Duration.Seconds())
		if math.Abs(float64(len(list))-want) > 1 {
			t.Fatalf("%d requests, want %v", len(list), want)
		}
		gap := time.Duration(1e9 / o.Rate)
		for i, offset := range list {
			if want := float64(i) * 1e9 / o.Rate; math.Abs(float64(offset)-want) > 1 {
				t.Fatalf("request %d at %v, want %v: gaps of %v", i, offset, time.Duration(want), gap)
			}
		}
	})
}

func TestPoissonScheduleIsTheSeeds(t *testing.T) {
	o := Open{Rate: 1000, Duration: 20 * time.Second, Poisson: true, Seed: 7}
	first := offsets(o)
	if !slices.Equal(first, offsets(o)) {
		t.Error("the same seed gives other gaps")
	}
	if !slices.IsSorted(first) || first[len(first)-1] >= o.Duration {
		t.Error("the offsets do not rise to less than the duration")
	}
	// The number of a Poisson process has its mean as its variance.
	if off := math.Abs(float64(len(first)) - 20_000); off > 4*math.Sqrt(20_000) {
		t.Errorf("%d requests, want about 20000", len(first))
	}
	// And so have, one by one, the numbers of each 10 ms: an even schedule has 10 in each.
	counts := make([]float64, 2000)
	for _, offset := range first {
		counts[offset/(10*time.Millisecond)]++
	}
	variance := 0.0
	for _, n := range counts {
		variance += (n - 10) * (n - 10) / 2000
	}
	if variance < 8 || variance > 12 {
		t.Errorf("the numbers in 10 ms vary by %v, want about 10", variance)
	}
	o.Seed = 8
	if slices.Equal(first, offsets(o)) {
		t.Error("another seed gives the same gaps")
	}
}

func TestSpansTileTheRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := time.Duration(rapid.Int64Range(1000, int64(24*time.Hour)).Draw(t, "duration"))
		list := spans(duration, rapid.IntRange(1, 300).Draw(t, "n"))
		next := time.Duration(0)
		for _, w := range list {
			if w.Start != next || w.Length <= 0 {
				t.Fatalf("a window at %v, %v long; want it at %v", w.Start, w.Length, next)
			}
			next += w.Length
		}
		if next != duration {
			t.Fatalf("they end at %v, want %v", next, duration)
		}
		offset := time.Duration(rapid.Int64Range(0, int64(duration)-1).Draw(t, "offset"))
		if w := spanOf(list, offset); offset < w.Start || offset >= w.Start+w.Length {
			t.Fatalf("%v is put in the window at %v, %v long", offset, w.Start, w.Length)
		}
		if spanOf(list, duration+time.Hour) != &list[len(list)-1] || spanOf(list, -1) != &list[0] {
			t.Fatal("what is outside is not put in the window next to it")
		}
	})
}
