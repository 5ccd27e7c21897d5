package clerk_test

import (
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
)

// handClock goes only when it is told to.
type handClock struct {
	mu sync.Mutex
	at time.Time
}

func newHandClock() *handClock { return &handClock{at: time.Unix(1_700_000_000, 0)} }

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *handClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func heard(c *handClock, result clerk.Result) clerk.Receipt {
	return clerk.Receipt{Result: result, At: c.Now()}
}

func TestSilenceWhileUsersSignInRaisesTheAlarm(t *testing.T) {
	clock := newHandClock()
	s := clerk.NewSilence(0, time.Time{}, clock.Now)
	if _, ok := s.LastEvent(); ok || s.Alarm() {
		t.Error("there is an event or an alarm at the start")
	}
	if clock.Add(time.Hour); s.Missed() != 0 {
		t.Errorf("messages were missed for %v, and nobody signed in", s.Missed())
	}
	for range 24 {
		clock.Add(time.Hour)
		s.SignedIn()
	}
	if s.Missed() != 25*time.Hour {
		t.Errorf("messages were missed for %v, want 25 h", s.Missed())
	}
	if !s.Alarm() || s.Quiet() != 25*time.Hour {
		t.Errorf("after 25 h without a message: alarm %v, quiet for %v", s.Alarm(), s.Quiet())
	}
	s.Heard(heard(clock, clerk.BadSignature))
	if !s.Alarm() {
		t.Error("a forged message ended the alarm")
	}
	s.Heard(heard(clock, clerk.Ignored))
	at, ok := s.LastEvent()
	if s.Alarm() || !ok || !at.Equal(clock.Now()) {
		t.Errorf("a signed message did not end the alarm, or has another time: %v %v", at, ok)
	}
}

func TestSilenceWithoutSignInsIsPeace(t *testing.T) {
	clock := newHandClock()
	s := clerk.NewSilence(0, clock.Now(), clock.Now)
	clock.Add(time.Hour)
	s.SignedIn()
	clock.Add(30 * time.Hour)
	if s.Alarm() {
		t.Error("an alarm though nobody has signed in for 30 h")
	}
	s.SignedIn()
	if !s.Alarm() {
		t.Error("no alarm though somebody signs in after 31 h of silence")
	}
}

func TestADayIsStillInTime(t *testing.T) {
	clock := newHandClock()
	s := clerk.NewSilence(0, clock.Now(), clock.Now)
	clock.Add(clerk.SilenceLimit)
	s.SignedIn()
	if s.Alarm() {
		t.Error("an alarm after exactly a day")
	}
	clock.Add(1)
	if !s.Alarm() {
		t.Error("no alarm after more than a day")
	}
}

func TestARestartDoesNotBeginTheDayAnew(t *testing.T) {
	clock := newHandClock()
	s := clerk.NewSilence(0, clock.Now().Add(-25*time.Hour), clock.Now)
	s.SignedIn()
	if !s.Alarm() {
		t.Error("no alarm though the store's last event is 25 h old")
	}
}
