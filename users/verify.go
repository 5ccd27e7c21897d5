package users

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"
)

// Break is a place in a user's audit chain at which it does not hold.
type Break struct {
	UserID string
	Seq    int64
	What   string
}

// String is for people.
func (b Break) String() string { return fmt.Sprintf("%s event %d: %s", b.UserID, b.Seq, b.What) }

// Checkpoint stands for all events up to one: whoever keeps it can show later that none of them has
// been changed, removed or slipped in, not even by somebody who wrote all the chains anew.
type Checkpoint struct {
	// LastID is the newest event's id, Events how many there are up to it.
	LastID, Events int64
	// Digest is SHA-256 over their hashes in the order of user and place, in hex.
	Digest string
}

// Report is what Verify found.
type Report struct {
	Users, Events int64
	Breaks        int64
	Checkpoint    Checkpoint
	// Changed says that the events up to the earlier checkpoint are not what they were.
	Changed bool
}

// Sound is whether nothing was found.
func (r Report) Sound() bool { return r.Breaks == 0 && !r.Changed }

// VerifyConfig of one run; the zero value is the default.
type VerifyConfig struct {
	// Since is an earlier run's checkpoint; the zero one is none.
	Since Checkpoint
	// Broken is told of every break; nil counts them only.
	Broken func(Break)
	// Progress is told now and then how many events have been read; nil for nobody.
	Progress func(events int64)
}

// verifyPage bounds what Verify holds at once.
const verifyPage = 1000

// Verify walks the audit chains of all users beside the heads in their rows, while others go on
// writing, and reports every break: a changed, missing, moved or added event, a chain whose end was cut off,
// events of nobody. Errors are those of the store only.
func Verify(ctx context.Context, store Audit, cfg VerifyConfig) (Report, error) {
	last, err := store.LastEvent(ctx)
	if err != nil {
		return Report{}, err
	}
	v := &verifier{store: store, cfg: cfg, now: newDigest(last), since: newDigest(cfg.Since.LastID)}
	if err := v.walk(ctx); err != nil {
		return v.report, err
	}
	v.report.Checkpoint = v.now.checkpoint()
	v.report.Changed = cfg.Since != (Checkpoint{}) && v.since.checkpoint() != cfg.Since
	return v.report, nil
}

type verifier struct {
	store      Audit
	cfg        VerifyConfig
	report     Report
	now, since *digest
	chain      Head   // the chain in hand, as far as it has been read
	before     Head   // what its user's row said before the chain was read
	low        string // an id below that of the chain in hand
}

// walk goes through the heads by page, and reads the events of those users after them: every event that
// a head speaks of is there to be read then.
func (v *verifier) walk(ctx context.Context) error {
	for after, more := "", true; more; {
		heads, err := v.store.Heads(ctx, after, verifyPage)
		if err != nil {
			return err
		}
		more = len(heads) == verifyPage
		end := ""
		if more {
			end = heads[len(heads)-1].UserID
		}
		if err := v.chains(ctx, heads, after, end); err != nil {
			return err
		}
		after = end
	}
	return nil
}

// chains reads the events of the users above after, up to and with end, or of all for "".
func (v *verifier) chains(ctx context.Context, heads []Head, after, end string) error {
	at := Event{UserID: after, Seq: math.MaxInt64}
	v.low = after
	for {
		page, err := v.store.Chains(ctx, at.UserID, at.Seq, verifyPage)
		if err != nil {
			return err
		}
		for _, e := range page {
			if end != "" && e.UserID > end {
				return v.skip(ctx, heads)
			}
			if e.UserID != v.chain.UserID {
				if heads, err = v.begin(ctx, heads, e.UserID); err != nil {
					return err
				}
			}
			v.take(e)
			at = e
		}
		if v.cfg.Progress != nil {
			v.cfg.Progress(v.report.Events)
		}
		if len(page) < verifyPage {
			return v.skip(ctx, heads)
		}
	}
}

