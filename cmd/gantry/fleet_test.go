//go:build unix

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// fleet is several doors in production mode that share a Postgres and a Valkey, with Clerk as the
// issuer, behind a load balancer.
type fleet struct {
	t        *testing.T
	postgres *testenv.Postgres
	database string
	redis    *testenv.Redis
	issuer   *testenv.Issuer
	doors    []*door
	balancer *testenv.HAProxy
	front    *door // the balancer, for requests
}

const (
	fleetSecret = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9iPpQx1RzVbNk4MwS6HgYeDjCuFaO"
	hookKey     = "0123456789abcdefghijklmnopqrstuv"
)

// startFleet starts n doors, and everything they need.
func startFleet(t *testing.T, n int, env ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, postgres: testenv.NewPostgres(t, "max_connections=200"), redis: testenv.NewRedis(t), issuer: testenv.NewIssuer(t)}
	f.database = f.postgres.NewDatabase()
	servers := make([]string, n)
	for i := range n {
		d := start(t, append(f.env(), env...)...)
		f.doors = append(f.doors, d)
		servers[i] = strings.TrimPrefix(d.url, "http://")
	}
	f.balancer = testenv.NewHAProxy(t, servers...)
	f.front = &door{t: t, url: f.balancer.URL, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}, Timeout: 30 * time.Second}}
	t.Cleanup(f.front.client.CloseIdleConnections)
	return f
}

func (f *fleet) env() []string {
	return []string{
		"ENVIRONMENT=production", "SECRET_KEY=" + fleetSecret, "ALLOWED_HOSTS=localhost,127.0.0.1", "TRUSTED_PROXIES=127.0.0.1",
		"DATABASE_URL=" + f.postgres.URL(f.database), "VALKEY_URL=redis://" + f.redis.Addr, "INSTANCES=4", "DB_POOL_MAX=8", "DRAIN_DELAY=1s",
		"CLERK_PUBLISHABLE_KEY=pk_live_" + base64.StdEncoding.EncodeToString([]byte("clerk.example.org$")), "CLERK_SECRET_KEY=sk_live_abcdef",
		"CLERK_ISSUER=" + f.issuer.URL, "CLERK_JWT_KEY=" + f.issuer.PEM(),
		"CLERK_WEBHOOK_SIGNING_SECRET=whsec_" + base64.StdEncoding.EncodeToString([]byte(hookKey)), "ADMIN_SUBJECTS=admin_1",
	}
}

// token is a session of user's.
func (f *fleet) token(user string) http.Header { return f.session(user, "sess_"+user) }

func (f *fleet) session(user, id string) http.Header {
	return http.Header{"Authorization": {"Bearer " + f.issuer.Mint(map[string]any{"sub": user, "sid": id, "exp": time.Now().Add(time.Hour).Unix()})}}
}

// within polls until ok holds, and wants that to take no longer than limit.
func (f *fleet) within(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			f.t.Errorf("%s took more than %v", what, limit)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// hammer sends GET /v1/users/me/ from clients at once over all doors until stop says so, and returns
// when each admitted request was sent and answered.
func (f *fleet) hammer(clients int, h http.Header, stop <-chan struct{}) (admitted []span, statuses map[int]int) {
	var mu sync.Mutex
	statuses = make(map[int]int)
	var all sync.WaitGroup
	for i := range clients {
		d := f.doors[i%len(f.doors)]
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := span{sent: time.Now()}
				res, text := d.try("GET", "/v1/users/me/", h, nil)
				s.answered = time.Now()
				mu.Lock()
				switch {
				case res == nil:
					statuses[0]++
					f.t.Errorf("no answer: %s", text)
				case res.StatusCode == http.StatusOK:
					admitted = append(admitted, s)
					fallthrough
				default:
					statuses[res.StatusCode]++
					if res.Header.Get("X-Gantry-Ratelimit-Mode") != "" {
						statuses[alone]++
					}
				}
				mu.Unlock()
				time.Sleep(pace)
			}
		})
	}
	all.Wait()
	return admitted, statuses
}

// alone counts answers that a door gave without Valkey, among statuses.
const alone = -1

// pace is between two requests of a client: the limits are tested here, and not what happens when the
// machine is too busy to hear from Valkey within 50 ms.
const pace = 20 * time.Millisecond

// span is a request as its client saw it: it was admitted somewhere in between.
type span struct{ sent, answered time.Time }

