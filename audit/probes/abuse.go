package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func abuse() []audit.Probe {
	return []audit.Probe{
		{
			ID: "RL-01", Title: "Limit of requests for each user", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Abuse, Confirms: true,
			Sends:        "GETs of the protected path with one token, one after the other, up to 1.2 times the policy's number and 5 more (twice that many while a fixed window may have rolled over), stopping at the first 429",
			Passes:       "the first 429 comes between 0.5 and 1.2 times the policy, counted over the trailing window with what the run had sent before",
			Fails:        "no 429 after more requests than any limiter of that policy lets through in one window",
			Inconclusive: "429 before half of the policy, a target too slow to be pressed, a limit that another user meets as well, or no token",
			Guard:        "only idempotent GETs, nothing else runs; a run that may have met the edge of a fixed window goes on, and an unclear number is taken again after an idle window",
			Knobs:        []string{"--rate-limit", "--token"},
			Refs:         []string{"OWASP API4:2023", "RFC 6585 section 4", "ASVS 2.4.1"},
			Why:          "One client with a loop, hostile or only buggy, takes the capacity of everybody else.",
			Fix:          "Count requests for each authenticated subject in a store that all replicas share, and answer 429 beyond the limit.",
			Run:          perUserLimit,
		},
		{
			ID: "RL-02", Title: "Limit bypassed by a spoofed address or another form of the path", Severity: audit.High, Mode: audit.Safe, Category: audit.Abuse, Confirms: true,
			Sends:        "while the limiter refuses: the same token with random X-Forwarded-For, X-Real-IP and Forwarded, with a slash added, a query, other case, and as HEAD",
			Passes:       "429 each time, or an answer that gives nothing away, such as 404",
			Fails:        "the content, more often than the limit's own refill explains, while the plain request in between is refused",
			Inconclusive: "RL-01 did not pass, or the limiter let go",
			Guard:        "before each variant the plain request must be answered 429",
			Knobs:        []string{"--rate-limit", "--token"},
			Refs:         []string{"CWE-348", "ASVS 4.1.3"},
			Why:          "A limit that a header lifts stops honest clients only.",
			Fix:          "Key the limit on the subject; trust forwarding headers from known proxies only; normalise the path before it is counted.",
			Run:          limitBypass,
		},
		{
			ID: "RL-03", Title: "Usefulness of the 429 to clients", Severity: audit.Medium, Mode: audit.Passive, Category: audit.Abuse, Confirms: true,
			Sends:        "nothing: looks at the 429s that others met",
			Passes:       "Retry-After above 0 or RateLimit fields, and a JSON body",
			Fails:        "nothing that says when to come back (a body that is no JSON alone is low)",
			Inconclusive: "no 429 was seen",
			Refs:         []string{"RFC 6585 section 4", "RFC 9110 section 10.2.3", "draft-ietf-httpapi-ratelimit-headers"},
			Why:          "Clients that are not told when to come back come back at once, all of them.",
			Fix:          "Send Retry-After, RateLimit and RateLimit-Policy, with a problem document (RFC 9457).",
			Run:          usefulRefusal,
		},
		{
			ID: "RL-04", Title: "Limiter under a burst", Severity: audit.High, Mode: audit.Load, Category: audit.Abuse, Confirms: true,
			Sends:        "after an idle window, twice the policy's requests released together over 32 connections",
			Passes:       "at most 1.1 times the policy accepted",
			Fails:        "more than that, in two bursts of two windows",
			Inconclusive: "RL-01 did not pass, fewer than half of the policy were accepted, or the target broke",
			Guard:        "one burst in one window; what the limit refills while a slow burst lasts is allowed",
			Knobs:        []string{"--rate-limit", "--token"},
			Refs:         []string{"CWE-362", "CWE-799"},
			Why:          "Attackers send at once, not one after the other: a limit that only counts politely does not exist for them.",
			Fix:          "Check and count in one atomic step (one owner of the counter, or a script inside the store).",
			Run:          burst,
		},
	}
}

// restAtMost is the longest window that RL-01 and RL-04 wait for.
const restAtMost = 2 * time.Minute

