package selftest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// lever is a file that commands make and remove, and that an API of a case watches: the operator's hooks in small.
type lever string

// lever of the API, by name, in a folder that goes with it.
func (a *API) lever(name string) lever {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dir == "" {
		dir, err := os.MkdirTemp("", "gantry-selftest-")
		if err != nil {
			panic(err) // no temporary folder: nothing can be tested
		}
		a.dir = dir
		a.closers = append(a.closers, func() { os.RemoveAll(dir) })
	}
	return lever(filepath.Join(a.dir, name))
}

func (l lever) pulled() bool {
	_, err := os.Stat(string(l))
	return err == nil
}

func (l lever) pull() string    { return "touch '" + string(l) + "'" }
func (l lever) release() string { return "rm -f '" + string(l) + "'" }

// watch calls f once the lever is pulled, until the API ends.
func (a *API) watch(l lever, f func()) {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for !l.pulled() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		f()
	})
	a.OnClose(func() { stop(); done.Wait() })
}

func lifecycleCases() []Case {
	return []Case{
		{Probe: "HLT-01", Break: func(a *API) {
			for _, path := range []string{"/health", "/livez", "/readyz"} {
				a.Routes["GET "+path] = func(w http.ResponseWriter, _ *http.Request) {
					Answer(w, 200, map[string]any{"status": "ok", "database": "postgresql://app:hunter22@10.0.3.7/app", "version": "4.2.1"})
				}
			}
		}},
		{Probe: "HLT-02", Alone: true, Prepare: withDatabase, Break: alwaysWell, Knobs: stopDatabase},
		{Probe: "HLT-03", Alone: true, With: []string{"HLT-02"}, Prepare: withDatabase, Break: alwaysWell, Knobs: stopDatabase},
		{Probe: "HLT-04", Alone: true, Prepare: withHangingDatabase, Break: func(a *API) {
			hang := a.lever("hang")
			a.Routes["GET /readyz"] = func(w http.ResponseWriter, r *http.Request) { // pings the database, without a timeout
				for hang.pulled() && r.Context().Err() == nil {
					time.Sleep(5 * time.Millisecond)
				}
				Answer(w, 200, map[string]any{"status": "ok"})
			}
		}, Knobs: func(_ string, a *API, t *audit.Target, c *audit.Config) {
			t.HealthPath, t.DBPath = "/readyz", "/orders"
			c.Hooks = audit.Hooks{Hang: a.lever("hang").pull(), Restore: a.lever("hang").release()}
		}},
		{Probe: "HLT-05", Alone: true, Prepare: func(a *API) {
			a.Routes["GET /slow"] = takes(700 * time.Millisecond)
		}, Break: func(a *API) {
			a.Serve = func(ln net.Listener, h http.Handler) { restartHard(a, ln, h) }
		}, Knobs: func(_ string, a *API, t *audit.Target, c *audit.Config) {
			t.SlowPath = "/slow"
			c.Policy.Deadline = 5 * time.Second
			c.Hooks.Restart = a.lever("restart").pull() + "; sleep 0.2"
		}},
		{Probe: "LCH-01", Prepare: func(a *API) { a.Routes["GET /version"] = version("9c1e2d7") }, Break: func(a *API) {
			a.Routes["GET /version"] = func(w http.ResponseWriter, _ *http.Request) { Answer(w, 200, map[string]any{"name": "shop"}) }
		}, Knobs: func(_ string, _ *API, t *audit.Target, _ *audit.Config) { t.VersionPath = "/version" }},
		{Probe: "LCH-02", Alone: true, Prepare: deployable, Break: gapInDeploy, Knobs: deployHooks},
		{Probe: "LCH-03", Alone: true, With: []string{"LCH-02"}, Prepare: deployable, Break: func(a *API) {
			deployed, once := a.lever("deployed"), &atomic.Bool{}
			a.Routes["GET /version"] = func(w http.ResponseWriter, r *http.Request) { // what was deployed once stays
				if deployed.pulled() {
					once.Store(true)
				}
				version(map[bool]string{false: "1.0.0", true: "1.1.0"}[once.Load()])(w, r)
			}
		}, Knobs: deployHooks},
		{Probe: "LCH-04", Break: func(a *API) { a.Notes["drill"] = "echo 'relation \"users\" does not exist'; exit 1" }, Knobs: func(_ string, a *API, _ *audit.Target, c *audit.Config) {
			c.Hooks.RestoreDrill = "echo 'restored 1204 rows in 3 s'"
			if a.Notes["drill"] != "" {
				c.Hooks.RestoreDrill = a.Notes["drill"]
			}
		}},
		{Probe: "LCH-05", Alone: true, Prepare: func(a *API) { a.Notes["alerting"] = "yes" }, Break: func(a *API) { a.Notes["alerting"] = "" }, Knobs: alertHooks},
	}
}

