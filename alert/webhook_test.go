package alert

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestSignaturesAreStandardWebhooks is the known answer of that specification's libraries.
func TestSignaturesAreStandardWebhooks(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	w := Webhook{key: key}
	h := w.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := h.Get("Webhook-Signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature = %s, want %s", got, want)
	}
}

func TestWebhookBodiesAreTheGoldenOnes(t *testing.T) {
	in := newInbox(t, answering(http.StatusNoContent))
	w, err := NewWebhook(in.URL+"/hook", []byte("0123456789abcdef01234567"), in.transport())
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for name, n := range map[string]Notification{"firing": sample(), "resolved": resolved(sample())} {
		for range 2 { // a second attempt has the same id
			if err := w.Notify(t.Context(), n); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := <-in.got
			golden(t, "webhook_"+name+".golden.json", indented(t, got.body))
			ids[got.header.Get("Webhook-Id")] = true
			if !strings.HasPrefix(got.header.Get("Webhook-Signature"), "v1,") || got.header.Get("Webhook-Timestamp") == "" {
				t.Errorf("headers = %v", got.header)
			}
		}
	}
	if len(ids) != 2 {
		t.Errorf("ids = %v, want one a message", ids)
	}
}

// TestReceiversThatFail is every way in which one can, what is done about it, and that no error gives the address away.
func TestReceiversThatFail(t *testing.T) {
	const secret = "xoxSECRETxox"
	var elsewhere bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere = true }))
	t.Cleanup(other.Close)
	for _, c := range []struct {
		name      string
		answer    http.HandlerFunc
		permanent bool
		wait      time.Duration
		says      string
	}{
		{"bad request", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "invalid_payload at "+r.URL.String(), http.StatusBadRequest)
		}, true, 0, "invalid_payload at [redacted]"},
		{"gone", answering(http.StatusGone), true, 0, "410"},
		{"too fast", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		}, false, 30 * time.Second, "429"},
		{"broken", answering(http.StatusInternalServerError), false, 0, "500"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			for _, err := io.WriteString(w, "x"); err == nil; _, err = io.WriteString(w, strings.Repeat("x", 1<<16)) {
			}
		}, false, 0, "502: xxx"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusPermanentRedirect)
		}, true, 0, "not followed"},
	} {
		in := newInbox(t, c.answer)
		s, err := NewSlack(in.URL+"/services/"+secret, in.transport())
		if err != nil {
			t.Fatal(err)
		}
		err = s.Notify(t.Context(), sample())
		refusal, ok := errors.AsType[*DeliveryError](err)
		if !ok || refusal.Permanent != c.permanent || refusal.RetryAfter != c.wait || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) || len(err.Error()) > 300 {
			t.Errorf("%s: %+v", c.name, err)
		}
	}
	if elsewhere {
		t.Error("the redirect was followed")
	}
}

func TestReceiversThatCannotBeReached(t *testing.T) {
	const secret = "xoxSECRETxox"
	in := newInbox(t, answering(http.StatusOK))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	vanished, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	vanished.Close()
	for name, address := range map[string]string{
		"hangs": "https://" + silent.Addr().String(), "refuses": "https://" + vanished.Addr().String(), "is somebody else": in.URL, "is no address": "https://\x00",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		s, err := NewSlack(address+"/services/"+secret, nil)
		if err == nil {
			err = s.Notify(ctx, sample())
		}
		cancel()
		if _, answered := errors.AsType[*DeliveryError](err); err == nil || answered || strings.Contains(err.Error(), secret) {
			t.Errorf("a receiver that %s: %v", name, err)
		}
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-1": 0, "1e9": 0, noon.Add(time.Minute).Format(http.TimeFormat): time.Minute, noon.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(text, noon); got != want {
			t.Errorf("%q = %v, want %v", text, got, want)
		}
	}
}
