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
	var d Decision
	err := l.decide(r.Context(), &c, true, &d)
	return l.answer(w, r, c.Arrived, &d, err, true)
}

// Look answers 429 if an address has no budget left, and otherwise does nothing. It stands before
// the verification of an unknown token, so that forged ones cost no cryptography.
func (l *Limiter) Look(w http.ResponseWriter, r *http.Request, addr netip.Addr) bool {
	d, err := l.Peek(r.Context(), addr)
	return l.answer(w, r, time.Time{}, &d, err, !d.Allowed)
}

func (l *Limiter) answer(w http.ResponseWriter, r *http.Request, arrived time.Time, d *Decision, err error, headers bool) bool {
	if l.cfg.Seen != nil && (headers || err != nil) {
		l.cfg.Seen(r, *d)
	}
	if err != nil {
		problem.Write(w, r, problem.Reduced.After(time.Second))
		return false
	}
	if headers {
		setHeaders(w, d, arrived)
	}
	if d.Allowed {
		return true
	}
	problem.Write(w, r, refusal(d))
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
// as seconds since 1970. A response that has a place for them (a method SetHeaders(names, values
// []string)) takes them as they are.
func setHeaders(w http.ResponseWriter, d *Decision, now time.Time) {
	if now.IsZero() {
		now = time.Now()
	}
	if d.Mode != Shared {
		w.Header().Set("X-Gantry-Ratelimit-Mode", d.Mode.String())
	}
	q, ok := d.Binding()
	if !ok {
		return
	}
	values := render(&q, now)
	if place, ok := w.(interface{ SetHeaders(names, values []string) }); ok {
		place.SetHeaders(rateHeaders[:], values[:])
		return
	}
	for i, name := range rateHeaders {
		w.Header()[name] = values[i : i+1 : i+1]
	}
}

// render returns the values of rateHeaders. All are parts of one string: the older ones repeat numbers
// of the newer.
func render(q *Quota, now time.Time) *[5]string {
	var buf [128]byte
	window, reset := int64(q.Rate.Window/time.Second), seconds(q.Reset)
	b, limit, limitEnd := appendItem(buf[:0], q.Policy, ";q=", int64(q.Rate.Limit), ";w=", window)
	quota := len(b)
	b, left, leftEnd := appendItem(b, q.Policy, ";r=", int64(q.Remaining), ";t=", min(reset, window))
	at := len(b)
	text := string(strconv.AppendInt(b, now.Unix()+reset, 10))
	return &[5]string{text[:quota], text[quota:at], text[limit:limitEnd], text[left:leftEnd], text[at:]}
}

// appendItem appends name with two parameters, and says where the value of the first one stands.
func appendItem(b []byte, name, key1 string, value1 int64, key2 string, value2 int64) (item []byte, from, to int) {
	b = append(append(append(append(b, '"'), name...), '"'), key1...)
	from = len(b)
	b = strconv.AppendInt(b, value1, 10)
	to = len(b)
	return strconv.AppendInt(append(b, key2...), value2, 10), from, to
}

var rateHeaders = [5]string{"Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}

// seconds rounds up, so that a client which waits so long is not early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
