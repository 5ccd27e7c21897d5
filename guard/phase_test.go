package guard

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hanging is a stage that waits for the request's end.
func hanging(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

func TestATimeoutSaysWhatTookTheTime(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		plain := func(next http.Handler) http.Handler { return next }
		half := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "half of ")
			<-r.Context().Done()
		})
		for want, p := range map[Phase]struct {
			identify, quota Middleware
			handler         http.Handler
		}{
			Identifying: {hanging, plain, nil},
			Counting:    {plain, hanging, nil},
			Handling:    {plain, nil, hanging(nil)},
			Receiving:   {nil, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })},
			Forwarding: {nil, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				x, _ := FromContext(r.Context())
				x.Enter(Forwarding)
				<-r.Context().Done()
			})},
			Answering: {nil, plain, half},
		} {
			t.Run(want.String(), func(t *testing.T) {
				done := make(chan Summary, 1)
				d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t), Timeout: 50 * time.Millisecond})
				defer d.Close()
				s := serve(t, Pipeline{
					Trace: Trace(TraceConfig{Done: func(s Summary) { done <- s }}), Shape: Shape(ShapeConfig{}),
					Deadline: d.Middleware, Identify: p.identify, Quota: p.quota,
				}.Then(p.handler))
				conn, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345") // and no more
				if got := <-done; got.Phase != want || !got.Expired {
					t.Errorf("phase = %q, expired %v; want %q", got.Phase, got.Expired, want)
				}
			})
		}
	})
}

func TestARequestThatEndsInTimeIsNotExpired(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		done := make(chan Summary, 1)
		d := NewDeadlines(DeadlineConfig{Cooperative: isCooperative(t)})
		defer d.Close()
		h := Pipeline{Trace: Trace(TraceConfig{Done: func(s Summary) { done <- s }}), Deadline: d.Middleware}.Then(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "stream") {
				w.Header().Set("Content-Type", "text/event-stream")
			}
			fmt.Fprint(w, "whole")
		}))
		s := serve(t, h)
		for path, stream := range map[string]bool{"/": false, "/stream": true} {
			get(t, s.URL+path)
			if got := <-done; got.Expired || got.Phase != Handling || got.Stream != stream {
				t.Errorf("%s: expired %v in %q, a stream: %v", path, got.Expired, got.Phase, got.Stream)
			}
		}
	})
}
