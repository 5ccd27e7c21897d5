//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// skew is how far the clock of a skewed door is ahead.
const skew = time.Hour

// skewed is the program with a wall clock that is ahead: the standard library's time.Now adds to it, and
// nothing else is changed. To build the library anew takes a minute or two the first time, so it is
// begun early and yields to everything else.
var skewed = sync.OnceValues(func() (string, error) {
	normal, err := binary()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(normal)
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const line = "\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.ReplaceAll(string(text), line, line+fmt.Sprintf("\tsec += %d\n", int(skew.Seconds())))
	if changed == string(text) {
		return "", fmt.Errorf("%s reads the clock in another way now", original)
	}
	copied, overlay, path := filepath.Join(dir, "time.go.txt"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "gantry-skewed")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: copied}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(copied, []byte(changed), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("nice", "-n", "19", "go", "build", "-overlay", overlay, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// clockOff runs a door with a right clock beside one that is an hour ahead: doors[0] and doors[1].
func clockOff(t *testing.T) faultRow {
	path, err := skewed()
	if err != nil {
		t.Fatal(err)
	}
	f := newFaulty(t)
	f.open()
	d := newDoor(t, append(f.env(), faultEnv...)...)
	d.wrap = []string{"sh", "-c", `shift; exec "$0" "$@"`, path}
	f.launch(d)

	tr := f.drive(true)
	begun := time.Now()
	during(4*limitWindow, t)
	f.accessArrives()
	f.tokensAreJudgedByEachClock()
	f.timesAreTheDoors()
	tr.end()
	list := tr.seen(begun, time.Time{})
	tr.allWell("with a clock off", list)
	tr.nothingIsLost()
	most := mostWithin(list.of(kindLimit).admitted(), limitWindow)
	if allowed := limitN; most > allowed && list.alone() == 0 {
		t.Errorf("%d admissions in a window, want %d: the time is Valkey's", most, allowed)
	}
	if n := len(list.of(kindLimit).admitted()); n < 3*limitN {
		t.Errorf("%d admissions in four windows, want the limit to be used", n)
	}
	return faultRow{
		name: "Clock an hour off", done: "one of two doors is an hour ahead, all the time",
		reads: list.of(kindRead), writes: list.of(kindWrite), limited: list.of(kindLimit), lost: tr.lost, most: most,
	}
}

// accessArrives lets each door suspend, reinstate and end sessions, and wants all to know in two seconds.
func (f *fleet) accessArrives() {
	f.t.Helper()
	const welcome = 404 // there is no upstream
	admin := f.busy("admin_1")
	for i, d := range f.doors {
		user := f.busy(fmt.Sprintf("subject_%d", i))
		_, text := d.do("GET", "/v1/users/me/", user, nil)
		var me struct{ ID string }
		if err := json.Unmarshal([]byte(text), &me); err != nil || me.ID == "" {
			f.t.Fatalf("who am I: %s", text)
		}
		for _, step := range []struct {
			verb   string
			status int
		}{{"suspend", 403}, {"reinstate", welcome}} {
			if res, text := d.do("POST", "/v1/users/"+me.ID+"/"+step.verb, admin, nil); res.StatusCode != 200 {
				f.t.Fatalf("%s = %d %s", step.verb, res.StatusCode, text)
			}
			f.everywhere(user, step.status)
		}
	}
	f.sessionsEnd()
}

// sessionsEnd: Clerk's messages are signed for a moment, and a door whose clock is off by more than five minutes
// refuses them. Clerk's sender tries again, which another door takes; all of them then know.
func (f *fleet) sessionsEnd() {
	f.t.Helper()
	user := f.busy("ended")
	f.everywhere(user, 404)
	body := fmt.Sprintf(`{"object":"event","type":"session.revoked","timestamp":%d,"data":{"id":"sess_ended","user_id":"ended","status":"revoked"}}`, time.Now().UnixMilli())
	if got := f.report(f.doors[1], "msg_skew", body); got != http.StatusUnauthorized {
		f.t.Errorf("a webhook at the door an hour ahead = %d, want 401: it is too old there", got)
	}
	if got := f.report(f.doors[0], "msg_skew", body); got != http.StatusOK {
		f.t.Errorf("the webhook at the other door = %d, want 200", got)
	}
	f.everywhere(user, http.StatusUnauthorized)
}

// tokensAreJudgedByEachClock states what a client sees: an hour ahead, a token of a minute has ended, and one that
// begins in half an hour has begun.
func (f *fleet) tokensAreJudgedByEachClock() {
	f.t.Helper()
	now := time.Now()
	for name, tt := range map[string]struct {
		claims map[string]any
		want   [2]int
	}{
		"a minute from now":   {map[string]any{"exp": now.Add(time.Minute).Unix()}, [2]int{404, 401}},
		"two hours from now":  {map[string]any{"exp": now.Add(2 * time.Hour).Unix()}, [2]int{404, 404}},
		"not before 30 min":   {map[string]any{"nbf": now.Add(30 * time.Minute).Unix(), "exp": now.Add(2 * time.Hour).Unix()}, [2]int{401, 404}},
		"ended a minute ago":  {map[string]any{"exp": now.Add(-time.Minute).Unix()}, [2]int{401, 401}},
		"not before in 2 hrs": {map[string]any{"nbf": now.Add(2 * time.Hour).Unix(), "exp": now.Add(3 * time.Hour).Unix()}, [2]int{401, 401}},
	} {
		tt.claims["sub"], tt.claims["sid"], tt.claims["pla"] = "clock", "sess_clock", "u:busy"
		h := http.Header{"Authorization": {"Bearer " + f.issuer.Mint(tt.claims)}}
		for i, d := range f.doors {
			if res, text := d.do("GET", "/elsewhere", h, nil); res.StatusCode != tt.want[i] {
				f.t.Errorf("a token of %s at door %d = %d %s, want %d", name, i, res.StatusCode, text, tt.want[i])
			}
		}
	}
}

// timesAreTheDoors: a profile's times are those of the door that wrote it, and so is X-RateLimit-Reset, while
// the version counts on whatever the clocks say.
func (f *fleet) timesAreTheDoors() {
	f.t.Helper()
	h := f.busy("times")
	version := int64(0)
	for i := range 4 {
		ahead := time.Duration(i%2) * skew
		res, text := f.doors[i%2].do("PATCH", "/v1/users/me/", h, strings.NewReader(fmt.Sprintf(`{"bio":"%d"}`, i)))
		var u struct {
			Version   int64
			UpdatedAt time.Time `json:"updated_at"`
		}
		if err := json.Unmarshal([]byte(text), &u); err != nil || res.StatusCode != 200 {
			f.t.Fatalf("PATCH = %d %s", res.StatusCode, text)
		}
		reset, err := strconv.ParseInt(res.Header.Get("X-Ratelimit-Reset"), 10, 64)
		if err != nil {
			f.t.Error(err)
		}
		for name, at := range map[string]time.Time{"updated_at": u.UpdatedAt, "the limit's reset": time.Unix(reset, 0)} {
			if off := time.Until(at) - ahead; off.Abs() > 2*time.Minute {
				f.t.Errorf("%s at door %d is %v from that door's time", name, i%2, off)
			}
		}
		if u.Version <= version {
			f.t.Errorf("version %d after %d", u.Version, version)
		}
		version = u.Version
	}
}
