//go:build unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// fault is something that happens to what the doors share, while clients go on.
type fault struct {
	name string
	done string // what was done, for the table
	// cause and heal act on what is shared; when heal returns all is well again.
	cause, heal func(*fleet)
	lasts       time.Duration
	// database says that the users' table is away: what needs it may be refused, and no more than that.
	database bool
}

var (
	killValkey  = func(f *fleet) { f.redis.Kill() }
	startValkey = func(f *fleet) { f.redis.Start() }
)

// faults are those of Valkey and Postgres. The connections of a frozen server stay, those of a killed one
// are reset.
var faults = []fault{
	{"Valkey killed", "kill -9; started empty 5 s later", killValkey, startValkey, 5 * time.Second, false},
	{"Valkey stopped", "SIGSTOP; SIGCONT 5 s later", func(f *fleet) { f.redis.Stall() }, func(f *fleet) { f.redis.Continue() }, 5 * time.Second, false},
	{"Valkey restarted empty", "kill -9 and started at once", killValkey, startValkey, 0, false},
	{
		"Valkey read-only", "REPLICAOF a server that is not there, for 5 s",
		func(f *fleet) { f.redis.Must("REPLICAOF", "127.0.0.1", "1") },
		func(f *fleet) { f.redis.Must("REPLICAOF", "NO", "ONE") },
		5 * time.Second, false,
	},
	{
		"Valkey out of memory", "maxmemory 1 byte, for 5 s",
		func(f *fleet) { f.redis.Must("CONFIG", "SET", "maxmemory", "1") },
		func(f *fleet) { f.redis.Must("CONFIG", "SET", "maxmemory", "0") },
		5 * time.Second, false,
	},
	{
		"Postgres killed", "kill -9 of all its processes; started 4 s later",
		func(f *fleet) { f.postgres.Kill() }, func(f *fleet) { f.postgres.Start() }, 4 * time.Second, true,
	},
	{"Postgres restarted", "stopped fast and started at once", func(f *fleet) { f.postgres.Stop() }, func(f *fleet) { f.postgres.Start() }, 0, true},
	{
		"Postgres stopped", "SIGSTOP of all its processes; SIGCONT 8 s later",
		func(f *fleet) { f.postgres.Freeze() }, func(f *fleet) { f.postgres.Thaw() }, 8 * time.Second, true,
	},
	{
		"Postgres out of connections", "no connection is granted and those there are ended, for 5 s",
		func(f *fleet) {
			f.postgres.Exec("postgres", "ALTER ROLE gantry CONNECTION LIMIT 0")
			f.postgres.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gantry'")
		},
		func(f *fleet) { f.postgres.Exec("postgres", "ALTER ROLE gantry CONNECTION LIMIT -1") },
		5 * time.Second, true,
	},
}

// How long things may take. The bounds that requirements set for one decision (50 ms for Valkey) are tested
// where nothing else runs; here the machine is busy, and a bound says that nobody hangs.
const (
	readBound     = time.Second             // while Valkey is away
	writeBound    = 4 * time.Second         // then a write may have to outlast the leases of the cache: 3 s
	databaseBound = 6500 * time.Millisecond // REQUEST_TIMEOUT, and the second a cancelled statement is given
	limitsBack    = 2 * time.Second
	databaseBack  = 5 * time.Second
)

// TestFaults lets everything go wrong that the doors share, with traffic on, through real processes. With
// GANTRY_UPDATE_FAULTS=1 what was seen is written to docs/faults.md. It does not run beside the other tests.
func TestFaults(t *testing.T) {
	report := newFaultReport(t)
	if !testing.Short() {
		go func() { _, _ = skewed() }() // clockOff says what came of it
	}
	room := make(chan struct{}, 3) // traffic that starves measures the machine
	t.Run("all", func(t *testing.T) {
		for i, x := range issuerFaults { // first, because they mostly wait
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				report.add(20+i, x.run(t))
			})
		}
		for i, x := range slices.Concat(faults, []fault{lockedTable()}) {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				room <- struct{}{}
				defer func() { <-room }()
				report.add(i, x.run(t))
			})
		}
		t.Run("Disk full", func(t *testing.T) {
			t.Parallel()
			report.add(30, diskFull(t))
		})
	})
	t.Run("Clock an hour off", func(t *testing.T) {
		if testing.Short() {
			t.Skip("builds the standard library anew")
		}
		report.add(40, clockOff(t))
	})
	report.write()
}

