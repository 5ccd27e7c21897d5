package proxy

import (
	"testing"
	"time"
)

// event sends one request through b, if it lets one through.
func event(t *testing.T, b *breaker, now time.Time, ok bool) pass {
	t.Helper()
	p, _, allowed := b.allow(now)
	if !allowed {
		t.Fatal("the breaker is open")
	}
	return b.record(p, now, ok)
}

func TestBreakerOpensTriesAndCloses(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBreaker()
	for range 10 {
		event(t, b, now, false)
	}
	if _, wait, ok := b.allow(now); ok || wait != breakerPause {
		t.Errorf("at ten: %v, %v; want closed for %v", wait, ok, breakerPause)
	}
	for pause := breakerPause; pause < breakerMax; pause = min(2*pause, breakerMax) {
		now = now.Add(pause)
		p, _, ok := b.allow(now)
		if !ok {
			t.Fatalf("no trial after %v", pause)
		}
		if _, _, ok := b.allow(now); ok {
			t.Error("two trials at once")
		}
		b.record(p, now, false)
		if _, wait, _ := b.allow(now); wait != min(2*pause, breakerMax) {
			t.Errorf("the pause after %v is %v", pause, wait)
		}
	}
	now = now.Add(breakerMax)
	event(t, b, now, true)
	if _, _, ok := b.allow(now); !ok || b.isOpen(now) {
		t.Error("a good trial did not close it")
	}
	for range 100 {
		event(t, b, now, true)
	}
	for range 30 {
		event(t, b, now, false)
	}
	if b.isOpen(now) {
		t.Error("30 failures of the last 100 opened it")
	}
}

func TestOnlyTheTrialDecidesWhileTheBreakerIsOpen(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBreaker()
	early, _, _ := b.allow(now)
	for range 10 {
		event(t, b, now, false)
	}
	now = now.Add(breakerPause)
	trial, _, _ := b.allow(now)
	b.record(early, now, true)
	if _, _, ok := b.allow(now); ok {
		t.Error("an answer to a request from before closed it")
	}
	b.forget(early)
	if _, _, ok := b.allow(now); ok {
		t.Error("a client that left from before freed the trial's place")
	}
	b.forget(trial)
	trial, _, ok := b.allow(now)
	if !ok {
		t.Fatal("the trial's client left, and its place was not freed")
	}
	b.record(trial, now, false)
	b.record(trial, now, true)
	if !b.isOpen(now) {
		t.Error("the second word of a trial counted")
	}
}

func TestBrokenAnswersOpenTheBreaker(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBreaker()
	for range 10 {
		b.spoil(event(t, b, now, true), now)
	}
	if !b.isOpen(now) {
		t.Fatal("ten answers broke off, and it is closed")
	}
	now = now.Add(breakerPause)
	for range 9 {
		b.spoil(event(t, b, now, true), now)
	}
	if b.isOpen(now) || b.failures != 9 || b.count != 9 {
		t.Errorf("after a trial and nine broken answers: %d of %d", b.failures, b.count)
	}
	for range 100 {
		event(t, b, now, true)
	}
	if b.failures != 0 || b.count != breakerSize {
		t.Errorf("after a hundred good ones: %d of %d", b.failures, b.count)
	}
}
