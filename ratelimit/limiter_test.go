package ratelimit

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"pgregory.net/rapid"
)

var home = netip.MustParseAddr("203.0.113.9")

func limiter(t testing.TB, cfg Config, clock func() time.Time) *Limiter {
	t.Helper()
	if cfg.Store == nil {
		store, err := NewMemory(MemoryConfig{Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Store = store
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func allowed(t testing.TB, l *Limiter, c Caller) bool {
	t.Helper()
	d, err := l.Allow(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

func admissions(t testing.TB, l *Limiter, c Caller, n int) (in int) {
	for range n {
		if allowed(t, l, c) {
			in++
		}
	}
	return in
}

func TestQuotaIsPerUser(t *testing.T) {
	l := limiter(t, Config{}, nil)
	for _, user := range []string{"user_1", "user_2"} {
		if got := admissions(t, l, Caller{User: user, Addr: home}, 150); got != 100 {
			t.Errorf("%s was admitted %d times, want 100", user, got)
		}
	}
}

func TestStrangersCannotLockUsersOut(t *testing.T) {
	l := limiter(t, Config{Global: Rate{200, time.Minute}}, nil)
	in := 0
	for i := range 500 {
		in += admissions(t, l, Caller{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, 1)
	}
	if in != 100 {
		t.Errorf("strangers were admitted %d times, want their half of 200", in)
	}
	if got := admissions(t, l, Caller{User: "user_1"}, 100); got != 100 {
		t.Errorf("the user was admitted %d times, want 100", got)
	}
}

func TestGlobalRefusalCostsTheUserNothing(t *testing.T) {
	now := time.Unix(0, 0)
	l := limiter(t, Config{Global: Rate{1, time.Minute}, PerUser: Rate{2, time.Hour}}, func() time.Time { return now })
	admissions(t, l, Caller{User: "other"}, 1)
	if admissions(t, l, Caller{User: "user_1"}, 10) != 0 {
		t.Fatal("the global limit does not hold")
	}
	for range 2 {
		now = now.Add(time.Minute)
		if !allowed(t, l, Caller{User: "user_1"}) {
			t.Error("a refused request was charged to the user")
		}
	}
}

func TestRejectedTokensSpendTheAddressAlone(t *testing.T) {
	l := limiter(t, Config{Global: Rate{50, time.Minute}, PerUser: Rate{50, time.Minute}}, nil)
	if got := admissions(t, l, Caller{Addr: home, Rejected: true}, 200); got != 100 {
		t.Errorf("%d refusals were charged, want the address's 100", got)
	}
	if d, _ := l.Peek(t.Context(), home); d.Allowed {
		t.Error("the address still has budget")
	}
	if got := admissions(t, l, Caller{User: "user_1", Addr: home}, 60); got != 50 {
		t.Errorf("the user was admitted %d times, want 50: forged tokens spent the global budget", got)
	}
}

func TestRoutesAndPlansReplaceTheRate(t *testing.T) {
	l := limiter(t, Config{Plans: map[string]Rate{"pro": {150, time.Minute}}}, nil)
	if got := admissions(t, l, Caller{User: "u", Plan: "pro"}, 200); got != 150 {
		t.Errorf("plan: %d, want 150", got)
	}
	login := Caller{User: "v", Route: "/login", RouteRate: Rate{10, time.Minute}}
	if got := admissions(t, l, login, 20); got != 10 {
		t.Errorf("route: %d, want 10", got)
	}
	if got := admissions(t, l, Caller{User: "v"}, 200); got != 100 {
		t.Errorf("elsewhere: %d, want all 100", got)
	}
}

func TestAddressKey(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.9": "203.0.113.9", "::ffff:203.0.113.9": "203.0.113.9", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := AddrKey(netip.MustParseAddr(in), 64); got != want {
			t.Errorf("AddrKey(%s) = %s, want %s", in, got, want)
		}
	}
}

// naive is the definition of the limit, without any cleverness.
type naive struct {
	rate Rate
	in   []time.Time
}

func (n *naive) full(now time.Time) bool {
	live := 0
	for _, at := range n.in {
		if now.Sub(at) < n.rate.Window {
			live++
		}
	}
	return live >= n.rate.Limit
}

func (n *naive) take(now time.Time) bool {
	if n.full(now) {
		return false
	}
	n.in = append(n.in, now)
	return true
}

func TestMemoryAgreesWithTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{rapid.IntRange(1, 20).Draw(t, "limit"), time.Duration(rapid.IntRange(1, 10).Draw(t, "window")) * time.Second}
		now := time.Unix(0, 0)
		m, err := NewMemory(MemoryConfig{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		model := naive{rate: rate}
		for range 200 {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "pause")) * time.Millisecond)
			d, err := m.Take(context.Background(), []Charge{{Policy: "p", Key: "k", Rate: rate}})
			if want := model.take(now); err != nil || d.Allowed != want {
				t.Fatalf("at %v: %v, %v; want %v", now, d.Allowed, err, want)
			}
			if !d.Allowed {
				if model.full(now.Add(d.Wait)) || !model.full(now.Add(d.Wait-1)) {
					t.Fatalf("the wait of %v is not exact", d.Wait)
				}
			}
		}
	})
}

func TestHeadersFollowTheDraft(t *testing.T) {
	l := limiter(t, Config{PerUser: Rate{3, time.Minute}}, nil)
	for i := range 4 {
		w := httptest.NewRecorder()
		ok := l.Admit(w, httptest.NewRequest("GET", "/", nil), Caller{User: "user_1"})
		h := w.Result().Header
		if ok != (i < 3) {
			t.Fatalf("request %d: admitted = %v", i, ok)
		}
		limit, state := item(t, h, "RateLimit-Policy"), item(t, h, "RateLimit")
		if limit.Value != "user" || param(t, limit, "q") != 3 || param(t, limit, "w") != 60 {
			t.Errorf("policy = %v", h["Ratelimit-Policy"])
		}
		left := param(t, state, "r")
		if left != int64(max(0, 2-i)) || param(t, state, "t") > 60 || h.Get("X-RateLimit-Remaining") != strconv.FormatInt(left, 10) || h.Get("X-RateLimit-Limit") != "3" {
			t.Errorf("request %d: %v", i, h)
		}
		if strings.Contains(strings.ToLower(fmt.Sprint(h)), "global") {
			t.Errorf("the global limit is disclosed: %v", h)
		}
		if !ok {
			checkRefusal(t, w)
		}
	}
}

func TestResetCountsFromTheArrival(t *testing.T) {
	l := limiter(t, Config{PerUser: Rate{3, time.Minute}}, nil)
	now := time.Now()
	for arrived, base := range map[time.Time]int64{{}: now.Unix(), now.Add(-time.Hour): now.Unix() - 3600} {
		w := httptest.NewRecorder()
		l.Admit(w, httptest.NewRequest("GET", "/", nil), Caller{User: "user_1", Arrived: arrived})
		reset, err := strconv.ParseInt(w.Header().Get("X-RateLimit-Reset"), 10, 64)
		if err != nil || reset <= base || reset > base+120 {
			t.Errorf("arrived %v: reset = %d, %v; want it within a minute of %d", arrived, reset, err, base)
		}
	}
}

// place is a response that takes headers without a map.
type place struct {
	http.ResponseWriter
	names, values []string
}

func (p *place) SetHeaders(names, values []string) { p.names, p.values = names, values }

func TestAResponseMayTakeTheHeadersInPlace(t *testing.T) {
	l := limiter(t, Config{}, nil)
	plain := httptest.NewRecorder()
	inPlace := &place{ResponseWriter: httptest.NewRecorder()}
	arrived := time.Now()
	l.Admit(plain, httptest.NewRequest("GET", "/", nil), Caller{User: "user_1", Arrived: arrived})
	l.Admit(inPlace, httptest.NewRequest("GET", "/", nil), Caller{User: "user_2", Arrived: arrived})
	for i, name := range inPlace.names {
		if got, want := inPlace.values[i], plain.Header()[name]; len(want) != 1 || got != want[0] {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if len(inPlace.names) != len(plain.Header()) || len(inPlace.Header()) != 0 {
		t.Errorf("headers = %v and %v, want %v in place", inPlace.names, inPlace.Header(), plain.Header())
	}
}

func item(t *testing.T, h http.Header, name string) httpsfv.Item {
	t.Helper()
	list, err := httpsfv.UnmarshalList(h.Values(name))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %v is no list of one: %v", name, h.Values(name), err)
	}
	return list[0].(httpsfv.Item)
}

func param(t *testing.T, i httpsfv.Item, name string) int64 {
	t.Helper()
	v, _ := i.Params.Get(name)
	n, ok := v.(int64)
	if !ok {
		t.Fatalf("%s = %v, want an integer", name, v)
	}
	return n
}

func checkRefusal(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var p struct {
		Status   int
		Violated []string `json:"violated-policies"`
		Detail   string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if w.Code != 429 || p.Status != 429 || len(p.Violated) != 1 || p.Violated[0] != "user" || err != nil || wait < 1 || wait > 60 {
		t.Errorf("refusal = %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
	}
	if !strings.Contains(p.Detail, "3 requests are allowed in any 60 seconds, counted per signed-in user") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("detail = %q", p.Detail)
	}
}

func TestGlobalRefusalNamesNoNumber(t *testing.T) {
	l := limiter(t, Config{PerUser: Rate{5, time.Minute}, Global: Rate{7, time.Minute}}, nil)
	admissions(t, l, Caller{User: "a"}, 5)
	admissions(t, l, Caller{User: "b"}, 2)
	w := httptest.NewRecorder()
	if l.Admit(w, httptest.NewRequest("GET", "/", nil), Caller{User: "c"}) || w.Code != 429 {
		t.Fatalf("answer = %d", w.Code)
	}
	if body := w.Body.String(); strings.Contains(body, "7") || !strings.Contains(body, "as a whole") {
		t.Errorf("body = %s", body)
	}
}

type downStore struct{}

func (downStore) Take(context.Context, []Charge) (Decision, error) { return Decision{}, errDown }
func (downStore) Peek(context.Context, []Charge) (Decision, error) { return Decision{}, errDown }

func TestStoreFailure(t *testing.T) {
	local := limiter(t, Config{Store: downStore{}, Instances: 4}, nil)
	if got := admissions(t, local, Caller{User: "u"}, 100); got != 25 {
		t.Errorf("local: %d, want 100/4", got)
	}
	open := limiter(t, Config{Store: downStore{}, OnStoreFailure: Allow}, nil)
	if got := admissions(t, open, Caller{User: "u"}, 200); got != 200 {
		t.Errorf("allow: %d, want 200", got)
	}
	w := httptest.NewRecorder()
	closed := limiter(t, Config{Store: downStore{}, OnStoreFailure: Refuse}, nil)
	if closed.Admit(w, httptest.NewRequest("GET", "/", nil), Caller{User: "u"}) || w.Code != 503 {
		t.Errorf("refuse: %d, want 503", w.Code)
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"100": {100, time.Minute}, "100/min": {100, time.Minute}, "5/s": {5, time.Second}, "1000/h": {1000, time.Hour}, "100/90s": {100, 90 * time.Second},
	} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("ParseRate(%q) = %v, %v; want %v", text, got, err, want)
		}
		if again, err := ParseRate(got.String()); err != nil || again != got {
			t.Errorf("%q came back as %v, %v", got.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5", "abc", "1/0s", "1/500ms", "1/25h", "1/x", strconv.FormatUint(math.MaxUint64, 10), "1/min/min"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"100", "5/s", "100/90s", "0", "x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRate(text)
		if err != nil {
			return
		}
		if again, err := ParseRate(r.String()); err != nil || again != r || r.Validate() != nil {
			t.Errorf("%q = %v came back as %v, %v", text, r, again, err)
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	l := limiter(b, Config{PerUser: Rate{MaxLimit, time.Second}, Global: Rate{MaxLimit, time.Second}}, nil)
	r := httptest.NewRequest("GET", "/", nil)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		l.Admit(w, r, Caller{User: "user_1"})
	}
}