// takes answers after d.
func takes(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			Answer(w, 200, map[string]any{"took": d.String()})
		case <-r.Context().Done():
		}
	}
}

// withDatabase gives the API a path that needs a database, which the lever "down" stops, and a readiness that says so.
func withDatabase(a *API) {
	down := a.lever("down")
	well := func(w http.ResponseWriter, _ *http.Request) {
		if down.pulled() {
			Refuse(w, 503, "not ready")
			return
		}
		Answer(w, 200, map[string]any{"status": "ok"})
	}
	a.Routes["GET /orders"], a.Routes["GET /readyz"] = well, well
}

// alwaysWell is the document's health: 200, whatever happens.
func alwaysWell(a *API) {
	a.Routes["GET /readyz"] = func(w http.ResponseWriter, _ *http.Request) { Answer(w, 200, map[string]any{"status": "ok"}) }
}

func stopDatabase(_ string, a *API, t *audit.Target, c *audit.Config) {
	t.HealthPath, t.DBPath = "/readyz", "/orders"
	c.Hooks = audit.Hooks{Fault: a.lever("down").pull(), Restore: a.lever("down").release()}
}

func withHangingDatabase(a *API) {
	hang := a.lever("hang")
	a.Routes["GET /orders"] = func(w http.ResponseWriter, _ *http.Request) {
		if hang.pulled() {
			time.Sleep(100 * time.Millisecond) // its timeout
			Refuse(w, 503, "the database does not answer")
			return
		}
		Answer(w, 200, map[string]any{"orders": 1})
	}
}

// restartHard closes everything at once when the lever is pulled, and serves again on the same port.
func restartHard(a *API, ln net.Listener, h http.Handler) {
	first := &http.Server{Handler: h}
	again, over := make(chan struct{}), make(chan struct{})
	a.watch(a.lever("restart"), func() { first.Close(); close(again) })
	a.OnClose(func() { first.Close(); close(over) })
	first.Serve(ln)
	select {
	case <-again:
	case <-over:
		return
	}
	next, err := net.Listen("tcp", ln.Addr().String())
	if err == nil {
		a.serve(next, h)
	}
}

func version(v string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { Answer(w, 200, map[string]any{"version": v}) }
}

// deployable has a version that the lever "deployed" changes, without a gap.
func deployable(a *API) {
	deployed := a.lever("deployed")
	a.Routes["GET /version"] = func(w http.ResponseWriter, r *http.Request) {
		version(map[bool]string{false: "1.0.0", true: "1.1.0"}[deployed.pulled()])(w, r)
	}
}

// gapInDeploy answers 502 for a while after the deploy: the old one has gone and the new one is not there yet.
func gapInDeploy(a *API) {
	deployed, until := a.lever("deployed"), &atomic.Int64{}
	a.watch(deployed, func() { until.Store(time.Now().Add(200 * time.Millisecond).UnixNano()) })
	a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if time.Now().UnixNano() < until.Load() {
				Refuse(w, 502, "the upstream does not answer")
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

func deployHooks(_ string, a *API, t *audit.Target, c *audit.Config) {
	t.VersionPath = "/version"
	c.Hooks.Deploy = a.lever("deployed").pull() + "; sleep 0.3"
	c.Hooks.Rollback = a.lever("deployed").release()
}

// alertHooks name a free port for the alert; an API that alerts calls it once the fault is there.
func alertHooks(_ string, a *API, _ *audit.Target, c *audit.Config) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no port of loopback is free
	}
	address := ln.Addr().String()
	ln.Close()
	down := a.lever("down")
	c.Policy.Recovery = 300 * time.Millisecond
	c.Hooks = audit.Hooks{Fault: down.pull(), Restore: down.release(), AlertWebhook: address}
	if a.Notes["alerting"] == "" {
		return
	}
	a.watch(down, func() {
		body, _ := json.Marshal(map[string]string{"text": "database down"})
		res, err := http.Post(fmt.Sprintf("http://%s/alert", address), "application/json", bytesReader(body))
		if err == nil {
			res.Body.Close()
		}
	})
}
