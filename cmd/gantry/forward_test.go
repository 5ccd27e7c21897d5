package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestOnlyTrustedProxiesSayWhereARequestComesFrom(t *testing.T) {
	seen := make(chan http.Header, 1)
	inner := upstream(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	for env, want := range map[string][3]string{
		"TRUSTED_PROXIES=127.0.0.1/32,10.0.0.0/8": {"192.0.2.1, 10.0.0.9, 127.0.0.1", "https", "public.example"},
		"TRUSTED_PROXIES=10.0.0.0/8":              {"127.0.0.1", "http", ""},
	} {
		d := start(t, env, inner)
		h := d.token("user_1")
		h["X-Forwarded-For"] = []string{"6.6.6.6, 192.0.2.1", "10.0.0.9"}
		h["X-Forwarded-Proto"], h["X-Forwarded-Host"] = []string{"https"}, []string{"public.example"}
		d.do("GET", "/x", h, nil)
		if want[2] == "" {
			want[2] = d.host()
		}
		got := <-seen
		if now := [3]string{got.Get("X-Forwarded-For"), got.Get("X-Forwarded-Proto"), got.Get("X-Forwarded-Host")}; now != want {
			t.Errorf("%s: the upstream got %q, want %q", env, now, want)
		}
	}
}

func TestUploadsThatTheUpstreamRefusesAreNotAskedFor(t *testing.T) {
	d := start(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })))
	c, err := net.Dial("tcp", d.host())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", d.token("user_1").Get("Authorization"))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 413 || !res.Close {
		t.Errorf("answer = %v, %v; want 413 at once, and the end of the connection", res, err)
	}
}

func TestHintsLeaveTheFinalHeadersAlone(t *testing.T) {
	d := start(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
	})))
	res, _ := d.do("GET", "/x", d.token("user_1"), nil)
	if res.StatusCode != 200 || res.Header.Get("RateLimit") == "" || res.Header.Get("X-Content-Type-Options") == "" {
		t.Errorf("after a hint: %d %v", res.StatusCode, res.Header)
	}
}
