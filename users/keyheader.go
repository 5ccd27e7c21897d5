package users

import (
	"crypto/sha256"

	"github.com/gantryhq/gantry/problem"
)

// onceOf reads an idempotency key, for what is asked for in parts.
func onceOf(key, request, ifMatch string, body []byte) (Once, []problem.Fault) {
	if key == "" {
		return Once{}, nil
	}
	if !visible(key) || len(key) > 255 {
		return Once{}, []problem.Fault{{Pointer: "header/Idempotency-Key", Detail: "must be 1 to 255 visible ASCII characters"}}
	}
	sum := sha256.Sum256(appendText(appendText(appendText(nil, request), ifMatch), string(body)))
	return Once{Key: key, Fingerprint: sum[:]}, nil
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
