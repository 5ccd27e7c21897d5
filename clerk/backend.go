package clerk

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// BackendURL is where Clerk's Backend API is.
	BackendURL = "https://api.clerk.com"

	pageLimit    = 500 // https://clerk.com/docs/reference/backend-api: at most
	idsLimit     = 100 // user_id parameters in one request: at most
	maxAnswer    = 32 << 20
	attemptLimit = 30 * time.Second // one request, its body included, so that a drip ends too
	attempts     = 6
	backoffFirst = 250 * time.Millisecond
	backoffLast  = 10 * time.Second
	retryLast    = 2 * time.Minute // a longer Retry-After is a refusal
)

// Errors of the Backend API that callers branch on.
var (
	// ErrBackendKey is a secret key that Clerk does not accept.
	ErrBackendKey = errors.New("Clerk does not accept the secret key")
	// ErrBackend is an API that could not be asked, though it was tried several times.
	ErrBackend = errors.New("Clerk's Backend API does not answer properly")
)

// BackendConfig says how the Backend API is reached. The zero value asks Clerk itself.
type BackendConfig struct {
	// URL is the API's; default [BackendURL]. Only https, or http on loopback.
	URL string
	// PageSize is how many users are asked for at once, 1 to 500; default 500.
	PageSize int
	// Transport makes the requests; default one of its own, without a proxy.
	Transport http.RoundTripper
}

// Backend asks Clerk's Backend API. It keeps to a fifth of what Clerk allows, 200 requests in ten
// seconds for a live instance and 20 for a test one, so that the application's own calls have the rest
// (https://clerk.com/docs/guides/how-clerk-works/system-limits). It is used by one goroutine at a time.
type Backend struct {
	secret   string
	base     string
	pageSize int
	client   *http.Client
	every    time.Duration // between requests
	last     time.Time     // when the last one began
}

// NewBackend returns a client that uses a secret key. The key is sent to cfg.URL and nowhere else: no
// redirect is followed.
func NewBackend(secretKey string, cfg BackendConfig) (*Backend, error) {
	test, err := ParseSecretKey(secretKey)
	base, urlErr := backendURL(cfg.URL)
	if cfg.PageSize == 0 {
		cfg.PageSize = pageLimit
	}
	if cfg.PageSize < 1 || cfg.PageSize > pageLimit {
		err = errors.Join(err, fmt.Errorf("PageSize is not between 1 and %d", pageLimit))
	}
	if err := errors.Join(err, urlErr); err != nil {
		return nil, err
	}
	b := &Backend{secret: secretKey, base: base, pageSize: cfg.PageSize, every: 50 * time.Millisecond, client: backendClient(cfg.Transport)}
	if test {
		b.every = 500 * time.Millisecond
	}
	return b, nil
}

// backendURL refuses to send a secret in the clear.
func backendURL(address string) (string, error) {
	if address == "" {
		return BackendURL, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return "", errors.New("URL is not an address such as " + BackendURL)
	}
	addr := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || addr != nil && addr.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return "", errors.New("URL is not https: the secret key would be sent in the clear")
	}
	return u.Scheme + "://" + u.Host, nil
}

func backendClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:    5 * time.Second,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close gives up idle connections.
func (b *Backend) Close() { b.client.CloseIdleConnections() }

// String does not show the key.
func (b *Backend) String() string { return "Clerk's Backend API at " + b.base }

// GoString does not either.
func (b *Backend) GoString() string { return b.String() }

// page returns up to limit users from offset on, the oldest first.
func (b *Backend) page(ctx context.Context, limit, offset int) ([]User, error) {
	return b.users(ctx, url.Values{
		"limit": {strconv.Itoa(limit)}, "offset": {strconv.Itoa(offset)}, "order_by": {"+created_at"},
	})
}

// byID returns those of at most 100 users that exist.
func (b *Backend) byID(ctx context.Context, ids []string) ([]User, error) {
	return b.users(ctx, url.Values{"limit": {strconv.Itoa(idsLimit)}, "user_id": ids})
}

