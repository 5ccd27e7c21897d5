package selftest

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func stressCases() []Case {
	return []Case{
		{Probe: "LIM-03", Alone: true, Prepare: withSlow(400 * time.Millisecond), Break: oneWorkerPool(2), Knobs: slowKnobs},
		{Probe: "LIM-07", Alone: true, Prepare: withSlow(400 * time.Millisecond), Break: func(a *API) {
			a.Routes["GET /slow"] = func(w http.ResponseWriter, _ *http.Request) { // works on, whoever has gone
				time.Sleep(300 * time.Millisecond)
				Answer(w, 200, map[string]any{"done": true})
			}
			oneWorkerPool(2)(a)
		}, Knobs: slowKnobs},
		{Probe: "DAT-01", Alone: true, Prepare: withOrders(0), Break: func(a *API) { exhaustible(a, 20) }, Knobs: dbKnobs},
		{Probe: "DAT-02", Alone: true, With: []string{"DAT-01"}, Prepare: withOrders(0), Break: func(a *API) { contended(a) }, Knobs: dbKnobs},
		{Probe: "PERF-01", Alone: true, Break: everyFifth, Knobs: perfKnobs},
		{Probe: "PERF-02", Alone: true, Break: breaksAbove(120), Knobs: perfKnobs},
		{Probe: "PERF-03", Alone: true, With: []string{"PERF-01", "PERF-02"}, Break: neverRecovers, Knobs: perfKnobs},
		{Probe: "PERF-04", Alone: true, Break: getsSlower, Knobs: perfKnobs},
	}
}

func slowKnobs(_ string, _ *API, t *audit.Target, c *audit.Config) {
	t.SlowPath, t.FastPath = "/slow", "/fast"
	c.Policy.LoadWindow = 3 * time.Second
}

func withSlow(d time.Duration) func(*API) {
	return func(a *API) {
		a.Routes["GET /slow"] = takes(d)
		a.Routes["GET /fast"] = func(w http.ResponseWriter, _ *http.Request) { Answer(w, 200, map[string]any{"fast": true}) }
	}
}

// oneWorkerPool serves the slow and the fast path with so many workers, as a process that blocks does.
func oneWorkerPool(workers int) func(*API) {
	return func(a *API) {
		slots := make(chan struct{}, workers)
		a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/slow" && r.URL.Path != "/fast" {
					next.ServeHTTP(w, r)
					return
				}
				slots <- struct{}{}
				defer func() { <-slots }()
				next.ServeHTTP(w, r)
			})
		})
	}
}

func dbKnobs(_ string, _ *API, t *audit.Target, c *audit.Config) {
	t.DBPath = "/db"
	c.Policy.LoadWindow = 8 * time.Second // steps of 0.8 s
}

// withOrders is a path whose work takes d.
func withOrders(d time.Duration) func(*API) {
	return func(a *API) {
		a.Routes["GET /db"] = func(w http.ResponseWriter, _ *http.Request) {
			if d > 0 {
				time.Sleep(d)
			}
			Answer(w, 200, map[string]any{"orders": 3})
		}
	}
}

// exhaustible opens a connection for each request; the server allows so many.
func exhaustible(a *API, limit int64) {
	var open atomic.Int64
	a.Routes["GET /db"] = func(w http.ResponseWriter, _ *http.Request) {
		defer open.Add(-1)
		if open.Add(1) > limit {
			Refuse(w, 500, "FATAL: sorry, too many clients already")
			return
		}
		time.Sleep(5 * time.Millisecond)
		Answer(w, 200, map[string]any{"orders": 3})
	}
}

// contended takes a global lock, which costs more the more wait for it: far more than any machine's noise.
func contended(a *API) {
	var lock sync.Mutex
	var waiting atomic.Int64
	a.Routes["GET /db"] = func(w http.ResponseWriter, _ *http.Request) {
		n := min(waiting.Add(1), 64)
		defer waiting.Add(-1)
		lock.Lock()
		defer lock.Unlock()
		time.Sleep(time.Duration(100+3*n*n) * time.Microsecond)
		Answer(w, 200, map[string]any{"orders": 3})
	}
}

// perfKnobs are coarse: what the cases break is broken by far, and what the machine does besides must not count.
func perfKnobs(_ string, _ *API, t *audit.Target, c *audit.Config) {
	t.FastPath = "/health"                                                                                                // no limit and no token in the way
	c.Policy.LoadWindow, c.Policy.Rate, c.Policy.Soak, c.Policy.Recovery = 3*time.Second, 130, 3*time.Second, time.Second // 390 answers a window: p99 needs 368
	c.Policy.P95, c.Policy.P99, c.Policy.MinSamples, c.Policy.Errors = 2*time.Second, 3*time.Second, 80, 0.03
}

// everyFifth fails.
func everyFifth(a *API) {
	var n atomic.Int64
	a.Routes["GET /health"] = func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%5 == 0 {
			Refuse(w, 500, "worker died")
			return
		}
		Answer(w, 200, map[string]any{"status": "ok"})
	}
}

// rush counts the requests of the last quarter of a second.
type rush struct {
	mu     sync.Mutex
	recent []time.Time
}

func (r *rush) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.recent = append(r.recent, now)
	for now.Sub(r.recent[0]) > 250*time.Millisecond {
		r.recent = r.recent[1:]
	}
	return len(r.recent)
}

// breaksAbove fails when more than so many requests came in a quarter of a second.
func breaksAbove(limit int) func(*API) {
	return func(a *API) {
		var r rush
		a.Routes["GET /health"] = func(w http.ResponseWriter, _ *http.Request) {
			if r.count() > limit {
				Refuse(w, 500, "worker died")
				return
			}
			Answer(w, 200, map[string]any{"status": "ok"})
		}
	}
}

// neverRecovers has workers that die in the overload and are not started again.
func neverRecovers(a *API) {
	var r rush
	var dead atomic.Bool
	a.Routes["GET /health"] = func(w http.ResponseWriter, _ *http.Request) {
		if r.count() > 120 {
			dead.Store(true)
		}
		if dead.Load() {
			Refuse(w, 500, "no worker is left")
			return
		}
		Answer(w, 200, map[string]any{"status": "ok"})
	}
}

// getsSlower leaks: every request makes the next one slower.
func getsSlower(a *API) {
	var served atomic.Int64
	a.Routes["GET /health"] = func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Duration(5_000+500*served.Add(1)) * time.Microsecond)
		Answer(w, 200, map[string]any{"status": "ok"})
	}
}
