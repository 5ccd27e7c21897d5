package probes

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/load"
	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/stat"
)

func stress() []audit.Probe {
	return []audit.Probe{
		{
			ID: "LIM-03", Title: "Slow requests do not starve others", Severity: audit.Critical, Mode: audit.Load, Category: audit.Limits,
			Confirms:     true,
			Sends:        "twice as many requests to the slow path as there are workers (64), while the fast path is asked ten times a second",
			Passes:       "the fast path's p95 stays under a second and under five times its baseline, with no errors",
			Fails:        "the fast path takes over a second, or times out",
			Inconclusive: "no slow path, or the fast path was slow before",
			Guard:        "baseline first; two gunicorn workers and six slow requests make health take 8.7 s",
			Knobs:        []string{"--load", "--slow-path", "--fast-path", "--workers"},
			Refs:         []string{"CWE-400", "CWE-833"},
			Why:          "One slow report takes the whole API down, health check included.",
			Fix:          "Asynchronous workers, or bulkheads: a bound for each slow path; no blocking calls in an event loop.",
			Run:          slowStarves,
		},
		{
			ID: "LIM-07", Title: "Requests that were given up release what they held", Severity: audit.Medium, Mode: audit.Load,
			Category: audit.Limits, Confirms: true,
			Sends:        "50 requests to the slow path, given up after 200 ms; then the fast path",
			Passes:       "the fast path is back at 1.5 times its baseline within 5 s",
			Fails:        "it is still slow after the slow path's own duration",
			Inconclusive: "no slow path, or in between",
			Guard:        "baseline first; a difference under 50 ms is not called slow",
			Knobs:        []string{"--load", "--slow-path"},
			Refs:         []string{"CWE-404"},
			Why:          "Users who press reload keep the server busy with answers that nobody reads.",
			Fix:          "Stop work when the client has gone: pass the request's context on to the database and to other services.",
			Run:          givenUp,
		},
		{
			ID: "DAT-01", Title: "Connections are not exhausted", Severity: audit.Critical, Mode: audit.Load, Category: audit.Data,
			Confirms:     true,
			Sends:        "1, 8, 32, 64 and 128 clients in turn, a tenth of --load-window each, on a GET that reads the database",
			Passes:       "under 0.1 % errors at every step, and no text of an exhausted pool; seen from the database, connections are reused",
			Fails:        "errors above 0.1 %, the text of an exhausted pool, or a connection for every request",
			Inconclusive: "no path that reads the database, the clients were never all at it at one time, or most was refused in order",
			Guard:        "stops at the first step that fails, and repeats it; 429 and 503 with Retry-After are refusals in order",
			Knobs:        []string{"--load", "--db-path", "--observe-postgres"},
			Refs:         []string{"CWE-400", "ASVS 13.1.2", "ASVS 13.2.6"},
			Why:          "The API falls over at the hundredth user, with the database idle.",
			Fix:          "A pool whose largest size is under the server's limit, with a bounded wait.",
			Run:          connections,
		},
		{
			ID: "DAT-02", Title: "Throughput holds as clients grow", Severity: audit.High, Mode: audit.Load, Category: audit.Data, Confirms: true,
			Sends:        "reads the steps of DAT-01; when they show a fall, the best step and 64 clients again, three times in turns",
			Passes:       "at 64 clients at least 0.8 of the best throughput",
			Fails:        "at 64 clients under half of the best, each of three times in turns, or p95 four times higher from 8 to 32 clients while throughput stays where one client had it",
			Inconclusive: "DAT-01 did not reach 64 clients, or in between",
			Guard:        "the generator's own limit is watched",
			Knobs:        []string{"--load", "--db-path"},
			Refs:         []string{"CWE-833"},
			Why:          "More users make everybody slower, and adding machines does not help.",
			Fix:          "Reuse connections; take global locks apart.",
			Run:          throughput,
		},
	}
}

// sampled is how the fast path did.
type sampled struct {
	p95    time.Duration
	failed int
	n      int
	worst  *audit.Exchange
}

