package rollout

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// launchAt is a launch that has been promoted to the step of a plan of 10, 50 and 100 %.
func launchAt(t testing.TB, id string, step int) Launch {
	t.Helper()
	l, _, err := Start(Request{ID: id, Salt: []byte("sixteen bytes of " + id), StableURL: "http://a", CandidateURL: "http://b"}, began)
	for range step {
		if err == nil {
			l, _, err = l.Promote("test", "", began)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func users(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("user_%d", i)
	}
	return list
}

func TestNobodyIsOnACandidateBeforeTheFirstLaunch(t *testing.T) {
	var s Splitter
	for _, u := range users(100) {
		if got := s.Choose(u); got != (Ticket{}) {
			t.Fatalf("Choose(%s) = %+v, want the zero Ticket", u, got)
		}
	}
}

func TestWhoIsInStaysInWhileTheWeightRises(t *testing.T) {
	var s Splitter
	list, in := users(2000), make(map[string]bool)
	for step, want := range []BasisPoints{1000, 5000, All} {
		s.Set(launchAt(t, "nested", step))
		n := 0
		for _, u := range list {
			v := s.Choose(u).Version
			if in[u] && v != Candidate {
				t.Errorf("%s was in, and is out at %v", u, want)
			}
			if in[u] = v == Candidate; in[u] {
				n++
			}
		}
		if share := float64(n) / float64(len(list)); share < float64(want-300)/float64(All) || share > float64(want+300)/float64(All) {
			t.Errorf("at %v the candidate has %.3f of the callers", want, share)
		}
	}
}

func TestABucketFromMemoryIsTheOneOfTheHMAC(t *testing.T) {
	var s Splitter
	l := launchAt(t, "exact", 0)
	s.Set(l)
	buckets := NewBuckets(l.Salt)
	for range 2 { // computed, then remembered; more callers than slots, so that some are forgotten between
		for _, u := range users(40_000) {
			if got, want := s.Choose(u).Bucket, buckets.Of(u); got != want {
				t.Fatalf("bucket of %s = %d, want %d", u, got, want)
			}
		}
	}
}

func TestAddressesOfOneIPv6HostAreOneCaller(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "addresses", 0))
	bucket := func(addr string) BasisPoints { return s.ChooseAddr(netip.MustParseAddr(addr)).Bucket }
	if bucket("2001:db8::1") != bucket("2001:db8::ffff:2") {
		t.Error("one /64 has two buckets")
	}
	if bucket("192.0.2.1") != bucket("::ffff:192.0.2.1") {
		t.Error("an IPv4 address has another bucket in its IPv6 form")
	}
	if bucket("192.0.2.1") == bucket("192.0.2.2") && bucket("2001:db8::1") == bucket("2001:db8:0:1::1") {
		t.Error("different addresses have one bucket")
	}
}

func TestOnlyALaterRevisionOrLaunchIsPutInForce(t *testing.T) {
	var s Splitter
	first := launchAt(t, "first", 0)
	risen := launchAt(t, "first", 1)
	older, newer := launchAt(t, "older", 0), launchAt(t, "newer", 0)
	older.StartedAt, newer.StartedAt = began.Add(-time.Hour), began.Add(time.Hour)
	for _, step := range []struct {
		name string
		l    Launch
		want bool
	}{
		{"first", first, true},
		{"the same again", first, false},
		{"next revision", risen, true},
		{"back", first, false},
		{"an older launch", older, false},
		{"a newer one", newer, true},
	} {
		if got := s.Set(step.l); got != step.want {
			t.Errorf("%s: Set = %v, want %v", step.name, got, step.want)
		}
	}
	if got := s.Launch().ID; got != "newer" {
		t.Errorf("in force is %q", got)
	}
}

func TestARequestCountsOnlyInTheEpochInWhichItBegan(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "epochs", 0))
	early := s.Choose("u").Mark
	s.Set(launchAt(t, "epochs", 1))
	late := s.Choose("u").Mark
	s.Done(early, 0, Outcome{Failed: true})
	s.Broke(early)
	s.Done(late, time.Second, Outcome{})
	o := s.Observe()
	total := o.Stable.Add(o.Candidate.Counts)
	if o.Epoch != 2 || total.Requests != 1 || total.Failed.Sum() != 0 || total.Slow.Sum() != 1 {
		t.Errorf("Observe = %+v, want one slow request in epoch 2", o)
	}
	// The same epoch number of another launch is another epoch.
	other := launchAt(t, "other", 1)
	other.StartedAt = began.Add(time.Hour)
	s.Set(other)
	s.Done(late, 0, Outcome{})
	if o := s.Observe(); o.Stable.Requests+o.Candidate.Requests != 0 {
		t.Errorf("a request of the launch before is counted: %+v", o)
	}
}

func TestAnAnswerThatBreaksOffIsOneFailedRequest(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "broke", 2))
	m := s.Choose("u").Mark
	s.Done(m, 0, Outcome{})
	s.Broke(m)
	got := s.Observe().Candidate
	if got.Requests != 1 || got.Failed.Sum() != 1 || got.Streak.Failures != 1 {
		t.Errorf("candidate = %+v, want one request, failed", got)
	}
}

