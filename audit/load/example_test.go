package load_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gantryhq/gantry/audit/load"
)

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello"))
	}))
	defer server.Close()
	client := load.NewClient(load.ClientConfig{Timeout: 10 * time.Second})
	defer client.Close()
	request, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		panic(err)
	}
	plan := load.Open{Rate: 200, Duration: 600 * time.Millisecond, Windows: 3}
	result, err := plan.Run(context.Background(), client.Repeat(request))
	if err != nil {
		panic(err)
	}
	fmt.Println(result.Sent, "sent,", result.Failed, "failed, in windows of", result.Windows[0].Length)
	fmt.Println("the p50 is", result.Median(0.5).Latency.Judge(0.5, 0.95, time.Second), "1s")
	// Output:
	// 120 sent, 0 failed, in windows of 200ms
	// the p50 is below 1s
}
