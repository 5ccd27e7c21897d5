package users

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// ErrCursor says that a cursor is not one of ours, or is of a list with another filter.
var ErrCursor = errors.New("the cursor is not of this list")

// cursors writes places in a list so that clients can hand them back but not make them up: a time
// and an id, the digest of the filter, and a MAC over it all, in base64url. The keys are in the order of
// preference.
type cursors struct{ keys [][]byte }

const (
	cursorHead = 16 // the time, then the filter's digest, eight bytes each
	macSize    = 16
	// maxCursor is the longest text that is looked at.
	maxCursor = 512
)

// filter is a digest of what a list is filtered by.
func (q ListQuery) filter() []byte {
	sum := sha256.Sum256(appendText(appendText(nil, string(q.Status)), q.Match))
	return sum[:8]
}

func (c cursors) write(p Position, filter []byte) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.At.UnixMicro()))
	b = append(append(b, filter...), p.ID...)
	return base64.RawURLEncoding.EncodeToString(append(b, mac(c.keys[0], b)...))
}

// read returns the place, the zero one for "".
func (c cursors) read(text string, filter []byte) (Position, error) {
	if text == "" {
		return Position{}, nil
	}
	if len(text) > maxCursor {
		return Position{}, ErrCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < cursorHead+macSize {
		return Position{}, ErrCursor
	}
	body, sum := b[:len(b)-macSize], b[len(b)-macSize:]
	if !c.signed(body, sum) || !hmac.Equal(body[8:cursorHead], filter) {
		return Position{}, ErrCursor
	}
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(body))).UTC()
	return Position{At: at, ID: string(body[cursorHead:])}, nil
}

func (c cursors) signed(body, sum []byte) bool {
	for _, key := range c.keys {
		if hmac.Equal(mac(key, body), sum) {
			return true
		}
	}
	return false
}

func mac(key, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("gantry cursor 1"))
	m.Write(body)
	return m.Sum(nil)[:macSize]
}
