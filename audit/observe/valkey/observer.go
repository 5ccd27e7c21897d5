package valkey

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/gantryhq/gantry/audit/observe"
)

const (
	clientName     = "gantry-audit"
	connectTimeout = 5 * time.Second
	answerTimeout  = 3 * time.Second
)

// Commands is the name of the one capability: INFO.
const Commands = "commands"

var (
	// ErrBusy says that a window is open: what happens belongs to one window at a time.
	ErrBusy = errors.New("observe valkey: a window is open; end it first")
	// ErrClosed says that the Observer is closed, or the window has ended.
	ErrClosed = errors.New("observe valkey: the observer is closed or the window has ended; begin a new one")
)

// Observer is a connection to the audited API's Valkey or Redis. Its methods may be called from any goroutine.
type Observer struct {
	client   valkeygo.Client
	where    string
	password string
	dials    atomic.Int64

	mu     sync.Mutex // held for a reading, and guards what follows
	asked  int64      // INFOs so far
	window *Window
	closed bool

	capability observe.Capability
}

// Open connects to redis://, rediss:// (TLS), valkey:// or valkeys://USER:PASSWORD@HOST:6379, or unix://PATH, within 5 s, and
// finds out whether INFO is allowed. Of a cluster it sees the one node. An error names the server, never the password.
// Close the Observer when done.
func Open(ctx context.Context, url string) (*Observer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("observe valkey: %w", err)
	}
	option, err := valkeygo.ParseURL(url)
	if err != nil {
		// The cause may quote the password.
		return nil, errors.New("observe valkey: the URL cannot be read; it looks like redis://USER:PASSWORD@HOST:6379, " +
			"or rediss:// for TLS, with characters such as # / ? @ % in the password percent-encoded")
	}
	o := &Observer{where: option.InitAddress[0], password: option.Password}
	if o.client, err = valkeygo.NewClient(o.own(option)); err != nil {
		return nil, o.fault("connect", err)
	}
	if err := o.discover(ctx); err != nil {
		o.client.Close()
		return nil, err
	}
	return o, nil
}

// own makes the client one connection that sends nothing by itself: no repetition, no cache and no PING.
func (o *Observer) own(option valkeygo.ClientOption) valkeygo.ClientOption {
	option.InitAddress = option.InitAddress[:1]
	option.Sentinel, option.ForceSingleClient, option.PipelineMultiplex = valkeygo.SentinelOption{}, true, -1
	option.ClientName, option.ClientSetInfo = clientName, valkeygo.DisableClientSetInfo
	option.DisableRetry, option.DisableCache = true, true
	option.Dialer.Timeout, option.Dialer.KeepAlive, option.ConnWriteTimeout = connectTimeout, -1, answerTimeout
	dial := option.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	option.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		o.dials.Add(1)
		return dial(ctx, address, d, t)
	}
	return option
}

func dialTCP(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
}

// discover reads once. A user that may not is a capability that is missing; anything else is an error.
func (o *Observer) discover(ctx context.Context) error {
	o.capability = observe.Capability{Name: Commands, Available: true}
	r, err := o.read(ctx)
	switch {
	case err == nil && !r.stats:
		o.capability = observe.Capability{
			Name: Commands, Why: "INFO has no statistics of commands",
			Fix: "give the address of the server itself, not of a proxy",
		}
	case err != nil && strings.Contains(err.Error(), "NOPERM"):
		o.capability = observe.Capability{Name: Commands, Why: "the user may not run INFO", Fix: "ACL SETUSER <the user of the URL> +info"}
	case err != nil:
		return o.fault("INFO", err)
	}
	return nil
}

// Capabilities is the one thing that can or cannot be seen, and what to do about the latter.
func (o *Observer) Capabilities() []observe.Capability {
	return []observe.Capability{o.capability}
}

// Close ends the connection, and a window that is open. It may be called more than once, and returns nil.
func (o *Observer) Close(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.client.Close()
	}
	o.closed, o.window = true, nil
	return nil
}

func (o *Observer) read(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	text, err := o.client.Do(ctx, o.client.B().Info().Section("all").Build()).ToString()
	if err != nil {
		return reading{}, err
	}
	o.asked++ // an INFO does not count itself yet
	r := parse(text)
	r.asked, r.dials = o.asked, o.dials.Load()
	return r, nil
}

// fault is an error of the driver, in our words and without the password.
func (o *Observer) fault(doing string, err error) error {
	text := observe.Redact(err, o.password)
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			return fmt.Errorf("observe valkey: %s: %s: %s: %w", o.where, doing, text, ended)
		}
	}
	return fmt.Errorf("observe valkey: %s: %s: %s", o.where, doing, text)
}
