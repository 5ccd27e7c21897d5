package load

import (
	"math/rand/v2"
	"time"
)

// schedule is the offsets at which the requests of an open run are meant to leave.
type schedule struct {
	rate     float64
	duration time.Duration
	random   *rand.Rand // nil: evenly spaced
	sent     int
	at       float64 // nanoseconds; of the last random one
}

func newSchedule(o Open) *schedule {
	s := &schedule{rate: o.Rate, duration: o.Duration}
	if o.Poisson {
		s.random = rand.New(rand.NewPCG(o.Seed, 0))
	}
	return s
}

// next is the number and the offset of the next request, and false when all of them have been given.
func (s *schedule) next() (i int, offset time.Duration, ok bool) {
	if s.random != nil {
		s.at += s.random.ExpFloat64() * 1e9 / s.rate
		offset = time.Duration(s.at)
	} else {
		// Not by adding up gaps, whose rounding would add up too.
		offset = time.Duration(float64(s.sent) * 1e9 / s.rate)
	}
	if offset >= s.duration {
		return 0, 0, false
	}
	s.sent++
	return s.sent - 1, offset, true
}
