package rollout

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// written is the journal of a launch that reached 50 % and was rolled back.
func written(t testing.TB) (Launch, []byte) {
	t.Helper()
	l, first, err := Start(Request{
		ID: "launch-1", Salt: make([]byte, 16), StableURL: "http://127.0.0.1:1", CandidateURL: "http://127.0.0.1:2",
		Plan: Plan{MaxErrors: 0.01}, Actor: "ops", Reason: "release 2",
	}, noon)
	if err != nil {
		t.Fatal(err)
	}
	journal := append(first.Encode(), '\n')
	for i, candidate := range []Side{seen(100, 0), seen(300, 1), seen(600, 1), seen(50, 20)} {
		var r Record
		l, r = at(l, time.Duration(i+3)*time.Minute, seen(1000, 2), candidate)
		journal = append(append(journal, r.Encode()...), '\n')
	}
	wantPhase(t, l, RolledBack, 0)
	return l, journal
}

func read(journal []byte) (Launch, error) {
	records, err := ReadJournal(bytes.NewReader(journal))
	if err != nil {
		return Launch{}, err
	}
	return Replay(records)
}

func TestTheJournalLeadsToTheLiveState(t *testing.T) {
	live, journal := written(t)
	got, err := read(journal)
	if diff := cmp.Diff(live, got); err != nil || diff != "" {
		t.Errorf("replayed: %v\n%s", err, diff)
	}
}

func TestALineThatWasNotWrittenToItsEndIsLeftOut(t *testing.T) {
	_, journal := written(t)
	whole := bytes.LastIndexByte(journal[:len(journal)-1], '\n') + 1
	want, err := read(journal[:whole])
	if err != nil {
		t.Fatal(err)
	}
	wantPhase(t, want, Running, 5000)
	for end := whole; end < len(journal); end++ {
		got, err := read(journal[:end])
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("cut at %d: %v\n%s", end, err, diff)
		}
	}
}

// Every byte of what was written is protected, by its form or by the chain of checksums, unless another
// one means the same.
func TestAChangedByteIsNoticed(t *testing.T) {
	_, journal := written(t)
	records, err := ReadJournal(bytes.NewReader(journal))
	if err != nil {
		t.Fatal(err)
	}
	for i, record := range records {
		line := record.Encode()
		for at := range line {
			changed := bytes.Clone(line)
			changed[at] ^= 0x01
			read, err := DecodeRecord(changed)
			if err == nil && !cmp.Equal(record, read) {
				_, err = Replay(append(slices.Clone(records[:i]), read))
			} else if err == nil {
				continue
			}
			if !errors.Is(err, ErrJournal) {
				t.Fatalf("%q for %q at %d of line %d: %v, want ErrJournal", changed[at], line[at], at, i, err)
			}
		}
	}
}

func TestAJournalThatLacksOrRepeatsALineIsCorrupt(t *testing.T) {
	_, journal := written(t)
	lines := strings.SplitAfter(strings.TrimSuffix(string(journal), "\n"), "\n")
	for name, changed := range map[string][]string{
		"lacks the first":  lines[1:],
		"lacks one":        {lines[0], lines[1], lines[3]},
		"repeats one":      {lines[0], lines[1], lines[1], lines[2]},
		"in another order": {lines[0], lines[2], lines[1], lines[3]},
		"begins anew":      {lines[0], lines[1], lines[0]},
		"is too long":      {lines[0], `{"reason":"` + strings.Repeat("x", maxLine) + `"}` + "\n"},
		"is of the future": {strings.Replace(lines[0], `"format":1`, `"format":2`, 1)},
		"has no record":    {lines[0], "\n"},
		"has two in one":   {strings.TrimSpace(lines[0]) + lines[1]},
		"has more fields":  {lines[0], strings.Replace(lines[1], `{"format"`, `{"more":1,"format"`, 1)},
		"opens twice":      {lines[0], strings.Replace(lines[1], `"sum"`, `"opening":{"salt":"","stable":"","candidate":"","plan":{}},"sum"`, 1)},
	} {
		if l, err := read([]byte(strings.Join(changed, ""))); !errors.Is(err, ErrJournal) || l.Weight != 0 {
			t.Errorf("%s: %v at %v, want ErrJournal at 0 %%", name, err, l.Weight)
		}
	}
}

// A right checksum does not make a launch of what no plan allows.
func TestARecordThatNoLaunchCanTakeIsCorrupt(t *testing.T) {
	l := begun(t, Plan{})
	for name, change := range map[string]func(*Record){
		"a weight beside the steps": func(r *Record) { r.Weight = 7000 },
		"a step beyond the last":    func(r *Record) { r.Step = 3 },
		"a negative step":           func(r *Record) { r.Step = -1 },
		"a phase of its own":        func(r *Record) { r.Phase = "lost" },
		"rolled back with traffic":  func(r *Record) { r.Phase = RolledBack },
		"of another launch":         func(r *Record) { r.Launch = "launch-2" },
	} {
		_, r := at(l, time.Minute, seen(10, 0), seen(10, 0))
		change(&r)
		r.Sum = r.checksum(l.Sum)
		if _, err := l.Apply(r); !errors.Is(err, ErrJournal) {
			t.Errorf("%s: %v, want ErrJournal", name, err)
		}
	}
	over, last, err := l.Abort("ops", "", noon)
	if err != nil {
		t.Fatal(err)
	}
	last.Revision++
	last.Sum = last.checksum(over.Sum)
	if _, err := over.Apply(last); !errors.Is(err, ErrJournal) {
		t.Errorf("after the end: %v, want ErrJournal", err)
	}
}

func TestAnEmptyJournalSendsNobody(t *testing.T) {
	if l, err := read(nil); err != nil || l.Weight != 0 || !l.Phase.Over() {
		t.Errorf("launch = %+v, %v", l, err)
	}
}

// What a journal says, whoever wrote it, is an error or a state of its plan that can be judged. Its checksums
// are mended, since no luck gets past them.
func FuzzJournal(f *testing.F) {
	_, journal := written(f)
	f.Add(journal)
	f.Add(journal[:len(journal)/2])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, journal []byte) {
		records, err := ReadJournal(bytes.NewReader(journal))
		if err != nil && !errors.Is(err, ErrJournal) {
			t.Fatal(err)
		}
		sum := ""
		for i := range records {
			records[i].Revision = uint64(i) + 1
			records[i].Sum = records[i].checksum(sum)
			sum = records[i].Sum
		}
		l, err := Replay(records)
		if err != nil {
			if !errors.Is(err, ErrJournal) || l.Weight != 0 {
				t.Fatalf("launch at %v, %v", l.Weight, err)
			}
			return
		}
		if l.Revision > 0 {
			if err := errors.Join(l.sound(), l.Plan.Validate()); err != nil {
				t.Fatal(err)
			}
			at(l, time.Hour, seen(100, 50), seen(100, 50))
		}
	})
}
