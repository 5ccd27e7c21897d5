package testenv

import (
	"net"
	"testing"
)

func TestAPortIsGivenOnce(t *testing.T) {
	seen := make(map[int]bool)
	for range 300 {
		port := FreePort(t)
		if seen[port] || port < 10_000 || port >= 20_000 {
			t.Fatalf("port %d, a second time or out of range", port)
		}
		seen[port] = true
		if reserve(t, port) != nil {
			t.Fatalf("port %d could be had once more", port)
		}
	}
	l, err := net.Listen("tcp", FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}
