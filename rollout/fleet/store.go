package fleet

import (
	"context"
	"errors"
	"time"
)

// ErrConflict is that somebody else wrote to the journal first: read it again, then decide again.
var ErrConflict = errors.New("the journal has moved on")

// Store is what the instances share. Time in it is the store's own, so that instances whose clocks differ
// agree. An ended context ends every call.
type Store interface {
	// Read returns where the journal ends, and then lines of one launch behind a place, oldest first and at
	// most [PageSize]. Lines that are written meanwhile may be among them.
	Read(ctx context.Context, after Place) (Page, error)
	// Append writes a line behind a place: the next of that launch, or the first of the launch after. It is
	// durable before Append returns. If after is not the end of the journal nothing is written, and it
	// is ErrConflict; after any other error the line may be there or not. The first line of a launch
	// removes those of all but the newest [Kept] launches.
	Append(ctx context.Context, after Place, l Line) error
	// Ends returns the first and the last line of each of the newest n launches, oldest first; of a launch
	// of one line, that.
	Ends(ctx context.Context, n int) ([]Line, error)
	// Hold takes the judge's lease for a time from now if it is free or the holder's own, and returns who
	// has it. A time of 0 gives it back.
	Hold(ctx context.Context, holder string, length time.Duration) (string, error)
	// Publish replaces what an instance has to say. It need not be durable.
	Publish(ctx context.Context, instance, body string) error
	// Published returns what each instance said last, by Instance, and at most [MaxInstances]. What is older
	// than an hour may be missing.
	Published(ctx context.Context) ([]Notice, error)
	// Watch calls wake soon after every append by anyone; some may be missed. It returns when ctx
	// ends, or with an error when it has lost the store.
	Watch(ctx context.Context, wake func()) error
}

// Kept is how many launches a store keeps, PageSize how many lines one Read returns at most, and
// MaxInstances how many instances are heard.
const (
	Kept         = 100
	PageSize     = 1000
	MaxInstances = 1000
)

// Place is a line of the journal; the zero Place is before the first. Launches count from 1 over the
// life of the store, revisions from 1 in each launch.
type Place struct {
	Launch   int64
	Revision uint64
}

// Line is one record as it is stored.
type Line struct {
	Place
	// Base is the upstream of the configuration of who wrote the line. A launch that has ended is in force only
	// as long as the configuration still says the same; see [Config.Base].
	Base string
	Text string // rollout.Record.Encode, byte for byte
}

// Page is what Store.Read returns.
type Page struct {
	Lines  []Line
	Newest Place     // the end of the journal, zero for an empty one
	Now    time.Time // by the store's clock
}

// Notice is what one instance said last.
type Notice struct {
	Instance string
	Body     string        // JSON
	Age      time.Duration // by the store's clock
}
