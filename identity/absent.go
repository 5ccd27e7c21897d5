package identity

import "time"

const (
	maxAbsent = 1024
	absentTTL = 30 * time.Second
)

// absent remembers key ids that a fresh set did not hold, so that they cause no further fetch for a
// while. It keeps the newest 1,024 and forgets each after 30 seconds.
type absent struct {
	seen map[string]time.Time
	ring [maxAbsent]string
	next int
}

func (a *absent) has(id string, now time.Time) bool {
	at, ok := a.seen[id]
	return ok && now.Sub(at).Abs() < absentTTL
}

func (a *absent) add(id string, now time.Time) {
	if a.has(id, now) {
		return
	}
	if a.seen == nil {
		a.seen = make(map[string]time.Time)
	}
	if _, again := a.seen[id]; !again {
		delete(a.seen, a.ring[a.next])
		a.ring[a.next] = id
		a.next = (a.next + 1) % maxAbsent
	}
	a.seen[id] = now
}

func (a *absent) clear() { *a = absent{} }
