package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/getsentry/sentry-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The protocols of OTLP.
const (
	OverGRPC = "grpc"
	OverHTTP = "http/protobuf"
)

// Export says where spans go.
type Export struct {
	// Endpoint is the whole address; its scheme http means no TLS.
	Endpoint *url.URL
	// Protocol is OverHTTP, the default, or OverGRPC.
	Protocol string
	// Headers go with each export; they are secrets.
	Headers map[string]string
	// Gzip compresses.
	Gzip bool
	// Timeout of one export, its repetitions included; default 10 s.
	Timeout time.Duration
	// TLS, if not nil, replaces the system's certificates.
	TLS *tls.Config
}

// newExporter makes the OpenTelemetry exporter. What the environment says is given as options, because
// the exporters themselves know only the process's environment and no .env file.
func newExporter(ctx context.Context, e Export) (sdk.SpanExporter, error) {
	if e.Protocol == OverGRPC {
		return otlptracegrpc.New(ctx, e.grpcOptions()...)
	}
	transport := &lastStatus{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	transport.TLSClientConfig = e.TLS
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpointURL(e.Endpoint.String()), otlptracehttp.WithHeaders(e.Headers),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: transport, Timeout: e.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers hold a key
		}),
		otlptracehttp.WithCompression(otlptracehttp.NoCompression),
	}
	if e.Gzip {
		options = append(options, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	return httpExporter{exporter, transport}, err
}

// httpExporter says which status an export failed with, and lets go of its connections at the end.
type httpExporter struct {
	*otlptrace.Exporter
	transport *lastStatus
}

// ExportSpans implements sdk.SpanExporter.
func (e httpExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.Exporter.ExportSpans(ctx, spans); err != nil {
		return &exportError{err, int(e.transport.code.Load())}
	}
	return nil
}

// Shutdown implements sdk.SpanExporter.
func (e httpExporter) Shutdown(ctx context.Context) error {
	defer e.transport.CloseIdleConnections()
	return e.Exporter.Shutdown(ctx)
}

// lastStatus remembers the status of the last answer, 0 when there was none: the exporter's errors do
// not have it.
type lastStatus struct {
	*http.Transport
	code atomic.Int32
}

// RoundTrip implements http.RoundTripper.
func (t *lastStatus) RoundTrip(r *http.Request) (*http.Response, error) {
	t.code.Store(0)
	res, err := t.Transport.RoundTrip(r)
	if err == nil {
		t.code.Store(int32(res.StatusCode))
	}
	return res, err
}

type exportError struct {
	error
	code int
}

// Unwrap implements errors.Unwrap.
func (e *exportError) Unwrap() error { return e.error }

func (e Export) grpcOptions() []otlptracegrpc.Option {
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpointURL(e.Endpoint.String()), otlptracegrpc.WithHeaders(e.Headers), otlptracegrpc.WithTimeout(e.Timeout),
	}
	if e.TLS != nil {
		options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(e.TLS)))
	}
	if e.Gzip {
		options = append(options, otlptracegrpc.WithCompressor("gzip"))
	}
	return options
}

// causeOf tells why an export failed. An answer says more than that the time for repetitions was over.
func causeOf(err error) string {
	var answer *exportError
	var dial *net.OpError
	var slow net.Error
	answered := errors.As(err, &answer) && answer.code != 0
	switch code := status.Code(err); {
	case code == codes.ResourceExhausted, answered && answer.code == http.StatusTooManyRequests:
		return causeThrottled
	case answered:
		return causeRejected
	case errors.As(err, &dial) && dial.Op == "dial", code == codes.Unavailable:
		return causeUnreachable
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded, errors.As(err, &slow) && slow.Timeout():
		return causeTimeout
	case errors.As(err, &dial):
		return causeUnreachable
	}
	return causeRejected
}

func resourceOf(ctx context.Context, attrs map[string]string) (*resource.Resource, error) {
	var list []attribute.KeyValue
	for name, value := range attrs {
		list = append(list, attribute.String(name, value))
	}
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(list...))
}

func newSpanID() (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1) // zero is no id
	return id
}

// Dial sends an empty export, which says whether the collector is there and takes the headers.
func Dial(ctx context.Context, e Export) error {
	if e.Protocol == OverGRPC {
		return e.dialGRPC(ctx)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Endpoint.String(), http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	for name, value := range e.Headers {
		r.Header.Set(name, value)
	}
	return ask(r, e.TLS, func(status int) bool { return status < 300 })
}

// DialSentry says whether the host of a DSN answers. Nothing is reported.
func DialSentry(ctx context.Context, dsn string) error {
	d, err := sentry.NewDsn(dsn)
	if err != nil {
		return errors.New("the DSN is not one")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, d.GetAPIURL().ResolveReference(&url.URL{Path: "/"}).String(), nil)
	if err != nil {
		return err
	}
	return ask(r, nil, func(int) bool { return true })
}

// ask sends a request of its own client, and wants an answer that is good.
func ask(r *http.Request, config *tls.Config, good func(status int) bool) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if !good(res.StatusCode) {
		return fmt.Errorf("%s answers %s", r.URL.Host, res.Status)
	}
	return nil
}

func (e Export) dialGRPC(ctx context.Context) error {
	secured := credentials.NewTLS(e.TLS)
	if e.Endpoint.Scheme == "http" {
		secured = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(e.Endpoint.Host, grpc.WithTransportCredentials(secured))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(e.Headers))
	_, err = collector.NewTraceServiceClient(conn).Export(ctx, new(collector.ExportTraceServiceRequest))
	return err
}
