package health_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/gantryhq/gantry/health"
)

func Example() {
	ping := func(context.Context) error { return nil } // a pool's
	h, err := health.New(health.Config{Checks: []health.Check{health.Database(ping, nil)}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()

	handler := h.Middleware(http.NotFoundHandler())
	h.Open()  // the listeners are bound
	h.Drain() // SIGTERM
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health/ready", nil))
	fmt.Println(w.Code)

	stop()
	fmt.Println(<-done)
	// Output:
	// 503
	// <nil>
}
