package alert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// DeliveryError is an attempt that a receiver answered, and refused.
type DeliveryError struct {
	// Status is the receiver's code: HTTP's or SMTP's.
	Status int
	// Reason is what the receiver said, in one line, without secrets.
	Reason string
	// RetryAfter is when it wants to be asked again; 0 when it did not say.
	RetryAfter time.Duration
	// Permanent says that the same message will be refused again.
	Permanent bool
}

// Error implements error.
func (e *DeliveryError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("answered %d", e.Status)
	}
	return fmt.Sprintf("answered %d: %s", e.Status, e.Reason)
}

const (
	maxAnswer = 4 << 10 // bytes of an answer that are read
	maxReason = 200     // characters of it that are told
)

// poster sends JSON to one address. The address itself can be the secret, as Slack's is, so no error tells more of it
// than its host.
type poster struct {
	client  *http.Client
	address *url.URL
	// want is the status of success; 0 means any 2xx.
	want int
	// secrets are taken out of what the receiver says.
	secrets []string
}

var errAddress = errors.New("is not an http or https address")

// newPoster sends through transport; nil means one of its own.
func newPoster(address string, transport http.RoundTripper, secrets ...string) (*poster, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, errAddress // url.Parse's own error holds the address
	}
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: 32 << 10,
			DisableKeepAlives:      true, // messages are minutes apart: a kept connection is mostly a dead one
		}
	}
	client := &http.Client{
		Transport: transport,
		// A redirect would send the message, and its signature, to whomever the receiver names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &poster{client: client, address: u, secrets: append(secrets, secretsOf(u)...)}, nil
}

// secretsOf lists the parts of an address that let others use it.
func secretsOf(u *url.URL) []string {
	list := []string{u.String(), u.RequestURI()}
	parts := strings.Split(u.EscapedPath(), "/")
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	if password, ok := u.User.Password(); ok {
		parts = append(parts, password)
	}
	for _, p := range parts {
		if len(p) >= 8 {
			list = append(list, p)
		}
	}
	return list
}

func (p *poster) post(ctx context.Context, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address.String(), bytes.NewReader(body))
	if err != nil {
		return errAddress
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "gantry")
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := p.client.Do(req)
	if err != nil {
		var whole *url.Error
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return fmt.Errorf("post to %s: %w", p.address.Host, err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // whether it arrived is in the status
	return p.judge(res, string(said))
}

// Reach dials the receiver, or the proxy on the way to it, and sends nothing.
func (p *poster) Reach(ctx context.Context) error {
	var config *tls.Config
	address := p.address
	if t, ok := p.client.Transport.(*http.Transport); ok {
		config = t.TLSClientConfig
		if t.Proxy != nil {
			if through, err := t.Proxy(&http.Request{URL: address}); err == nil && through != nil {
				address = through
			}
		}
	}
	host := net.JoinHostPort(address.Hostname(), cmp.Or(address.Port(), map[bool]string{true: "443", false: "80"}[address.Scheme == "https"]))
	var conn net.Conn
	var err error
	if address.Scheme == "https" {
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", host)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", host)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}

// judge tells success, try again and never.
func (p *poster) judge(res *http.Response, said string) error {
	if res.StatusCode == p.want || p.want == 0 && res.StatusCode/100 == 2 {
		return nil
	}
	e := &DeliveryError{Status: res.StatusCode, Reason: p.scrub(said), RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	switch {
	case res.StatusCode/100 == 3:
		e.Permanent, e.Reason = true, "a redirect, which is not followed"
	case res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooEarly, res.StatusCode == http.StatusTooManyRequests:
	case res.StatusCode/100 == 4:
		e.Permanent = true
	case res.StatusCode/100 == 2:
		e.Reason = cmp.Or(e.Reason, fmt.Sprintf("not %d", p.want))
	}
	return e
}

func (p *poster) scrub(said string) string {
	for _, s := range p.secrets {
		if len(s) > 1 {
			said = strings.ReplaceAll(said, s, "[redacted]")
		}
	}
	return clip(strings.TrimSpace(said), maxReason)
}

// retryAfter reads both forms of RFC 9110 section 10.2.3; nonsense is no wish.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
