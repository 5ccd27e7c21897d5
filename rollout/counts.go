package rollout

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
)

// Counts is what came of the requests to one version since the launch entered its [Launch.Epoch]. Not
// counted, by whoever counts: answers below 500, refusals of the door itself, clients that went away
// (499), health probes, forced versions, and excluded routes. Counts of several instances add up.
type Counts struct {
	Requests int64 `json:"requests"`
	// Failed were answered 5xx, not at all, or not in time; Slow had no first byte within
	// Plan.SlowAfter. A request may be both.
	Failed Tally `json:"failed,omitempty"`
	Slow   Tally `json:"slow,omitempty"`
	// Callers is who sent them.
	Callers Callers `json:"callers,omitempty"`
	Streak  Streak  `json:"streak"`
}

// Add returns the counts of both.
func (c Counts) Add(other Counts) Counts {
	return Counts{
		Requests: c.Requests + other.Requests,
		Failed:   c.Failed.add(other.Failed),
		Slow:     c.Slow.add(other.Slow),
		Callers:  c.Callers.or(other.Callers),
		Streak:   c.Streak.worse(other.Streak),
	}
}

// Tally counts by caller. A caller is known by its bucket, which keeps the tally bounded, names nobody,
// and errs to the safe side: two callers in one bucket pass for one.
type Tally map[BasisPoints]int64

// Sum is the tally over all callers.
func (t Tally) Sum() int64 {
	sum := int64(0)
	for _, n := range t {
		sum += n
	}
	return sum
}

func (t Tally) add(other Tally) Tally {
	if len(t)+len(other) == 0 {
		return nil
	}
	sum := make(Tally, len(t)+len(other))
	maps.Copy(sum, t)
	for caller, n := range other {
		sum[caller] += n
	}
	return sum
}

// Callers is a set of buckets, one bit each; zero bytes at the end may be missing.
type Callers []byte

// Len is how many buckets are in the set.
func (c Callers) Len() int {
	n := 0
	for ; len(c) >= 8; c = c[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(c))
	}
	for _, b := range c {
		n += bits.OnesCount8(b)
	}
	return n
}

func (c Callers) or(other Callers) Callers {
	if len(c) < len(other) {
		c, other = other, c
	}
	union := slices.Clone(c)
	for i, b := range other {
		union[i] |= b
	}
	return union
}

func (c Callers) trim() Callers {
	for n := len(c); n > 0; n-- {
		if c[n-1] != 0 {
			return c[:n]
		}
	}
	return nil
}

// Streak is the longest run of failures, without an answer that was fine between them, on one instance.
type Streak struct {
	// Failures counts at most two of one caller: in a quiet hour the retries of one broken client
	// are a row as well, and five need three callers so.
	Failures int `json:"failures,omitempty"`
	// Unreachable is the longest run of failures to connect (dial or TLS). For these no caller can be
	// to blame, so all are counted; an answer of any kind ends the run.
	Unreachable int `json:"unreachable,omitempty"`
}

func (s Streak) worse(other Streak) Streak {
	return Streak{max(s.Failures, other.Failures), max(s.Unreachable, other.Unreachable)}
}

// Side is one version as a look sees it.
type Side struct {
	Counts
	// FailedProbes is how many health probes failed in a row, up to the latest: the fewest that any
	// instance that probes has seen, since one that cannot reach it may itself be cut off.
	FailedProbes int `json:"failed_probes,omitempty"`
}

// Observation is all that a look sees.
type Observation struct {
	Stable    Side `json:"stable"`
	Candidate Side `json:"candidate"`
	// Epoch is the Launch.Epoch the counts are of. Those of another epoch are not looked at.
	Epoch uint64 `json:"epoch"`
	// Missing is how many instances that carry traffic are not in the counts, or with old ones. Nothing
	// is promoted then; what is seen may still abort.
	Missing int `json:"missing,omitempty"`
}
