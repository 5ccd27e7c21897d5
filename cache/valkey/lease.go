package valkey

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	valkeygo "github.com/valkey-io/valkey-go"

	"github.com/gantryhq/gantry/cache"
)

// terms are what a renewal brought: the epoch, and by this instance's clock from when until when it may be
// read, and from when an invalidation in it is enough.
type terms struct {
	client             valkeygo.Client
	epoch              string
	read, write, until time.Time
}

// open returns the terms if the cache may be used now.
func (s *Store) open() *terms {
	t, now := s.terms.Load(), time.Now()
	if t == nil || now.Before(t.read) || !now.Before(t.until) {
		return nil
	}
	return t
}

// holds reports whether epoch may be read now.
func (s *Store) holds(epoch string) bool {
	t := s.open()
	return t != nil && t.epoch == epoch
}

// valid reports whether nobody else can have left epoch yet.
func (s *Store) valid(epoch string) bool {
	t := s.terms.Load()
	return t != nil && t.epoch == epoch && time.Now().Before(t.until)
}

// stand tells a writer what to do: with no wait, to invalidate under the terms, or that there is nothing to
// invalidate as nobody relies on this instance; otherwise to ask again after the wait or the change.
func (s *Store) stand() (t *terms, changed <-chan struct{}, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if t := s.terms.Load(); t != nil && now.Before(t.until) {
		return t, s.changed, t.write.Sub(now)
	}
	return nil, s.changed, s.free.Sub(now)
}

// doubt closes the window until the next renewal.
func (s *Store) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubts++
	s.set(nil)
}

// lapse makes this instance one on which nobody relies; its next renewal says so.
func (s *Store) lapse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubts++
	s.free = time.Now()
	s.set(nil)
}

// set is called under mu.
func (s *Store) set(t *terms) {
	if old := s.terms.Swap(t); (old == nil) != (t == nil) {
		s.cfg.Logger.Info("shared cache", slog.Bool("in_use", t != nil))
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// run renews the lease until ctx ends, and gives it back then.
func (s *Store) run(ctx context.Context) {
	defer close(s.done)
	defer s.leave(context.WithoutCancel(ctx))
	for again := 0; ctx.Err() == nil; again++ {
		retry, err := s.renew(ctx)
		if err == nil && retry && again < 3 {
			continue
		}
		again = 0
		s.rest(ctx, err)
	}
}

// rest waits until the next renewal is due: sooner when the window is short, as another's lease is. What
// wakes it does not after an error, since a renewal that connects wakes it too.
func (s *Store) rest(ctx context.Context, err error) {
	pause, wake := min(s.cfg.Lease/5, time.Second), s.wake
	if t := s.terms.Load(); t != nil {
		pause = max(min(pause, time.Until(t.until)/2), s.cfg.Timeout/5)
	}
	if err != nil {
		pause, wake = s.cfg.Timeout, nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// renew prolongs the lease. It is to be repeated at once when its answer came too late to be of use.
func (s *Store) renew(ctx context.Context) (again bool, err error) {
	client, err := s.connect()
	if err != nil {
		return false, err
	}
	asked, args := s.ask()
	within, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	reply, err := renew.Exec(within, client, []string{s.members()}, args).ToArray()
	if err != nil {
		s.refused(asked, err)
		return false, err
	}
	s.breaker.reset()
	return s.granted(client, asked, reply)
}

// request is what has to be remembered of a renewal until its answer comes.
type request struct {
	sent   time.Time
	doubts uint64
	free   time.Time // as it was before
}

// ask prepares a renewal. One that may be carried out without an answer prolongs the lease all the
// same, so it moves the time from when that has lapsed for certain. It must not do so for ever:
//   - the server's time is asked for first, so that each request can say until when it may be carried out;
//   - after one without an answer the next may be carried out only as long as they do not prolong more;
//   - whoever is beyond the end of his lease may have written without invalidating. He says so, and
//     promises nothing until he is answered.
func (s *Store) ask() (request, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r := request{sent: now, doubts: s.doubts, free: s.free}
	dirty, latest := "0", now.Add(s.cfg.late())
	switch {
	case !now.Before(s.free):
		dirty = "1"
	case s.unanswered:
		latest = s.free.Add(-s.cfg.Lease - slack)
	case !s.at.IsZero():
		s.unanswered = true
		s.free = later(s.free, latest.Add(s.cfg.Lease+slack))
	}
	return r, []string{
		s.id, milliseconds(s.cfg.Lease), milliseconds(s.cfg.grace()),
		strconv.FormatInt(s.serverTime(latest), 10), dirty, rand.Text()[:generation],
	}
}

// serverTime is about what the server's clock will show, in ms; a time long ago when it is not known.
func (s *Store) serverTime(t time.Time) int64 {
	if s.at.IsZero() {
		return 1
	}
	return s.server + t.Sub(s.at).Milliseconds()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// refused takes an error. One that the server itself gives has prolonged nothing.
func (s *Store) refused(asked request, err error) {
	if _, answered := valkeygo.IsValkeyErr(err); answered {
		s.mu.Lock()
		s.free, s.unanswered = asked.free, false
		s.mu.Unlock()
	}
	if s.breaker.failed(time.Now()) {
		s.doubt()
	}
}

// granted takes the answer of a renewal.
func (s *Store) granted(client valkeygo.Client, asked request, reply []valkeygo.ValkeyMessage) (again bool, err error) {
	got := time.Now()
	var now, first, read, write int64
	var epoch string
	if len(reply) == 5 {
		epoch, err = reply[1].ToString()
		for i, into := range map[int]*int64{2: &first, 3: &read, 4: &write} {
			if *into, _ = reply[i].AsInt64(); epoch == "" {
				return false, fmt.Errorf("valkey: renew returned no epoch: %w", err)
			}
		}
	}
	if now, err = reply[0].AsInt64(); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.at, s.unanswered = now, got, false
	if epoch == "" {
		return true, nil
	}
	s.free = got.Add(s.cfg.Lease + slack)
	if s.doubts != asked.doubts {
		return true, nil
	}
	s.set(&terms{
		client: client, epoch: epoch, until: asked.sent.Add(span(first) - slack),
		read: got.Add(span(read)), write: got.Add(span(write)),
	})
	return false, nil
}

func span(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func (s *Store) members() string { return s.cfg.Prefix + "members" }

// leave gives the lease back and ends the connection.
func (s *Store) leave(ctx context.Context) {
	s.lapse()
	s.mu.Lock()
	client := s.client
	s.client, s.cause = nil, cache.ErrAway
	s.mu.Unlock()
	if client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	_ = client.Do(ctx, client.B().Hdel().Key(s.members()).Field("@"+s.id).Build()).Error() // else it lapses
	client.Close()
}
