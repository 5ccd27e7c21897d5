package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

// goingOn is a launch after one look.
func goingOn(t *testing.T) fleet.Status {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l, _, err := rollout.Start(rollout.Request{
		ID: "7-ABC", Salt: make([]byte, 16), StableURL: "http://old", CandidateURL: "http://new", Actor: "ada", Reason: "v2",
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	counts := rollout.Counts{Requests: 500, Failed: rollout.Tally{1: 1}, Callers: rollout.Callers{255}}
	l, r := rollout.Next(l, rollout.Observation{Epoch: l.Epoch, Candidate: rollout.Side{Counts: counts}}, at.Add(5*time.Second))
	return fleet.Status{
		Launch: l, Verdict: r.Verdict, Candidate: fleet.Totals{Requests: 500, Failed: 1, Callers: 8}, StepLeft: 295 * time.Second, Left: time.Hour,
		Judge: "door-1", Missing: 1, Instances: []fleet.Instance{{Name: "door-1"}, {Name: "door-2", Tripped: "5 attempts in a row did not reach it"}},
	}
}

func TestStatusSaysHowALaunchStands(t *testing.T) {
	text := statusText(goingOn(t))
	for _, want := range []string{
		"launch 7-ABC  http://old -> http://new\n", "[###---------------------------] 10 %  running", "candidate         500        1        0        8\n",
		"more requests without a failure are needed", "p = ", "4m55s of this step, 1h0m0s of the launch", "2, judged by door-1, 1 missing",
		"door-2 is back on stable by itself: 5 attempts in a row did not reach it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestStatusOfWhatIsOverIsShort(t *testing.T) {
	st := goingOn(t)
	st.Launch.Phase, st.Launch.Weight, st.Launch.Reason = rollout.RolledBack, 0, "5 requests in a row failed"
	want := "launch 7-ABC  http://old -> http://new\n  [------------------------------] 0 %  rolled-back: 5 requests in a row failed\n"
	if got := statusText(st); got != want {
		t.Errorf("statusText =\n%s\nwant\n%s", got, want)
	}
	if got := statusText(fleet.Status{StableURL: "http://old", Fault: "it burns"}); got != "WARNING  it burns\nthere was no launch yet; everyone is on http://old\n" {
		t.Errorf("without a launch it says\n%s", got)
	}
}

func TestTheLiveStatusDrawsOverItself(t *testing.T) {
	var out bytes.Buffer
	s := &screen{w: &out}
	s.draw("one\ntwo\n")
	s.draw("three\n")
	if got, want := out.String(), "\x1b[?7lone\ntwo\n\x1b[?7h\x1b[2A\x1b[J\x1b[?7lthree\n\x1b[?7h"; got != want {
		t.Errorf("drawn = %q, want %q", got, want)
	}
}
