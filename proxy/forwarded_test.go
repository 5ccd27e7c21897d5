package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestHopsLeftOfTheClientAreDropped(t *testing.T) {
	for _, tt := range []struct {
		client, peer string
		prior        []string
		want         string
	}{
		{"192.0.2.1", "10.0.0.1", []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1, 10.0.0.1"},
		{"192.0.2.1", "10.0.0.1", []string{"6.6.6.6", "evil\", 192.0.2.1:4711, 10.0.0.2"}, "192.0.2.1, 10.0.0.2, 10.0.0.1"},
		{"2001:db8::1", "10.0.0.1", []string{"6.6.6.6, [2001:db8::1]:4711"}, "2001:db8::1, 10.0.0.1"},
		{"10.0.0.2", "10.0.0.1", []string{"192.0.2.1, nonsense, 10.0.0.2"}, "10.0.0.2, 10.0.0.1"},
		{"10.0.0.1", "10.0.0.1", []string{"192.0.2.1, nonsense"}, "10.0.0.1"},
		{"10.0.0.1", "10.0.0.1", nil, "10.0.0.1"},
	} {
		if got := hops(netip.MustParseAddr(tt.client), netip.MustParseAddr(tt.peer), tt.prior); got != tt.want {
			t.Errorf("hops(%s, %s, %q) = %q, want %q", tt.client, tt.peer, tt.prior, got, tt.want)
		}
	}
}

func TestForwardedHostCountsFromTrustedPeersOnly(t *testing.T) {
	got := make(chan http.Header, 1)
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer up.Close()
	for _, tt := range []struct {
		said    string
		trusted bool
		want    string
	}{
		{"public.example", true, "public.example"},
		{"public.example", false, "door.example"},
		{"a.example, b.example", true, "door.example"},
		{"a.example/evil", true, "door.example"},
		{"", true, "door.example"},
	} {
		s := front(t, up.URL, Config{Client: func(*http.Request) (netip.Addr, bool, bool) {
			return netip.MustParseAddr("192.0.2.1"), tt.trusted, true
		}})
		req, _ := http.NewRequest("GET", s.URL, nil)
		req.Host = "door.example"
		req.Header = http.Header{"X-Forwarded-Host": {tt.said}, "X-Forwarded-For": {"6.6.6.6, 192.0.2.1"}, "X-Forwarded-Proto": {"gopher"}}
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		h := <-got
		want := map[bool]string{true: "192.0.2.1, 127.0.0.1", false: "192.0.2.1"}[tt.trusted]
		if h.Get("X-Forwarded-Host") != tt.want || h.Get("X-Forwarded-For") != want || h.Get("X-Forwarded-Proto") != "https" {
			t.Errorf("%+v: upstream got %v", tt, h)
		}
	}
}
