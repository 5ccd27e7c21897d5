package clerk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far a message's time of sending may be from now, either way.
const Tolerance = 300 * time.Second

// ErrSignature is every way for a signature to be wrong; a sender is not told which.
var ErrSignature = errors.New("the webhook's signature is not valid")

// envelope is what the headers of a message say.
type envelope struct {
	id, timestamp string
	signatures    []string
}

// Verify checks a message as Svix signs it (https://docs.svix.com/receiving/verifying-payloads/how-manual;
// https://www.standardwebhooks.com, "Verifying signatures") and returns its id, which stays the same
// when the message is sent again. body is the bytes as they came: text that was parsed and printed again
// has another signature. Any of the keys may have signed. Every error is [ErrSignature].
func Verify(keys [][]byte, header http.Header, body []byte, now time.Time) (id string, err error) {
	e, err := readEnvelope(header, now)
	if err != nil {
		return "", err
	}
	if !e.signed(keys, body) {
		return "", ErrSignature
	}
	return e.id, nil
}

// readEnvelope refuses what needs no body to be refused. All three headers come from one family.
func readEnvelope(header http.Header, now time.Time) (envelope, error) {
	family := "Svix-"
	if len(header["Svix-Id"]) == 0 {
		family = "Webhook-"
	}
	var e envelope
	var ok [3]bool
	e.id, ok[0] = single(header[family+"Id"])
	e.timestamp, ok[1] = single(header[family+"Timestamp"])
	list, there := single(header[family+"Signature"])
	e.signatures, ok[2] = strings.Split(list, " "), there && len(list) <= 4096
	if ok != [3]bool{true, true, true} || !isMessageID(e.id) || !recent(e.timestamp, now) {
		return envelope{}, ErrSignature
	}
	return e, nil
}

func single(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	return values[0], true
}

// isMessageID accepts visible ASCII but the dot, which sets the id apart from the time that follows it
// in what is signed.
func isMessageID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '.' {
			return false
		}
	}
	return id != "" && len(id) <= 200
}

// recent reads seconds since 1970: one to twelve digits and nothing else.
func recent(timestamp string, now time.Time) bool {
	if timestamp == "" || len(timestamp) > 12 || strings.Trim(timestamp, "0123456789") != "" {
		return false
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return false
	}
	apart := now.Unix() - seconds
	return -int64(Tolerance/time.Second) <= apart && apart <= int64(Tolerance/time.Second)
}

// signed compares every signature with every key's, so that the time it takes says nothing about
// which of them came close.
func (e envelope) signed(keys [][]byte, body []byte) bool {
	match := false
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(e.id + "." + e.timestamp + "."))
		mac.Write(body)
		want := []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for _, signature := range e.signatures {
			text, ours := strings.CutPrefix(signature, "v1,")
			match = ours && len(key) > 0 && hmac.Equal([]byte(text), want) || match
		}
	}
	return match
}
