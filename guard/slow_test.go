package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// hurried is a pipeline for clients that must be quick.
func hurried(t *testing.T, timeout time.Duration, pace Pace, h http.Handler) (http.Handler, *Deadlines) {
	d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t), Timeout: timeout, MaxAbandoned: 2000})
	t.Cleanup(d.Close)
	shape := ShapeConfig{Pace: pace, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	return Pipeline{Shape: Shape(shape), Deadline: d.Middleware}.Then(h), d
}

func TestThousandTimeoutsLeaveNoGoroutines(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, d := hurried(t, 20*time.Millisecond, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		s := serve(t, h)
		before := runtime.NumGoroutine()
		client := &http.Client{Transport: &http.Transport{}}
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() {
				for range 50 {
					res, err := client.Get(s.URL)
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if res.StatusCode != 504 {
						t.Errorf("status = %d, want 504", res.StatusCode)
					}
				}
			})
		}
		clients.Wait()
		client.CloseIdleConnections()
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+5; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
		eventually(t, func() bool { return d.Abandoned() == 0 })
	})
}

func TestWorkersThatAreNotNeededEnd(t *testing.T) {
	gate := make(chan struct{})
	d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t)}) // never closed: they end by themselves
	s := serve(t, d.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-gate })))
	client := &http.Client{Transport: &http.Transport{}}
	var clients sync.WaitGroup
	for range 30 {
		clients.Go(func() {
			if res, err := client.Get(s.URL); err == nil {
				res.Body.Close()
			}
		})
	}
	close(gate)
	clients.Wait()
	client.CloseIdleConnections()
	idle := func() int {
		d.workers.mu.Lock()
		defer d.workers.mu.Unlock()
		return len(d.workers.idle)
	}
	if idle() == 0 {
		t.Error("no worker was kept")
	}
	eventually(t, func() bool { return idle() == 0 })
}

func TestWorkerOfAHandlerThatPanickedIsNotUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, d := hurried(t, time.Minute, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic(http.ErrAbortHandler)
			case "/exit":
				runtime.Goexit()
			}
		}))
		s := serve(t, h)
		for _, path := range []string{"/", "/panic", "/", "/exit", "/"} {
			res, err := http.Get(s.URL + path)
			if (err == nil) != (path == "/") {
				t.Errorf("%s: %v", path, err)
			}
			if err == nil {
				res.Body.Close()
			}
		}
		http.DefaultClient.CloseIdleConnections()
		d.workers.mu.Lock()
		defer d.workers.mu.Unlock()
		if len(d.workers.idle) > 1 {
			t.Errorf("%d workers are idle after requests one at a time", len(d.workers.idle))
		}
	})
}

func TestDrippingBodyIsAnswered408(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		pace := Pace{BodyRate: 1000, BodyGrace: 200 * time.Millisecond}
		h, _ := hurried(t, time.Minute, pace, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); !errors.Is(err, ErrSlowBody) {
				t.Errorf("read = %v, want ErrSlowBody", err)
			}
		}))
		conn := dial(t, serve(t, h))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for pace := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-pace.C {
				_, _ = conn.Write([]byte("x"))
			}
		}()
		if status, _ := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(status, "408") {
			t.Errorf("answer = %q, want 408", status)
		}
	})
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for name, kind := range map[string]string{"a long answer": "text/plain", "a stream": "text/event-stream"} {
			t.Run(name, func(t *testing.T) {
				ended := make(chan error, 1)
				h, _ := hurried(t, time.Minute, Pace{Stall: 200 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", kind)
					var err error
					for piece := make([]byte, 32<<10); err == nil; {
						_, err = w.Write(piece)
					}
					ended <- err
				}))
				conn := dial(t, serve(t, h))
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					t.Error("the handler still waits for its client")
				}
			})
		}
	})
}

func TestSlowReaderIsCutAtTheDeadline(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		ended := make(chan error, 1)
		h, _ := hurried(t, 200*time.Millisecond, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			for piece := make([]byte, 32<<10); err == nil; {
				_, err = w.Write(piece)
			}
			ended <- err
		}))
		conn := dial(t, serve(t, h))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the handler still waits for its client")
		}
	})
}

func TestDeadlineHeaderFromAProxyShortensOnly(t *testing.T) {
	h, _ := hurried(t, 300*time.Millisecond, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	s := serve(t, h)
	for value, short := range map[string]bool{"20": true, "0": false, "-1": false, "NaN": false, "1e9": false, "600000": false, "99999999999999999999": false} {
		begun := time.Now()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Header.Set(TimeoutHeader, value)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		took := time.Since(begun)
		if res.StatusCode != 504 || short != (took < 250*time.Millisecond) || took > 5*time.Second {
			t.Errorf("%q: %d after %v", value, res.StatusCode, took)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestDrainClosesConnectionsWhoseHandlerHasReturned(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		returned := make(chan struct{})
		h, d := hurried(t, time.Minute, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
				t.Error(err)
			}
			close(returned)
		}))
		conn := dial(t, serve(t, h))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
		<-returned
		d.CutStreams()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read = %v, want EOF", err)
		}
	})
}