// begin ends the chain in hand and takes up the next, whose head it looks for.
func (v *verifier) begin(ctx context.Context, heads []Head, userID string) ([]Head, error) {
	n := 0
	for n < len(heads) && heads[n].UserID < userID {
		n++
	}
	was := v.chain.UserID
	if err := v.skip(ctx, heads[:n]); err != nil {
		return nil, err
	}
	v.chain, v.before = Head{UserID: userID}, Head{}
	if v.low = max(v.low, was); n > 0 {
		v.low = max(v.low, heads[n-1].UserID)
	}
	if n < len(heads) && heads[n].UserID == userID {
		v.before = heads[n]
		v.report.Users++
		n++
	}
	return heads[n:], nil
}

// skip ends the chain in hand, and reports users who have no events at all.
func (v *verifier) skip(ctx context.Context, heads []Head) error {
	if err := v.end(ctx); err != nil {
		return err
	}
	for _, h := range heads {
		v.report.Users++
		v.broken(h.UserID, 1, "the user has no events, and %d by the user's row", h.Events)
	}
	return nil
}

// take is one event of the chain in hand.
func (v *verifier) take(e Event) {
	v.report.Events++
	sum := e.Sum()
	switch {
	case e.Seq != v.chain.Events+1:
		v.broken(e.UserID, v.chain.Events+1, "is missing: %d comes next", e.Seq)
	case e.Prev != v.chain.Hash:
		v.broken(e.UserID, e.Seq, "does not follow the one before it")
	case e.Hash != sum:
		v.broken(e.UserID, e.Seq, "is not what was written")
	case e.Seq == v.before.Events && e.Hash != v.before.Hash:
		v.broken(e.UserID, e.Seq, "is not the one that the user's row names as the last")
	}
	v.chain.Events, v.chain.Hash = e.Seq, e.Hash
	v.now.add(e.ID, sum)
	v.since.add(e.ID, sum)
}

// end compares how long the chain in hand is with what the user's row says. A chain that is longer
// than the row said before may have grown since, so the row is asked again.
func (v *verifier) end(ctx context.Context) error {
	c, h := v.chain, v.before
	v.chain = Head{}
	switch {
	case c.UserID == "":
		return nil
	case c.Events < h.Events:
		v.broken(c.UserID, c.Events+1, "is missing, and all after it: the user's row has %d", h.Events)
		return nil
	case c.Events == h.Events:
		return nil
	}
	h, known, err := v.again(ctx, c.UserID)
	switch {
	case err != nil:
		return err
	case !known:
		v.broken(c.UserID, c.Events, "belongs to no user")
	case h.Events < c.Events:
		v.broken(c.UserID, h.Events+1, "was added after the last that the user's row has")
	case h.Events == c.Events && h.Hash != c.Hash:
		v.broken(c.UserID, c.Events, "is not the one that the user's row names as the last")
	}
	return nil
}

// again reads one user's head.
func (v *verifier) again(ctx context.Context, userID string) (Head, bool, error) {
	after := v.low
	for {
		page, err := v.store.Heads(ctx, after, 10)
		if err != nil {
			return Head{}, false, err
		}
		for _, h := range page {
			if h.UserID >= userID {
				return h, h.UserID == userID, nil
			}
			after = h.UserID
		}
		if len(page) < 10 {
			return Head{}, false, nil
		}
	}
}

func (v *verifier) broken(userID string, seq int64, format string, args ...any) {
	v.report.Breaks++
	if v.cfg.Broken != nil {
		v.cfg.Broken(Break{UserID: userID, Seq: seq, What: fmt.Sprintf(format, args...)})
	}
}

// digest is a checkpoint in the making.
type digest struct {
	last, events int64
	sum          hash.Hash
}

func newDigest(last int64) *digest { return &digest{last: last, sum: sha256.New()} }

func (d *digest) add(id int64, hash string) {
	if id <= d.last {
		d.events++
		_, _ = io.WriteString(d.sum, hash)
	}
}

func (d *digest) checkpoint() Checkpoint {
	return Checkpoint{LastID: d.last, Events: d.events, Digest: hex.EncodeToString(d.sum.Sum(nil))}
}
