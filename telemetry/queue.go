package telemetry

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// Nothing here ever makes a request wait: what finds no room is dropped, and counted by cause.

// Drop counts requests of which nothing was told.
type Drop struct {
	Kind  string // "span" or "event"
	Cause string
	Count uint64
}

// The causes.
const (
	causeFull        = "queue_full"
	causeTimeout     = "timeout"
	causeUnreachable = "unreachable"
	causeThrottled   = "throttled"
	causeRejected    = "rejected"
	causeShutdown    = "shutdown"
	causeRate        = "rate"
)

var causes = []string{causeFull, causeTimeout, causeUnreachable, causeThrottled, causeRejected, causeShutdown, causeRate}

// queue holds requests between whoever served them and whoever tells of them.
type queue struct {
	kind string
	in   chan *Request
	lost func(kind, cause string, n int) // may be nil

	mu    sync.Mutex
	drops map[string]uint64
}

func newQueue(kind string, size int, lost func(kind, cause string, n int)) queue {
	return queue{kind: kind, in: make(chan *Request, size), lost: lost, drops: make(map[string]uint64)}
}

// put never waits.
func (q *queue) put(r *Request) {
	select {
	case q.in <- r:
	default:
		q.drop(causeFull, 1)
	}
}

func (q *queue) drop(cause string, n int) {
	if q.lost != nil {
		q.lost(q.kind, cause, n)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drops[cause] += uint64(n)
}

// Dropped returns every cause with its count, so that a counter exists before it first counts.
func (q *queue) Dropped() []Drop {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := make([]Drop, 0, len(causes))
	for _, cause := range causes {
		list = append(list, Drop{q.kind, cause, q.drops[cause]})
	}
	slices.SortFunc(list, func(a, b Drop) int { return cmp.Compare(a.Cause, b.Cause) })
	return list
}

// discard empties the queue at the end.
func (q *queue) discard() {
	for {
		select {
		case <-q.in:
			q.drop(causeShutdown, 1)
		default:
			return
		}
	}
}

// grace is how long a shutdown waits for what is under way.
const grace = 2 * time.Second

// withGrace returns a context that ends that much after ctx does.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-late.Done():
		}
	})
	return late, func() { stop(); cancel() }
}
