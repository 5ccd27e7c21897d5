package proxy

import (
	"io"
	"net/http"
	"strings"
)

// roundTripper sends a request to the upstream that was chosen for it.
type roundTripper struct{ p *Proxy }

// RoundTrip leaves repetition to net/http, which sends a request again only when a kept connection
// turns out to be closed: for safe methods, and also for anything with an Idempotency-Key. The second
// would let a client switch on the repetition of a POST, so the key is taken out of net/http's sight:
// it looks for the canonical name, and the same field under a lower-case map key reaches the upstream
// all the same (field names have no case, RFC 9110 section 5.1).
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	hide(r.Header, "Idempotency-Key")
	hide(r.Header, "X-Idempotency-Key")
	res, err := attemptOf(r.Context()).up.transport.RoundTrip(r)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols && len(res.Header) > 0 {
		guardTrailers(res)
	}
	return res, err
}

func hide(h http.Header, name string) {
	if values, found := h[name]; found {
		delete(h, name)
		h[strings.ToLower(name)] = values
	}
}

// guardTrailers lets only announced trailers pass, and none that would frame, route or authorise
// (RFC 9110 section 6.5.1).
func guardTrailers(res *http.Response) {
	announced := make(map[string]bool, len(res.Trailer))
	for name := range res.Trailer {
		if !forbiddenTrailers[name] {
			announced[name] = true
		} else {
			delete(res.Trailer, name)
		}
	}
	res.Body = &trailerBody{ReadCloser: res.Body, res: res, announced: announced}
}

var forbiddenTrailers = map[string]bool{
	"Transfer-Encoding": true, "Content-Length": true, "Host": true, "Trailer": true,
	"Authorization": true, "Set-Cookie": true, "Content-Encoding": true, "Content-Type": true,
	"Content-Range": true, "Te": true, "Connection": true, "Location": true, "Www-Authenticate": true,
}

type trailerBody struct {
	io.ReadCloser
	res       *http.Response
	announced map[string]bool
}

// Read removes at the end what was not announced; the trailers are known only then.
func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.res.Trailer {
			if !b.announced[name] {
				delete(b.res.Trailer, name)
			}
		}
	}
	return n, err
}