// mostWithin returns the largest number of admissions that must have happened in one window of that
// length: those both sent and answered within it.
func mostWithin(list []span, window time.Duration) int {
	most := 0
	for _, from := range list {
		n := 0
		for _, s := range list {
			if !s.sent.Before(from.sent) && s.answered.Sub(from.sent) <= window {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestOneUserHasOneLimitOnAllDoors(t *testing.T) {
	t.Parallel()
	const window = 10 * time.Second
	f := startFleet(t, 4, "RATE_LIMIT_PER_USER=100/10s", "RATE_LIMIT_GLOBAL=100000")
	stop := make(chan struct{})
	timer := time.AfterFunc(2*window+window/2, func() { close(stop) })
	defer timer.Stop()
	admitted, statuses := f.hammer(64, f.token("user_1"), stop)
	most := mostWithin(admitted, window)
	if n := statuses[alone]; n > 0 {
		// The machine was too busy to hear from Valkey in time, and the doors went on alone; then a window
		// may hold twice the limit, and no more.
		t.Logf("%d answers without Valkey", n)
		if most > 200 {
			t.Errorf("%d requests were admitted in one window, want 200 at most", most)
		}
		return
	}
	if most != 100 || len(admitted) != 300 {
		t.Errorf("%d requests were admitted in one window, want exactly 100, and %d in two and a half, want 300 (statuses %v)", most, len(admitted), statuses)
	}
}

func TestDocumentsLoopThroughTheBalancer(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 4)
	if got := loop(f.front, f.token("user_1"), 0); !isDocuments(t, got, 200) {
		t.Errorf("statuses = %v, want 100 x 200, then 429", got)
	}
	if got := loop(f.front, nil, 0); !isDocuments(t, got, 401) {
		t.Errorf("statuses without a token = %v, want 100 x 401, then 429", got)
	}
}

// isDocuments says that a loop was answered a hundred times and then refused, as far as the doors heard from Valkey in
// time: on a machine that is too busy for that they count alone, and a few more are let in.
func isDocuments(t *testing.T, got map[int]int, usual int) bool {
	if n := got[alone]; n > 0 {
		t.Logf("%d answers without Valkey", n)
		return got[usual]+got[429] == 101 && n < 30
	}
	return got[usual] == 100 && got[429] == 1
}

func TestStrangersCannotLockUsersOutOfTheFleet(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2, "RATE_LIMIT_GLOBAL=200", "RATE_LIMIT_PER_USER=100", "RATE_LIMIT_ANONYMOUS=190", "RATE_LIMIT_ANONYMOUS_SHARE=25%")
	got := make(map[int]int)
	for i := range 60 {
		res, _ := f.doors[i%2].do("GET", "/v1/openapi.json", nil, nil)
		got[res.StatusCode]++
	}
	if got[200] != 50 || got[429] != 10 {
		t.Errorf("strangers = %v, want 50 of the global 200 and then 429", got)
	}
	got = make(map[int]int)
	for i := range 160 {
		res, _ := f.doors[i%2].do("GET", "/v1/users/me/", f.token(fmt.Sprintf("user_%d", i%4)), nil)
		got[res.StatusCode]++
	}
	if got[200] != 150 || got[429] != 10 {
		t.Errorf("users = %v, want the other 150 and then 429", got)
	}
}

func TestADrainingDoorIsTakenOutWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3, "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000", "DRAIN_DELAY=2s")
	stop := make(chan struct{})
	var mu sync.Mutex
	bad, good := []string{}, 0
	var clients sync.WaitGroup
	for i := range 20 {
		h := f.token(fmt.Sprintf("user_%d", i))
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, text := f.front.try("GET", "/v1/users/me/", h, nil)
				mu.Lock()
				if res == nil || res.StatusCode != http.StatusOK {
					bad = append(bad, text)
				} else {
					good++
				}
				mu.Unlock()
			}
		})
	}
	for _, d := range f.doors[:2] {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		err := <-d.exited
		d.exited <- nil
		if err != nil {
			t.Errorf("exit: %v", err)
		}
	}
	f.balancer.Until(1)
	close(stop)
	clients.Wait()
	if len(bad) > 0 || good < 100 {
		t.Errorf("%d good, %d failed: %.300v", good, len(bad), slices.Compact(bad))
	}
}

// everywhere waits until every door answers h with status, on a path that only the door itself can
// refuse, and returns how long that took.
func (f *fleet) everywhere(h http.Header, status int) time.Duration {
	f.t.Helper()
	last := ""
	took := f.within(2*time.Second, fmt.Sprintf("status %d on every door", status), func() bool {
		for i, d := range f.doors {
			res, text := d.do("GET", "/elsewhere", h, nil)
			if last = fmt.Sprintf("door %d: %d %s", i, res.StatusCode, text); res.StatusCode != status {
				return false
			}
		}
		return true
	})
	if f.t.Failed() {
		f.t.Log(last)
	}
	return took
}

// id is the user's own id, made at first sight.
func (f *fleet) id(h http.Header) string {
	f.t.Helper()
	_, text := f.doors[0].do("GET", "/v1/users/me/", h, nil)
	var me struct{ ID string }
	if err := json.Unmarshal([]byte(text), &me); err != nil || me.ID == "" {
		f.t.Fatalf("who am I: %s", text)
	}
	return me.ID
}

