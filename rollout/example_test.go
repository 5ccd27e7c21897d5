package rollout_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// Two versions of a handler in one process, a tenth of the callers on the new one to begin with.
func ExampleSplit() {
	before := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "1") })
	after := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "2") })

	var splitter rollout.Splitter
	handler := rollout.Split(before, after, &splitter, func(r *http.Request) string { return r.Header.Get("X-User-Id") })

	salt := make([]byte, 32)
	rand.Read(salt)
	launch, _, err := rollout.Start(rollout.Request{ID: "prices-v2", Salt: salt, StableURL: "v1", CandidateURL: "v2"}, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	splitter.Set(launch)

	for i := range 2000 {
		r := httptest.NewRequest(http.MethodGet, "/prices", nil)
		r.Header.Set("X-User-Id", fmt.Sprint("user-", i))
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}

	// Every few seconds, for as long as the launch goes on:
	seen := splitter.Observe()
	launch, record := rollout.Next(launch, seen, time.Now())
	splitter.Set(launch)

	fmt.Println(launch.Weight, record.Phase)
	fmt.Println(seen.Candidate.Requests > 100, seen.Candidate.Requests < 300)
	// Output:
	// 10 % running
	// true true
}
