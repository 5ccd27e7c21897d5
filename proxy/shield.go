package proxy

import (
	"net/http"
	"time"
)

// The shield: what one upstream fails, another answers. It is for two versions of one service, where the
// old one can do what the new one cannot; so it asks another upstream, at once, and never the same again.

// shield makes the attempt one at another upstream, if what came of the first may be hidden from the
// client and there is another. The first upstream is charged with its failure all the same.
func (p *Proxy) shield(a *attempt, res *http.Response, err error) bool {
	if p.cfg.Shield == nil || !a.mayHide(res, err) {
		return false
	}
	o := a.outcome(Outcome{Hidden: true, Err: err})
	if err == nil {
		o.Status = res.StatusCode
	} else {
		o.Reason = reasonOf(a.in.Context(), err)
	}
	spare := p.cfg.Shield(a.in, o)
	if spare == nil {
		return false
	}
	leave, _, ok := spare.breaker.allow(time.Now())
	if !ok {
		return false
	}
	if err == nil {
		_ = res.Body.Close()
		a.up.breaker.record(a.pass, time.Now(), false)
	} else {
		p.failed(a, err)
	}
	p.seen(a.in, o)
	spare.budget.earn()
	a.up, a.pass, a.shielded, a.retried, a.started = spare, leave, true, false, time.Now()
	return true
}

// mayHide says whether the client has seen nothing of the failure and repeating the request does no harm.
func (a *attempt) mayHide(res *http.Response, err error) bool {
	switch {
	case a.shielded, a.body != nil, a.upgrade != "", a.in.Method != http.MethodGet && a.in.Method != http.MethodHead:
		return false
	case err == nil && isGood(res.StatusCode), a.in.Context().Err() != nil:
		return false
	}
	return a.interim.silent()
}

// address directs a request, already written for one upstream, to the attempt's.
func (p *Proxy) address(a *attempt, r *http.Request) {
	r.URL.Scheme, r.URL.Host, r.Host = a.up.url.Scheme, a.up.url.Host, a.up.url.Host
	if p.cfg.SetHeaders != nil {
		p.cfg.SetHeaders(a.in, r.Header) // again: less time is left
	}
}
