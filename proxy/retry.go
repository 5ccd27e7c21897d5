package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
)

// Repeating a request: at most once, only a safe method without a body, only when a kept connection
// turned out to be dead before the first byte of an answer, and only within a budget. The second try
// goes out on a connection of its own, because other kept ones may be dead for the same reason.

// budget lets one request in ten be repeated, and at least a few, so that low traffic has its share.
// It counts in tenths of a repetition.
type budget struct{ tenths atomic.Int64 }

const budgetMax = 100 // tenths

func newBudget() *budget {
	b := new(budget)
	b.tenths.Store(budgetMax)
	return b
}

// earn adds what a request brings.
func (b *budget) earn() {
	for {
		have := b.tenths.Load()
		if have >= budgetMax || b.tenths.CompareAndSwap(have, have+1) {
			return
		}
	}
}

// spend takes a repetition, if there is one.
func (b *budget) spend() bool {
	for {
		have := b.tenths.Load()
		if have < 10 {
			return false
		}
		if b.tenths.CompareAndSwap(have, have-10) {
			return true
		}
	}
}

var (
	safeMethods       = []string{http.MethodGet, http.MethodHead, http.MethodOptions}
	idempotentMethods = []string{http.MethodPut, http.MethodDelete}
)

// mayRepeat decides after a failed sending.
func (a *attempt) mayRepeat(s *sending, err error, idempotent bool) bool {
	var timeout net.Error
	switch {
	case a.body != nil, s.answered.Load(), !s.reused.Load(), a.in.Context().Err() != nil:
		return false
	case errors.As(err, &timeout) && timeout.Timeout():
		return false // it is busy with the first
	case slices.Contains(safeMethods, a.in.Method), idempotent && slices.Contains(idempotentMethods, a.in.Method):
		return a.up.budget.spend()
	}
	return false
}

// unrepeatable takes a request without a body out of reach of net/http's own repetition, which has
// neither a count nor a budget: it spares requests whose body it cannot get again. So this one has a
// body, of no bytes; "identity" keeps net/http from announcing it, and nothing of it is on the wire.
// POST, PUT and PATCH are never repeated by net/http, and must say Content-Length: 0.
func unrepeatable(r *http.Request) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		r.Body, r.TransferEncoding = noBytes{}, []string{"identity"}
	}
}

type noBytes struct{}

// Read is at the end.
func (noBytes) Read([]byte) (int, error) { return 0, io.EOF }

// WriteTo writes nothing, and spares net/http a buffer to copy nothing with.
func (noBytes) WriteTo(io.Writer) (int64, error) { return 0, nil }

// Close does nothing.
func (noBytes) Close() error { return nil }
