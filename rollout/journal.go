package rollout

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrJournal is that a journal cannot be believed: a line that is no record, a checksum that is wrong,
// a gap, or a step that no launch can take. Everyone belongs on stable then, and a person told.
var ErrJournal = errors.New("journal is corrupt")

// maxLine bounds a line of a journal; the longest record, the first, is some kilobytes.
const maxLine = 256 << 10

// Encode returns the record as one line of JSON without the newline.
func (r Record) Encode() []byte {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a NaN in a verdict, which the tests of the judge exclude
	}
	return line
}

// DecodeRecord reads one line. Whether its checksum is right is seen by [Replay].
func DecodeRecord(line []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if d.More() {
		return Record{}, fmt.Errorf("%w: two values in one line", ErrJournal)
	}
	if r.Format != Format {
		return Record{}, fmt.Errorf("%w: format %d, this program reads %d", ErrJournal, r.Format, Format)
	}
	return r, nil
}

// ReadJournal reads the lines of one launch. A last line without its newline was never durable, since the
// newline is written with it; it is left out. It stops at the first error.
func ReadJournal(r io.Reader) ([]Record, error) {
	var records []Record
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return records, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w: line %d is longer than %d bytes", ErrJournal, len(records)+1, maxLine)
		case err != nil:
			return nil, err
		}
		record, err := DecodeRecord(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(records)+1, err)
		}
		records = append(records, record)
	}
}

// Replay is the launch that the records led to; without any it is the zero Launch.
func Replay(records []Record) (Launch, error) {
	var l Launch
	for _, r := range records {
		next, err := l.Apply(r)
		if err != nil {
			return Launch{}, err
		}
		l = next
	}
	return l, nil
}

// Apply is the launch after one more record, which is what [Next] and the commands return. Instances
// that follow a launch apply each record they are told of. The error is an [ErrJournal].
func (l Launch) Apply(r Record) (Launch, error) {
	next, err := l.apply(r)
	if err != nil {
		return l, fmt.Errorf("%w: revision %d: %w", ErrJournal, r.Revision, err)
	}
	return next, nil
}

func (l Launch) apply(r Record) (Launch, error) {
	switch {
	case r.Revision != l.Revision+1:
		return l, fmt.Errorf("follows %d", l.Revision)
	case r.Sum != r.checksum(l.Sum):
		return l, errors.New("wrong checksum")
	case (l.Revision == 0) != (r.Opening != nil):
		return l, errors.New("the first record, and no other, opens a launch")
	case l.Revision > 0 && l.Phase.Over():
		return l, fmt.Errorf("launch is %s", l.Phase)
	case l.Revision > 0 && r.Launch != l.ID:
		return l, fmt.Errorf("is of launch %q", r.Launch)
	}
	if o := r.Opening; o != nil {
		if err := o.Plan.Validate(); err != nil {
			return l, fmt.Errorf("plan: %w", err)
		}
		l = Launch{
			Format: Format, ID: r.Launch, Salt: o.Salt, StableURL: o.StableURL, CandidateURL: o.CandidateURL,
			Plan: o.Plan.withDefaults(), StartedAt: r.At,
		}
	}
	if r.Action != ActLook {
		l.Reason = r.Reason
	}
	l.Phase, l.Step, l.Weight, l.Epoch, l.Accepted = r.Phase, r.Step, r.Weight, r.Epoch, r.Accepted
	l.StepAt, l.EpochAt, l.Revision, l.Sum = r.StepAt, r.EpochAt, r.Revision, r.Sum
	return l, l.sound()
}

// sound is nil if the plan has such a state. It is for journals that were written by something else.
func (l Launch) sound() error {
	switch l.Phase {
	case Running, Paused, HeldShared, HeldWorse, HeldAlone, Inconclusive, Watching, Completed, RolledBack:
	default:
		return fmt.Errorf("no such phase: %q", l.Phase)
	}
	if l.Step < 0 || l.Step >= len(l.Plan.Steps) {
		return fmt.Errorf("no such step: %d", l.Step)
	}
	want := l.Plan.Steps[l.Step].Weight
	if l.Phase == RolledBack {
		want = 0
	}
	if l.Weight != want {
		return fmt.Errorf("weight is %v, of this step it is %v", l.Weight, want)
	}
	return nil
}

// checksum chains the record to the one before, so that neither a changed line nor a missing one goes
// unnoticed.
func (r Record) checksum(before string) string {
	r.Sum = before
	sum := sha256.Sum256(r.Encode())
	return hex.EncodeToString(sum[:16])
}

// record is what is written when l becomes next.
func (l Launch) record(next Launch, r Record) (Launch, Record) {
	r.Format, r.Launch, r.Revision, r.At = Format, next.ID, l.Revision+1, r.At.UTC().Round(0)
	r.Phase, r.Step, r.Weight, r.Epoch, r.Accepted = next.Phase, next.Step, next.Weight, next.Epoch, next.Accepted
	r.StepAt, r.EpochAt = next.StepAt.UTC().Round(0), next.EpochAt.UTC().Round(0)
	r.Sum = r.checksum(l.Sum)
	l, err := l.Apply(r)
	if err != nil {
		panic(err) // what the judge and the commands make, a journal can hold
	}
	return l, r
}
