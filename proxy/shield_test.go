package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shielded is a proxy whose requests go to target, and where that fails to spare.
type shielded struct {
	*httptest.Server
	first, spare *Upstream
	asked        atomic.Int64
	outcomes
}

func newShielded(t *testing.T, target, spare string, cfg Config) *shielded {
	t.Helper()
	s := new(shielded)
	s.first, s.spare = upstreamOf(t, target, cfg), upstreamOf(t, spare, cfg)
	cfg.Choose = func(*http.Request) (*Upstream, uint64) { return s.first, 7 }
	cfg.Shield = func(*http.Request, Outcome) *Upstream { s.asked.Add(1); return s.spare }
	cfg.Answer = func(_ *http.Request, o Outcome, client, _ http.Header) { client.Set("X-Answered-By", o.Upstream) }
	cfg.Seen = s.add
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(p)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close(); s.first.Close(); s.spare.Close() })
	return s
}

func upstreamOf(t *testing.T, target string, cfg Config) *Upstream {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	up, err := NewUpstream(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// story is what Seen heard, in short.
func (s *shielded) story() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.list {
		list = append(list, strings.TrimSpace(fmt.Sprint(map[bool]string{true: "hidden "}[o.Hidden], map[bool]string{true: "shielded "}[o.Shielded], o.Status, " ", o.Reason)))
	}
	return list
}

func fixed(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestTheShieldHidesWhatTheClientHasNotSeen(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name, method, first string
		spare               int
		status              int
		story               []string
	}{
		{"503", "GET", busy, 200, 200, []string{"hidden 503", "shielded 200"}},
		{"503 on both", "GET", busy, 503, 503, []string{"hidden 503", "shielded 503"}},
		{"no answer", "GET", "", 200, 200, []string{"hidden 0 connection-broken", "shielded 200"}},
		{"garbage", "HEAD", "nonsense\r\n\r\n", 200, 200, []string{"hidden 0 bad-answer", "shielded 200"}},
		{"500", "GET", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 200, 500, []string{"500"}},
		{"503 after an early hint", "GET", hints + busy, 200, 503, []string{"503"}},
		{"POST", "POST", busy, 200, 503, []string{"503"}},
		{"PUT without a body", "PUT", busy, 200, 503, []string{"503"}},
	} {
		s := newShielded(t, raw(t, tt.first), fixed(t, tt.spare), Config{})
		if got := status(t, s.Server, tt.method, "", nil); got != tt.status {
			t.Errorf("%s: the client got %d, want %d", tt.name, got, tt.status)
		}
		if d := cmp.Diff(s.story(), tt.story); d != "" {
			t.Errorf("%s: -got +want\n%s", tt.name, d)
		}
	}
}

func TestBothUpstreamsOfAShieldAreChargedWithTheirOwn(t *testing.T) {
	s := newShielded(t, fixed(t, 503), fixed(t, 200), Config{})
	for range 20 {
		res, err := http.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if by := res.Header.Get("X-Answered-By"); res.StatusCode != 200 || by != s.spare.String() {
			t.Fatalf("answer = %d by %s, want 200 by the spare", res.StatusCode, by)
		}
	}
	if !s.first.BreakerOpen() || s.spare.BreakerOpen() {
		t.Errorf("breakers open: %v, %v; want only the first", s.first.BreakerOpen(), s.spare.BreakerOpen())
	}
	s.mu.Lock()
	hidden, marks := 0, 0
	for _, o := range s.list {
		if o.Hidden {
			hidden++
		}
		if o.Mark == 7 {
			marks++
		}
	}
	all := len(s.list)
	s.mu.Unlock()
	if hidden != breakerTrip || marks != all {
		t.Errorf("%d attempts failed, %d of %d with their mark; want %d and all", hidden, marks, all, breakerTrip)
	}
	// With the first one's breaker open nothing is sent to it, so that requests of any kind may go elsewhere.
	if got := status(t, s.Server, http.MethodPost, "body", nil); got != 200 {
		t.Errorf("POST = %d, want 200", got)
	}
}

func TestAShieldWhoseBreakerIsOpenLeavesTheFailure(t *testing.T) {
	s := newShielded(t, fixed(t, 503), fixed(t, 200), Config{})
	for range breakerTrip {
		leave, _, _ := s.spare.breaker.allow(time.Now())
		s.spare.breaker.record(leave, time.Now(), false)
	}
	for range breakerTrip {
		if got := status(t, s.Server, http.MethodGet, "", nil); got != 503 {
			t.Errorf("GET = %d, want the first one's 503", got)
		}
	}
	if got := status(t, s.Server, http.MethodGet, "", nil); got != 503 || s.asked.Load() != breakerTrip+1 {
		t.Errorf("with both breakers open: %d, Shield asked %d times", got, s.asked.Load())
	}
	if story := s.story(); story[0] != "503" || story[breakerTrip] != "shielded 0 breaker-open" {
		t.Errorf("Seen heard %v", story)
	}
}

func TestTheSpareIsToldHowLittleTimeIsLeft(t *testing.T) {
	var n atomic.Int64
	got := make(chan http.Header, 1)
	spare := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer spare.Close()
	s := newShielded(t, fixed(t, 503), spare.URL, Config{SetHeaders: func(_ *http.Request, out http.Header) { out.Set("X-Set", fmt.Sprint(n.Add(1))) }})
	if code := status(t, s.Server, http.MethodGet, "", http.Header{"X-Mine": {"1"}}); code != 200 {
		t.Fatal(code)
	}
	if h := <-got; h.Get("X-Set") != "2" || h.Get("X-Mine") != "1" {
		t.Errorf("the spare got %v", h)
	}
}

func TestUnreachableIsToldFromBroken(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := fixed(t, 200) // speaks no TLS
	for target, want := range map[string]bool{closed.URL: true, strings.Replace(plain, "http:", "https:", 1): true, raw(t, ""): false} {
		var o outcomes
		s := front(t, target, Config{Seen: o.add})
		if got := status(t, s, http.MethodGet, "", nil); got != 502 {
			t.Errorf("%s = %d, want 502", target, got)
		}
		if got := o.list[0].Unreachable; got != want {
			t.Errorf("%s: unreachable = %v, want %v (%v)", target, got, want, o.list[0].Err)
		}
	}
}
