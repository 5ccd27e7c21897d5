package alert

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Receiver is a place that messages go to.
type Receiver struct {
	// Name is what logs, counters and dead letters call it.
	Name string
	Notifier
}

// DispatchConfig says how messages are delivered. The zero value will do.
type DispatchConfig struct {
	// Names are what rules call receivers: "oncall" may be {"pagerduty", "slack"}. A receiver's own name needs no
	// entry.
	Names map[string][]string
	// Queue is how many messages wait for one receiver before the next is dropped. Default 256.
	Queue int
	// Timeout bounds one attempt. Default 10 s.
	Timeout time.Duration
	// FirstRetry is the wait after the first failure; it doubles up to MostRetry. Default 1 s and 1 min. A receiver's
	// Retry-After may be longer.
	FirstRetry, MostRetry time.Duration
	// GiveUp is how long a message is tried for. Default 15 min.
	GiveUp time.Duration
	// Flush is how long the end of Run waits for what is under way. Default 5 s.
	Flush time.Duration
	// Kept is a file for what still waits at the end: the next Run goes on with it, also one that began before. "" drops
	// it.
	Kept string
	// Dead, if not nil, is where messages end that nobody was told.
	Dead *DeadLetters
	// Dropped, if not nil, hears of every message that nobody will be told, and why.
	Dropped func(receiver string, why Cause)
	Logger  *slog.Logger // nil discards
}

func (c DispatchConfig) withDefaults() DispatchConfig {
	c.Queue = cmp.Or(c.Queue, 256)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.FirstRetry = cmp.Or(c.FirstRetry, time.Second)
	c.MostRetry = cmp.Or(c.MostRetry, time.Minute)
	c.GiveUp = cmp.Or(c.GiveUp, 15*time.Minute)
	c.Flush = cmp.Or(c.Flush, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Dispatcher brings messages to receivers, and never makes who sends them wait. Messages of one incident arrive in the
// order they were sent in; those of others do not wait for one that fails. A message may arrive twice, when an answer
// is lost; Incident and the ids in it tell.
type Dispatcher struct {
	cfg   DispatchConfig
	boxes []*outbox
	dead  chan DeadLetter // from Send, which must not touch the disk

	mu      sync.Mutex
	tallies map[string]*Tally
}

// IsReceiverName says that rules can call a receiver so.
func IsReceiverName(name string) bool { return receiverName.MatchString(name) }

// Tally is what became of a receiver's messages since the start.
type Tally struct {
	Receiver  string
	Waiting   int
	Delivered uint64
	Failed    uint64 // attempts
	Dropped   map[Cause]uint64
}

// maxDead is how many dead letters wait for the disk; more are counted, and not kept.
const maxDead = 64

// NewDispatcher delivers to receivers, whose names differ. [Dispatcher.Run] does the work.
func NewDispatcher(receivers []Receiver, cfg DispatchConfig) *Dispatcher {
	d := &Dispatcher{cfg: cfg.withDefaults(), dead: make(chan DeadLetter, maxDead), tallies: make(map[string]*Tally)}
	for _, r := range receivers {
		d.boxes = append(d.boxes, &outbox{receiver: r, most: d.cfg.Queue, wake: make(chan struct{}, 1)})
		d.tally(r.Name, func(*Tally) {})
	}
	return d
}

// Send queues a message for the receivers that its rule names, each once, and for oncall in place of a name that nobody
// has. It returns at once.
func (d *Dispatcher) Send(n Notification) {
	told := make(map[*outbox]bool)
	for _, name := range n.Alert.Rule.Notify {
		boxes := d.named(name)
		if len(boxes) == 0 { // rules are reloaded, receivers are not: nothing is lost for the sake of a name
			boxes = d.named("oncall")
		}
		if len(boxes) == 0 {
			d.drop(name, n, UnknownReceiver)
		}
		for _, o := range boxes {
			if told[o] {
				continue
			}
			told[o] = true
			if !o.add(&letter{n: n, queued: time.Now()}) {
				d.drop(o.receiver.Name, n, QueueFull)
			}
		}
	}
}

// named lists the outboxes behind a name that rules use.
func (d *Dispatcher) named(name string) (list []*outbox) {
	names, ok := d.cfg.Names[name]
	if !ok {
		names = []string{name}
	}
	for _, o := range d.boxes {
		if slices.Contains(names, o.receiver.Name) {
			list = append(list, o)
		}
	}
	return list
}

// drop loses a message without touching the disk; Run buries it.
func (d *Dispatcher) drop(receiver string, n Notification, why Cause) {
	d.count(receiver, why)
	select {
	case d.dead <- DeadLetter{At: time.Now(), Receiver: receiver, Cause: why, Notification: n}:
	default:
	}
}

func (d *Dispatcher) count(receiver string, why Cause) {
	if why == UnknownReceiver {
		receiver = "unknown" // names of rules are no labels
	}
	d.tally(receiver, func(t *Tally) { t.Dropped[why]++ })
	if d.cfg.Dropped != nil {
		d.cfg.Dropped(receiver, why)
	}
}

func (d *Dispatcher) tally(receiver string, f func(*Tally)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tallies[receiver]
	if t == nil {
		t = &Tally{Receiver: receiver, Dropped: make(map[Cause]uint64)}
		d.tallies[receiver] = t
	}
	f(t)
}

// Tallies returns a copy of the counters, by receiver.
func (d *Dispatcher) Tallies() []Tally {
	d.mu.Lock()
	var list []Tally
	for _, t := range d.tallies {
		dropped := make(map[Cause]uint64, len(t.Dropped))
		for why, n := range t.Dropped {
			dropped[why] = n
		}
		list = append(list, Tally{Receiver: t.Receiver, Delivered: t.Delivered, Failed: t.Failed, Dropped: dropped})
	}
	d.mu.Unlock()
	for i := range list {
		for _, o := range d.boxes {
			if o.receiver.Name == list[i].Receiver {
				list[i].Waiting = len(o.rest())
			}
		}
	}
	slices.SortFunc(list, func(a, b Tally) int { return cmp.Compare(a.Receiver, b.Receiver) })
	return list
}

// Run delivers until ctx ends. Then each message that waits is tried once more within Flush, and the rest is kept for
// the next Run.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.resume()
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		end := time.NewTimer(d.cfg.Flush)
		defer end.Stop()
		select {
		case <-end.C:
			stop()
		case <-alive.Done():
		}
	})()
	var workers errgroup.Group
	for _, o := range d.boxes {
		workers.Go(func() error { d.work(ctx, alive, o); return nil })
	}
	workers.Go(func() error { <-ctx.Done(); return nil }) // with nobody to tell there are dead letters all the same
	buried := make(chan struct{})
	go func() { defer close(buried); d.look(alive) }()
	err := workers.Wait()
	stop()
	<-buried
	return errors.Join(err, d.keep())
}

