// Package selftest holds every probe to its promise: it must tell a faulty server from its fixed twin.
//
// Begin with [Run]. The surprise: the servers ship in the binary, because "gantry audit --selftest" is how a user
// finds out on their own machine that a probe can be trusted. A [Case] breaks a small sound API in exactly one
// way; the twin is the same API unbroken.
package selftest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/load"
)

// Case is a probe with a faulty server and its fixed twin.
type Case struct {
	Probe string
	// Prepare gives the sound API what the probe needs: routes, data. May be nil.
	Prepare func(*API)
	// Break puts the fault in.
	Break func(*API)
	// Knobs tells the audit about the running API. May be nil.
	Knobs func(url string, a *API, t *audit.Target, c *audit.Config)
	// With names probes that must run before this one.
	With []string
	// Alone runs the case beside no other: it measures time.
	Alone bool
}

// Cases of all families.
func Cases() []Case {
	return slices.Concat(
		identityCases(), signatureCases(), claimCases(), exposureCases(), abuseCases(), limitCases(), stressCases(),
		lifecycleCases(), validationCases(), writeCases(), dataCases(), transportCases(), observabilityCases(),
	)
}

// Result of one case.
type Result struct {
	Probe  string
	Faulty audit.Finding // must have failed
	Fixed  audit.Finding // must have passed
	Err    error         // the case could not run, or is missing
}

// Tells says whether the probe told the two apart.
func (r Result) Tells() bool {
	return r.Err == nil && r.Faulty.Outcome == audit.Fail && r.Fixed.Outcome == audit.Pass
}

// Run holds each probe to its case and hands every result to done, in no particular order.
func Run(ctx context.Context, probes []audit.Probe, done func(Result)) {
	cases := byProbe()
	var together, alone []audit.Probe
	for _, p := range probes {
		if cases[p.ID].Alone {
			alone = append(alone, p)
		} else {
			together = append(together, p)
		}
	}
	var group sync.WaitGroup
	var report sync.Mutex
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	for _, p := range together {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			r := one(ctx, probes, p, cases[p.ID])
			report.Lock()
			defer report.Unlock()
			done(r)
		})
	}
	group.Wait()
	for _, p := range alone {
		done(one(ctx, probes, p, cases[p.ID]))
	}
}

func byProbe() map[string]Case {
	cases := map[string]Case{}
	for _, c := range Cases() {
		cases[c.Probe] = c
	}
	return cases
}

func one(ctx context.Context, probes []audit.Probe, p audit.Probe, c Case) Result {
	r := Result{Probe: p.ID}
	if c.Break == nil {
		r.Err = fmt.Errorf("probe %s has no case", p.ID)
		return r
	}
	if r.Faulty, r.Err = c.patiently(ctx, probes, true); r.Err != nil {
		return r
	}
	r.Fixed, r.Err = c.patiently(ctx, probes, false)
	return r
}

// tries of a case that measures time: a busy machine makes such a probe inconclusive, which is the right answer there,
// and no proof of anything.
const tries = 5

func (c Case) patiently(ctx context.Context, probes []audit.Probe, broken bool) (f audit.Finding, err error) {
	for range tries {
		f, err = c.ask(ctx, probes, broken)
		if err != nil || !c.Alone || f.Outcome != audit.Inconclusive {
			break
		}
	}
	return f, err
}

// ask starts the API, broken or not, and runs the case's probes against it.
func (c Case) ask(ctx context.Context, probes []audit.Probe, broken bool) (audit.Finding, error) {
	api := New()
	if c.Prepare != nil {
		c.Prepare(api)
	}
	if broken {
		c.Break(api)
	}
	url, stop, err := api.Start()
	if err != nil {
		return audit.Finding{}, err
	}
	defer stop()
	t, err := audit.ParseTarget(url)
	if err != nil {
		return audit.Finding{}, err
	}
	t.Token, t.ProtectedPaths = api.Token(nil), []string{"/me"}
	cfg := audit.Config{
		Active: true, Load: true, Faults: true, Pace: 400, Policy: quick(),
		Only:  append([]string{c.Probe}, c.With...),
		Trust: load.Trust{MaxLag: time.Second, MaxCPU: 1}, // the servers are in this process
	}
	if c.Knobs != nil {
		c.Knobs(url, api, t, &cfg)
	}
	report, err := audit.Run(ctx, t, probes, cfg)
	if err != nil {
		return audit.Finding{}, err
	}
	f, _ := report.Find(c.Probe)
	return f, nil
}

// quick is a policy under which nothing takes long; the API's own limits follow it.
func quick() audit.Policy {
	return audit.Policy{
		RateLimit: 20, RateWindow: 2 * time.Second, Deadline: time.Second, Grace: 500 * time.Millisecond,
		SlowClient: 2 * time.Second, Rate: 50, LoadWindow: 2 * time.Second, Soak: 4 * time.Second, Workers: 4,
		Recovery: 3 * time.Second, MinSamples: 50,
	}
}

// Start serves the API on a free port of loopback. stop waits until it has ended.
func (a *API) Start() (url string, stop func(), err error) {
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	url = a.Scheme + "://" + ln.Addr().String()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.Serve(ln, a.Handler())
	}()
	return url, func() {
		ln.Close()
		a.Close()
		<-ended
	}, nil
}

// serve is the sound way: every timeout set, headers and bodies bounded.
func (a *API) serve(ln net.Listener, h http.Handler) {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	a.OnClose(func() { s.Close() })
	s.Serve(ln)
}
