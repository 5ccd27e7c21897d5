package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gantryhq/gantry/internal/config"
)

// adminFlags say where a running door's admin port is.
type adminFlags struct {
	src *config.Sources
	url string
}

func addAdminFlags(fs *flag.FlagSet, p Process) *adminFlags {
	f := &adminFlags{src: sources(fs, p)}
	fs.StringVar(&f.url, "admin", "", "address of the door's admin port (default http:// and ADMIN_LISTEN, http://127.0.0.1:9000)")
	return f
}

// adminClient talks to the admin port of a running door.
type adminClient struct {
	base   *url.URL
	token  config.Secret
	client *http.Client
}

// client reads ADMIN_LISTEN and ADMIN_TOKEN as serve does. That another setting is wrong is no matter here.
func (f *adminFlags) client() (*adminClient, error) {
	cfg, _ := config.Load(*f.src)
	address := f.url
	if address == "" {
		address = "http://" + dialable(cfg.AdminListen)
	}
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" {
		return nil, errors.New("--admin is no address such as http://127.0.0.1:9000")
	}
	return &adminClient{base: base, token: cfg.AdminToken, client: &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this address
	}}, nil
}

// dialable is where to reach what listens on address.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch host {
	case "", "0.0.0.0", "::":
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

const maxAdminAnswer = 8 << 20 // bytes

// do sends in, if not nil, as JSON, and reads the answer into out, if not nil. segments are escaped.
func (a *adminClient) do(ctx context.Context, method string, in, out any, segments ...string) error {
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return a.send(ctx, method, in, out, a.base.JoinPath(segments...))
}

// query reads the answer to a question with parameters into out.
func (a *adminClient) query(ctx context.Context, out any, parameters string, segments ...string) error {
	at := a.base.JoinPath(segments...)
	at.RawQuery = parameters
	return a.send(ctx, http.MethodGet, nil, out, at)
}

func (a *adminClient) send(ctx context.Context, method string, in, out any, at *url.URL) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !a.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+a.token.Reveal())
	}
	res, err := a.client.Do(req)
	if err != nil {
		return a.unreachable(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAdminAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	case res.StatusCode/100 != 2:
		return a.refused(res, text)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s is no door of this version: %w", a.base.Host, err)
	}
	return nil
}

func (a *adminClient) unreachable(err error) error {
	var whole *url.Error
	if errors.As(err, &whole) {
		err = whole.Err
	}
	return fmt.Errorf("no door answers at %s (%w); is gantry serve running? --admin says where its admin port is", a.base, err)
}

// refused tells a problem in its own words (RFC 9457).
func (a *adminClient) refused(res *http.Response, text []byte) error {
	if res.StatusCode == http.StatusUnauthorized {
		return errors.New("the door asks for its ADMIN_TOKEN: set it in the environment, or in .env")
	}
	var p struct {
		Title, Detail string
		Errors        []struct{ Detail string }
	}
	if json.Unmarshal(text, &p) != nil || p.Title == "" {
		return fmt.Errorf("the door answered %s", res.Status)
	}
	said := cmp.Or(p.Detail, p.Title)
	if len(p.Errors) > 0 {
		said = p.Errors[0].Detail
	}
	return errors.New(lowerFirst(strings.TrimSuffix(said, ".")))
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
