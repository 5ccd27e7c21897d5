package cache

import "time"

// clock counts from its making. With time.Now it is monotonic: a jump of the wall clock neither expires
// nor revives anything.
type clock struct {
	now   func() time.Time
	start time.Time
}

func newClock(now func() time.Time) *clock {
	if now == nil {
		now = time.Now
	}
	return &clock{now: now, start: now()}
}

func (c *clock) elapsed() time.Duration { return c.now().Sub(c.start) }

// NowNano and Tick serve otter. No ticks: expired entries are dropped while others are read and
// written, and the caches need no goroutine and no closing for that.
func (c *clock) NowNano() int64                      { return int64(c.elapsed()) }
func (c *clock) Tick(time.Duration) <-chan time.Time { return nil }

// inline makes otter do its housekeeping on the goroutine that reads or writes. That keeps bounds tight.
func inline(housekeeping func()) { housekeeping() }
