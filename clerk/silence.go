package clerk

import (
	"sync/atomic"
	"time"
)

// Silence notices that Clerk has stopped reporting. A route that was lost in a refactoring, or an
// endpoint that Svix has switched off, shows nowhere else: everything goes on, and the table of users
// grows old. It raises an alarm when no message came for a day while somebody signed in.
//
// The zero value is not usable; see [NewSilence]. Its methods may be called from any goroutine, and
// those that the request path calls do not wait.
type Silence struct {
	limit time.Duration
	now   func() time.Time
	since int64        // when the watch began, in nanoseconds since 1970
	event atomic.Int64 // the last signed message; 0 is never
	login atomic.Int64 // the last sign-in; 0 is never
}

// SilenceLimit is how long there may be no message while users sign in.
const SilenceLimit = 24 * time.Hour

// NewSilence begins to watch now. limit 0 is [SilenceLimit]; now nil is time.Now. last is when the last
// message came as far as the store remembers it, so that a restart does not begin the day anew; it may
// be zero.
func NewSilence(limit time.Duration, last time.Time, now func() time.Time) *Silence {
	if limit <= 0 {
		limit = SilenceLimit
	}
	if now == nil {
		now = time.Now
	}
	s := &Silence{limit: limit, now: now, since: now().UnixNano()}
	if !last.IsZero() {
		s.event.Store(last.UnixNano())
	}
	return s
}

// Heard takes note of a message. Only signed ones count: noise is not a report.
func (s *Silence) Heard(r Receipt) {
	if r.Signed() {
		raise(&s.event, r.At.UnixNano())
	}
}

// SignedIn takes note that somebody was let in with a token.
func (s *Silence) SignedIn() { raise(&s.login, s.now().UnixNano()) }

// raise sets v to at, unless it is later already.
func raise(v *atomic.Int64, at int64) {
	for {
		old := v.Load()
		if old >= at || v.CompareAndSwap(old, at) {
			return
		}
	}
}

// LastEvent is when the last message came; ok is false when none is known.
func (s *Silence) LastEvent() (at time.Time, ok bool) {
	ns := s.event.Load()
	if ns == 0 {
		return time.Time{}, false
	}
	return time.Unix(0, ns).UTC(), true
}

// Quiet is how long there has been no message, counted from the beginning of the watch when there
// never was one.
func (s *Silence) Quiet() time.Duration {
	from := s.event.Load()
	if from == 0 {
		from = s.since
	}
	return max(0, time.Duration(s.now().UnixNano()-from))
}

// Alarm says that somebody ought to look: it was quiet for longer than the limit, and within the limit
// somebody signed in. A backend that nobody uses may be quiet as long as it likes.
func (s *Silence) Alarm() bool {
	return s.Missed() > s.limit
}

// Missed is how long it has been quiet although there should have been messages: [Silence.Quiet] if somebody
// signed in since the last one and within the limit, and otherwise 0.
func (s *Silence) Missed() time.Duration {
	login := s.login.Load()
	if login == 0 || login <= s.event.Load() || s.now().UnixNano()-login > int64(s.limit) {
		return 0
	}
	return s.Quiet()
}
