package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ReceiverFault is a way for whoever receives telemetry to fail.
type ReceiverFault int

// The faults.
const (
	ReceiverHealthy ReceiverFault = iota
	ReceiverHangs                 // until the test ends, or the caller gives up
	ReceiverBusy                  // 429 with Retry-After: 30
	ReceiverFails                 // 500
)

// receiver is what a Collector and a Sentry have in common. Its methods may be called from any goroutine.
type receiver struct {
	t       testing.TB
	closed  chan struct{}
	arrived chan struct{} // gets a token whenever something was received
	mu      sync.Mutex
	fault   ReceiverFault
	raw     strings.Builder
	calls   int
}

func newReceiver(t testing.TB) receiver {
	return receiver{t: t, closed: make(chan struct{}), arrived: make(chan struct{}, 1)}
}

// Break makes everything from now on fail in one way, or succeed again.
func (r *receiver) Break(fault ReceiverFault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

// Received is all that ever arrived, headers too, as it was on the wire.
func (r *receiver) Received() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.raw.String()
}

// Calls is how often something arrived, whatever the answer was.
func (r *receiver) Calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// take notes what arrived and says how to answer.
func (r *receiver) take(headers any, body []byte) ReceiverFault {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.tell()
	r.calls++
	fmt.Fprintf(&r.raw, "%v\n%s\n", headers, body)
	return r.fault
}

func (r *receiver) tell() {
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// Until waits for something to arrive that makes ok true; it fails the test after 20 seconds.
func (r *receiver) Until(ok func() bool) {
	r.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-r.arrived:
		case <-limit.C:
			r.t.Fatalf("it did not arrive; received:\n%q", r.Received())
		}
	}
}

// hang waits as long as the caller has patience.
func (r *receiver) hang(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.closed:
	}
}

// answer fails an HTTP call, and reports whether it did.
func (r *receiver) answer(w http.ResponseWriter, q *http.Request, fault ReceiverFault) bool {
	switch fault {
	case ReceiverHangs:
		r.hang(q.Context())
		panic(http.ErrAbortHandler)
	case ReceiverBusy:
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
	case ReceiverFails:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		return false
	}
	return true
}

const maxReceived = 8 << 20

func readReceived(t testing.TB, q *http.Request) []byte {
	body, err := io.ReadAll(io.LimitReader(q.Body, maxReceived))
	if err != nil {
		t.Logf("receiver: %v", err) // the sender gave up
	}
	return body
}

// Collector receives traces by OTLP, over HTTP at one address and gRPC at another.
type Collector struct {
	receiver
	// HTTP and GRPC are the addresses, as OTEL_EXPORTER_OTLP_ENDPOINT wants them.
	HTTP, GRPC string
	spans      []*trace.Span
	resource   map[string]string
	http       *httptest.Server
	grpc       *grpc.Server
	collector.UnimplementedTraceServiceServer
}

// NewCollector starts a collector that ends with the test.
func NewCollector(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{receiver: newReceiver(t), resource: make(map[string]string), grpc: grpc.NewServer()}
	c.http = httptest.NewServer(http.HandlerFunc(c.overHTTP))
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	collector.RegisterTraceServiceServer(c.grpc, c)
	served := make(chan struct{})
	go func() { defer close(served); _ = c.grpc.Serve(port) }()
	c.HTTP, c.GRPC = c.http.URL, "http://"+port.Addr().String()
	t.Cleanup(func() {
		close(c.closed)
		c.Vanish()
		<-served
	})
	return c
}

// Vanish closes both addresses, as if the collector's machine had gone.
func (c *Collector) Vanish() {
	c.http.CloseClientConnections()
	c.http.Close()
	c.grpc.Stop()
}

func (c *Collector) overHTTP(w http.ResponseWriter, q *http.Request) {
	body := readReceived(c.t, q)
	if c.answer(w, q, c.take(q.Header, body)) {
		return
	}
	request := new(collector.ExportTraceServiceRequest)
	if q.URL.Path != "/v1/traces" || q.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, request) != nil {
		c.t.Errorf("%s with %q is no export of traces", q.URL.Path, q.Header.Get("Content-Type"))
	}
	c.keep(request)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Export implements the collector's gRPC service.
func (c *Collector) Export(ctx context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	body, _ := proto.Marshal(request)
	switch c.take(map[string][]string(headers), body) { // a metadata.MD keeps its values to itself
	case ReceiverHangs:
		c.hang(ctx)
		return nil, ctx.Err()
	case ReceiverBusy:
		return nil, status.Error(codes.ResourceExhausted, "busy")
	case ReceiverFails:
		return nil, status.Error(codes.Internal, "fails")
	}
	c.keep(request)
	return new(collector.ExportTraceServiceResponse), nil
}

func (c *Collector) keep(request *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.tell()
	for _, r := range request.GetResourceSpans() {
		for name, value := range Attributes(r.GetResource().GetAttributes()) {
			c.resource[name] = value
		}
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
}

// Spans are those that were taken.
func (c *Collector) Spans() []*trace.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*trace.Span(nil), c.spans...)
}

// Resource has the attributes of the process that sent them.
func (c *Collector) Resource() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource
}

// Attributes are a span's or a resource's, numbers as text.
func Attributes(list []*common.KeyValue) map[string]string {
	attrs := make(map[string]string)
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			attrs[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			attrs[a.GetKey()] = fmt.Sprint(v.IntValue)
		}
	}
	return attrs
}