// lockedTable holds the strongest lock on the users, as a careless migration does.
func lockedTable() fault {
	var conn *pgx.Conn
	return fault{
		"Table locked", "LOCK TABLE users IN ACCESS EXCLUSIVE MODE, for 8 s",
		func(f *fleet) {
			var err error
			if conn, err = pgx.Connect(f.t.Context(), f.postgres.URLAs("postgres", f.database)); err == nil {
				_, err = conn.Exec(f.t.Context(), "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
			}
			if err != nil {
				f.t.Fatal(err)
			}
		},
		func(f *fleet) {
			f.noStatementOutlivesItsRequest()
			if err := conn.Close(context.WithoutCancel(f.t.Context())); err != nil {
				f.t.Error(err)
			}
		},
		8 * time.Second, true,
	}
}

// noStatementOutlivesItsRequest is requirement T2.
func (f *fleet) noStatementOutlivesItsRequest() {
	f.t.Helper()
	old := f.postgres.Exec(f.database, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gantry' AND state <> 'idle' AND now() - xact_start > '6 s'")
	if old != "0" {
		f.t.Errorf("%s statements run for more than a second longer than a request may", old)
	}
}

// run is the three phases: healthy, the fault, and healed.
func (x fault) run(t *testing.T) faultRow {
	f := startFaulty(t)
	tr := f.drive(true)
	during(2*limitWindow, t)
	broken := time.Now()
	x.cause(f)
	during(x.lasts, t)
	healing := time.Now()
	x.heal(f)
	healed := time.Now()
	limits := tr.back(healed, limitsBack, "the shared limits", func(a answer) bool { return a.kind == kindLimit && !a.alone })
	database := tr.back(healed, databaseBack, "writing", func(a answer) bool { return a.kind == kindWrite && a.status == http.StatusOK })
	well := time.Now()
	during(2*limitWindow, t)
	tr.end()

	defer f.tellErrors()
	tr.allWell("before", tr.until(broken))
	tr.allWell("afterwards", tr.seen(well, time.Time{}))
	faulty := tr.seen(broken, healed)
	x.judge(t, faulty)
	x.judge(t, tr.seen(healed, well))
	tr.nothingIsLost()
	row := faultRow{
		name: x.name, done: x.done, reads: faulty.of(kindRead), writes: faulty.of(kindWrite), limited: faulty.of(kindLimit),
		lost: tr.lost, most: x.overAdmitted(t, tr, broken, healing, well), back: limits,
	}
	if x.database {
		row.back = database
	}
	return row
}

// during is the time that a phase lasts, which is what is tested.
func during(d time.Duration, t *testing.T) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// back waits until every door has answered as ok wants, to a request that was sent after what was broken
// had healed, and returns how long that took.
func (tr *traffic) back(healed time.Time, limit time.Duration, what string, ok func(answer) bool) time.Duration {
	tr.f.t.Helper()
	var at time.Time
	tr.f.within(2*limit, what, func() (all bool) {
		at, all = tr.seen(healed, time.Time{}).since(len(tr.f.doors), ok)
		return all
	})
	took := at.Sub(healed)
	if took > limit {
		tr.f.t.Errorf("%s came back after %v, want %v at most", what, took, limit)
	}
	return took
}

// allWell wants no refusal but of the user at the limit.
func (tr *traffic) allWell(when string, list answers) {
	tr.f.t.Helper()
	for k, may := range map[kind][]int{kindRead: {200}, kindWrite: {200}, kindLimit: {200, 429}} {
		for status, n := range list.of(k).statuses() {
			if !slices.Contains(may, status) {
				tr.f.t.Errorf("%s: %d answers %d to %s", when, n, status, k)
			}
		}
	}
}

// tellErrors shows what the doors of a test that failed had to complain of.
func (f *fleet) tellErrors() {
	if !f.t.Failed() {
		return
	}
	for i, d := range f.doors {
		for line := range strings.Lines(d.log.String()) {
			if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"status":500`) {
				f.t.Logf("door %d: %s", i, line)
			}
		}
	}
}

// judge looks at what clients saw while it lasted.
func (x fault) judge(t *testing.T, list answers) {
	t.Helper()
	may := []int{200, 429}
	bounds := map[kind]time.Duration{kindRead: readBound, kindWrite: writeBound, kindLimit: readBound}
	if x.database {
		may = append(may, 503, 504)
		bounds = map[kind]time.Duration{kindRead: databaseBound, kindWrite: databaseBound, kindLimit: databaseBound}
	}
	for k, bound := range bounds {
		got := list.of(k)
		for status, n := range got.statuses() {
			if !slices.Contains(may, status) || status == 429 && k != kindLimit {
				t.Errorf("%d answers %d to %s", n, status, k)
			}
		}
		if longest := got.longest(); longest > bound {
			t.Errorf("the longest %s took %v, want %v at most", k, longest, bound)
		}
	}
}

// overAdmitted holds the user at the limit against requirements 2.4: N in a window, in an outage over all
// doors together too, and N more over a switch. It returns the most in any window.
func (x fault) overAdmitted(t *testing.T, tr *traffic, broken, healing, well time.Time) int {
	t.Helper()
	whole := tr.seen(time.Time{}, time.Time{}).of(kindLimit)
	parts := map[string]answers{
		"before": tr.until(broken).of(kindLimit), "while it lasted": tr.seen(broken.Add(limitWindow), healing).of(kindLimit),
		"afterwards": tr.seen(well.Add(limitWindow), time.Time{}).of(kindLimit),
	}
	for when, list := range parts {
		allowed := limitN
		if outage := !x.database && when == "while it lasted"; !outage && list.alone() > 0 {
			t.Logf("%s: %d answers without Valkey: the machine was busy", when, list.alone())
			allowed *= 2
		}
		if n := mostWithin(list.admitted(), limitWindow); n > allowed {
			t.Errorf("%s: %d admissions in a window, want %d at most", when, n, allowed)
		}
	}
	most := mostWithin(whole.admitted(), limitWindow)
	if most > 2*limitN {
		t.Errorf("%d admissions in a window, want %d at most over a switch", most, 2*limitN)
	}
	return most
}

// nothingIsLost compares what the writers know with what every door and the database say at the end, and
// has the audit log verified.
func (tr *traffic) nothingIsLost() {
	t := tr.f.t
	t.Helper()
	for user, c := range tr.counts {
		if c.acked < 20 {
			t.Errorf("%s had %d writes acknowledged: that is no traffic", user, c.acked)
		}
		for _, d := range tr.f.doors {
			_, text := d.do("GET", "/v1/users/me/", tr.f.busy(user), nil)
			tr.compare(user, c, stored(text))
		}
		if tr.f.postgres != nil {
			tr.compare(user, c, stored(fmt.Sprintf(`{"bio":%q}`, tr.f.postgres.Exec(tr.f.database, "SELECT bio FROM users WHERE subject = '"+user+"'"))))
		}
	}
	if text, code := tr.f.doors[0].command("users", "audit", "--verify"); code != 0 {
		t.Errorf("users audit --verify: exit %d: %s", code, text)
	}
}

// String is the kind's name in a failure.
func (k kind) String() string {
	return [...]string{"read", "write", "read at the limit", "fresh token"}[k]
}