// sampleFast asks the fast path for d, so many times a second, each on its own, whatever the others do.
func sampleFast(ctx context.Context, s *audit.Session, rate float64, d time.Duration) (sampled, error) {
	var h load.Histogram
	var mu sync.Mutex
	var out sampled
	var group sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out, ctx.Err()
		}
		group.Go(func() {
			x, err := s.Unpaced(ctx, audit.Request{Path: s.FastPath(), Token: s.Target().Token, Timeout: 5 * time.Second, Label: "fast path"})
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out.n++
			h.Record(x.Took)
			if failing(x) {
				out.failed++
			}
			if out.worst == nil || x.Took > out.worst.Took {
				out.worst = x
			}
		})
	}
	group.Wait()
	out.p95 = h.Quantile(0.95)
	return out, nil
}

func slowStarves(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	p := s.Policy()
	if p.Workers == 0 || s.Target().SlowPath == "" {
		return audit.Unproven("no slow path is known").Unlock("--slow-path"), nil
	}
	window := p.LoadWindow / 3
	rate := max(10, 40/window.Seconds())
	baseline, err := sampleFast(ctx, s, rate, window/2)
	if err != nil {
		return audit.Verdict{}, err
	}
	if baseline.failed > 0 || baseline.p95 > time.Second {
		return audit.Unproven("the fast path was unwell before: p95 %s, %d of %d failed", short(baseline.p95), baseline.failed, baseline.n).With(baseline.worst), nil
	}
	stressed, slow, err := besideSlow(ctx, s, 2*p.Workers, rate, window)
	if err != nil {
		return audit.Verdict{}, err
	}
	limit := max(time.Second, 5*baseline.p95)
	figures := fmt.Sprintf("p95 of the fast path %s beside %d slow requests, %s without; %d of %d failed",
		short(stressed.p95), 2*p.Workers, short(baseline.p95), stressed.failed, stressed.n)
	v := audit.Passed("%s", figures)
	switch {
	case stressed.p95 > limit || stressed.failed*20 > stressed.n:
		v = audit.Failed("%s", figures)
	case slow.Shed*2 > slow.Sent:
		v = audit.Unproven("the slow path refused most of the load: %s", figures)
	case stressed.failed > 0:
		v = audit.Unproven("%s", figures)
	}
	return v.With(stressed.worst).Measured("baselineP95Ms", ms(baseline.p95)).Measured("p95Ms", ms(stressed.p95)), nil
}

// besideSlow samples the fast path while so many clients keep the slow path busy.
func besideSlow(ctx context.Context, s *audit.Session, clients int, rate float64, d time.Duration) (sampled, load.Result, error) {
	slow := audit.Request{Path: s.Target().SlowPath, Token: s.Target().Token, Label: "slow path", Timeout: s.Policy().Deadline + 5*time.Second}
	busy, stop := context.WithCancel(ctx)
	type ended struct {
		r   load.Result
		err error
	}
	done := make(chan ended, 1)
	go func() {
		r, err := s.Crowd(busy, load.Closed{Clients: clients, Duration: d + s.Policy().Deadline, Drain: time.Second}, slow, nil)
		done <- ended{r, err}
	}()
	err := audit.Sleep(ctx, min(time.Second, d/4)) // let them arrive
	var out sampled
	if err == nil {
		out, err = sampleFast(ctx, s, rate, d)
	}
	stop()
	e := <-done
	if err == nil && ctx.Err() == nil && e.err != nil && busy.Err() == nil {
		err = e.err
	}
	return out, e.r, err
}

func givenUp(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().SlowPath == "" {
		return audit.Unproven("no slow path is known").Unlock("--slow-path"), nil
	}
	baseline, err := sampleFast(ctx, s, 40, 500*time.Millisecond)
	if err != nil {
		return audit.Verdict{}, err
	}
	limit := max(baseline.p95*3/2, baseline.p95+50*time.Millisecond)
	abandon(ctx, s)
	began := time.Now()
	soon, late := min(5*time.Second, s.Policy().Deadline), s.Policy().Deadline+5*time.Second
	var last *audit.Exchange
	for time.Since(began) < late {
		x, err := s.Unpaced(ctx, audit.Request{Path: s.FastPath(), Token: s.Target().Token, Timeout: 5 * time.Second, Label: "fast path"})
		if err != nil {
			return audit.Verdict{}, err
		}
		last = x
		if !failing(x) && x.Took <= limit {
			return backAfter(time.Since(began), soon, x), nil
		}
		if err := audit.Sleep(ctx, 20*time.Millisecond); err != nil {
			return audit.Verdict{}, err
		}
	}
	return audit.Failed("%s after 50 requests were given up the fast path still takes %s; before it was %s", short(time.Since(began)), short(last.Took), short(baseline.p95)).With(last), nil
}

