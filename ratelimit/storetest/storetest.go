// Package storetest holds the laws that every [ratelimit.Store] obeys: begin with [Run]. It is for
// tests only. The store's clock is the test's, so a window of an hour passes at once.
package storetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/ratelimit"
	"github.com/google/go-cmp/cmp"
)

// Opened is an empty store and its clock.
type Opened struct {
	Store ratelimit.Store
	// Set moves the store's clock to so long after the beginning; it may move back.
	Set func(time.Duration)
}

// Run holds the stores that open returns to the laws.
func Run(t *testing.T, open func(*testing.T) Opened) {
	for _, law := range laws {
		t.Run(law.name, func(t *testing.T) { law.check(t, open(t)) })
	}
}

var laws = []struct {
	name  string
	check func(*testing.T, Opened)
}{
	{"agrees with the definition of a sliding log", agreesWithTheDefinition},
	{"counts what one log holds under changing rates", countsUnderChangingRates},
	{"admits all charges or records none", allOrNothing},
	{"a refusal is not remembered", refusalIsNotRemembered},
	{"a look records nothing and tells what a request would", lookRecordsNothing},
	{"remaining falls by one and reset stays in the window", remainingFallsByOne},
	{"exactly the limit of many at once", exactlyTheLimit},
	{"a clock that steps back neither grants nor blocks", clockStepsBack},
	{"logs are told apart by policy and key", logsAreToldApart},
	{"a log of ten thousand that has expired is empty", longLogExpires},
	{"refuses charges that are not valid", refusesBadCharges},
}