// report sends a webhook to one door, signed as Clerk's are.
func (f *fleet) report(d *door, id, body string) int {
	f.t.Helper()
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(hookKey))
	mac.Write([]byte(id + "." + at + "." + body))
	res, _ := d.do("POST", "/v1/webhooks/clerk", http.Header{
		"Svix-Id": {id}, "Svix-Timestamp": {at}, "Svix-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
		"Content-Type": {"application/json"},
	}, strings.NewReader(body))
	return res.StatusCode
}

func TestSuspensionsAndRevocationsReachEveryDoorInTwoSeconds(t *testing.T) {
	t.Parallel()
	const welcome = 404 // there is no upstream
	f := startFleet(t, 4, "RATE_LIMIT_PER_USER=100000", "RATE_LIMIT_GLOBAL=1000000")
	user, admin := f.token("user_1"), f.token("admin_1")
	id := f.id(user)
	f.everywhere(user, welcome)

	if res, _ := f.doors[0].do("POST", "/v1/users/"+id+"/suspend", f.token("user_2"), nil); res.StatusCode != 403 {
		t.Errorf("suspend by a stranger = %d, want 403", res.StatusCode)
	}
	for _, step := range []struct {
		door   int
		verb   string
		status int
	}{{0, "suspend", 403}, {3, "reinstate", welcome}} {
		if res, text := f.doors[step.door].do("POST", "/v1/users/"+id+"/"+step.verb, admin, nil); res.StatusCode != 200 {
			t.Fatalf("%s = %d %s", step.verb, res.StatusCode, text)
		}
		t.Logf("%s: %d on every door after %v", step.verb, step.status, f.everywhere(user, step.status))
	}

	first, second := f.session("user_3", "sess_a"), f.session("user_3", "sess_b")
	f.everywhere(first, welcome)
	body := fmt.Sprintf(`{"object":"event","type":"session.revoked","timestamp":%d,"data":{"id":"sess_a","user_id":"user_3","status":"revoked"}}`, time.Now().UnixMilli())
	if got := f.report(f.doors[1], "msg_1", body); got != 200 {
		t.Fatalf("webhook = %d, want 200", got)
	}
	t.Logf("revoked: 401 on every door after %v", f.everywhere(first, 401))
	f.everywhere(second, welcome)

	gone := f.token("user_4")
	f.everywhere(gone, welcome)
	body = fmt.Sprintf(`{"object":"event","type":"user.deleted","timestamp":%d,"data":{"id":"user_4","deleted":true,"object":"user"}}`, time.Now().UnixMilli())
	if got := f.report(f.doors[2], "msg_2", body); got != 200 {
		t.Fatalf("webhook = %d, want 200", got)
	}
	t.Logf("deleted: 410 on every door after %v", f.everywhere(gone, 410))
	if res, _ := f.doors[0].do("POST", "/v1/webhooks/clerk", nil, strings.NewReader("{}")); res.StatusCode != 401 {
		t.Errorf("an unsigned webhook = %d, want 401", res.StatusCode)
	}
}

func TestWhatOneDoorWritesEveryDoorReads(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 4, "RATE_LIMIT_PER_USER=100000", "RATE_LIMIT_GLOBAL=1000000")
	h := f.token("user_1")
	patch := h.Clone()
	patch.Set("Content-Type", "application/merge-patch+json")
	for i := range 200 {
		want := fmt.Sprintf("name %d", i)
		if res, text := f.doors[i%4].do("PATCH", "/v1/users/me/", patch, strings.NewReader(`{"display_name":"`+want+`"}`)); res.StatusCode != 200 {
			t.Fatalf("PATCH = %d %s", res.StatusCode, text)
		}
		for j := range 4 {
			if _, text := f.doors[(i+j)%4].do("GET", "/v1/users/me/", h, nil); !strings.Contains(text, want) {
				t.Fatalf("after %q door %d reads %s", want, (i+j)%4, text)
			}
		}
	}
}

func TestAPlanSetByAnAdminIsTheLimitOnEveryDoor(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	for _, d := range f.doors {
		if err := os.WriteFile(filepath.Join(d.dir, "gantry.yaml"), []byte("plans:\n  pro: 1000/min\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.reload("", reloaded)
	}
	user := f.token("user_1")
	admin := f.token("admin_1")
	admin.Set("Content-Type", "application/json")
	id := f.id(user)
	if res, text := f.doors[0].do("PUT", "/v1/users/"+id+"/plan", admin, strings.NewReader(`{"plan":"pro"}`)); res.StatusCode != 200 {
		t.Fatalf("plan = %d %s", res.StatusCode, text)
	}
	for _, d := range f.doors {
		f.within(2*time.Second, "the plan's limit", func() bool {
			res, _ := d.do("GET", "/v1/users/me/", user, nil)
			return res.Header.Get("X-RateLimit-Limit") == "1000"
		})
	}
	if res, _ := f.doors[0].do("PUT", "/v1/users/"+id+"/plan", admin, strings.NewReader(`{"plan":"nope"}`)); res.StatusCode != 422 {
		t.Errorf("an unknown plan = %d, want 422", res.StatusCode)
	}
}
