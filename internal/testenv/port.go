package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// FreePort returns a loopback port that is free now and the test's own until it ends, also while nobody listens
// there. It lies below those that the system hands out to servers that ask for any and to outgoing connections (on
// Linux 32768 and up), and so does the one 10,000 above it, which a Redis cluster takes as well.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(10_000)
		reserved := reserve(t, port)
		if reserved == nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = reserved.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = reserved.Close() })
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// reserve locks a file of the port's name, so that the tests of other packages choose another; nil when one of them has it.
// The lock ends with the process at the latest.
func reserve(t testing.TB, port int) *os.File {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "gantry-testenv-ports")
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = f.Close()
		return nil
	}
	return f
}

// FreeAddress is a FreePort as host:port.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}
