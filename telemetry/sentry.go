package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/getsentry/sentry-go"
)

// Sentry reports requests that failed: panics, 5xx and 504.
//
// What happens again and again is one report with a count: the first is sent at once, and after a minute
// the last one, with how many there were. Reports are bounded in rate, and in number while Sentry does
// not answer.
type Sentry struct {
	queue
	cfg    SentryConfig
	client *sentry.Client
	http   *http.Client
	box    *outbox
	dsn    *sentry.Dsn

	mu        sync.Mutex // guards what Report touches
	seen      map[string]*repeats
	allowance float64
	filled    time.Time
	silent    time.Time // Sentry asked for silence until then
	failing   bool
}

// SentryConfig of a Sentry. The zero value of each optional field means its default.
type SentryConfig struct {
	// DSN is where reports go, with the key; it is a secret.
	DSN string
	// Release and Environment are shown with every report.
	Release, Environment string
	// Rate is how many reports a second are sent, and Burst how many at once; default 10 and 30.
	Rate, Burst int
	// Window is how long repeated failures are counted before they are reported again; default 1 min.
	Window time.Duration
	// Timeout of one report; default 5 s.
	Timeout time.Duration
	// Lost hears of failures that are not reported, for a counter such as [Metrics.Lost]. Nil for nobody.
	Lost func(kind, cause string, n int)
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger hears when Sentry cannot be reached, and when it can again. Nil discards.
	Logger *slog.Logger
}

// repeats are the failures of one kind since the last report of it.
type repeats struct {
	since time.Time
	count int
	last  *Request
}

const (
	maxSeen       = 256 // kinds of failure that are told apart
	sentryQueue   = 100
	sentryPause   = time.Minute // after a 429 that does not say how long
	maxSentryBody = 64 << 10    // of an answer
)

// NewSentry returns a reporter; it sends nothing before [Sentry.Run].
func NewSentry(cfg SentryConfig) (*Sentry, error) {
	setDefault(&cfg.Rate, 10)
	setDefault(&cfg.Burst, 30)
	setDefault(&cfg.Window, time.Minute)
	setDefault(&cfg.Timeout, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dsn, err := sentry.NewDsn(cfg.DSN)
	if err != nil {
		return nil, errors.New("sentry: the DSN is not one") // without err, which has it
	}
	box := new(outbox)
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: cfg.DSN, Release: cfg.Release, Environment: cfg.Environment, Transport: box,
		Integrations:         func([]sentry.Integration) []sentry.Integration { return nil }, // they tell of the process's surroundings
		DisableClientReports: true,
	})
	if err != nil {
		return nil, errors.New("sentry: the client refuses the DSN")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return &Sentry{
		queue: newQueue("event", sentryQueue, cfg.Lost), cfg: cfg, client: client, box: box, dsn: dsn,
		http:      &http.Client{Transport: transport, Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		allowance: float64(cfg.Burst), filled: cfg.Now(), seen: make(map[string]*repeats),
	}, nil
}

// outbox is the client's transport: it keeps the event that the client has prepared for us to send. The
// SDK's own transport drops without counting.
type outbox struct{ event *sentry.Event }

// SendEvent implements sentry.Transport.
func (o *outbox) SendEvent(e *sentry.Event) { o.event = e }

// Configure implements sentry.Transport.
func (*outbox) Configure(sentry.ClientOptions) {}

// Flush implements sentry.Transport.
func (*outbox) Flush(time.Duration) bool { return true }

// FlushWithContext implements sentry.Transport.
func (*outbox) FlushWithContext(context.Context) bool { return true }

// Close implements sentry.Transport.
func (*outbox) Close() {}

// Record reports a request if it failed. It never waits, and keeps a copy.
func (s *Sentry) Record(r *Request) {
	if !r.Failed() {
		return
	}
	c := r.clone()
	c.Panic = strings.Clone(Scrub(clip(r.Panic, 4<<10)))
	if cause := s.admit(c); cause != "" {
		s.drop(cause, 1)
	}
}

// admit puts r into the queue, or counts it as a repetition, or says why neither is possible.
func (s *Sentry) admit(r *Request) (cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, kind := s.cfg.Now(), r.kind()
	if known, again := s.seen[kind]; again {
		known.count++
		known.last = r
		return ""
	}
	switch {
	case now.Before(s.silent):
		return causeThrottled
	case len(s.seen) >= maxSeen, !s.spend(now):
		return causeRate
	}
	s.seen[kind] = &repeats{since: now}
	s.put(r)
	return ""
}

// spend takes one report from the allowance.
func (s *Sentry) spend(now time.Time) bool {
	s.allowance = min(float64(s.cfg.Burst), s.allowance+now.Sub(s.filled).Seconds()*float64(s.cfg.Rate))
	s.filled = now
	if s.allowance < 1 {
		return false
	}
	s.allowance--
	return true
}

// kind is what makes two failures the same.
func (r *Request) kind() string {
	return r.name() + "\n" + r.errorType() + "\n" + strconv.Itoa(r.Status) + "\n" + panicPlace(r.Stack)
}

// due takes the kinds whose window is over: those that came again are reported once more, with their
// number, and the others forgotten.
func (s *Sentry) due(all bool) (again []repeats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for kind, known := range s.seen {
		switch {
		case !all && now.Sub(known.since) < s.cfg.Window:
		case known.count == 0:
			delete(s.seen, kind)
		default:
			again = append(again, *known)
			*known = repeats{since: now}
		}
	}
	return again
}

// Run sends until ctx ends, and then for two seconds at most what is left.
func (s *Sentry) Run(ctx context.Context) error {
	late, cancel := withGrace(ctx)
	defer cancel()
	tick := time.NewTicker(min(s.cfg.Window, 5*time.Second))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case r := <-s.in:
			s.send(late, r, 1)
		case <-tick.C:
			s.sendAgain(late, false)
		case <-ctx.Done():
		}
	}
	for len(s.in) > 0 && late.Err() == nil {
		s.send(late, <-s.in, 1)
	}
	s.sendAgain(late, true)
	s.discard()
	s.http.CloseIdleConnections()
	s.client.Close()
	return nil
}

