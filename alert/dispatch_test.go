package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// notify is a receiver in the bubble of a test, where there is no network and the clock jumps.
type notify func(ctx context.Context, n Notification) error

func (f notify) Notify(ctx context.Context, n Notification) error { return f(ctx, n) }

// told is a message for the receivers, of an incident.
func told(incident string, receivers ...string) Notification {
	n := sample()
	n.Alert.Incident, n.Alert.Rule.Notify = incident, receivers
	return n
}

// running runs a dispatcher until the returned func is called, which waits for its end.
func running(t *testing.T, d *Dispatcher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- d.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

func deadOf(t *testing.T, d *DeadLetters) (list []string) {
	t.Helper()
	letters, err := d.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		list = append(list, fmt.Sprintf("%s %s %s %d", l.Receiver, l.Cause, l.Notification.Alert.Incident, l.Attempts))
	}
	return list
}

func TestANameReachesEachReceiverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slack, pager atomic.Int32
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		d := NewDispatcher([]Receiver{
			{"slack", notify(func(context.Context, Notification) error { slack.Add(1); return nil })},
			{"pagerduty", notify(func(context.Context, Notification) error { pager.Add(1); return nil })},
		}, DispatchConfig{Dead: dead, Names: map[string][]string{"oncall": {"pagerduty", "slack"}, "engineering": {"slack"}}})
		stop := running(t, d)
		d.Send(told("a", "oncall", "slack", "engineering", "nobody"))
		synctest.Wait()
		if slack.Load() != 1 || pager.Load() != 1 {
			t.Errorf("slack got %d, pagerduty %d, want 1 each", slack.Load(), pager.Load())
		}
		d.Send(told("b", "nobody")) // is for who is on call
		synctest.Wait()
		stop()
		if slack.Load() != 2 || pager.Load() != 2 || len(deadOf(t, dead)) > 0 {
			t.Errorf("slack got %d, pagerduty %d, want 2 each; dead %v", slack.Load(), pager.Load(), deadOf(t, dead))
		}
	})
}

func TestAMessageForNobodyIsADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		d := NewDispatcher(nil, DispatchConfig{Dead: dead})
		stop := running(t, d)
		d.Send(told("a", "nobody"))
		synctest.Wait()
		stop()
		if diff := cmp.Diff([]string{"nobody unknown_receiver a 0"}, deadOf(t, dead)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestAnIncidentKeepsItsOrder: its resolution waits for a trigger that fails, and other incidents do not.
func TestAnIncidentKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		failures := 3
		d := NewDispatcher([]Receiver{{"slack", notify(func(_ context.Context, n Notification) error {
			mu.Lock()
			defer mu.Unlock()
			if n.Alert.Incident == "a" && failures > 0 {
				failures--
				return errors.New("not now")
			}
			got = append(got, n.Alert.Incident+" "+n.kind())
			return nil
		})}}, DispatchConfig{})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		d.Send(resolved(told("a", "slack")))
		d.Send(told("b", "slack"))
		time.Sleep(time.Minute)
		stop()
		if diff := cmp.Diff([]string{"b trigger", "a trigger", "a resolve"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAMessageIsTriedUntilTheTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		began := time.Now()
		var last time.Duration
		attempts := 0
		d := NewDispatcher([]Receiver{{"slack", notify(func(context.Context, Notification) error {
			attempts++
			last = time.Since(began)
			return &DeliveryError{Status: 500}
		})}}, DispatchConfig{Dead: dead})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		time.Sleep(20 * time.Minute)
		stop()
		// Waits of half a minute to a minute, after a few short ones.
		if attempts < 15+4 || attempts > 30+8 || last < 14*time.Minute || last > 15*time.Minute {
			t.Errorf("%d attempts, the last after %v", attempts, last)
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("slack gave_up a %d", attempts)}, deadOf(t, dead)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]Tally{{Receiver: "slack", Failed: uint64(attempts), Dropped: map[Cause]uint64{GaveUp: 1}}}, d.Tallies()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		d := NewDispatcher([]Receiver{{"slack", notify(func(context.Context, Notification) error {
			at = append(at, time.Since(began))
			if len(at) == 1 {
				return &DeliveryError{Status: 429, RetryAfter: 3 * time.Minute}
			}
			return nil
		})}}, DispatchConfig{})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		time.Sleep(10 * time.Minute)
		stop()
		if diff := cmp.Diff([]time.Duration{0, 3 * time.Minute}, at); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWhatIsRefusedIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		d := NewDispatcher([]Receiver{{"slack", notify(func(context.Context, Notification) error {
			return &DeliveryError{Status: 404, Reason: "no_service", Permanent: true}
		})}}, DispatchConfig{Dead: dead})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		time.Sleep(time.Hour)
		stop()
		if diff := cmp.Diff([]string{"slack refused a 1"}, deadOf(t, dead)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestSendNeverWaits fills the queue of a receiver that hangs.
func TestSendNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		d := NewDispatcher([]Receiver{{"slack", notify(func(ctx context.Context, _ Notification) error { <-ctx.Done(); return ctx.Err() })}},
			DispatchConfig{Queue: 10, Dead: dead, Kept: filepath.Join(t.TempDir(), "kept")})
		stop := running(t, d)
		began := time.Now()
		for i := range 100 {
			d.Send(told(fmt.Sprint(i), "slack"))
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Send waited %v", waited)
		}
		synctest.Wait()
		stop()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the end took %v, want Flush", took)
		}
		tally := d.Tallies()[0]
		if tally.Dropped[QueueFull] != 90 || tally.Waiting != 10 {
			t.Errorf("tally = %+v, want 90 dropped and 10 kept", tally)
		}
		if n := len(deadOf(t, dead)); n < maxDead || n > 90 {
			t.Errorf("%d dead letters, want at least %d", n, maxDead)
		}
	})
}

