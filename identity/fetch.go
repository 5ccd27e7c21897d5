package identity

import (
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

const (
	connectTimeout = 2 * time.Second
	fetchTimeout   = 5 * time.Second // for everything, so that a slow drip ends too
	maxDocument    = 256 << 10       // bytes
	discoveryTTL   = time.Hour

	refreshDefault = 10 * time.Minute
	refreshMin     = 5 * time.Minute
	refreshMax     = time.Hour
)

// fetchError is a failed fetch. kind is one of a few fixed words for status pages and metrics.
type fetchError struct {
	kind  string
	cause error
}

func (e *fetchError) Error() string { return e.kind + ": " + e.cause.Error() }
func (e *fetchError) Unwrap() error { return e.cause }

// fetcher reads one issuer's keys over the network. It is used by one goroutine at a time.
type fetcher struct {
	client     *http.Client
	issuer     Issuer
	now        func() time.Time
	found      string    // the JWKS URL that discovery gave
	discovered time.Time // when
}

// harden wraps transport in a client that goes where it was told and nowhere else: no redirects
// (they would let whoever controls one path choose the keys), no cookies. Without a transport of
// the caller's there is no proxy either, and no connection is kept, since the next use is minutes
// away.
func harden(transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:    connectTimeout,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 32 << 10,
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// keys fetches the set, and says after how long it should be fetched again.
func (f *fetcher) keys(ctx context.Context) (*keySet, []skip, time.Duration, error) {
	address, err := f.address(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	text, header, err := f.get(ctx, address)
	if err != nil {
		f.found = "" // perhaps the keys have moved: ask discovery again
		return nil, nil, 0, err
	}
	set, skipped, err := parseKeySet(text, f.issuer.algorithms())
	if err != nil {
		f.found = ""
		return nil, skipped, 0, &fetchError{kind: "bad-keys", cause: err}
	}
	return set, skipped, refreshAfter(header), nil
}

// address returns where the keys are: from the configuration, by Clerk's convention or by
// discovery. Nothing a token says has any part in it.
func (f *fetcher) address(ctx context.Context) (string, error) {
	switch {
	case f.issuer.JWKSURL != "":
		return f.issuer.JWKSURL, nil
	case f.issuer.Profile == Clerk:
		return f.issuer.wellKnown("jwks.json"), nil
	case f.found != "" && f.now().Sub(f.discovered).Abs() < discoveryTTL:
		return f.found, nil
	}
	found, err := f.discover(ctx)
	if err != nil {
		return "", err
	}
	f.found, f.discovered = found, f.now()
	return found, nil
}

// discover reads jwks_uri from the issuer's metadata, which must name the very issuer that was
// configured (OpenID Connect Discovery 1.0 section 4.3).
func (f *fetcher) discover(ctx context.Context) (string, error) {
	text, _, err := f.get(ctx, f.issuer.wellKnown("openid-configuration"))
	if err != nil {
		return "", err
	}
	document, err := parseObject(text, maxKeyDepth)
	if err != nil {
		return "", &fetchError{kind: "bad-discovery", cause: err}
	}
	if document.text("issuer") != f.issuer.URL {
		return "", &fetchError{kind: "bad-discovery", cause: errors.New("the document is another issuer's")}
	}
	address := document.text("jwks_uri")
	if err := f.checkKeyURL(address); err != nil {
		return "", &fetchError{kind: "bad-discovery", cause: fmt.Errorf("jwks_uri %w", err)}
	}
	return address, nil
}

// checkKeyURL allows http only to an issuer that itself is http, hence on loopback. A query is
// allowed here: some issuers select the tenant by one.
func (f *fetcher) checkKeyURL(address string) error {
	bare, _, _ := strings.Cut(address, "?")
	if err := checkURL(bare); err != nil {
		return err
	}
	if strings.HasPrefix(f.issuer.URL, "https:") && !strings.HasPrefix(address, "https:") {
		return errors.New("must be https")
	}
	return nil
}

// get reads one document of at most 256 KiB; any status but 200 is an error.
func (f *fetcher) get(ctx context.Context, address string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, &fetchError{kind: "bad-url", cause: err}
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	request.Header.Set("User-Agent", "gantry")
	response, err := f.client.Do(request)
	if err != nil {
		return nil, nil, networkError(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, &fetchError{kind: "bad-status", cause: fmt.Errorf("HTTP status %d", response.StatusCode)}
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return nil, nil, networkError(err)
	}
	if len(text) > maxDocument {
		return nil, nil, &fetchError{kind: "too-large", cause: fmt.Errorf("more than %d bytes", maxDocument)}
	}
	return text, response.Header, nil
}

func networkError(err error) error {
	kind := "unreachable"
	if timeout, ok := errors.AsType[*url.Error](err); (ok && timeout.Timeout()) || errors.Is(err, context.DeadlineExceeded) {
		kind = "timeout"
	}
	return &fetchError{kind: kind, cause: err}
}

// refreshAfter obeys max-age within bounds: literal obedience to "no-cache" would mean a fetch per
// request, and a year would mean that a key cannot be revoked.
func refreshAfter(header http.Header) time.Duration {
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return refreshMin
		case "max-age":
			seconds, err := strconv.ParseInt(strings.Trim(text, `"`), 10, 32)
			if err == nil {
				return min(max(time.Duration(seconds)*time.Second, refreshMin), refreshMax)
			}
		}
	}
	return refreshDefault
}
