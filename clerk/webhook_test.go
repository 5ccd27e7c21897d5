package clerk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/clerk"
)

// inbox remembers ids as a store does.
type inbox struct {
	mu   sync.Mutex
	ids  map[string]clerk.Event
	fail error
}

func (b *inbox) apply(_ context.Context, e clerk.Event, id string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return false, b.fail
	}
	if _, known := b.ids[id]; known {
		return false, nil
	}
	if b.ids == nil {
		b.ids = make(map[string]clerk.Event)
	}
	b.ids[id] = e
	return true, nil
}

func newHook(t *testing.T, change func(*clerk.WebhookConfig)) (*clerk.Webhook, *inbox, *[]clerk.Receipt) {
	t.Helper()
	box, seen := &inbox{}, &[]clerk.Receipt{}
	cfg := clerk.WebhookConfig{
		Secrets: func() [][]byte { return [][]byte{testKey} }, Apply: box.apply,
		Seen: func(_ *http.Request, r clerk.Receipt) { *seen = append(*seen, r) },
	}
	if change != nil {
		change(&cfg)
	}
	h, err := clerk.NewWebhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, box, seen
}

// send delivers body with a good signature of now.
func send(h http.Handler, id, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/v1/webhooks/clerk", strings.NewReader(body))
	r.Header = signedHeader(id, strconv.FormatInt(time.Now().Unix(), 10), []byte(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const created = `{"type":"user.created","object":"event","timestamp":1700000000123,"instance_id":"ins_1","data":{"id":"user_1",
	"first_name":" Zoë","last_name":null,"username":"zoe","image_url":"https://img.example/z","primary_email_address_id":"idn_2",
	"email_addresses":[{"id":"idn_1","email_address":"old@example.com","verification":{"status":"verified"}},
	{"id":"idn_2","email_address":"zoe@example.com","verification":{"status":"verified"}}],
	"private_metadata":{"iban":"canary7f3a"},"created_at":1700000000000,"updated_at":1700000000100}}`

func TestAnEventIsAppliedOnce(t *testing.T) {
	h, box, seen := newHook(t, nil)
	for range 3 {
		if w := send(h, "msg_1", created); w.Code != 200 {
			t.Fatalf("answer = %d %s", w.Code, w.Body)
		}
	}
	want := clerk.User{
		ID: "user_1", Email: "zoe@example.com", Name: "Zoë", Username: "zoe", ImageURL: "https://img.example/z",
		CreatedAt: time.UnixMilli(1_700_000_000_000).UTC(), UpdatedAt: time.UnixMilli(1_700_000_000_100).UTC(),
	}
	e := box.ids["msg_1"]
	if e.User != want || e.Kind != clerk.UserChanged || e.At != time.UnixMilli(1_700_000_000_123).UTC() {
		t.Errorf("event = %+v", e)
	}
	s := *seen
	if len(s) != 3 || s[0].Result != clerk.Applied || s[2].Result != clerk.WithoutEffect || s[0].Type != "user.created" || s[0].Lag <= 0 {
		t.Errorf("receipts = %+v", s)
	}
}

func TestTypesAndWhatTheyAskFor(t *testing.T) {
	for _, tt := range []struct {
		body   string
		status int
		result clerk.Result
		kind   clerk.EventKind
	}{
		{`{"type":"user.updated","data":{"id":"user_1","updated_at":1700000000000}}`, 200, clerk.Applied, clerk.UserChanged},
		{`{"type":"user.deleted","timestamp":1700000000000,"data":{"id":"user_1","deleted":true}}`, 200, clerk.Applied, clerk.UserDeleted},
		{`{"type":"session.ended","data":{"id":"sess_1","user_id":"user_1"}}`, 200, clerk.Applied, clerk.SessionEnded},
		{`{"type":"session.removed","data":{"id":"sess_1","user_id":"user_1"}}`, 200, clerk.Applied, clerk.SessionEnded},
		{`{"type":"session.revoked","data":{"id":"sess_1","user_id":"user_1"}}`, 200, clerk.Applied, clerk.SessionEnded},
		{`{"type":"session.created","data":{"id":"sess_1","user_id":"user_1"}}`, 200, clerk.Ignored, 0},
		{`{"type":"email.created","data":[]}`, 200, clerk.Ignored, 0},
		{`{"type":"user.updated","data":{"id":"user_1"}}`, 400, clerk.Malformed, 0},
		{`{"type":"user.deleted","data":{"id":"user_1"}}`, 400, clerk.Malformed, 0},
		{`{"type":"user.updated","data":{"id":"user 1","updated_at":1}}`, 400, clerk.Malformed, 0},
		{`{"type":"session.ended","data":{"id":"sess_1"}}`, 400, clerk.Malformed, 0},
		{`{"type":"user.updated"}`, 400, clerk.Malformed, 0},
		{`{"data":{}}`, 400, clerk.Malformed, 0},
		{`{"type":`, 400, clerk.Malformed, 0},
		{``, 400, clerk.Malformed, 0},
		{"\xff\xfe", 400, clerk.Malformed, 0},
	} {
		h, box, seen := newHook(t, nil)
		w := send(h, "msg_1", tt.body)
		if w.Code != tt.status || (*seen)[0].Result != tt.result || box.ids["msg_1"].Kind != tt.kind {
			t.Errorf("%q: %d %v %v, want %d %v %v", tt.body, w.Code, (*seen)[0].Result, box.ids["msg_1"].Kind, tt.status, tt.result, tt.kind)
		}
	}
}

func TestAnUnverifiedAddressIsNobodys(t *testing.T) {
	for _, verification := range []string{`{"status":"unverified"}`, `null`, `{}`} {
		body := strings.Replace(created, `"zoe@example.com","verification":{"status":"verified"}`, `"zoe@example.com","verification":`+verification, 1)
		e, err := clerk.ParseEvent([]byte(body))
		if err != nil || e.User.Email != "" {
			t.Errorf("%s: %q, %v", verification, e.User.Email, err)
		}
	}
}

func TestABadSignatureWritesNothingAndSaysNothing(t *testing.T) {
	h, box, seen := newHook(t, nil)
	answers := make(map[string]bool)
	for _, spoil := range []func(*http.Request){
		func(r *http.Request) { r.Header.Del("Svix-Id") },
		func(r *http.Request) { r.Header.Set("Svix-Id", "msg_2") },
		func(r *http.Request) { r.Header.Set("Svix-Timestamp", "1") },
		func(r *http.Request) { r.Header.Set("Svix-Signature", "v1,AAAA") },
		func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(created + " ")) },
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(created))
		r.Header = signedHeader("msg_1", strconv.FormatInt(time.Now().Unix(), 10), []byte(created))
		spoil(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 401 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("answer = %d %s", w.Code, w.Body)
		}
		answers[w.Body.String()] = true
	}
	if len(answers) != 1 || len(box.ids) != 0 || (*seen)[4].Result != clerk.BadSignature {
		t.Errorf("answers = %v, rows = %v, receipts = %v", answers, box.ids, *seen)
	}
}

