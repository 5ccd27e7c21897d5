package identity

import "fmt"

// Mode says what a route asks of its callers.
type Mode int

// The modes. The zero value is the strict one.
const (
	Required Mode = iota // a valid token, or 401
	Optional             // no token is anonymous; a bad token is still 401
	None                 // the token is not looked at
)

// ParseMode reads "required", "optional" or "none".
func ParseMode(text string) (Mode, error) {
	for _, m := range [...]Mode{Required, Optional, None} {
		if text == m.String() {
			return m, nil
		}
	}
	return Required, fmt.Errorf("identity mode %q is not required, optional or none", text)
}

// String returns the word that ParseMode reads.
func (m Mode) String() string {
	switch m {
	case Required:
		return "required"
	case Optional:
		return "optional"
	case None:
		return "none"
	default:
		return fmt.Sprintf("mode(%d)", int(m))
	}
}