func TestForcedAndExemptRequestsDoNotCount(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "marks", 0))
	m := s.Choose("u").Mark
	for _, m := range []Mark{m.Forced(Candidate), m.Forced(Stable), m.Uncounted(), 0} {
		s.Done(m, time.Hour, Outcome{Failed: true})
		s.Broke(m)
	}
	o := s.Observe()
	if n := o.Stable.Requests + o.Candidate.Requests + o.Stable.Failed.Sum() + o.Candidate.Failed.Sum(); n != 0 {
		t.Errorf("%d were counted", n)
	}
	if got := m.Forced(Candidate).Version(); got != Candidate {
		t.Errorf("forced to %v", got)
	}
}

func TestATripLastsUntilADecision(t *testing.T) {
	var s Splitter
	s.Trip("no launch yet") // does nothing
	l := launchAt(t, "trip", 2)
	s.Set(l)
	s.Trip("five in a row")
	if v := s.Choose("u").Version; v != Stable || s.Tripped() != "five in a row" {
		t.Fatalf("after a trip: %v, %q", v, s.Tripped())
	}
	l, _ = l.record(l, Record{Action: ActLook, At: began, Actor: Judge})
	s.Set(l)
	if v := s.Choose("u").Version; v != Stable {
		t.Error("a look of the judge undid the trip")
	}
	paused, _, err := l.Pause("ops", "", began)
	if err != nil {
		t.Fatal(err)
	}
	s.Set(paused)
	if v := s.Choose("u").Version; v != Candidate || s.Tripped() != "" {
		t.Errorf("after a decision: %v, %q", v, s.Tripped())
	}
}

func TestWhenItIsOverTheVersionStaysAndNothingCounts(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(Launch) (Launch, Record, error)
		want Version
	}{
		{"completed", func(l Launch) (Launch, Record, error) { return l.Promote("ops", "", began) }, Candidate},
		{"rolled back", func(l Launch) (Launch, Record, error) { return l.Abort("ops", "", began) }, Stable},
	} {
		var s Splitter
		l := launchAt(t, "over", 2)
		s.Set(l)
		l, _, err := end.end(l)
		if err != nil {
			t.Fatal(err)
		}
		s.Set(l)
		s.Trip("too late")
		got := s.Choose("u")
		if got.Version != end.want || got.Live() || got.Mark != 0 || s.Tripped() != "" {
			t.Errorf("%s: %+v, tripped %q", end.name, got, s.Tripped())
		}
	}
}

func TestProbesInARowAreCountedForTheirLaunch(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "probes", 0))
	down := errors.New("down")
	for _, err := range []error{down, nil, down, down} {
		s.Probed("probes", Candidate, err)
	}
	s.Probed("another", Candidate, down)
	s.Probed("probes", Stable, down)
	o := s.Observe()
	if got, want := [2]int{o.Stable.FailedProbes, o.Candidate.FailedProbes}, [2]int{1, 2}; got != want {
		t.Errorf("failed probes = %v, want %v", got, want)
	}
}

func TestTheShieldHasABudget(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "shield", 2))
	m := s.Choose("u").Mark
	if s.Shield(m.On(Stable), true) || s.Shield(0, true) || s.Shield(m.Forced(Candidate), false) {
		t.Error("the shield repeats what the candidate has not failed, or was to be seen failing")
	}
	granted := func() (n int) {
		for range 500 {
			if s.Shield(m, true) {
				n++
			}
		}
		return n
	}
	if got := granted(); got != shieldFirst {
		t.Errorf("%d repetitions granted, want %d", got, shieldFirst)
	}
	if !s.Shield(m, false) {
		t.Error("what the candidate never got is not sent to stable")
	}
}

func TestSetDuringTrafficLosesNoCountOfAnEpoch(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "race", 0))
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			for j := range 2000 {
				ticket := s.Choose(fmt.Sprintf("user_%d", (i*2000+j)%97))
				s.Done(ticket.Mark, 0, Outcome{Failed: j%10 == 0})
				if j%100 == 0 {
					s.Observe()
				}
			}
		})
	}
	s.Set(launchAt(t, "race", 1))
	s.Trip("on the way")
	s.Set(launchAt(t, "race", 2))
	senders.Wait()
	o := s.Observe()
	if o.Epoch != 3 || o.Candidate.Failed.Sum() > o.Candidate.Requests || o.Stable.Requests != 0 {
		t.Errorf("Observe = %+v", o)
	}
	s.Done(s.Choose("u").Mark, 0, Outcome{})
	if got := s.Observe().Candidate.Requests; got != o.Candidate.Requests+1 {
		t.Errorf("requests = %d, want %d", got, o.Candidate.Requests+1)
	}
}

func TestChoosingAndCountingAllocateNothing(t *testing.T) {
	var s Splitter
	s.Set(launchAt(t, "costs", 1))
	addr := netip.MustParseAddr("2001:db8::1")
	if n := testing.AllocsPerRun(1000, func() {
		s.Done(s.Choose("user_2abcdefghijklmnopqrstuvwxyz").Mark, time.Millisecond, Outcome{Failed: true})
		s.Done(s.ChooseAddr(addr).Mark, time.Millisecond, Outcome{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkChooseAndCount(b *testing.B) {
	var s Splitter
	s.Set(launchAt(b, "costs", 1))
	list := users(500)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Done(s.Choose(list[i%len(list)]).Mark, time.Millisecond, Outcome{Failed: i%100 == 0})
	}
}
