package valkey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// quietEvery and quietAtMost are for commands that are still sent when their request has been answered.
	quietEvery  = 20 * time.Millisecond
	quietAtMost = time.Second
	// mostNamed bounds the commands of an Observation.
	mostNamed = 200
)

// Window is the time between Begin and End, in which the requests are sent.
type Window struct {
	o      *Observer
	began  time.Time
	before reading
}

// Observation is what happened on the server between the beginning and the end of a window. Our own commands and
// connection are in none of it.
type Observation struct {
	// Duration is from Begin to the call of End.
	Duration time.Duration
	// Known says that the figures mean something; those of the zero Observation do not.
	Known bool
	// Doubts are sentences on what makes figures less than exact.
	Doubts []string

	// Commands counts all, those that scripts run too. ByName has the 200 most frequent.
	Commands int64
	ByName   []Command
	// RoundTrips is how often the server read from its clients, a pipeline or a script being one, and the end of a
	// connection another; 0 where the server does not count that.
	RoundTrips int64

	// KeyspaceHits and KeyspaceMisses are look-ups of a key that was there, and that was not. HitRatio is the share of the
	// former, 0 without look-ups.
	KeyspaceHits, KeyspaceMisses int64
	HitRatio                     float64
	// Evicted are keys that went because memory was short, Expired those whose time was over.
	Evicted, Expired int64

	// Connections counts those received, Rejected those that exceeded the server's maximum, and Left how many more, or
	// less if negative, there were at the end than at the beginning.
	Connections, Rejected, Left int64
	// UsedMemory is by how many bytes the server's memory grew, or shrank if negative.
	UsedMemory int64
}

// Command is what was done by one command.
type Command struct {
	Name  string // in lower case, "config|get" with a subcommand
	Calls int64
	Time  time.Duration // in the server
}

// Begin reads the counters. ErrBusy while another window is open.
func (o *Observer) Begin(ctx context.Context) (*Window, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return nil, ErrClosed
	case o.window != nil:
		return nil, ErrBusy
	case !o.capability.Available:
		return nil, o.fault("begin", errors.New(o.capability.Why+": "+o.capability.Fix))
	}
	before, err := o.read(ctx)
	if err != nil {
		return nil, o.fault("INFO", err)
	}
	o.window = &Window{o: o, began: time.Now(), before: before}
	return o.window, nil
}

var (
	errRestarted = errors.New("the server restarted, or its statistics were reset, during the window; run it again")
	errLost      = errors.New("the connection was lost during the window, and connecting again counts too; run it again")
)

// End says what happened since Begin. It waits until no more commands come, a second at most. Call it when all requests
// have been answered. The window is over also when there is an error.
func (w *Window) End(ctx context.Context) (Observation, error) {
	duration := time.Since(w.began)
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	if w.o.window != w {
		return Observation{}, ErrClosed
	}
	w.o.window = nil
	after, err := w.o.quiet(ctx)
	if err != nil {
		return Observation{}, w.o.fault("INFO", err)
	}
	switch {
	case w.before.run != after.run || after.infos()-w.before.infos() < after.asked-w.before.asked:
		return Observation{}, w.o.fault("compare", errRestarted)
	case w.before.dials != after.dials:
		return Observation{}, w.o.fault("compare", errLost)
	}
	obs := compare(w.before, after)
	obs.Duration = duration
	return obs, nil
}

// quiet reads until two readings in a row are the same but for ourselves, or time is over.
func (o *Observer) quiet(ctx context.Context) (reading, error) {
	last, err := o.read(ctx)
	for deadline := time.Now().Add(quietAtMost); err == nil && time.Now().Before(deadline); {
		if err := pause(ctx, quietEvery); err != nil {
			return last, err
		}
		var next reading
		next, err = o.read(ctx)
		same := next.calls() == last.calls()
		last = next
		if same {
			break
		}
	}
	return last, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compare takes our own commands off: INFOs that were counted, and what the server read for them.
func compare(before, after reading) Observation {
	delta := func(name string) int64 { return after.numbers[name] - before.numbers[name] }
	obs := Observation{
		Known:        true,
		Commands:     after.calls() - before.calls(),
		KeyspaceHits: delta("keyspace_hits"), KeyspaceMisses: delta("keyspace_misses"),
		Evicted: delta("evicted_keys"), Expired: delta("expired_keys"),
		Connections: delta("total_connections_received"), Rejected: delta("rejected_connections"), Left: delta("connected_clients"),
		UsedMemory: delta("used_memory"),
	}
	if _, counted := after.numbers["total_reads_processed"]; counted {
		obs.RoundTrips = max(0, delta("total_reads_processed")-(after.asked-before.asked))
	}
	if lookups := obs.KeyspaceHits + obs.KeyspaceMisses; lookups > 0 {
		obs.HitRatio = float64(obs.KeyspaceHits) / float64(lookups)
	}
	if after.cluster {
		obs.Doubts = append(obs.Doubts, "the server is a node of a cluster: what the other nodes did is not in the figures")
	}
	obs.ByName = named(before, after)
	return obs
}

func named(before, after reading) []Command {
	var all []Command
	for name, c := range after.commands {
		calls := c.calls - before.commands[name].calls
		if name == "info" {
			calls -= after.asked - before.asked
		}
		if calls > 0 {
			all = append(all, Command{Name: name, Calls: calls, Time: c.spent - before.commands[name].spent})
		}
	}
	slices.SortFunc(all, func(a, b Command) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(len(all), mostNamed)]
}
