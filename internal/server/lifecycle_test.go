package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"
)

// latePort is a port whose Accept learns of its end only when told: what Serve sees on a busy machine.
type latePort struct {
	net.Listener
	told chan struct{}
}

func (p latePort) Accept() (net.Conn, error) {
	<-p.told
	return nil, net.ErrClosed
}

func TestAPortClosedBeforeShutdownLosesNothing(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	late := latePort{port, make(chan struct{})}
	server := &http.Server{ReadHeaderTimeout: time.Second}
	ended := make(chan error, 1)
	go func() { ended <- serve(server, late) }()
	time.Sleep(10 * time.Millisecond) // Serve has the port now, or has never had it; both must do
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(late.told) })
	if err := shutdown(t.Context(), server); err != nil {
		t.Errorf("nothing was lost: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestAShutdownOutOfTimeIsCutShort(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})}
	go func() { _ = serve(server, port) }()
	go func() { _, _ = http.Get("http://" + port.Addr().String()) }()
	<-begun
	limit, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := shutdown(limit, server); !errors.Is(err, ErrCutShort) {
		t.Errorf("a request was lost: %v", err)
	}
}
