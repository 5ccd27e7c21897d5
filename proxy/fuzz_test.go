package proxy

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func FuzzSpelling(f *testing.F) {
	for _, seed := range []string{"X-User-Id", "x_user.id ", "X-Üser", "\x00", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		plain := spelling(name)
		if spelling(plain) != plain || spelling(strings.ToUpper(plain)) != plain || spelling(strings.ReplaceAll(plain, "-", "_")) != plain {
			t.Errorf("spelling(%q) = %q, and that is not the end of it", name, plain)
		}
		if strings.Trim(plain, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("spelling(%q) = %q", name, plain)
		}
	})
}

func FuzzUpgrade(f *testing.F) {
	f.Add("upgrade", "websocket", "")
	f.Add("keep-alive, Upgrade", "h2c", "websocket")
	f.Fuzz(func(t *testing.T, connection, first, second string) {
		h := http.Header{"Connection": {connection}, "Upgrade": {first}}
		if got := upgradeOf(h); got != "" && got != strings.ToLower(strings.TrimSpace(first)) {
			t.Errorf("upgradeOf(%q) = %q", first, got)
		}
		h["Upgrade"] = append(h["Upgrade"], second)
		if got := upgradeOf(h); got != "" && got != "?" {
			t.Errorf("two protocols are one: %q", got)
		}
		delete(h, "Connection")
		if got := upgradeOf(h); got != "" {
			t.Errorf("without Connection it is %q", got)
		}
	})
}

func FuzzHops(f *testing.F) {
	f.Add("6.6.6.6, 192.0.2.1", "192.0.2.1")
	f.Add("192.0.2.1:80,[::1],\"x", "10.0.0.2")
	f.Fuzz(func(t *testing.T, a, b string) {
		client, peer := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1")
		list := strings.Split(hops(client, peer, []string{a, b}), ", ")
		if list[0] != client.String() || list[len(list)-1] != peer.String() {
			t.Errorf("hops = %q", list)
		}
		for _, hop := range list {
			if _, err := netip.ParseAddr(hop); err != nil {
				t.Errorf("hops = %q: %v", list, err)
			}
		}
	})
}

// FuzzAnswer gives a client whatever an upstream says: it must be an answer, or no answer, but never
// a header that is withheld.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: x\r\n\r\nhi"))
	f.Add([]byte(hint + "HTTP/1.1 200 OK\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nSet-Cookie: a=b\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nx"))
	var answer atomic.Pointer[[]byte]
	up := scripted(f, func(c net.Conn, _ *bufio.Reader, _ *http.Request) { _, _ = c.Write(*answer.Load()) })
	s := front(f, up, Config{})
	breaker := s.Config.Handler.(*Proxy).single.breaker
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		answer.Store(&data)
		breaker.mu.Lock()
		breaker.settle(time.Now(), true)
		breaker.mu.Unlock()
		res, err := client.Get(s.URL)
		if err != nil {
			return
		}
		defer res.Body.Close()
		if res.StatusCode < 200 || res.StatusCode > 599 || res.Header.Get("Alt-Svc") != "" {
			t.Errorf("%q became %d %v", data, res.StatusCode, res.Header)
		}
		_, _ = bytes.NewBuffer(nil).ReadFrom(res.Body)
		if res.Trailer.Get("Set-Cookie") != "" {
			t.Errorf("%q: trailer %v", data, res.Trailer)
		}
	})
}