// resume queues what another Run has kept.
func (d *Dispatcher) resume() {
	if d.cfg.Kept == "" {
		return
	}
	list, err := takeKept(d.cfg.Kept)
	if err != nil {
		d.cfg.Logger.Error("alerts that waited over the restart cannot be read", "error", err)
	}
	for _, k := range list {
		i := slices.IndexFunc(d.boxes, func(o *outbox) bool { return o.receiver.Name == k.Receiver })
		switch {
		case i < 0:
			d.drop(k.Receiver, k.Notification, UnknownReceiver)
		case !d.boxes[i].add(&letter{n: k.Notification, queued: k.Queued, attempts: k.Attempts}):
			d.drop(k.Receiver, k.Notification, QueueFull)
		}
	}
}

// keep writes what still waits to the file, or drops it.
func (d *Dispatcher) keep() error {
	var list []kept
	for _, o := range d.boxes {
		for _, l := range o.rest() {
			list = append(list, kept{o.receiver.Name, l.queued, l.attempts, l.n})
		}
	}
	if len(list) == 0 {
		return nil
	}
	var err error
	if d.cfg.Kept != "" {
		if err = saveKept(d.cfg.Kept, list); err == nil {
			d.cfg.Logger.Warn("alerts wait for the next start", "count", len(list))
			return nil
		}
	}
	for _, k := range list {
		d.count(k.Receiver, Shutdown)
		d.bury(DeadLetter{At: time.Now(), Receiver: k.Receiver, Cause: Shutdown, Attempts: k.Attempts, Notification: k.Notification})
	}
	return err
}

// lookEvery is how often Run looks for what another process has kept: one that hands its ports over ends after the next
// one has begun.
const lookEvery = 30 * time.Second

// look writes what Send has dropped, until the end and what is left then.
func (d *Dispatcher) look(alive context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case l := <-d.dead:
			d.bury(l)
		case <-tick.C:
			d.resume()
		case <-alive.Done():
			for len(d.dead) > 0 {
				d.bury(<-d.dead)
			}
			return
		}
	}
}