func TestFailureIsSentAgain(t *testing.T) {
	var log bytes.Buffer
	h, box, seen := newHook(t, func(c *clerk.WebhookConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	box.fail = errors.New("the disk is full")
	w := send(h, "msg_1", created)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || (*seen)[0].Result != clerk.Failed || strings.Contains(w.Body.String(), "disk") {
		t.Errorf("answer = %d %s", w.Code, w.Body)
	}
	box.fail = nil
	if w := send(h, "msg_1", created); w.Code != 200 || (*seen)[1].Result != clerk.Applied {
		t.Errorf("the second time = %d %v", w.Code, (*seen)[1].Result)
	}
	if text := log.String(); !strings.Contains(text, "disk is full") || strings.Contains(text, "canary7f3a") || strings.Contains(text, "zoe@") {
		t.Errorf("log = %s", text)
	}
}

func TestOnlyPostIsAllowed(t *testing.T) {
	h, _, seen := newHook(t, nil)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/v1/webhooks/clerk", nil))
		if w.Code != 405 || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s = %d %v", method, w.Code, w.Header())
		}
	}
	if len(*seen) != 0 {
		t.Errorf("receipts = %v", *seen)
	}
}

func TestAMessageMayHaveAMebibyte(t *testing.T) {
	h, _, seen := newHook(t, nil)
	pad := func(n int) string { return `{"type":"x"}` + strings.Repeat(" ", n-12) }
	if w := send(h, "msg_1", pad(clerk.MaxWebhookBody)); w.Code != 200 {
		t.Errorf("1 MiB = %d", w.Code)
	}
	if w := send(h, "msg_2", pad(clerk.MaxWebhookBody+1)); w.Code != 413 || (*seen)[1].Result != clerk.TooLarge {
		t.Errorf("one byte more = %d", w.Code)
	}
}

