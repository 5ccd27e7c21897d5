package probes

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func tokenSize() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-22", Title: "Oversized token", Severity: audit.High, Mode: audit.Safe, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:        "tokens with a long claim of 7 kB, 64 kB and 1 MiB, of dots alone, and with a claim nested 10,000 deep; those that take long again, 20 of each, beside a cheap request, and the same bytes in a header that nobody reads",
			Passes:       "refused fast, and cheap requests stay within twice their time",
			Fails:        "an error of the server, no answer within 5 s, or cheap requests take more than twice as long",
			Inconclusive: "another hop than the one that answers valid requests answers with an error",
			Guard:        "stops at the first size that is refused for its size; the time to upload is allowed for; slowness counts only against the same bytes elsewhere, by median, twice and 50 ms and three times the noise, and when it is measured again",
			Knobs:        []string{"--token", "--protected-path", "--fast-path"},
			Refs:         []string{"CVE-2025-30204", "CVE-2025-27144", "CWE-770"},
			Why:          "A stranger without an account takes the API down with a header.",
			Fix:          "Cap the size of headers (8 to 16 kB) and the length of a token before parsing it.",
			Run:          oversizedToken,
		},
	}
}

const (
	hang      = 5 * time.Second
	slowToken = 100 * time.Millisecond // less than this harms nobody, at any rate that a probe may send
	nesting   = 9_999                  // arrays in an object: ten thousand in all, the most that many parsers take
)

// sized is a kind of big token, smallest first; what is stopped by its size needs no bigger one.
type sized struct {
	name   string
	sizes  []int
	tokens func(size int) string
}

func bigTokens(s *audit.Session) []sized {
	header := []byte(`{"alg":"HS256","typ":"JWT"}`)
	if t, err := s.Token(); err == nil {
		header = t.Header
	}
	signature := make([]byte, 32)
	return []sized{
		{"a long claim", []int{7 << 10, 64 << 10, 1 << 20}, func(n int) string {
			return jws.Compact(header, []byte(`{"sub":"`+strings.Repeat("a", n*3/4)+`"}`), signature)
		}},
		{"nothing but dots", []int{64 << 10, 1 << 20}, func(n int) string { return strings.Repeat(".", n) }},
		{"a claim nested 10,000 deep", []int{27 << 10}, func(int) string {
			return jws.Compact(header, []byte(`{"sub":`+strings.Repeat("[", nesting)+strings.Repeat("]", nesting)+`}`), signature)
		}},
	}
}

// bulk is what the target made of the biggest token of a kind that it read.
type bulk struct {
	label, token string
	size         int
	took         time.Duration
}

func oversizedToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	var notes []string
	var last *audit.Exchange
	for _, kind := range bigTokens(s) {
		read, note, v, err := grow(ctx, s, kind)
		if err != nil || v.Outcome == audit.Fail || v.Message != "" {
			return v, err
		}
		notes, last = append(notes, kind.name+": "+note), read.x
		if read.took < slowToken || read.took < 5*s.Calibration().Garbage.Took {
			continue
		}
		v, err = beside(ctx, s, read.bulk)
		if err != nil || v.Outcome == audit.Fail {
			return v, err
		}
		notes[len(notes)-1] += "; " + v.Message
	}
	return audit.Passed("%s", strings.Join(notes, "; ")).With(last), nil
}

type readBulk struct {
	bulk
	x *audit.Exchange
}

// grow sends one kind, bigger each time. It ends with a verdict when the target breaks, else with what was read last.
func grow(ctx context.Context, s *audit.Session, kind sized) (r readBulk, note string, v audit.Verdict, err error) {
	patience := hang
	for _, size := range kind.sizes {
		label := fmt.Sprintf("%s, %d kB", kind.name, size>>10)
		req := audit.Request{Path: s.Calibration().Path, Token: kind.tokens(size), Label: label, Timeout: patience}
		x, err := s.Do(ctx, req)
		if err != nil {
			return r, "", v, err
		}
		r.x = x
		if x.TimedOut() || x.Status >= 500 {
			v, err := breaks(ctx, s, req, x)
			return r, "", v, err
		}
		if x.Status == 0 { // a server may close the door on a header that it will not read
			if err := s.Control(ctx); err != nil {
				return r, "", v, fmt.Errorf("after %s: %w", label, err)
			}
		}
		if forSize(s, x) {
			return r, fmt.Sprintf("%d kB are refused for their size (%s)", size>>10, verdictOf(x)), v, nil
		}
		r.bulk = bulk{label, req.Token, size, x.Took}
		patience = hang + 16*x.Took // the next is sixteen times as much to upload
	}
	return r, fmt.Sprintf("%d kB are read and answered %d in %s", r.size>>10, r.x.Status, r.took.Round(time.Millisecond)), v, nil
}

func verdictOf(x *audit.Exchange) string {
	if x.Status == 0 {
		return "connection closed"
	}
	return fmt.Sprint(x.Status)
}

