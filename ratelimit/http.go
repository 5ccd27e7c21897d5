package ratelimit

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Middleware charges every request to its caller.
func (l *Limiter) Middleware(caller func(*http.Request) Caller) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if l.Admit(w, r, caller(r)) {
				next.ServeHTTP(w, r)
			}
		})
	}
}

// Admit charges a request. It reports true with the rate headers set, or false when it has answered.
func (l *Limiter) Admit(w http.ResponseWriter, r *http.Request, c Caller) bool {
	d, err := l.Allow(r.Context(), c)
	return l.answer(w, r, d, err, true)
}

// Look answers 429 if an address has no budget left, and otherwise does nothing. It stands before
// the verification of an unknown token, so that forged ones cost no cryptography.
func (l *Limiter) Look(w http.ResponseWriter, r *http.Request, addr netip.Addr) bool {
	d, err := l.Peek(r.Context(), addr)
	return l.answer(w, r, d, err, !d.Allowed)
}

func (l *Limiter) answer(w http.ResponseWriter, r *http.Request, d Decision, err error, headers bool) bool {
	if err != nil {
		problem.Write(w, r, problem.Reduced.After(time.Second))
		return false
	}
	if l.cfg.Seen != nil && headers {
		l.cfg.Seen(r, d)
	}
	if headers {
		setHeaders(w.Header(), &d, time.Now())
	}
	if d.Allowed {
		return true
	}
	problem.Write(w, r, refusal(&d))
	return false
}

// refusal says in words what was counted; the hidden policies have a name and no number.
func refusal(d *Decision) problem.Details {
	p := problem.RateLimited.After(max(d.Wait, time.Millisecond))
	p.Violated = d.Violated()
	if q, ok := d.Binding(); ok && q.Violated {
		return p.With(fmt.Sprintf("%d requests are allowed in any %s, counted per %s.", q.Rate.Limit, inWords(q.Rate.Window), whom(q.Policy)))
	}
	return p.With("The service as a whole is at its limit.")
}

func inWords(window time.Duration) string {
	return strconv.FormatInt(int64(window/time.Second), 10) + " seconds"
}

func whom(policy string) string {
	switch policy {
	case PolicyUser:
		return "signed-in user"
	case PolicyAddress:
		return "client address, because there was no valid token"
	default:
		return "caller on this route"
	}
}

// setHeaders describes the visible quota: RateLimit and RateLimit-Policy as lists of structured
// fields (draft-ietf-httpapi-ratelimit-headers, RFC 9651), and the older X-RateLimit-* with the reset
// as seconds since 1970. All five share one string and one array.
func setHeaders(h http.Header, d *Decision, now time.Time) {
	if d.Mode != Shared {
		h.Set("X-Gantry-Ratelimit-Mode", d.Mode.String())
	}
	q, ok := d.Binding()
	if !ok {
		return
	}
	var buf [192]byte
	b := buf[:0]
	var at [6]int
	window, reset := int64(q.Rate.Window/time.Second), seconds(q.Reset)
	b = append(append(append(b, '"'), q.Policy...), `";q=`...)
	b = append(strconv.AppendInt(b, int64(q.Rate.Limit), 10), ";w="...)
	b = strconv.AppendInt(b, window, 10)
	at[1] = len(b)
	b = append(append(append(b, '"'), q.Policy...), `";r=`...)
	b = append(strconv.AppendInt(b, int64(q.Remaining), 10), ";t="...)
	b = strconv.AppendInt(b, min(reset, window), 10)
	at[2] = len(b)
	b = strconv.AppendInt(b, int64(q.Rate.Limit), 10)
	at[3] = len(b)
	b = strconv.AppendInt(b, int64(q.Remaining), 10)
	at[4] = len(b)
	b = strconv.AppendInt(b, now.Unix()+reset, 10)
	at[5] = len(b)
	text := string(b)
	values := new([5]string)
	for i, name := range rateHeaders {
		values[i] = text[at[i]:at[i+1]]
		h[name] = values[i : i+1 : i+1]
	}
}

var rateHeaders = [5]string{"Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}

// seconds rounds up, so that a client which waits so long is not early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
