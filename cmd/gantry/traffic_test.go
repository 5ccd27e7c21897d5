//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// kind is what a request of the traffic was for.
type kind int

// The kinds. A writer writes and reads in turn, each time at the next door; a fresh one is a read with a
// token that no door has seen.
const (
	kindRead kind = iota
	kindWrite
	kindLimit
	kindFresh
)

// answer is what a client got.
type answer struct {
	span
	kind   kind
	door   int
	status int
	alone  bool // the door said that it counts without Valkey
}

// traffic is clients that go on whatever happens, and note what they see.
type traffic struct {
	f    *fleet
	stop chan struct{}
	all  sync.WaitGroup

	mu      sync.Mutex
	answers []answer
	counts  map[string]count // by user
	lost    int
}

// count is a writer's counter, which stands in the user's bio: what was acknowledged last, and what was
// tried last. Anything in between may be stored.
type count struct{ acked, tried int }

// The limit of the user who is always at it.
const (
	limitRate   = "20/2s"
	limitN      = 20
	limitWindow = 2 * time.Second
)

// newFaulty is a fleet without doors yet.
func newFaulty(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, postgres: testenv.NewPostgres(t, "max_connections=100"), redis: testenv.NewRedis(t), issuer: testenv.NewIssuer(t)}
	f.database = f.postgres.NewDatabase()
	return f
}

// startFaulty starts two doors for a fault: users with the plan of busy users are not limited.
func startFaulty(t *testing.T) *fleet {
	t.Helper()
	f := newFaulty(t)
	f.open()
	f.open()
	return f
}

// open starts one more door; the last setting of a name counts.
func (f *fleet) open(env ...string) *door {
	f.t.Helper()
	d := newDoor(f.t, slices.Concat(f.env(), faultEnv, env)...)
	f.launch(d)
	return d
}

func (f *fleet) launch(d *door) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, "gantry.yaml"), []byte("plans:\n  \"u:busy\": 1000000/min\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	d.run()
	f.doors = append(f.doors, d)
}

// faultEnv makes a request's time short, so that what waits for it does not take long.
var faultEnv = []string{
	"INSTANCES=2", "REQUEST_TIMEOUT=5s", "RATE_LIMIT_PER_USER=" + limitRate, "RATE_LIMIT_GLOBAL=1000000", "RATE_LIMIT_ANONYMOUS=100000",
}

// busy is a token of a user who is not limited, for three hours.
func (f *fleet) busy(user string) http.Header {
	return http.Header{
		"Authorization": {"Bearer " + f.issuer.Mint(map[string]any{
			"sub": user, "sid": "sess_" + user, "pla": "u:busy", "aud": "gantry", "exp": time.Now().Add(3 * time.Hour).Unix(),
		})},
		"Content-Type": {"application/merge-patch+json"},
	}
}

// drive begins the traffic: two writers and a reader and, unless nobody is limited, one user who asks for
// five times the limit at every door.
func (f *fleet) drive(limited bool) *traffic {
	tr := &traffic{f: f, stop: make(chan struct{}), counts: make(map[string]count)}
	for _, user := range []string{"writer_0", "writer_1"} {
		tr.all.Go(func() { tr.writer(user, f.busy(user)) })
	}
	reader := f.busy("reader")
	tr.repeat(50*time.Millisecond, func(n int) { tr.ask(kindRead, n, f.doors[n%len(f.doors)], "GET", reader, "") })
	if limited {
		h := f.busy("at_limit")
		h.Set("Authorization", "Bearer "+f.issuer.Mint(map[string]any{"sub": "at_limit", "exp": time.Now().Add(3 * time.Hour).Unix()}))
		for i, d := range f.doors {
			tr.repeat(20*time.Millisecond, func(int) { tr.ask(kindLimit, i, d, "GET", h, "") })
		}
	}
	f.t.Cleanup(tr.end)
	return tr
}

// repeat runs do at a pace until the end. The pace is the test's: it neither floods nor waits for anything.
func (tr *traffic) repeat(pace time.Duration, do func(n int)) {
	tr.all.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
				do(n)
			}
		}
	})
}

func (tr *traffic) end() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	select {
	case <-tr.stop:
		return
	default:
		close(tr.stop)
	}
	tr.mu.Unlock()
	tr.all.Wait()
	tr.mu.Lock()
}