func (d *Dispatcher) bury(l DeadLetter) {
	log := d.cfg.Logger.With("receiver", l.Receiver, "rule", l.Notification.Alert.Rule.Name, "cause", string(l.Cause), "attempts", l.Attempts)
	log.Error("alert was not delivered", "error", l.Error)
	if d.cfg.Dead == nil {
		return
	}
	if err := d.cfg.Dead.Add(l); err != nil {
		log.Error("dead letter cannot be written", "error", err)
	}
}

// work delivers one receiver's messages, one at a time. Once ctx has ended each is tried a last time.
func (d *Dispatcher) work(ctx, alive context.Context, o *outbox) {
	for {
		last := ctx.Err() != nil
		l, wait := o.next(time.Now(), last)
		switch {
		case l != nil:
			d.attempt(alive, o, l, last)
		case last:
			return
		default:
			o.sleep(ctx, wait)
		}
	}
}

// attempt tries one message, and decides what becomes of it.
func (d *Dispatcher) attempt(alive context.Context, o *outbox, l *letter, last bool) {
	limited, cancel := context.WithTimeout(alive, d.cfg.Timeout)
	err := o.receiver.Notify(limited, l.n)
	cancel()
	if err == nil {
		o.remove(l)
		d.tally(o.receiver.Name, func(t *Tally) { t.Delivered++ })
		return
	}
	l.attempts++
	d.tally(o.receiver.Name, func(t *Tally) { t.Failed++ })
	refusal, answered := errors.AsType[*DeliveryError](err)
	var asked time.Duration
	if answered {
		asked = refusal.RetryAfter
	}
	wait := max(backoff(l.attempts, d.cfg.FirstRetry, d.cfg.MostRetry), asked)
	why := GaveUp
	switch {
	case answered && refusal.Permanent:
		why = Refused
	case last: // Run keeps it
		o.postpone(l, time.Time{}, true)
		return
	case time.Since(l.queued)+wait <= d.cfg.GiveUp:
		o.postpone(l, time.Now().Add(wait), false)
		return
	}
	o.remove(l)
	d.count(o.receiver.Name, why)
	d.bury(DeadLetter{At: time.Now(), Receiver: o.receiver.Name, Cause: why, Error: err.Error(), Attempts: l.attempts, Notification: l.n})
}

// backoff doubles from first to most, and takes up to half of it away, so that doors that failed together do not come
// back together.
func backoff(attempts int, first, most time.Duration) time.Duration {
	wait := most
	if shift := attempts - 1; shift < 30 && first<<shift < most {
		wait = first << shift
	}
	return wait/2 + rand.N(wait/2+1)
}

// outbox is what waits for one receiver, in the order of arrival.
type outbox struct {
	receiver Receiver
	most     int
	wake     chan struct{}

	mu      sync.Mutex
	waiting []*letter
}

type letter struct {
	n        Notification
	queued   time.Time
	due      time.Time // not before
	attempts int
	done     bool // the last attempt was made
}

func (o *outbox) add(l *letter) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= o.most {
		return false
	}
	o.waiting = append(o.waiting, l)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true
}

// next returns the first message that is due and has none of its own incident before it, or how long until there is
// one. The last time round nothing is waited for, and nothing tried twice.
func (o *outbox) next(now time.Time, last bool) (due *letter, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait = time.Hour
	before := make(map[string]bool)
	for _, l := range o.waiting {
		key := l.n.incident()
		switch {
		case before[key] || l.done:
		case last || !l.due.After(now):
			return l, 0
		default:
			wait = min(wait, l.due.Sub(now))
		}
		before[key] = true
	}
	return nil, wait
}

// sleep waits for a message, for the time, or for the end.
func (o *outbox) sleep(ctx context.Context, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-o.wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

func (o *outbox) remove(l *letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = slices.DeleteFunc(o.waiting, func(other *letter) bool { return other == l })
}

func (o *outbox) postpone(l *letter, due time.Time, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.due, l.done = due, done
}

func (o *outbox) rest() []*letter {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.waiting)
}

// Log is the receiver of last resort: the process's own log.
type Log struct{ Logger *slog.Logger }

// Notify implements [Notifier].
func (l Log) Notify(_ context.Context, n Notification) error {
	attrs := []any{"rule", n.Alert.Rule.Name, "severity", string(n.Alert.Rule.Severity), "event", n.kind(), "incident", n.incident()}
	for _, f := range n.facts() {
		attrs = append(attrs, slog.String(f.Name, f.Value))
	}
	l.Logger.Warn("alert", attrs...)
	return nil
}