func TestEventsOfAnotherInstanceHaveNoEffect(t *testing.T) {
	h, box, seen := newHook(t, func(c *clerk.WebhookConfig) { c.InstanceID = "ins_2" })
	if w := send(h, "msg_1", created); w.Code != 200 || len(box.ids) != 0 || (*seen)[0].Result != clerk.OtherInstance {
		t.Errorf("another = %d %v %v", w.Code, box.ids, *seen)
	}
	if w := send(h, "msg_2", strings.Replace(created, "ins_1", "ins_2", 1)); w.Code != 200 || len(box.ids) != 1 {
		t.Errorf("our own = %d %v", w.Code, box.ids)
	}
}

func TestSecretsRotateWithoutARestart(t *testing.T) {
	var keys [][]byte
	set := func(k ...[]byte) { keys = k }
	set(testKey)
	h, _, _ := newHook(t, func(c *clerk.WebhookConfig) { c.Secrets = func() [][]byte { return keys } })
	fresh := bytes.Repeat([]byte("n"), 32)
	for _, tt := range []struct {
		keys [][]byte
		want int
	}{{[][]byte{testKey}, 200}, {[][]byte{fresh, testKey}, 200}, {[][]byte{fresh}, 401}, {nil, 401}} {
		set(tt.keys...)
		if w := send(h, "msg_1", created); w.Code != tt.want {
			t.Errorf("%d keys: %d, want %d", len(tt.keys), w.Code, tt.want)
		}
	}
}

func TestAWebhookWithoutASecretIsNotBuilt(t *testing.T) {
	box := &inbox{}
	for name, secrets := range map[string]func() [][]byte{
		"nil": nil, "none": func() [][]byte { return nil }, "a short one": func() [][]byte { return [][]byte{testKey, make([]byte, 8)} },
	} {
		if _, err := clerk.NewWebhook(clerk.WebhookConfig{Secrets: secrets, Apply: box.apply}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := clerk.NewWebhook(clerk.WebhookConfig{Secrets: func() [][]byte { return [][]byte{testKey} }}); err == nil {
		t.Error("without Apply: no error")
	}
}

func TestTheFrontDoorMayAnswerFirst(t *testing.T) {
	busy := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(429); return false }
	h, box, _ := newHook(t, func(c *clerk.WebhookConfig) { c.BeforeVerify = busy })
	if w := send(h, "msg_1", created); w.Code != 429 || len(box.ids) != 0 {
		t.Errorf("before = %d %v", w.Code, box.ids)
	}
	h, _, seen := newHook(t, func(c *clerk.WebhookConfig) { c.BeforeRefuse = busy })
	if w := send(h, "msg_1", created); w.Code != 200 {
		t.Errorf("a good one = %d", w.Code)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(created)))
	if w.Code != 429 || (*seen)[1].Result != clerk.Turned {
		t.Errorf("a bad one = %d %v", w.Code, *seen)
	}
}

func TestApplyHasLessTimeThanTheSenderWaits(t *testing.T) {
	var left time.Duration
	h, _, _ := newHook(t, func(c *clerk.WebhookConfig) {
		c.Apply = func(ctx context.Context, _ clerk.Event, _ string) (bool, error) {
			deadline, ok := ctx.Deadline()
			if left = time.Until(deadline); !ok {
				left = time.Hour
			}
			return true, nil
		}
	})
	if send(h, "msg_1", created); left > 10*time.Second || left <= 0 {
		t.Errorf("Apply had %v", left)
	}
}

// TestABodyThatStopsIsGivenUp needs a real connection: half of a body, then nothing.
func TestABodyThatStopsIsGivenUp(t *testing.T) {
	t.Parallel() // it lasts as long as the handler waits
	h, _, _ := newHook(t, func(c *clerk.WebhookConfig) { c.Seen = nil })
	server := httptest.NewServer(h)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := signedHeader("msg_1", strconv.FormatInt(time.Now().Unix(), 10), []byte(created))
	text := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nSvix-Id: " + head.Get("Svix-Id") +
		"\r\nSvix-Timestamp: " + head.Get("Svix-Timestamp") + "\r\nSvix-Signature: " + head.Get("Svix-Signature") + "\r\n\r\n{"
	started := time.Now()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(started.Add(20 * time.Second))
	answer, err := io.ReadAll(conn)
	if took := time.Since(started); took > 12*time.Second || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("after %v: %q, %v", took, answer, err)
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(created))
	f.Add([]byte(`{"type":"session.ended","data":{"id":"sess_1","user_id":"user_1","expire_at":9e18}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := clerk.ParseEvent(body)
		if err == nil && e.Kind == clerk.UserChanged && (e.User.ID == "" || e.User.UpdatedAt.IsZero()) {
			t.Errorf("half an event: %+v", e)
		}
	})
}