// forSize says whether the answer is about the size of the request, not about the token.
func forSize(s *audit.Session, x *audit.Exchange) bool {
	switch x.Status {
	case 0, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return true
	case http.StatusBadRequest:
		return !like(x, s.Calibration().Garbage)
	}
	return false
}

// breaks confirms an error or a hang, with the valid token in between.
func breaks(ctx context.Context, s *audit.Session, r audit.Request, x *audit.Exchange) (audit.Verdict, error) {
	if server, own := x.Header.Get("Server"), s.Calibration().Valid.Header.Get("Server"); server != "" && server != own {
		return audit.Unproven("%s is answered %d by another hop (%q) than the one that answers valid requests", r.Label, x.Status, server).With(x), nil
	}
	hung := x.TimedOut()
	again, err := s.Repeats(ctx, r, func(x *audit.Exchange) bool { return x.TimedOut() == hung && (hung || x.Status >= 500) })
	switch {
	case err != nil:
		return audit.Verdict{}, fmt.Errorf("after %s: %w", r.Label, err)
	case !again:
		return audit.Unproven("%s broke the target once and not again (%s)", r.Label, x).With(x), nil
	case hung:
		return audit.Failed("%s gets no answer within %s", r.Label, r.Timeout.Round(time.Second)).With(x), nil
	}
	return audit.Failed("%s is answered %d", r.Label, x.Status).With(x), nil
}

// beside measures whether a cheap request suffers while big tokens are being read, twice before it says so. A distant
// target is spared the megabyte, whose upload alone would be in the way.
func beside(ctx context.Context, s *audit.Session, b bulk) (audit.Verdict, error) {
	if b.size > 64<<10 && !s.Target().Local() {
		return audit.Passed("its effect on other requests was not measured over this distance"), nil
	}
	v, err := compare(ctx, s, b)
	if err != nil || v.Outcome != audit.Fail {
		return v, err
	}
	if err := s.Control(ctx); err != nil {
		return audit.Verdict{}, err
	}
	return compare(ctx, s, b)
}

// compare takes the time of a cheap request beside two big tokens, and beside the same two with the token in a header that
// nobody reads: what remains is the work on the token, without the bytes and without whatever else keeps the machines busy.
func compare(ctx context.Context, s *audit.Session, b bulk) (audit.Verdict, error) {
	token := audit.Request{Path: s.Calibration().Path, Token: b.token, Label: b.label}
	inert := audit.Request{Path: token.Path, Header: audit.Header("X-Gantry-Padding", b.token), Label: b.label + ", as padding"}
	var control, crowded []time.Duration
	var example *audit.Exchange
	for range 10 {
		for _, kind := range []struct {
			big  audit.Request
			into *[]time.Duration
		}{{inert, &control}, {token, &crowded}} {
			x, err := amid(ctx, s, kind.big, b.took/2)
			if err != nil {
				return audit.Verdict{}, err
			}
			if x.Status == 0 && !x.TimedOut() {
				return audit.Verdict{}, fmt.Errorf("a cheap request got no answer beside %s", b.label)
			}
			*kind.into, example = append(*kind.into, x.Took), x
		}
	}
	before, during := medianTook(control), medianTook(crowded)
	slower := during - before
	message := fmt.Sprintf("beside %s a cheap request takes %s instead of %s", b.label, rounded(during), rounded(before))
	if during > 2*before && slower > 50*time.Millisecond && slower > 3*noiseOf(control) {
		return audit.Failed("%s", message).With(example).Measured("paddingMs", before.Milliseconds()).Measured("tokenMs", during.Milliseconds()), nil
	}
	return audit.Passed("%s", message).With(example), nil
}

// amid sends a cheap request while two big ones are at work.
func amid(ctx context.Context, s *audit.Session, big audit.Request, head time.Duration) (*audit.Exchange, error) {
	var busy sync.WaitGroup
	defer busy.Wait()
	for range 2 {
		busy.Go(func() {
			// An error here is one of the run, and the next call returns it too.
			s.Unpaced(ctx, big)
		})
	}
	if err := audit.Sleep(ctx, min(head, time.Second)); err != nil {
		return nil, err
	}
	return s.Unpaced(ctx, cheapRequest(s, "cheap request, beside "+big.Label))
}

// cheapRequest is a request that costs the target next to nothing, and the valid token's quota only when a path was given.
func cheapRequest(s *audit.Session, label string) audit.Request {
	if p := s.Target().FastPath; p != "" {
		return audit.Request{Path: p, Token: s.Target().Token, Label: label}
	}
	return audit.Request{Path: s.HealthPath(), Label: label}
}

// medianTook of at least one duration.
func medianTook(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// noiseOf is the median distance from the median: a measure of noise that a single outlier does not move.
func noiseOf(list []time.Duration) time.Duration {
	middle := medianTook(list)
	var off []time.Duration
	for _, d := range list {
		off = append(off, (d - middle).Abs())
	}
	return medianTook(off)
}