func (s *Sentry) sendAgain(ctx context.Context, all bool) {
	for _, again := range s.due(all) {
		s.send(ctx, again.last, again.count)
	}
}

// send reports n failures, of which r is the last.
func (s *Sentry) send(ctx context.Context, r *Request, n int) {
	s.mu.Lock()
	silent := s.cfg.Now().Before(s.silent)
	s.mu.Unlock()
	if silent {
		s.drop(causeThrottled, n)
		return
	}
	s.client.CaptureEvent(r.event(n), nil, nil)
	cause, err := s.post(ctx, s.box.event)
	if ctx.Err() != nil {
		cause = causeShutdown
	}
	if cause != "" {
		s.drop(cause, n)
	}
	s.tell(cause, err)
}

// tell logs when it begins to fail, and when it ends.
func (s *Sentry) tell(cause string, err error) {
	switch {
	case cause != "" && !s.failing:
		s.cfg.Logger.Warn("reports to Sentry are not delivered; they are dropped and counted", "cause", cause, "error", err)
	case cause == "" && s.failing:
		s.cfg.Logger.Info("reports to Sentry are delivered again")
	}
	s.failing = cause != ""
}

// post sends an event as an envelope (develop.sentry.dev/sdk/envelopes), and says why it was not taken.
func (s *Sentry) post(ctx context.Context, e *sentry.Event) (cause string, err error) {
	body, err := envelope(e)
	if err != nil {
		return causeRejected, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.dsn.GetAPIURL().String(), body)
	if err != nil {
		return causeRejected, err
	}
	r.Header.Set("Content-Type", "application/x-sentry-envelope")
	r.Header.Set("X-Sentry-Auth", fmt.Sprintf("Sentry sentry_version=7, sentry_client=%s/%s, sentry_key=%s", e.Sdk.Name, e.Sdk.Version, s.dsn.GetPublicKey()))
	res, err := s.http.Do(r)
	if err != nil {
		return unanswered(err), errors.Unwrap(err) // without the address, which has the project's number
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxSentryBody) // so that the connection can be used again
	s.heed(res)
	switch {
	case res.StatusCode == http.StatusTooManyRequests:
		return causeThrottled, errors.New(res.Status)
	case res.StatusCode >= 300:
		return causeRejected, errors.New(res.Status)
	}
	return "", nil
}

func unanswered(err error) string {
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return causeTimeout
	}
	return causeUnreachable
}