// TestWhatWaitsSurvivesARestart, in its order, and is not sent twice.
func TestWhatWaitsSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kept")
		down := true
		var got []string
		box := []Receiver{{"slack", notify(func(_ context.Context, n Notification) error {
			if down {
				return errors.New("not now")
			}
			got = append(got, n.Alert.Incident+" "+n.kind())
			return nil
		})}}
		d := NewDispatcher(box, DispatchConfig{Kept: file})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		d.Send(resolved(told("a", "slack")))
		synctest.Wait()
		stop()
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info, err)
		}
		down = false
		for range 2 {
			stop = running(t, NewDispatcher(box, DispatchConfig{Kept: file}))
			synctest.Wait()
			stop()
		}
		if diff := cmp.Diff([]string{"a trigger", "a resolve"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestASuccessorGoesOnWithWhatWaits: it has begun before the old process ends.
func TestASuccessorGoesOnWithWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kept")
		var got []string
		stopNew := running(t, NewDispatcher([]Receiver{{"slack", notify(func(_ context.Context, n Notification) error {
			got = append(got, n.Alert.Incident+" "+n.kind())
			return nil
		})}}, DispatchConfig{Kept: file}))
		old := NewDispatcher([]Receiver{{"slack", notify(func(context.Context, Notification) error { return errors.New("not now") })}}, DispatchConfig{Kept: file})
		stopOld := running(t, old)
		old.Send(told("a", "slack"))
		old.Send(resolved(told("a", "slack")))
		synctest.Wait()
		stopOld()
		time.Sleep(time.Minute)
		stopNew()
		if diff := cmp.Diff([]string{"a trigger", "a resolve"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheEndFlushesWhatCanBeDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
		var got atomic.Int32
		d := NewDispatcher([]Receiver{{"slack", notify(func(context.Context, Notification) error {
			if got.Add(1) == 1 {
				return errors.New("the first time never works")
			}
			return nil
		})}}, DispatchConfig{Dead: dead})
		stop := running(t, d)
		d.Send(told("a", "slack"))
		synctest.Wait()
		d.Send(resolved(told("a", "slack")))
		stop() // a's next attempt would be due in a second
		if got.Load() != 3 || len(deadOf(t, dead)) != 0 {
			t.Errorf("%d attempts, dead %v; want both delivered", got.Load(), deadOf(t, dead))
		}
	})
}

// TestFaultyReceiversCostOthersNothing has real ones: one hangs, one refuses connections, one is broken, one slow down.
func TestFaultyReceiversCostOthersNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const secret = "xoxSECRETxox"
	release := make(chan struct{})
	hangs := newInbox(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler) // the client may still read an answer while it closes
	})
	broken, good := newInbox(t, answering(http.StatusInternalServerError)), newInbox(t, answering(http.StatusOK))
	var hurried atomic.Int32
	busy := newInbox(t, func(w http.ResponseWriter, _ *http.Request) {
		if hurried.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	vanished, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	vanished.Close()
	var list []Receiver
	for name, address := range map[string]string{
		"hangs": hangs.URL, "broken": broken.URL, "good": good.URL, "busy": busy.URL, "refuses": "https://" + vanished.Addr().String(),
	} {
		s, err := NewSlack(address+"/services/"+secret, good.transport())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Receiver{name, s})
	}
	var log bytes.Buffer
	dead := NewDeadLetters(filepath.Join(t.TempDir(), "dead"), 0)
	d := NewDispatcher(list, DispatchConfig{
		Timeout: 5 * time.Second, FirstRetry: 10 * time.Millisecond, Flush: 200 * time.Millisecond, Dead: dead,
		Logger: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	stop := running(t, d)
	d.Send(told("a", "hangs", "broken", "good", "busy", "refuses"))
	<-good.got
	first, second := <-busy.got, <-busy.got
	if !bytes.Equal(first.body, second.body) {
		t.Error("the second attempt is another message")
	}
	<-broken.got
	<-broken.got
	stop()
	close(release)
	for _, l := range deadOf(t, dead) {
		if strings.HasPrefix(l, "good") || strings.HasPrefix(l, "busy") {
			t.Errorf("dead letter %s", l)
		}
	}
	if list := deadOf(t, dead); len(list) != 3 {
		t.Errorf("dead letters = %v, want those of hangs, broken and refuses; %+v", list, d.Tallies())
	}
	if strings.Contains(log.String(), secret) || !strings.Contains(log.String(), "alert was not delivered") {
		t.Errorf("log = %s", log.String())
	}
	for _, in := range []*inbox{hangs, broken, good, busy} {
		in.Close()
	}
}

func TestDeadLettersAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead")
	d := NewDeadLetters(path, 20<<10)
	for i := range 200 {
		if err := d.Add(DeadLetter{At: noon, Receiver: "slack", Cause: Refused, Attempts: i, Notification: sample()}); err != nil {
			t.Fatal(err)
		}
		if i == 198 { // a crash in the middle of a line
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(f, `{"at":"2026`)
			f.Close()
		}
	}
	list, err := d.All()
	if err != nil || len(list) < 20 || list[len(list)-1].Attempts != 199 {
		t.Fatalf("%d letters, %v", len(list), err)
	}
	for i, l := range list[1:] {
		if l.Attempts != list[i].Attempts+1 {
			t.Errorf("letter %d after %d", l.Attempts, list[i].Attempts)
		}
	}
	if diff := cmp.Diff(sample(), list[0].Notification); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{path, path + ".1"} {
		if info, err := os.Stat(name); err != nil || info.Size() > 21<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}
