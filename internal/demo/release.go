package demo

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Release is a next version of the API: the same, but that some of its answers are errors.
type Release struct {
	URL    string
	server *http.Server
}

// StartRelease serves a version of the API at of in which a share of all requests fails.
func StartRelease(ctx context.Context, of string, failing float64) (*Release, error) {
	u, err := url.Parse(of)
	if err != nil {
		return nil, err
	}
	port, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	as := httputil.NewSingleHostReverseProxy(u)
	r := &Release{URL: "http://" + port.Addr().String(), server: &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if rand.Float64() < failing {
				http.Error(w, "NoneType has no attribute 'id'", http.StatusInternalServerError)
				return
			}
			as.ServeHTTP(w, req)
		}),
	}}
	go func() {
		if err := r.server.Serve(port); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a listener of our own does not fail
		}
	}()
	return r, nil
}

// Close ends it.
func (r *Release) Close() { _ = r.server.Close() }
