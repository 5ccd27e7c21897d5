package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTimeoutOverHTTP2(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, d := hurried(t, 50*time.Millisecond, Pace{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		s := httptest.NewUnstartedServer(h)
		s.EnableHTTP2 = true
		s.StartTLS()
		defer s.Close()
		for range 3 {
			res, err := s.Client().Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.ProtoMajor != 2 || res.StatusCode != 504 || err != nil || !strings.Contains(string(text), `"status":504`) {
				t.Errorf("%s %d, %v: %s", res.Proto, res.StatusCode, err, text)
			}
		}
		eventually(t, func() bool { return d.Abandoned() == 0 })
	})
}

// At the deadline's very moment a client has the whole answer, or the whole 504, or can see that it has neither.
func TestHandlersThatEndAtTheDeadline(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		const whole, timeout = "the whole answer, to its end", 4 * time.Millisecond
		h, d := hurried(t, timeout, Pace{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left, _ := Remaining(r.Context())
			time.Sleep(left)
			fmt.Fprint(w, whole[:10])
			fmt.Fprint(w, whole[10:])
		}))
		s := serve(t, h)
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		var clients sync.WaitGroup
		var mu sync.Mutex
		seen := map[string]int{}
		for range 8 {
			clients.Go(func() {
				for range 100 {
					what := endOf(client, s.URL, whole)
					mu.Lock()
					seen[what]++
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		t.Log(seen)
		delete(seen, "whole")
		delete(seen, "504")
		delete(seen, "cut")
		if len(seen) > 0 {
			t.Errorf("there were also %v", seen)
		}
		eventually(t, func() bool { return d.Abandoned() == 0 })
	})
}

// endOf says what a client got: "whole", "504" or "cut", or something that it should not.
func endOf(client *http.Client, url, whole string) string {
	res, err := client.Get(url)
	if errors.Is(err, io.EOF) {
		return "cut"
	}
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	case err == nil && res.StatusCode == 200 && string(text) == whole:
		return "whole"
	case err == nil && res.StatusCode == 504 && strings.HasSuffix(string(text), "}\n"):
		return "504"
	}
	return fmt.Sprintf("%d %v %q", res.StatusCode, err, text)
}

func TestWhatACooperativeHandlerSaysAfterItsTimeIsNotTheReason(t *testing.T) {
	done := make(chan Summary, 1)
	d := NewDeadlines(DeadlineConfig{Cooperative: true, Timeout: 20 * time.Millisecond})
	defer d.Close()
	h := Pipeline{
		Trace: Trace(TraceConfig{Done: func(s Summary) { done <- s }}), Recover: Recover(nil), Shape: Shape(ShapeConfig{}), Deadline: d.Middleware,
	}.Then(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		x, _ := FromContext(r.Context())
		x.Decide("upstream:reset")
		http.Error(w, "bad gateway", http.StatusBadGateway)
	}))
	if res, _ := get(t, serve(t, h).URL); res.StatusCode != 504 {
		t.Errorf("answer = %d, want 504", res.StatusCode)
	}
	if s := <-done; s.Status != 504 || s.Decision != "timeout" || !s.Expired {
		t.Errorf("the log says %d %q, expired %v", s.Status, s.Decision, s.Expired)
	}
}

func TestACooperativeHandlerThatPanicsAfterItsTime(t *testing.T) {
	var log strings.Builder
	d := NewDeadlines(DeadlineConfig{Cooperative: true, Timeout: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer d.Close()
	h := Pipeline{Recover: Recover(nil), Shape: Shape(ShapeConfig{}), Deadline: d.Middleware}.Then(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			panic("too late")
		}))
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	res, err := s.Client().Get(s.URL) // HTTP/2, where a panic would reset the stream
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.StatusCode != 504 || err != nil || !strings.Contains(string(text), `"status":504`) {
		t.Errorf("answer = %d, %v: %s; want a whole 504", res.StatusCode, err, text)
	}
	if !strings.Contains(log.String(), "too late") {
		t.Errorf("the log says %s", log.String())
	}
	eventually(t, func() bool { return d.Abandoned() == 0 })
}

// A server that reads the rest of a body before it answers would leave this client without an answer.
func TestTimeoutInTheMiddleOfAnUploadIsToldAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := hurried(t, 50*time.Millisecond, Pace{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		conn, err := net.Dial("tcp", serve(t, h).Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
		text, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 504 ") || !strings.Contains(string(text), "Connection: close") {
			t.Errorf("%v: %s", err, text)
		}
	})
}

// The read that fails then would be answered 408 by itself.
func TestTimeoutInTheMiddleOfAReadIs504(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		h, _ := hurried(t, 20*time.Millisecond, Pace{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) }))
		s := serve(t, h)
		for range 30 {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
			text, err := io.ReadAll(conn)
			conn.Close()
			if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 504 ") {
				t.Fatalf("%v: %s", err, text)
			}
		}
	})
}
