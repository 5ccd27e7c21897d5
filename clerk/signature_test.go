package clerk_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
)

const vectorFile = "../../shared/vectors/gantry/svix_signature_vectors.json"

type vector struct {
	Name    string            `json:"name"`
	Valid   bool              `json:"valid"`
	Now     int64             `json:"now"`
	Secret  any               `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body_base64"`
}

func (v vector) secrets() []string {
	switch s := v.Secret.(type) {
	case string:
		return []string{s}
	case []any:
		var out []string
		for _, one := range s {
			out = append(out, one.(string))
		}
		return out
	}
	return nil
}

func (v vector) verify() error {
	var keys [][]byte
	for _, secret := range v.secrets() {
		key, err := clerk.DecodeWebhookSecret(secret)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	header := make(http.Header)
	for name, value := range v.Headers {
		header.Set(name, value)
	}
	id, err := clerk.Verify(keys, header, v.Body, time.Unix(v.Now, 0))
	if err == nil && id != header.Get("Svix-Id")+header.Get("Webhook-Id") {
		return errors.New("another id: " + id)
	}
	return err
}

func TestSignaturesAgreeWithSvix(t *testing.T) {
	text, err := os.ReadFile(vectorFile)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the vectors are not here: ", vectorFile)
	}
	var file struct{ Cases []vector }
	if err := errors.Join(err, json.Unmarshal(text, &file)); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 32 {
		t.Fatalf("%d vectors, want at least 32", len(file.Cases))
	}
	for _, v := range file.Cases {
		if err := v.verify(); (err == nil) != v.Valid {
			t.Errorf("%s: %v, want valid: %v", v.Name, err, v.Valid)
		}
	}
}

var testKey = []byte("a key of 24 bytes, or so")

// signedHeader is what a sender with testKey puts on a message.
func signedHeader(id, timestamp string, body []byte) http.Header {
	mac := hmac.New(sha256.New, testKey)
	mac.Write([]byte(id + "." + timestamp + "." + string(body)))
	return http.Header{"Svix-Id": {id}, "Svix-Timestamp": {timestamp}, "Svix-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}}
}

func TestAGoodSignatureDoesNotSaveBadHeaders(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	body := []byte(`{}`)
	good := signedHeader("msg_1", "1700000000", body)
	if id, err := clerk.Verify([][]byte{testKey}, good, body, now); id != "msg_1" || err != nil {
		t.Fatalf("the good one = %q, %v", id, err)
	}
	mixed := good.Clone()
	mixed["Webhook-Timestamp"] = mixed["Svix-Timestamp"]
	delete(mixed, "Svix-Timestamp")
	twice := good.Clone()
	twice.Add("Svix-Signature", "v1,x")
	for name, h := range map[string]http.Header{
		"nothing": {}, "mixed families": mixed, "a header twice": twice,
		"a dot in the id":   signedHeader("msg.1", "1700000000", body),
		"a space in the id": signedHeader("msg 1", "1700000000", body),
		"a long id":         signedHeader(string(make([]byte, 300)), "1700000000", body),
		"a negative time":   signedHeader("msg_1", "-1700000000", body),
		"a time in hex":     signedHeader("msg_1", "0x6553f100", body),
		"thirteen digits":   signedHeader("msg_1", "0001700000000", body),
		"301 seconds":       signedHeader("msg_1", "1699999699", body),
	} {
		if _, err := clerk.Verify([][]byte{testKey}, h, body, now); !errors.Is(err, clerk.ErrSignature) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	for name, keys := range map[string][][]byte{"no key": nil, "an empty key": {{}}, "another key": {make([]byte, 24)}} {
		if _, err := clerk.Verify(keys, good, body, now); !errors.Is(err, clerk.ErrSignature) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
}
