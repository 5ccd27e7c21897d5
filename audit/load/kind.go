package load

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// Kind is why a request has no answer.
type Kind string

// What an error can be.
const (
	None      Kind = ""          // there was an answer
	Timeout   Kind = "timeout"   // none came in the time given to it
	Refused   Kind = "refused"   // nobody listens
	Reset     Kind = "reset"     // the connection was closed before the answer was whole
	Local     Kind = "local"     // this machine had no port, descriptor or buffer left for it
	Other     Kind = "other"     // such as TLS, names and malformed answers
	Cancelled Kind = "cancelled" // the caller's context ended; not the server's doing
)

// KindOf sorts the error of an Answer.
func KindOf(err error) Kind {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return None
	case isAny(err, context.Canceled):
		return Cancelled
	case isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS):
		return Local
	case isAny(err, syscall.ECONNREFUSED):
		return Refused
	case errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case isAny(err, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed), closedIdle(err):
		return Reset
	}
	return Other
}

// closedIdle knows an error of net/http that has no name.
func closedIdle(err error) bool {
	return strings.Contains(err.Error(), "http: server closed idle connection")
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
