package probes

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// canMint names the knobs that let a probe make tokens.
const canMint = "--jwt-key or --issuer-harness"

// mint makes tokens that differ in one thing from one that the target accepts.
type mint struct {
	*audit.Signer
	now     time.Time // of the target's clock
	control *audit.Exchange
}

// minted is a genuinely signed token with something about it that the target should refuse.
type minted struct {
	label, token string
	severity     audit.Severity // of its acceptance; zero is the probe's own
	remark       bool           // acceptance is worth a word, and no failure
}

// minting opens the run's signer, and has the target accept an untouched mint first: only then does the refusal of a
// changed one say anything.
func minting(ctx context.Context, s *audit.Session) (*mint, error) {
	g, err := s.Signer()
	if err != nil {
		return nil, err
	}
	m := &mint{Signer: g, now: targetNow(s)}
	token, err := g.Mint(m.now, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("minting with %s: %w", g.Source, err)
	}
	x, err := minted{label: "control: minted, nothing changed", token: token}.send(ctx, s)
	if err != nil {
		return nil, err
	}
	if !s.Accepted(x) {
		return nil, fmt.Errorf("an untouched token minted with %s is not accepted (%d)", g.Source, x.Status)
	}
	m.control = x
	return m, nil
}

// cannotMint is the verdict that goes with an error of minting.
func cannotMint() audit.Verdict { return audit.Unproven("").Unlock("%s", canMint) }

// targetNow is the run's clock, moved to the target's when its Date header (RFC 9110 section 6.6.1) differs by more
// than a slow answer explains: a token is judged by the clock of whoever verifies it.
func targetNow(s *audit.Session) time.Time {
	c := s.Calibration()
	if c == nil || c.Valid == nil {
		return s.Now()
	}
	date, err := http.ParseTime(c.Valid.Header.Get("Date"))
	ahead := date.Sub(c.Valid.At)
	if err != nil || ahead.Abs() < 5*time.Second {
		return s.Now()
	}
	return s.Now().Add(ahead)
}

func (t minted) send(ctx context.Context, s *audit.Session) (*audit.Exchange, error) {
	return s.Do(ctx, t.request(s))
}

func (t minted) request(s *audit.Session) audit.Request {
	return audit.Request{Path: s.Calibration().Path, Token: t.token, Label: t.label}
}

// like is a mint with members of header and claims replaced.
func (m *mint) like(label string, header, claims map[string]any) (minted, error) {
	token, err := m.Mint(m.now, header, claims)
	return minted{label: label, token: token}, err
}

// raw is an untouched mint's header and claims as bytes, for what a JSON encoder cannot write.
func (m *mint) raw() (jws.Token, error) {
	token, err := m.Mint(m.now, nil, nil)
	if err != nil {
		return jws.Token{}, err
	}
	return jws.Parse(token)
}

// sign raw bytes.
func (m *mint) sign(label string, header, payload []byte) (minted, error) {
	token, err := jws.Sign(header, payload, m.Alg, m.Key)
	return minted{label: label, token: token}, err
}

// judgeMinted presents each, worst first. The first that is accepted twice, with the valid token accepted in between, fails the
// probe; an answer that is neither acceptance nor refusal leaves it unproven.
func judgeMinted(ctx context.Context, s *audit.Session, list []minted) (audit.Verdict, error) {
	var last, odd *audit.Exchange
	var labels, remarks []string
	for _, t := range list {
		x, err := t.send(ctx, s)
		if err != nil {
			return audit.Verdict{}, err
		}
		switch got := classify(s, x); {
		case got == served && t.remark:
			remarks = append(remarks, t.label)
		case got == served:
			return confirmTaken(ctx, s, t, x)
		case t.remark: // only its acceptance would be worth a word
		case got == refused:
			last, labels = x, append(labels, t.label)
		default:
			odd = x
		}
	}
	return summary(last, odd, labels, remarks), nil
}

func confirmTaken(ctx context.Context, s *audit.Session, t minted, x *audit.Exchange) (audit.Verdict, error) {
	again, err := s.Repeats(ctx, t.request(s), s.Accepted)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("accepted once and not again: %s", t.label).With(x), nil
	}
	c := s.Calibration()
	return audit.Failed("accepted like the valid token: %s", t.label).As(t.severity).With(x, c.Valid, c.Garbage), nil
}

func summary(last, odd *audit.Exchange, labels, remarks []string) audit.Verdict {
	also := ""
	if len(remarks) > 0 {
		also = "; accepted, which is no fault by itself: " + strings.Join(remarks, ", ")
	}
	switch {
	case odd != nil:
		return audit.Unproven("neither accepted nor refused: %s%s", odd, also).With(odd)
	case last == nil:
		return audit.Unproven("nothing that could be judged was sent%s", also)
	}
	return audit.Passed("refused (%d): %s%s", last.Status, strings.Join(labels, "; "), also).With(last)
}