func take(t *testing.T, s ratelimit.Store, charges ...ratelimit.Charge) ratelimit.Decision {
	t.Helper()
	d, err := s.Take(t.Context(), charges)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

func peek(t *testing.T, s ratelimit.Store, charges ...ratelimit.Charge) ratelimit.Decision {
	t.Helper()
	d, err := s.Peek(t.Context(), charges)
	if err != nil {
		t.Fatalf("Peek: %v", err)
	}
	return d
}

func charge(policy, key string, limit int, window time.Duration) ratelimit.Charge {
	return ratelimit.Charge{Policy: policy, Key: key, Rate: ratelimit.Rate{Limit: limit, Window: window}}
}

// naive is the definition, without any cleverness: the admissions of one log.
type naive []time.Duration

// quota is what the log looks like under a rate, and how long until it would admit one more.
func (n naive) quota(c ratelimit.Charge, now time.Duration, refused bool) (q ratelimit.Quota, wait time.Duration) {
	q = ratelimit.Quota{Policy: c.Policy, Rate: c.Rate, Hidden: c.Hidden}
	var live []time.Duration
	for _, at := range n {
		if now-at < c.Rate.Window {
			live = append(live, at)
		}
	}
	if len(live) > 0 {
		q.Reset = live[0] + c.Rate.Window - now
	}
	q.Remaining = max(0, c.Rate.Limit-len(live))
	if over := len(live) - c.Rate.Limit; over >= 0 {
		wait = live[over] + c.Rate.Window - now
		if q.Violated = refused; refused {
			q.Reset = wait
		}
	}
	return q, wait
}

func agreesWithTheDefinition(t *testing.T, o Opened) {
	random := rand.New(rand.NewPCG(1, 2))
	logs := map[string]naive{}
	now := time.Duration(0)
	for step := range 3000 {
		now += time.Duration(random.IntN(900_000)) * time.Microsecond
		o.Set(now)
		charges := []ratelimit.Charge{charge("user", fmt.Sprint(random.IntN(3)), 5, 4*time.Second), charge("global", "", 8, 3*time.Second)}
		charges[1].Hidden = true
		d := take(t, o.Store, charges...)
		want := decideNaively(logs, charges, now)
		if diff := cmp.Diff(want.Quotas(), d.Quotas()); diff != "" || d.Allowed != want.Allowed || d.Wait != want.Wait {
			t.Fatalf("step %d at %v: %v, wait %v; want %v, wait %v (-want +got):\n%s", step, now, d.Allowed, d.Wait, want.Allowed, want.Wait, diff)
		}
	}
}

func decideNaively(logs map[string]naive, charges []ratelimit.Charge, now time.Duration) ratelimit.Decision {
	var longest time.Duration
	for _, c := range charges {
		_, wait := logs[c.Policy+c.Key].quota(c, now, true)
		longest = max(longest, wait)
	}
	quotas := make([]ratelimit.Quota, len(charges))
	for i, c := range charges {
		log := logs[c.Policy+c.Key]
		if longest == 0 {
			log = append(log, now)
			logs[c.Policy+c.Key] = log
		}
		quotas[i], _ = log.quota(c, now, longest > 0)
	}
	return ratelimit.NewDecision(longest == 0, longest, quotas...)
}

func countsUnderChangingRates(t *testing.T, o Opened) {
	random := rand.New(rand.NewPCG(3, 4))
	var log naive
	now := time.Duration(0)
	for step := range 2000 {
		now += time.Duration(random.IntN(300)) * time.Millisecond
		o.Set(now)
		c := charge("user", "k", 1+random.IntN(30), 5*time.Second)
		_, wait := log.quota(c, now, true)
		if d := take(t, o.Store, c); d.Allowed != (wait == 0) || d.Wait != wait {
			t.Fatalf("step %d: limit %d: %v, wait %v; want wait %v", step, c.Rate.Limit, d.Allowed, d.Wait, wait)
		} else if d.Allowed {
			log = append(log, now)
		}
	}
	now += time.Minute
	o.Set(now)
	for i := range 6 {
		if d := take(t, o.Store, charge("user", "k", 3, time.Minute)); d.Allowed != (i < 3) {
			t.Errorf("request %d under a longer window: %v", i, d.Allowed)
		}
	}
}

func allOrNothing(t *testing.T, o Opened) {
	user, global := charge("user", "a", 2, time.Hour), charge("global", "", 1, time.Minute)
	if !take(t, o.Store, global).Allowed {
		t.Fatal("the first is refused")
	}
	for range 5 {
		d := take(t, o.Store, user, global)
		if quotas := d.Quotas(); d.Allowed || quotas[0].Violated || !quotas[1].Violated || quotas[0].Remaining != 2 {
			t.Fatalf("refused by global alone: %+v", d)
		}
	}
	if d := peek(t, o.Store, user); !d.Allowed || d.Quotas()[0].Remaining != 2 {
		t.Errorf("refusals were charged to the user: %+v", d)
	}
	take(t, o.Store, user)
	take(t, o.Store, user)
	o.Set(time.Minute)
	if d := take(t, o.Store, user, global); d.Allowed {
		t.Error("the user's limit does not hold")
	}
	if d := take(t, o.Store, global); !d.Allowed {
		t.Error("a refusal by the user's log was charged to global")
	}
}

func refusalIsNotRemembered(t *testing.T, o Opened) {
	c := charge("user", "a", 3, time.Minute)
	for i := range 60 {
		o.Set(time.Duration(i) * time.Second)
		if d := take(t, o.Store, c); d.Allowed != (i < 3) || i >= 3 && d.Wait != time.Duration(60-i)*time.Second {
			t.Fatalf("second %d: %v, wait %v", i, d.Allowed, d.Wait)
		}
	}
	o.Set(time.Minute)
	if !take(t, o.Store, c).Allowed {
		t.Error("knocking lengthened the wait")
	}
}

func lookRecordsNothing(t *testing.T, o Opened) {
	c := charge("address", "a", 2, time.Minute)
	for range 5 {
		if d := peek(t, o.Store, c); !d.Allowed || d.Quotas()[0].Remaining != 2 || d.Quotas()[0].Reset != 0 {
			t.Fatalf("a look at an empty log: %+v", d)
		}
	}
	take(t, o.Store, c)
	take(t, o.Store, c)
	o.Set(10 * time.Second)
	if d := peek(t, o.Store, c); d.Allowed || d.Wait != 50*time.Second || !d.Quotas()[0].Violated {
		t.Errorf("a look at a full log: %+v", d)
	}
}

func remainingFallsByOne(t *testing.T, o Opened) {
	c := charge("user", "a", 10, time.Minute)
	for i := range 10 {
		o.Set(time.Duration(i) * time.Second)
		d := take(t, o.Store, c)
		if q := d.Quotas()[0]; q.Remaining != 9-i || q.Reset != time.Duration(60-i)*time.Second {
			t.Fatalf("request %d: %+v", i, q)
		}
	}
}

func exactlyTheLimit(t *testing.T, o Opened) {
	charges := []ratelimit.Charge{charge("user", "a", 100, time.Minute), charge("global", "", 10_000, time.Minute)}
	var admitted atomic.Int64
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for range 20 {
				if d, err := o.Store.Take(t.Context(), charges); err != nil {
					t.Errorf("Take: %v", err)
				} else if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	group.Wait()
	if got := admitted.Load(); got != 100 {
		t.Errorf("%d of 1000 at once were admitted, want 100", got)
	}
}

// clockStepsBack is requirement R7: after a step of 5 seconds back no more than the limit is
// admitted, and a log is blocked for its window and 5 seconds at most.
func clockStepsBack(t *testing.T, o Opened) {
	c := charge("user", "a", 3, time.Minute)
	o.Set(100 * time.Second)
	take(t, o.Store, c)
	o.Set(95 * time.Second)
	for i := range 3 {
		o.Set(95*time.Second + time.Duration(i)*time.Second)
		if d := take(t, o.Store, c); d.Allowed != (i < 2) || d.Wait > time.Minute {
			t.Fatalf("request %d after the step: %v, wait %v", i, d.Allowed, d.Wait)
		}
	}
	o.Set(160*time.Second - time.Microsecond)
	if take(t, o.Store, c).Allowed {
		t.Error("more than the limit within a window of the furthest clock")
	}
	o.Set(160 * time.Second)
	if !take(t, o.Store, c).Allowed {
		t.Error("blocked for more than the window and the step")
	}
}

func logsAreToldApart(t *testing.T, o Opened) {
	long := strings.Repeat("x", 5000)
	for _, c := range []ratelimit.Charge{
		charge("a", "bc", 1, time.Minute), charge("ab", "c", 1, time.Minute), charge("abc", "", 1, time.Minute), charge("", "abc", 1, time.Minute),
		charge("a", long+"1", 1, time.Minute), charge("a", long+"2", 1, time.Minute), charge(long, "", 1, time.Minute), charge("a", "}{\x00\r\n", 1, time.Minute),
	} {
		if !take(t, o.Store, c).Allowed || take(t, o.Store, c).Allowed {
			t.Errorf("%.10q %.10q shares its log with another", c.Policy, c.Key)
		}
	}
}

func longLogExpires(t *testing.T, o Opened) {
	c := charge("global", "", 10_000, time.Minute)
	for range 10_000 {
		take(t, o.Store, c)
	}
	if take(t, o.Store, c).Allowed {
		t.Fatal("10001 were admitted")
	}
	o.Set(time.Minute)
	if d := take(t, o.Store, c); d.Quotas()[0].Remaining != 9999 {
		t.Errorf("after a window: %+v", d.Quotas())
	}
}

func refusesBadCharges(t *testing.T, o Opened) {
	good := charge("user", "a", 1, time.Minute)
	seven := make([]ratelimit.Charge, ratelimit.MaxCharges+1)
	for i := range seven {
		seven[i] = charge("user", fmt.Sprint(i), 1, time.Minute)
	}
	for name, charges := range map[string][]ratelimit.Charge{
		"none": nil, "too many": seven, "one log twice": {good, good}, "no rate": {{Policy: "user"}},
		"half a second": {charge("user", "a", 1, time.Second/2)},
	} {
		if d, err := o.Store.Take(t.Context(), charges); err == nil || d.Allowed {
			t.Errorf("%s: %+v, %v; want an error", name, d, err)
		}
	}
	if d := peek(t, o.Store, good); !d.Allowed {
		t.Error("something was recorded")
	}
}