func backAfter(took, soon time.Duration, x *audit.Exchange) audit.Verdict {
	if took <= soon {
		return audit.Passed("the fast path was back at its pace %s after 50 requests were given up", short(took)).With(x)
	}
	return audit.Unproven("the fast path was back only %s after 50 requests were given up", short(took)).With(x)
}

// abandon opens 50 slow requests and gives them up after 200 ms.
func abandon(ctx context.Context, s *audit.Session) {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			_, _ = s.Unpaced(short, audit.Request{Path: s.Target().SlowPath, Token: s.Target().Token, Label: "given up", Fresh: true, Timeout: time.Second})
		})
	}
	group.Wait()
}

// steps of DAT-01, in clients.
var steps = []int{1, 8, 32, 64, 128}

// step is what one of them saw.
type step struct {
	clients int
	result  load.Result
}

// poolText is what an exhausted pool says of itself.
var poolText = regexp.MustCompile(`(?i)too many connections|too many clients|remaining connection slots|QueuePool limit|pool exhausted|SQLITE_BUSY|database is locked|deadlock detected|timeout exceeded when trying to connect`)

func connections(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().DBPath == "" {
		return audit.Unproven("no path is known that reads the database").Unlock("--db-path"), nil
	}
	pool, err := seenPool(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if pool.Outcome == observe.Fail {
		return audit.Failed("the database saw no pool: %s", pool.Reason), nil
	}
	var done []step
	for _, clients := range steps {
		v, r, err := confirmedStep(ctx, s, clients)
		if err != nil {
			return audit.Verdict{}, err
		}
		done = append(done, step{clients, r})
		s.Remember("steps", done)
		if v.Outcome != audit.Pass {
			return stepsDrawn(v, done), nil
		}
	}
	var served int64
	for _, d := range done {
		served += d.result.Served
	}
	v := audit.Passed("%d requests by up to 128 clients were served without an error of connections", served)
	if pool.Outcome == observe.Pass {
		v.Message += "; the database saw a pool: " + pool.Reason
	}
	return stepsDrawn(v, done), nil
}

// seenPool asks the database, when it may, whether requests share connections.
func seenPool(ctx context.Context, s *audit.Session) (observe.Verdict, error) {
	if s.Database() == nil {
		return observe.Verdict{}, nil
	}
	const requests = 20
	for try := 0; ; try++ {
		v, err := s.Database().Pool(ctx, requests, repeat(s, requests, s.Target().DBPath))
		if err != nil || v.Outcome != observe.Unknown || try == 1 { // a pool that was filling is full the second time
			return v, err
		}
	}
}

// repeat sends the same read so many times, one after another.
func repeat(s *audit.Session, requests int, path string) func(context.Context) error {
	return func(ctx context.Context) error {
		for range requests {
			if _, err := s.Unpaced(ctx, audit.Request{Path: path, Token: s.Target().Token, Label: "watched from behind"}); err != nil {
				return err
			}
		}
		return nil
	}
}

// confirmedStep loads with so many clients, and once more when that fails.
func confirmedStep(ctx context.Context, s *audit.Session, clients int) (audit.Verdict, load.Result, error) {
	r, text, err := oneStep(ctx, s, clients)
	if err != nil {
		return audit.Verdict{}, r, err
	}
	if bad := stepFails(s, r, text); bad != "" {
		again, textAgain, err := oneStep(ctx, s, clients)
		if err != nil {
			return audit.Verdict{}, r, err
		}
		if badAgain := stepFails(s, again, textAgain); badAgain != "" {
			return audit.Failed("with %d clients %s", clients, badAgain), again, nil
		}
		return audit.Unproven("with %d clients once, and not again: %s", clients, bad), r, nil
	}
	switch {
	case 10*r.InFlight < 9*clients: // when they left is no matter here
		return audit.Unproven("of %d clients only %d were at it at one time", clients, r.InFlight), r, nil
	case 2*r.Shed > r.Answered:
		return audit.Unproven("with %d clients most was refused in order (%d of %d)", clients, r.Shed, r.Answered).
			Unlock("--jwt-key, so that the load comes from many users"), r, nil
	}
	return audit.Passed(""), r, nil
}

// oneStep loads the path with so many clients, and looks for the words of an exhausted pool.
func oneStep(ctx context.Context, s *audit.Session, clients int) (r load.Result, text string, err error) {
	var mu sync.Mutex
	look := func(status int, start []byte) {
		if m := poolText.Find(start); status >= 400 && m != nil {
			mu.Lock()
			text = string(m)
			mu.Unlock()
		}
	}
	request := audit.Request{Path: s.Target().DBPath, Token: s.Target().Token, Label: "path that reads the database", Timeout: 15 * time.Second}
	r, err = s.Crowd(ctx, load.Closed{Clients: clients, Duration: s.Policy().LoadWindow / 10, StopAt: 0.5, Drain: 15 * time.Second}, request, look)
	return r, text, err
}

// stepFails says what is wrong with a step, or nothing.
func stepFails(s *audit.Session, r load.Result, text string) string {
	low, _ := errorBounds(r.Failed, r.Judgeable())
	switch {
	case text != "":
		return fmt.Sprintf("it says %q", text)
	case low > s.Policy().Errors:
		return fmt.Sprintf("%d of %d requests fail", r.Failed, r.Judgeable())
	}
	return ""
}

func stepsDrawn(v audit.Verdict, done []step) audit.Verdict {
	throughput, p95 := audit.Series{Name: "served per second"}, audit.Series{Name: "p95 in ms"}
	for _, d := range done {
		throughput.X, throughput.Y = append(throughput.X, float64(d.clients)), append(throughput.Y, d.result.Throughput())
		p95.X, p95.Y = append(p95.X, float64(d.clients)), append(p95.Y, ms(d.result.Latency.Quantile(0.95)))
	}
	return v.Drawn(audit.Chart{Title: "Throughput and latency by clients", X: "clients", Y: "", Series: []audit.Series{throughput, p95}})
}

func throughput(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	done, _ := s.Fact("steps").([]step)
	at := map[int]load.Result{}
	best := step{}
	for _, d := range done {
		at[d.clients] = d.result
		if d.result.Throughput() > best.result.Throughput() {
			best = d
		}
	}
	crowd, reached := at[64]
	if !reached || best.clients == 0 {
		return audit.Unproven("the steps of DAT-01 did not reach 64 clients").Unlock("--load and --db-path"), nil
	}
	share := crowd.Throughput() / best.result.Throughput()
	figures := fmt.Sprintf("%.0f/s with 64 clients, %.0f/s at best, with %d", crowd.Throughput(), best.result.Throughput(), best.clients)
	switch {
	case share < 0.8 && crowd.Bottleneck != "": // a generator at its limit serves nobody better
		return audit.Unproven("the generator was the bottleneck: %s", crowd.Bottleneck), nil
	case share < 0.5:
		return collapse(ctx, s, best.clients)
	case queued(at):
		return audit.Failed("clients queue for one thing: p95 is %s with 8 clients and %s with 32, and throughput stays where one client had it; %s",
			short(p95Of(at[8])), short(p95Of(at[32])), figures), nil
	case share >= 0.8:
		return audit.Passed("%s", figures), nil
	}
	return audit.Unproven("%s: between 0.5 and 0.8 of the best", figures), nil
}

func p95Of(r load.Result) time.Duration { return r.Latency.Quantile(0.95) }

// queued says whether 32 clients got no more served than one, each waiting four times as long as with 8: they wait for one
// thing that is slow by itself.
func queued(at map[int]load.Result) bool {
	one, many := at[1], at[32]
	return many.Throughput() < 1.2*one.Throughput() && one.Throughput() < 200 && p95Of(many) > 4*p95Of(at[8]) && p95Of(many) > 20*time.Millisecond
}

// collapse measures the best step and 64 clients in turns, three times each: one pause of the machine must not count.
func collapse(ctx context.Context, s *audit.Session, best int) (audit.Verdict, error) {
	var few, many []float64
	for range 3 {
		for _, c := range []struct {
			clients int
			into    *[]float64
		}{{best, &few}, {64, &many}} {
			r, _, err := oneStep(ctx, s, c.clients)
			if err != nil {
				return audit.Verdict{}, err
			}
			*c.into = append(*c.into, r.Throughput())
		}
	}
	figures := fmt.Sprintf("%.0f/s with 64 clients, %.0f/s with %d, in turns", stat.Median(many), stat.Median(few), best)
	if slices.Max(many) < 0.5*slices.Min(few) {
		return audit.Failed("throughput falls as clients grow: %s", figures), nil
	}
	return audit.Unproven("throughput fell once with 64 clients, and not each time: %s", figures), nil
}
