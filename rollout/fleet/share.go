package fleet

import (
	"encoding/json"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// share is what an instance publishes: what it has seen in one epoch of a launch.
type share struct {
	Name    string              `json:"name"`
	Launch  int64               `json:"launch"` // Place.Launch, 0 for none
	Seen    rollout.Observation `json:"seen"`
	Rate    float64             `json:"rate"` // requests per second, to all versions, over the last minutes
	Tripped string              `json:"tripped,omitempty"`
	Left    bool                `json:"left,omitempty"` // it has ended in order

	instance string
	age      time.Duration
}

func readShares(notices []Notice) ([]share, error) {
	shares := make([]share, len(notices))
	for i, n := range notices {
		if err := json.Unmarshal([]byte(n.Body), &shares[i]); err != nil {
			return nil, err
		}
		shares[i].instance, shares[i].age = n.Instance, n.Age
	}
	return shares, nil
}

// How old, in ticks, what an instance published may be: up to freshTicks it is fresh; up to goneTicks the
// instance is missing, and after that it is gone and nobody waits for it. Without a launch each
// publishes every idleTicks, which must be well below goneTicks.
const (
	freshTicks = 3
	idleTicks  = 20
	goneTicks  = 60
)

// of is whether the share is of an epoch of a launch.
func (s share) of(launch int64, epoch uint64) bool {
	return s.Launch == launch && s.Seen.Epoch == epoch
}

// here is whether the instance is there, as far as anybody knows.
func (s share) here(tick time.Duration) bool { return !s.Left && s.age <= goneTicks*tick }

func (s share) fresh(tick time.Duration) bool { return !s.Left && s.age <= freshTicks*tick }

// observe is the sum over all instances. What an instance has seen counts also when it has ended, or
// crashed, since.
func observe(j journal, shares []share, tick time.Duration) rollout.Observation {
	o := rollout.Observation{Epoch: j.launch.Epoch}
	probed := false
	for _, s := range shares {
		current := s.of(j.place.Launch, j.launch.Epoch)
		if current {
			o.Stable.Counts = o.Stable.Add(s.Seen.Stable.Counts)
			o.Candidate.Counts = o.Candidate.Add(s.Seen.Candidate.Counts)
		}
		switch {
		case current && s.fresh(tick):
			o.Stable.FailedProbes = fewest(probed, o.Stable.FailedProbes, s.Seen.Stable.FailedProbes)
			o.Candidate.FailedProbes = fewest(probed, o.Candidate.FailedProbes, s.Seen.Candidate.FailedProbes)
			probed = true
		case s.here(tick):
			o.Missing++
		}
	}
	return o
}

func fewest(probed bool, before, now int) int {
	if !probed {
		return now
	}
	return min(before, now)
}

// rateTicks is over how many ticks a rate is taken: five minutes.
const rateTicks = 300

// rate is how fast a counter has risen of late.
type rate struct {
	at    [rateTicks]time.Time
	count [rateTicks]int64
	n     int // samples ever taken
}

func (r *rate) sample(now time.Time, count int64) {
	r.at[r.n%rateTicks], r.count[r.n%rateTicks] = now, count
	r.n++
}

func (r *rate) perSecond() float64 {
	if r.n < 2 {
		return 0
	}
	last, first := (r.n-1)%rateTicks, max(0, r.n-rateTicks)%rateTicks
	passed := r.at[last].Sub(r.at[first]).Seconds()
	if passed <= 0 {
		return 0
	}
	return float64(r.count[last]-r.count[first]) / passed
}
