package probes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gantryhq/gantry/audit"
)

// answer is how a target took a request that it must refuse.
type answer int

const (
	unclear answer = iota // none of those below
	refused
	served // like the valid credential
	broken // an error of the server, or no answer
)

// classify an answer on the calibrated path. A 404 is a refusal only where garbage gets one too: to a token with
// another sub it may well mean that the token was believed and the user not found.
func classify(s *audit.Session, x *audit.Exchange) answer {
	switch {
	case s.Accepted(x):
		return served
	case likeRefusal(s, x):
		return refused
	case x.Status == 0 || x.Status >= 500:
		return broken
	case x.Status == http.StatusNotFound, x.Status == http.StatusTooManyRequests, x.Status == http.StatusRequestTimeout:
		return unclear
	case x.Status >= 400:
		return refused
	}
	return unclear
}

// alike is the similarity from which two answers count as equivalent, as in the engine's own oracle.
const alike = 0.9

func like(x, y *audit.Exchange) bool {
	return x != nil && y != nil && x.Status != 0 && x.Shape().Similarity(y.Shape()) >= alike
}

// likeRefusal says whether x is what garbage or no credential gets, on a target that tells them from a valid one.
func likeRefusal(s *audit.Session, x *audit.Exchange) bool {
	c := s.Calibration()
	return c.Tells && (like(x, c.Garbage) || like(x, c.Missing))
}

// tally is what came of a list of attempts. Sending ends at the first that was served.
type tally struct {
	sent, failed, odd       int // failed counts broken answers, odd unclear ones
	last                    *audit.Exchange
	served, broken, unclear *audit.Exchange // the first of each
	flickered               bool            // what was served once was not served again
}

// answerTo sends r, and twice more while the connection is cut without an answer. A server that does not read all of what is
// too long for it (gunicorn, a long URL or header) resets the connection now and then before the client has read the 400,
// and one that restarts a worker loses a request: neither says anything about r.
func answerTo(ctx context.Context, s *audit.Session, r audit.Request) (*audit.Exchange, error) {
	x, err := s.Do(ctx, r)
	for again := 0; again < 2 && err == nil && x.Status == 0 && !x.TimedOut(); again++ {
		x, err = s.Do(ctx, r)
	}
	return x, err
}

// attempt sends each request. One that is served is sent again, with the valid token accepted in between.
func attempt(ctx context.Context, s *audit.Session, list []audit.Request) (tally, error) {
	var t tally
	for _, r := range list {
		x, err := answerTo(ctx, s, r)
		if err != nil {
			return t, err
		}
		t.sent++
		t.last = x
		switch classify(s, x) {
		case served:
			again, err := s.Repeats(ctx, r, s.Accepted)
			t.served, t.flickered = x, !again
			return t, err
		case broken:
			t.failed++
			keep(&t.broken, x)
		case unclear:
			t.odd++
			keep(&t.unclear, x)
		}
	}
	return t, nil
}

func keep(first **audit.Exchange, x *audit.Exchange) {
	if *first == nil {
		*first = x
	}
}

// verdict on attempts of which every one must be refused. noun names them: "forged tokens".
func (t tally) verdict(ctx context.Context, s *audit.Session, noun string) (audit.Verdict, error) {
	c := s.Calibration()
	switch {
	case t.served != nil && t.flickered:
		return audit.Unproven("accepted once and not again: %s", t.served.Request.Label).With(t.served), nil
	case t.served != nil:
		return audit.Failed("accepted like the valid token: %s", t.served.Request.Label).With(t.served, c.Valid, c.Garbage), nil
	case t.unclear != nil:
		return audit.Unproven("%d of %d %s were neither accepted nor plainly refused, such as %s", t.odd, t.sent, noun, t.unclear).
			With(t.unclear, c.Valid, c.Garbage), nil
	case t.broken != nil:
		return t.steady(ctx, s, noun)
	case t.last == nil:
		return audit.Unproven("nothing was sent"), nil
	}
	return audit.Passed("%d %s refused", t.sent, noun).With(t.last), nil
}

// steady tells a verifier that breaks on a token, which refuses it too, from a target that is down.
func (t tally) steady(ctx context.Context, s *audit.Session, noun string) (audit.Verdict, error) {
	again, err := s.Repeats(ctx, t.broken.Request, func(x *audit.Exchange) bool { return classify(s, x) == broken })
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("%d of %d %s met an error that did not come again: %s", t.failed, t.sent, noun, t.broken).With(t.broken), nil
	}
	return audit.Passed("%d %s refused, %d of them with an error of the server: %s", t.sent, noun, t.failed, t.broken).With(t.broken), nil
}

// forgery is a token that no issuer made, and what is wrong with it.
type forgery struct{ label, token string }

// forgeries sends each on the calibrated path; all must be refused.
func forgeries(ctx context.Context, s *audit.Session, list []forgery) (audit.Verdict, error) {
	t, err := attempt(ctx, s, bearers(s, list))
	if err != nil {
		return audit.Verdict{}, err
	}
	return t.verdict(ctx, s, "forged tokens")
}

func bearers(s *audit.Session, list []forgery) []audit.Request {
	var requests []audit.Request
	for _, f := range list {
		requests = append(requests, audit.Request{Path: s.Calibration().Path, Token: f.token, Label: f.label})
	}
	return requests
}

// saysError says whether a 2xx answer's JSON body calls itself an error, as some APIs do.
func saysError(x *audit.Exchange) bool {
	var body map[string]any
	if json.NewDecoder(bytes.NewReader(x.Body)).Decode(&body) != nil {
		return false
	}
	for _, name := range []string{"error", "errors", "error_code", "errorCode", "exception"} {
		if v, there := body[name]; there && v != nil && v != false && fmt.Sprint(v) != "[]" && v != "" {
			return true
		}
	}
	return body["ok"] == false || body["success"] == false
}