// writer counts in its bio, and wants to read at the other door no less than what was acknowledged.
func (tr *traffic) writer(user string, h http.Header) {
	var c count
	doors := tr.f.doors
	for n := 0; ; n++ {
		select {
		case <-tr.stop:
			return
		case <-time.After(pace):
		}
		c.tried++
		if status, _ := tr.ask(kindWrite, n, doors[n%len(doors)], "PATCH", h, fmt.Sprintf(`{"bio":"%d"}`, c.tried)); status == http.StatusOK {
			c.acked = c.tried
		}
		tr.mu.Lock()
		tr.counts[user] = c
		tr.mu.Unlock()
		if status, text := tr.ask(kindRead, n+1, doors[(n+1)%len(doors)], "GET", h, ""); status == http.StatusOK {
			tr.compare(user, c, stored(text))
		}
	}
}

// stored is the counter in a profile; 0 for an empty bio, -1 for none.
func stored(text string) int {
	var u struct{ Bio string }
	n := -1
	if json.Unmarshal([]byte(text), &u) != nil {
		return n
	}
	if u.Bio == "" {
		return 0
	}
	_, _ = fmt.Sscan(u.Bio, &n)
	return n
}

func (tr *traffic) compare(user string, c count, got int) {
	if got >= c.acked && got <= c.tried {
		return
	}
	tr.mu.Lock()
	tr.lost++
	tr.mu.Unlock()
	tr.f.t.Errorf("%s read %d after %d was acknowledged and %d was tried", user, got, c.acked, c.tried)
}

// ask sends one request and notes what came of it. However things are, a refusal must explain itself.
func (tr *traffic) ask(k kind, n int, d *door, method string, h http.Header, body string) (int, string) {
	a := answer{span: span{sent: time.Now()}, kind: k, door: n % len(tr.f.doors)}
	res, text := d.try(method, "/v1/users/me/", h, strings.NewReader(body))
	a.answered = time.Now()
	if res == nil {
		tr.f.t.Errorf("%s: no answer: %s", method, text)
	} else {
		a.status, a.alone = res.StatusCode, res.Header.Get("X-Gantry-Ratelimit-Mode") != ""
		if a.status >= 400 && res.Header.Get("Content-Type") != "application/problem+json" || a.status == 503 && res.Header.Get("Retry-After") == "" {
			tr.f.t.Errorf("%s = %d %v %s, want a problem, and 503 with Retry-After", method, a.status, res.Header, text)
		}
	}
	tr.mu.Lock()
	tr.answers = append(tr.answers, a)
	tr.mu.Unlock()
	return a.status, text
}

// until is what was answered by then; what was under way when something broke belongs to the fault.
func (tr *traffic) until(to time.Time) answers {
	return slices.DeleteFunc(tr.seen(time.Time{}, to), func(a answer) bool { return a.answered.After(to) })
}

// seen is what was asked from a moment on, and before another unless that is zero.
func (tr *traffic) seen(from, to time.Time) answers {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var list answers
	for _, a := range tr.answers {
		if !a.sent.Before(from) && (to.IsZero() || a.sent.Before(to)) {
			list = append(list, a)
		}
	}
	return list
}

type answers []answer

func (list answers) of(k kind) answers {
	return slices.DeleteFunc(slices.Clone(list), func(a answer) bool { return a.kind != k })
}

// statuses counts them.
func (list answers) statuses() map[int]int {
	got := make(map[int]int)
	for _, a := range list {
		got[a.status]++
	}
	return got
}

// alone counts the answers that a door gave without Valkey.
func (list answers) alone() (n int) {
	for _, a := range list {
		if a.alone {
			n++
		}
	}
	return n
}

func (list answers) longest() (d time.Duration) {
	for _, a := range list {
		d = max(d, a.answered.Sub(a.sent))
	}
	return d
}

// admitted are those that were let through to the handler, whatever came of it.
func (list answers) admitted() (spans []span) {
	for _, a := range list {
		if a.status != http.StatusTooManyRequests {
			spans = append(spans, a.span)
		}
	}
	return spans
}

// since is when every door, or of kind write every writer's turn, had the first answer that ok accepts.
func (list answers) since(doors int, ok func(answer) bool) (last time.Time, all bool) {
	first := make(map[int]time.Time)
	for _, a := range list {
		if at, found := first[a.door]; ok(a) && (!found || a.answered.Before(at)) {
			first[a.door] = a.answered
		}
	}
	for _, at := range first {
		if at.After(last) {
			last = at
		}
	}
	return last, len(first) == doors
}