// envelope is three lines: its header, the item's, and the event.
func envelope(e *sentry.Event) (*bytes.Buffer, error) {
	event, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"event_id":%q,"sent_at":%q}`+"\n", e.EventID, e.Timestamp.UTC().Format(time.RFC3339))
	fmt.Fprintf(&b, `{"type":"event","length":%d}`+"\n", len(event))
	b.Write(event)
	b.WriteByte('\n')
	return &b, nil
}

// heed keeps the silence that Sentry asks for, in X-Sentry-Rate-Limits
// (develop.sentry.dev/sdk/expected-features/rate-limiting) or Retry-After.
func (s *Sentry) heed(res *http.Response) {
	wait := limitOf(res.Header.Get("X-Sentry-Rate-Limits"))
	if wait == 0 && res.StatusCode == http.StatusTooManyRequests {
		wait = retryAfter(res.Header.Get("Retry-After"), s.cfg.Now())
	}
	if wait > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.silent = s.cfg.Now().Add(min(wait, time.Hour))
	}
}

// limitOf reads "60:error;default:organization, ...": seconds, and the categories that they are about,
// none for all.
func limitOf(header string) (wait time.Duration) {
	for limit := range strings.SplitSeq(header, ",") {
		seconds, rest, _ := strings.Cut(strings.TrimSpace(limit), ":")
		categories, _, _ := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(seconds, 10, 31)
		if about := ";" + categories + ";"; err == nil && (categories == "" || strings.Contains(about, ";error;")) {
			wait = max(wait, time.Duration(n)*time.Second)
		}
	}
	return wait
}

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3).
func retryAfter(header string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return sentryPause
}

// event tells of n failures, of which r is the last.
func (r *Request) event(n int) *sentry.Event {
	e := sentry.NewEvent()
	e.Level, e.Timestamp, e.Transaction = sentry.LevelError, r.at(r.Duration), r.name()
	e.Fingerprint = strings.Split(r.kind(), "\n")
	e.Request = &sentry.Request{Method: r.Method, URL: "//" + r.Host + Scrub(r.Path)}
	e.User = sentry.User{ID: r.Caller}
	e.Tags = map[string]string{
		"request_id": r.ID, "route": r.Route, "status": strconv.Itoa(r.Status), "decision": r.Decision, "upstream": r.Upstream.Name, "version": r.Upstream.Version,
		"repeats": strconv.Itoa(n),
	}
	e.Contexts["gantry"] = r.timings()
	if r.TraceID != "" {
		e.Contexts["trace"] = sentry.Context{"trace_id": r.TraceID, "span_id": r.SpanID, "op": "http.server"}
	}
	what := sentry.Exception{Type: "HTTP " + strconv.Itoa(r.Status), Value: r.name() + ": " + r.errorType()}
	if r.Panic != "" {
		what = sentry.Exception{Type: "panic", Value: Scrub(r.Panic), Stacktrace: &sentry.Stacktrace{Frames: frames(r.Stack)}}
	}
	e.Exception = []sentry.Exception{what}
	return e
}

// timings are the steps in words, and what became of each.
func (r *Request) timings() sentry.Context {
	ms := func(m Millis) string {
		return strconv.FormatFloat(float64(m)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	}
	c := sentry.Context{"total": ms(r.Duration)}
	for i, s := range r.Steps.All() {
		c[fmt.Sprintf("%d %s", i+1, s.Name)] = strings.TrimSpace(ms(s.End-s.Start) + " " + s.Outcome)
	}
	return c
}

// frames reads a stack as runtime/debug writes it, without the values of arguments, the outermost call
// first. What recovered the panic is left out.
func frames(stack []byte) (list []sentry.Frame) {
	lines := strings.Split(string(stack), "\n")
	for i := 1; i+1 < len(lines); i += 2 {
		function, place := lines[i], strings.TrimSpace(lines[i+1])
		if strings.HasPrefix(function, "panic(") {
			list = nil
			continue
		}
		if !strings.HasPrefix(lines[i+1], "\t") || strings.HasPrefix(function, "created by ") {
			break
		}
		list = append(list, frame(function, place))
	}
	slices.Reverse(list)
	return list
}

// frame reads "module/package.function(args)" and "/path/file.go:12 +0x1d".
func frame(function, place string) sentry.Frame {
	if open := strings.LastIndexByte(function, '('); open > 0 {
		function = function[:open]
	}
	path, rest, _ := strings.Cut(place, ".go:")
	number, _, _ := strings.Cut(rest, " ")
	line, _ := strconv.Atoi(number)
	dot := strings.IndexByte(function[strings.LastIndexByte(function, '/')+1:], '.') + strings.LastIndexByte(function, '/') + 1
	return sentry.Frame{
		Module: function[:max(0, dot)], Function: function[min(len(function), dot+1):], AbsPath: path + ".go", Lineno: line,
		InApp: !strings.HasPrefix(function, "runtime.") && !strings.HasPrefix(function, "net/http."),
	}
}

// panicPlace is where a panic happened.
func panicPlace(stack []byte) string {
	if list := frames(stack); len(list) > 0 {
		last := list[len(list)-1]
		return last.Module + "." + last.Function
	}
	return ""
}