// perUserLimit presses the protected path until it refuses.
func perUserLimit(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if c := s.Calibration(); !c.Tells {
		return audit.Unproven("%s", c.Why).Unlock("--token and --protected-path"), nil
	}
	p, err := press(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if p.unclear() {
		p, err = pressRested(ctx, s)
		if err != nil {
			return audit.Verdict{}, err
		}
	}
	v := p.verdict()
	if v.Outcome != audit.Pass || s.Target().TokenB == "" {
		return v, nil
	}
	return othersGoOn(ctx, s, v)
}

// othersGoOn holds a second user against the limit that the first has met.
func othersGoOn(ctx context.Context, s *audit.Session, v audit.Verdict) (audit.Verdict, error) {
	x, err := s.Do(ctx, audit.Request{Path: s.Calibration().Path, Token: s.Target().TokenB, Label: "another user", Expect429: true})
	if err != nil {
		return audit.Verdict{}, err
	}
	if x.Status == http.StatusTooManyRequests {
		return audit.Unproven("a second user is refused at the same moment: the limit is shared, not each user's").With(x), nil
	}
	return v, nil
}

// pressure is what came of pressing a path.
type pressure struct {
	policy  audit.Policy
	own     int             // accepted now
	window  int             // accepted in the trailing window, with what the run had sent before
	sent    int             // sent in the trailing window, refused ones too
	refused *audit.Exchange // the first 429
	last    *audit.Exchange // the last that was accepted
	slow    bool            // a whole window was not enough
}

// enough is how many accepted requests show that there is no limit of n a window: 1.2 n and 5 of our own, and within one
// window more than a fixed window that rolled over, or a bucket that was full, would have let through.
func enough(n, own, window int) bool { return own >= n*6/5+5 && window >= 2*n+5 }

func press(ctx context.Context, s *audit.Session) (pressure, error) {
	p := pressure{policy: s.Policy()}
	path, began, strange := s.Calibration().Path, s.Now(), 0
	for !p.slow {
		x, err := s.Do(ctx, pressing(s, path))
		if err != nil {
			return p, err
		}
		switch {
		case x.Status == http.StatusTooManyRequests:
			p.refused, p.sent = x, s.Spent(p.policy.RateWindow)
			p.window = max(p.own, p.sent-counted(s, path, true))
			return p, nil
		case s.Accepted(x):
			p.last = x
			p.own++
		default:
			if strange++; strange == 3 {
				return p, fmt.Errorf("after %d requests the answer became another one, and not 429: %s", p.own, x)
			}
		}
		if p.window = max(p.own, counted(s, path, false)); enough(p.policy.RateLimit, p.own, p.window) {
			return p, nil
		}
		p.slow = s.Now().Sub(began) > p.policy.RateWindow
	}
	return p, nil
}

func pressing(s *audit.Session, path string) audit.Request {
	return audit.Request{Path: path, Token: s.Target().Token, Label: "valid credential, in a hurry", Expect429: true}
}

// counted is how many requests with the valid token stand in the history of the trailing window: those that were refused
// with 429, or those accepted on the path (other paths may have limits of their own).
func counted(s *audit.Session, path string, refused bool) int {
	since, n := s.Now().Add(-s.Policy().RateWindow), 0
	for _, x := range s.History() {
		if x.Request.Token != s.Target().Token || x.At.Before(since) || x.Status == 0 {
			continue
		}
		if is429 := x.Status == http.StatusTooManyRequests; is429 == refused && (refused || x.Request.Path == path) {
			n++
		}
	}
	return n
}

// unclear: refused, but only after more than the policy, as happens at the edge of a fixed window and with buckets that
// refilled meanwhile.
func (p pressure) unclear() bool {
	return p.refused != nil && p.window*5 > p.policy.RateLimit*6 && p.sent*2 >= p.policy.RateLimit
}

// pressRested takes the number again after a window in which nothing was sent, and once more, straight after the refusal
// has ended, when a fixed window may have rolled over in between.
func pressRested(ctx context.Context, s *audit.Session) (pressure, error) {
	window := s.Policy().RateWindow
	if window > restAtMost {
		return pressure{}, fmt.Errorf("the first 429 came after more than the policy, and a window of %s is too long to wait for a clear number", window)
	}
	if err := audit.Sleep(ctx, window); err != nil {
		return pressure{}, err
	}
	p, err := press(ctx, s)
	if err != nil || !p.unclear() {
		return p, err
	}
	if err := untilAccepted(ctx, s, window); err != nil {
		return p, err
	}
	again, err := press(ctx, s)
	if err == nil && again.refused != nil && again.own*10 >= p.policy.RateLimit*9 {
		again.window = again.own // a fixed window, full again: what it accepted before its edge does not count
	}
	return again, err
}

// untilAccepted asks now and then until the limiter lets go.
func untilAccepted(ctx context.Context, s *audit.Session, window time.Duration) error {
	path := s.Calibration().Path
	for began := s.Now(); s.Now().Sub(began) <= window+s.Policy().Grace; {
		x, err := s.Do(ctx, pressing(s, path))
		if err != nil || x.Status != http.StatusTooManyRequests {
			return err
		}
		if err := audit.Sleep(ctx, window/60); err != nil {
			return err
		}
	}
	return fmt.Errorf("the limiter refused for longer than its window of %s", window)
}

func (p pressure) verdict() audit.Verdict {
	limit, window := p.policy.RateLimit, p.policy.RateWindow
	v := audit.Verdict{}
	switch {
	case p.refused == nil && p.slow:
		return audit.Unproven("%d requests in %s: too slow to exceed %d, so no limit was met", p.own, window, limit).
			Unlock("--rate-limit with the limit that is meant")
	case p.refused == nil:
		v = audit.Failed("no 429 after %d requests of one user within %s; the policy is %d", p.window, window, limit).
			With(p.last.Noted("still accepted"))
	case p.sent*2 < limit:
		return audit.Unproven("429 after only %d requests in %s; the policy is %d: the limit is another one, or somebody else uses it up",
			p.sent, window, limit).With(p.refused).Unlock("--rate-limit with the limit that is meant")
	case p.unclear():
		v = audit.Failed("the first 429 came after %d requests of one user within %s; the policy is %d", p.window, window, limit).With(p.refused)
	default:
		v = audit.Passed("429 after %d requests of one user within %s; the policy is %d", p.window, window, limit).
			With(p.refused.Noted("the first 429"))
	}
	return v.Measured("acceptedInWindow", p.window).Measured("acceptedNow", p.own)
}

// disguise is a request that a limiter may take for somebody else's.
type disguise struct {
	label   string
	request func() audit.Request // a new one each time: the address must differ
}

func disguises(s *audit.Session, path string) []disguise {
	random := s.Rand()
	address := func() string { return fmt.Sprintf("198.51.%d.%d", random.IntN(256), 1+random.IntN(254)) }
	list := []disguise{
		{"X-Forwarded-For", func() audit.Request {
			return audit.Request{Path: path, Header: audit.Header("X-Forwarded-For", address())}
		}},
		{"X-Real-IP", func() audit.Request { return audit.Request{Path: path, Header: audit.Header("X-Real-IP", address())} }},
		{"Forwarded", func() audit.Request {
			return audit.Request{Path: path, Header: audit.Header("Forwarded", "for="+address())}
		}},
		{"a query", func() audit.Request { return audit.Request{Path: withQuery(path, "x=1")} }},
		{"HEAD", func() audit.Request { return audit.Request{Path: path, Method: http.MethodHead} }},
	}
	if bare, query, _ := strings.Cut(path, "?"); strings.Trim(bare, "/") != "" {
		slash, other := bare+"/", otherCase(bare)
		if strings.HasSuffix(bare, "/") {
			slash = strings.TrimSuffix(bare, "/")
		}
		list = append(list, disguise{"the last slash", func() audit.Request { return audit.Request{Path: withQuery(slash, query)} }})
		if other != bare {
			list = append(list, disguise{"other case", func() audit.Request { return audit.Request{Path: withQuery(other, query)} }})
		}
	}
	return list
}

func withQuery(path, query string) string {
	switch {
	case query == "":
		return path
	case strings.Contains(path, "?"):
		return path + "&" + query
	}
	return path + "?" + query
}

// otherCase changes the first letter; escapes are left alone.
func otherCase(path string) string {
	if strings.Contains(path, "%") {
		return path
	}
	if upper := strings.ToUpper(path); upper != path {
		return upper
	}
	return strings.ToLower(path)
}

// limitBypass tries each disguise while the limiter refuses the plain request.
func limitBypass(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if f, _ := s.Finding("RL-01"); f.Outcome != audit.Pass {
		return audit.Unproven("there is no limit to bypass: RL-01 did not pass").Unlock("--token and --rate-limit"), nil
	}
	h := &heat{path: s.Calibration().Path}
	var last *audit.Exchange
	list := disguises(s, h.path)
	for _, d := range list {
		x, through, err := h.slips(ctx, s, d)
		if err != nil {
			return audit.Verdict{}, err
		}
		if through {
			return audit.Failed("the limit is lifted by %s: the plain request is refused, this one is answered", d.label).With(x, h.refused.Noted("the plain request, just before")), nil
		}
		last = x
	}
	return audit.Passed("%d disguises did not lift the limit", len(list)).With(h.refused.Noted("the plain request"), last), nil
}

// heat keeps the limiter refusing.
type heat struct {
	path    string
	refused *audit.Exchange // the last plain 429
	rounds  int             // times that the limiter had to be heated again
}

// slips says whether a disguise gets through more often than the limit refills.
func (h *heat) slips(ctx context.Context, s *audit.Session, d disguise) (*audit.Exchange, bool, error) {
	policy, began, through := s.Policy(), s.Now(), 0
	for {
		cold, err := h.keep(ctx, s)
		if err != nil {
			return nil, false, err
		}
		if cold { // a new window: what came before does not count
			began, through = s.Now(), 0
		}
		r := d.request()
		r.Token, r.Expect429, r.Label = s.Target().Token, true, d.label
		x, err := s.Do(ctx, r)
		if err != nil || !answered(s, x) {
			return x, false, err
		}
		through++
		refill := float64(policy.RateLimit) * s.Now().Sub(began).Seconds() / policy.RateWindow.Seconds()
		if float64(through) > 3+refill {
			return x, true, nil
		}
		if through > policy.RateLimit {
			return x, false, fmt.Errorf("with %s some requests pass, but no more than the limit refills at this pace", d.label)
		}
	}
}

// answered says whether the content came. HEAD has none to compare.
func answered(s *audit.Session, x *audit.Exchange) bool {
	if x.Request.Method == http.MethodHead {
		return x.OK()
	}
	return s.Accepted(x)
}

// keep sends the plain request until it is refused, and says whether it took so many that a new window had begun. A few
// are what a bucket refills between two requests.
func (h *heat) keep(ctx context.Context, s *audit.Session) (cold bool, err error) {
	limit := s.Policy().RateLimit
	for n := 0; n <= limit*6/5+5; n++ {
		x, err := s.Do(ctx, pressing(s, h.path))
		if err != nil {
			return false, err
		}
		if x.Status == http.StatusTooManyRequests {
			h.refused = x
			if cold = n > limit/4; cold {
				h.rounds++
			}
			if h.rounds > 3 {
				return true, fmt.Errorf("the limiter let go again and again in the middle of the comparison")
			}
			return cold, nil
		}
	}
	return true, fmt.Errorf("the limiter did not refuse any longer: no comparison is possible")
}

// refusals at most that RL-03 looks at, the latest.
const refusals = 20

func usefulRefusal(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	var mute, plain, good *audit.Exchange
	seen := 0
	history := s.History()
	for i := len(history) - 1; i >= 0 && seen < refusals; i-- {
		x := history[i]
		if x.Status != http.StatusTooManyRequests || x.Request.Method == http.MethodHead || x.Raw != "" {
			continue
		}
		seen++
		switch {
		case !saysWhen(x):
			mute = x
		case !x.Cut && !json.Valid(x.Body):
			plain = x
		default:
			good = x
		}
	}
	switch {
	case seen == 0:
		return audit.Unproven("no 429 was seen").Unlock("--token and --rate-limit"), nil
	case mute != nil:
		return audit.Failed("a 429 says neither with Retry-After nor with RateLimit fields when to come back").With(mute), nil
	case plain != nil:
		return audit.Failed("the 429 says when to come back, but its body is not JSON").With(plain).As(audit.Low), nil
	}
	return audit.Passed("every refusal that was seen (%d) says when to come back, in JSON", seen).With(good), nil
}

// saysWhen reads Retry-After (RFC 9110 section 10.2.3), or the fields of draft-ietf-httpapi-ratelimit-headers and their
// older and unregistered forms.
func saysWhen(x *audit.Exchange) bool {
	if audit.RetryAfter(x.Header, x.At) > 0 {
		return true
	}
	for _, name := range []string{"RateLimit", "RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset"} {
		if x.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// crowd is how many connections a burst uses.
const crowd = 32

func burst(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if f, _ := s.Finding("RL-01"); f.Outcome != audit.Pass {
		return audit.Unproven("there is no limit to burst: RL-01 did not pass").Unlock("--token and --rate-limit"), nil
	}
	limit, window := s.Policy().RateLimit, s.Policy().RateWindow
	if window > restAtMost {
		return audit.Unproven("a window of %s is too long to wait for", window), nil
	}
	var worst salvo
	for range 2 {
		if err := idle(ctx, s, window); err != nil {
			return audit.Verdict{}, err
		}
		v, err := fire(ctx, s, 2*limit)
		if err != nil {
			return audit.Verdict{}, err
		}
		if v.broken > limit/20 {
			return audit.Unproven("%d of %d requests of the burst got neither an answer nor a clean refusal", v.broken, 2*limit).With(v.sample), nil
		}
		worst = v
		if v.allowed(limit, window) {
			break
		}
	}
	return worst.verdict(limit, window), nil
}

// idle waits until none of the run's requests counts any longer.
func idle(ctx context.Context, s *audit.Session, window time.Duration) error {
	for began := s.Now(); s.Spent(window) > 0; {
		if s.Now().Sub(began) > 2*window {
			return fmt.Errorf("the token is used by other probes: there was no idle window")
		}
		if err := audit.Sleep(ctx, window/40); err != nil {
			return err
		}
	}
	return nil
}

// salvo is what came of a burst.
type salvo struct {
	accepted, refused, broken int
	took                      time.Duration
	sample                    *audit.Exchange
}

// fire releases n requests together.
func fire(ctx context.Context, s *audit.Session, n int) (salvo, error) {
	var (
		v     salvo
		first error
		mu    sync.Mutex
		group sync.WaitGroup
	)
	start := make(chan struct{})
	for i := range crowd {
		group.Go(func() {
			<-start
			for j := i; j < n; j += crowd {
				x, err := s.Unpaced(ctx, pressing(s, s.Calibration().Path))
				mu.Lock()
				if err != nil {
					first = err
				} else {
					v.count(s, x)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	began := time.Now()
	close(start)
	group.Wait()
	v.took = time.Since(began)
	return v, first
}

func (v *salvo) count(s *audit.Session, x *audit.Exchange) {
	switch {
	case s.Accepted(x):
		v.accepted++
	case x.Status == http.StatusTooManyRequests:
		v.refused++
	default:
		v.broken++
	}
	if v.sample == nil || x.Status != http.StatusTooManyRequests {
		v.sample = x
	}
}

// allowed: 1.1 of the limit, and what it refills while the burst lasts.
func (v salvo) allowed(limit int, window time.Duration) bool {
	refill := float64(limit) * v.took.Seconds() / window.Seconds()
	return float64(v.accepted) <= 1.1*float64(limit)+refill
}

func (v salvo) verdict(limit int, window time.Duration) audit.Verdict {
	times := float64(v.accepted) / float64(limit)
	var out audit.Verdict
	switch {
	case !v.allowed(limit, window):
		out = audit.Failed("a burst of %d got %d accepted, %.1f times the limit of %d; about a whole multiple means a counter in each replica",
			2*limit, v.accepted, times, limit)
	case v.accepted*2 < limit:
		out = audit.Unproven("only %d of the burst were accepted, fewer than half of the limit of %d: it had not let go", v.accepted, limit)
	default:
		out = audit.Passed("a burst of %d got %d accepted; the limit is %d", 2*limit, v.accepted, limit)
	}
	return out.With(v.sample).Measured("accepted", v.accepted).Measured("timesLimit", times).Measured("tookMs", v.took.Milliseconds())
}
