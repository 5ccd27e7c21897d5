package valkey

import (
	"context"
	"errors"
	"sync/atomic"
)

// The rule of this file: no more is under way than the driver's queue holds. The driver queues 1024
// commands for a connection and then blocks whoever comes, whatever their context says. A command
// whose request ran out of time stays queued until the server answers or the connection is given
// up, so its place is not free until then. One more at a time may always try, or nobody would ever
// find out that the server is back.

const maxInFlight = 512

// turns bounds what is under way.
type turns struct {
	places chan struct{}
	extra  chan struct{} // the one that may always try
	owed   atomic.Int64  // places of commands that may still be queued
}

func newTurns() *turns {
	return &turns{places: make(chan struct{}, maxInFlight), extra: make(chan struct{}, 1)}
}

// begin waits for a place; the caller returns it by end.
func (t *turns) begin(ctx context.Context) (place chan struct{}, err error) {
	select {
	case t.places <- struct{}{}:
		return t.places, nil
	default:
	}
	select {
	case t.places <- struct{}{}:
		return t.places, nil
	case t.extra <- struct{}{}:
		return t.extra, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// end returns a place, unless err says that the command was given up. Any other answer came after
// those of all commands before it, so what was owed is free.
func (t *turns) end(place chan struct{}, err error) {
	late := errors.Is(err, context.DeadlineExceeded)
	if late && place == t.places {
		t.owed.Add(1)
		return
	}
	<-place
	if !late {
		t.settle()
	}
}

func (t *turns) settle() {
	if t.owed.Load() == 0 {
		return
	}
	for range t.owed.Swap(0) {
		<-t.places
	}
}
