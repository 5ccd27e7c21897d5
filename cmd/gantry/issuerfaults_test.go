//go:build unix

package main

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// issuerFault is an issuer that breaks while its users go on, and then changes its key.
type issuerFault struct {
	name, done string
	how        testenv.IssuerFault
}

var issuerFaults = []issuerFault{
	{"Issuer's keys hang", "no answer for 6 s; the key changes meanwhile", testenv.IssuerHangs},
	{"Issuer's keys drip", "a byte a second for 6 s; the key changes meanwhile", testenv.IssuerDrips},
	{"Issuer down", "connections closed for 6 s; the key changes meanwhile", testenv.IssuerDown},
}

// newKeyBack is when tokens of a new key are good at the latest: an issuer is asked on their behalf once in 30 s.
const newKeyBack = 31 * time.Second

// run lets known users go on beside others who come with a new token each time.
func (x issuerFault) run(t *testing.T) faultRow {
	f := newFaulty(t)
	for range 2 {
		f.open("CLERK_PUBLISHABLE_KEY=", "CLERK_SECRET_KEY=", "CLERK_ISSUER=", "CLERK_JWT_KEY=", "CLERK_WEBHOOK_SIGNING_SECRET=",
			"AUTH_ISSUER="+f.issuer.URL, "AUTH_AUDIENCE=gantry", "RATE_LIMIT_PER_USER=500000")
	}
	tr := f.drive(false)
	tr.repeat(100*time.Millisecond, func(n int) {
		tr.ask(kindFresh, n, f.doors[n%2], "GET", f.busy("newcomer"), "")
	})
	begun := time.Now()
	during(2*time.Second, t)
	broken := time.Now()
	f.issuer.Break(x.how)
	during(3*time.Second, t)
	rotated := time.Now()
	f.issuer.Rotate()
	during(3*time.Second, t)
	f.issuer.Break(testenv.IssuerHealthy)
	healed := time.Now()
	back := tr.back(healed, newKeyBack, "tokens of the new key", func(a answer) bool { return a.kind == kindFresh && a.status == http.StatusOK })
	well := time.Now()
	during(2*time.Second, t)
	tr.end()
	tr.allWell("throughout", tr.seen(begun, time.Time{}))
	for when, part := range map[string]struct {
		list answers
		may  []int
	}{
		"before the new key":        {tr.seen(begun, rotated), []int{200}},
		"while it cannot be had":    {tr.seen(rotated, healed), []int{200, 503}},
		"until it has been fetched": {tr.seen(healed, well), []int{200, 503}},
		"afterwards":                {tr.seen(well, time.Time{}), []int{200}},
	} {
		for status, n := range part.list.of(kindFresh).statuses() {
			if !slices.Contains(part.may, status) {
				t.Errorf("%s: %d new tokens answered %d", when, n, status)
			}
		}
		if longest := part.list.longest(); longest > 2*time.Second {
			t.Errorf("%s: an answer took %v, want 1 s at most and what the machine needs", when, longest)
		}
	}
	tr.nothingIsLost()
	faulty := tr.seen(broken, healed)
	return faultRow{
		name: x.name, done: x.done, reads: append(faulty.of(kindRead), faulty.of(kindFresh)...), writes: faulty.of(kindWrite), lost: tr.lost, back: back,
	}
}