func (b *Backend) users(ctx context.Context, query url.Values) ([]User, error) {
	var list []wireUser
	if err := b.get(ctx, "/v1/users?"+query.Encode(), &list); err != nil {
		return nil, err
	}
	out := make([]User, 0, len(list))
	for _, w := range list {
		u := w.user()
		if !isID(u.ID) || u.UpdatedAt.IsZero() {
			return nil, fmt.Errorf("%w: a user without id or time of change", ErrBackend)
		}
		out = append(out, u)
	}
	return out, nil
}

// count returns how many users there are.
func (b *Backend) count(ctx context.Context) (int, error) {
	var answer struct {
		Total *int `json:"total_count"`
	}
	if err := b.get(ctx, "/v1/users/count", &answer); err != nil {
		return 0, err
	}
	if answer.Total == nil || *answer.Total < 0 {
		return 0, fmt.Errorf("%w: a count without a number", ErrBackend)
	}
	return *answer.Total, nil
}

// get reads one document, and tries again what may go better the next time.
func (b *Backend) get(ctx context.Context, path string, into any) error {
	var err error
	for n := range attempts {
		if err := b.pace(ctx); err != nil {
			return err
		}
		var again bool
		var wait time.Duration
		if again, wait, err = b.once(ctx, path, into); err == nil || !again {
			return err
		}
		if n == attempts-1 {
			break
		}
		if err := sleep(ctx, max(wait, backoff(n))); err != nil {
			return err
		}
	}
	return fmt.Errorf("tried %d times: %w", attempts, err)
}

// pace waits until the next request may begin.
func (b *Backend) pace(ctx context.Context) error {
	err := sleep(ctx, b.every-time.Since(b.last))
	b.last = time.Now()
	return err
}

// once makes one request. again says that another may succeed, after wait at the earliest.
func (b *Backend) once(ctx context.Context, path string, into any) (again bool, wait time.Duration, err error) {
	limited, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, b.base+path, nil)
	if err != nil {
		return false, 0, fmt.Errorf("%w: %w", ErrBackend, err)
	}
	request.Header.Set("Authorization", "Bearer "+b.secret)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "gantry")
	response, err := b.client.Do(request)
	if err != nil {
		return ctx.Err() == nil, 0, errors.Join(ctx.Err(), fmt.Errorf("%w: %w", ErrBackend, err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refused(response)
	}
	return b.read(ctx, response.Body, into)
}

// refused sorts out the statuses.
func refused(response *http.Response) (again bool, wait time.Duration, err error) {
	status := response.StatusCode
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return false, 0, fmt.Errorf("%w (HTTP status %d)", ErrBackendKey, status)
	case status == http.StatusTooManyRequests || status >= 500:
		wait = retryAfter(response.Header)
		return wait <= retryLast, wait, fmt.Errorf("%w: HTTP status %d", ErrBackend, status)
	}
	return false, 0, fmt.Errorf("%w: HTTP status %d", ErrBackend, status)
}

func (b *Backend) read(ctx context.Context, body io.Reader, into any) (again bool, wait time.Duration, err error) {
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return ctx.Err() == nil, 0, errors.Join(ctx.Err(), fmt.Errorf("%w: %w", ErrBackend, err))
	case len(text) > maxAnswer:
		return false, 0, fmt.Errorf("%w: more than %d bytes", ErrBackend, maxAnswer)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return true, 0, fmt.Errorf("%w: not the JSON it should be", ErrBackend) // err would show what there is instead
	}
	return false, 0, nil
}

// retryAfter reads seconds; Clerk sends no dates (RFC 9110 section 10.2.3 has both).
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.ParseInt(header.Get("Retry-After"), 10, 32)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// backoff is a random part of a time that doubles, but at least half of it.
func backoff(n int) time.Duration {
	whole := min(backoffFirst<<n, backoffLast)
	return whole/2 + rand.N(whole/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
