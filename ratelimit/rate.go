package ratelimit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The bounds of a [Rate]. A log holds one stamp of 8 bytes for each admission of a window, so the
// largest limit costs 8 MB for a key that uses it up.
const (
	MaxLimit  = 1_000_000
	MinWindow = time.Second
	MaxWindow = 24 * time.Hour
)

// ErrRate is wrapped by every error about a rate.
var ErrRate = errors.New("a rate is a number of requests, such as 100, or a number and a window, such as 100/min, 5/s, 1000/h or 100/90s")

// Rate is at most Limit admissions in any Window, wherever the window begins. Limit is from 1 to
// [MaxLimit]; Window is whole seconds from [MinWindow] to [MaxWindow], whole because clients are
// told of it in seconds. The zero Rate is "not set".
type Rate struct {
	Limit  int
	Window time.Duration
}

// ParseRate reads "100" (a minute), "100/min", "5/s", "1000/h", "1000/day" or a Go duration as in
// "100/1m30s". Errors wrap [ErrRate] and do not repeat the text.
func ParseRate(text string) (Rate, error) {
	number, per, found := strings.Cut(strings.TrimSpace(text), "/")
	r := Rate{Window: time.Minute}
	limit, err := strconv.ParseUint(strings.TrimSpace(number), 10, 31)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return Rate{}, fmt.Errorf("the limit is more than %d: %w", MaxLimit, ErrRate)
	case err != nil:
		return Rate{}, fmt.Errorf("the limit is not a whole number: %w", ErrRate)
	}
	r.Limit = int(limit)
	if found {
		if r.Window, err = parseWindow(strings.TrimSpace(per)); err != nil {
			return Rate{}, err
		}
	}
	if err := r.Validate(); err != nil {
		return Rate{}, err
	}
	return r, nil
}

func parseWindow(text string) (time.Duration, error) {
	switch strings.ToLower(text) {
	case "s", "sec", "second":
		return time.Second, nil
	case "m", "min", "minute":
		return time.Minute, nil
	case "h", "hour":
		return time.Hour, nil
	case "d", "day":
		return 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("the window is neither s, min, h, day nor a duration: %w", ErrRate)
	}
	return d, nil
}

// Validate reports the first bound that r breaks. The zero Rate is not valid.
func (r Rate) Validate() error {
	switch {
	case r.Limit < 1:
		return fmt.Errorf("the limit is less than 1: %w", ErrRate)
	case r.Limit > MaxLimit:
		return fmt.Errorf("the limit is more than %d: %w", MaxLimit, ErrRate)
	case r.Window < MinWindow || r.Window > MaxWindow:
		return fmt.Errorf("the window is not between 1s and 24h: %w", ErrRate)
	case r.Window%time.Second != 0:
		return fmt.Errorf("the window is not whole seconds: %w", ErrRate)
	}
	return nil
}

// IsZero says that r is not set.
func (r Rate) IsZero() bool { return r == Rate{} }

// String writes r as [ParseRate] reads it, in the shortest usual form: "100/min".
func (r Rate) String() string {
	return strconv.Itoa(r.Limit) + "/" + windowName(r.Window)
}

func windowName(w time.Duration) string {
	switch w {
	case time.Second:
		return "s"
	case time.Minute:
		return "min"
	case time.Hour:
		return "h"
	case 24 * time.Hour:
		return "day"
	}
	name := w.String()
	if w%time.Minute == 0 {
		name = strings.TrimSuffix(name, "0s")
	}
	if w%time.Hour == 0 {
		name = strings.TrimSuffix(name, "0m")
	}
	return name
}

// MarshalText implements [encoding.TextMarshaler].
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] by [ParseRate].
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := ParseRate(string(text))
	if err == nil {
		*r = parsed
	}
	return err
}

func (r Rate) orElse(fallback Rate) Rate {
	if r.IsZero() {
		return fallback
	}
	return r
}

// times returns r with its limit times part/whole, rounded down, at least 1.
func (r Rate) times(part, whole int) Rate {
	r.Limit = max(1, int(int64(r.Limit)*int64(part)/int64(whole)))
	return r
}
