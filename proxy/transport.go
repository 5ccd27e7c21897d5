package proxy

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
)

// roundTripper sends a request to the upstream that was chosen for it.
type roundTripper struct{ p *Proxy }

// RoundTrip sends r, and once more within the rules of retry.go.
//
// net/http repeats anything that has an Idempotency-Key, which would let a client switch on the
// repetition of a POST. So the key is taken out of its sight: it looks for the canonical name, and the
// same field under a lower-case map key reaches the upstream all the same (RFC 9110 section 5.1).
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	a := attemptOf(r.Context())
	defer a.interim.end()
	hide(r.Header, "Idempotency-Key")
	hide(r.Header, "X-Idempotency-Key")
	res, err := t.try(a, r)
	if t.p.shield(a, res, err) {
		t.p.address(a, r)
		res, err = t.try(a, r)
	}
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		t.p.guardBody(a, res)
	}
	return res, err
}

// try sends r to the attempt's upstream, and once more if that may be.
func (t roundTripper) try(a *attempt, r *http.Request) (*http.Response, error) {
	res, s, err := a.send(r, a.up.transport)
	if err != nil && a.mayRepeat(s, err, t.p.cfg.RetryIdempotent) {
		a.retried = true
		res, s, err = a.send(r, a.up.fresh)
	}
	a.unreachable = err != nil && !s.connected.Load()
	if err != nil {
		return nil, err
	}
	if err := a.acceptable(res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

// send makes one try. The context is the client's, without what ReverseProxy hung into it: that
// would relay every informational answer, whatever its number.
func (a *attempt) send(r *http.Request, transport *http.Transport) (*http.Response, *sending, error) {
	s := new(sending)
	r = r.WithContext(httptrace.WithClientTrace(a.context(), s.trace(&a.interim)))
	switch {
	case r.Body == nil:
		unrepeatable(r)
	case r.Header.Get("Expect") != "":
		r.Close = true // or net/http would send the body after a refusal, to keep the connection
	}
	res, err := transport.RoundTrip(r)
	return res, s, err
}

func hide(h http.Header, name string) {
	if values, found := h[name]; found {
		delete(h, name)
		h[strings.ToLower(name)] = values
	}
}

// guardBody lets only announced trailers pass, and none that would frame, route or authorise
// (RFC 9110 section 6.5.1), and hears when the upstream breaks off.
func (p *Proxy) guardBody(a *attempt, res *http.Response) {
	for name := range res.Trailer {
		if forbiddenTrailers[name] {
			delete(res.Trailer, name)
		}
	}
	announced := make(map[string]bool, len(res.Trailer))
	for name := range res.Trailer {
		announced[name] = true
	}
	res.Body = &answerBody{ReadCloser: res.Body, res: res, announced: announced, broke: func(err error) { p.broke(a, res.StatusCode, err) }}
}

var forbiddenTrailers = map[string]bool{
	"Transfer-Encoding": true, "Content-Length": true, "Host": true, "Trailer": true,
	"Authorization": true, "Set-Cookie": true, "Content-Encoding": true, "Content-Type": true,
	"Content-Range": true, "Te": true, "Connection": true, "Location": true, "Www-Authenticate": true,
	"Alt-Svc": true,
}

type answerBody struct {
	io.ReadCloser
	res       *http.Response
	announced map[string]bool
	broke     func(error)
}

// Read removes at the end what was not announced; the trailers are known only then.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		for name := range b.res.Trailer {
			if !b.announced[name] {
				delete(b.res.Trailer, name)
			}
		}
	default:
		b.broke(err)
		b.broke = func(error) {}
	}
	return n, err
}
