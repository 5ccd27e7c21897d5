package testenv

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// ClerkFault is a way for Clerk's Backend API to fail a request.
type ClerkFault int

// The faults.
const (
	ClerkHealthy   ClerkFault = iota
	ClerkBusy                 // 429 with Retry-After: 1
	ClerkBusyMute             // 429 without Retry-After
	ClerkFails                // 500
	ClerkGateway              // 502 with a page of HTML
	ClerkDown                 // the connection is closed without an answer
	ClerkDrips                // 200 and then a byte a second
	ClerkCutsShort            // 200 and half of the document
	ClerkIsEmpty              // 200 with an empty list, as if there were no users
	ClerkSendsHuge            // 200 with a list that does not end for 64 MiB
)

// ClerkUser is a user as Clerk holds it.
type ClerkUser struct {
	ID, Email, FirstName, LastName, Username, ImageURL string
	Unverified                                         bool // the e-mail address
	CreatedAt, UpdatedAt                               int64
}

// Clerk is an instance of Clerk: the part of its Backend API that lists users, and the webhooks that
// Svix sends for it. It behaves as the documentation says: pages of 10 by default and of 500 at most,
// where a larger limit is a 422; offsets that shift when users go; a secret key as bearer token; 429
// with Retry-After. Its methods may be called from any goroutine.
type Clerk struct {
	// URL is the Backend API's.
	URL string
	// SecretKey opens the Backend API; WebhookSecret signs.
	SecretKey, WebhookSecret string
	InstanceID               string

	closed chan struct{}

	mu       sync.Mutex
	clock    int64 // milliseconds; every change takes one
	users    map[string]ClerkUser
	outbox   []Message
	faults   func(n int, r *http.Request) ClerkFault
	requests []string
	times    []time.Time
}

// Message is a webhook that waits to be sent.
type Message struct {
	ID   string
	Body []byte
}

// NewClerk starts an instance without users. It ends with the test.
func NewClerk(t testing.TB) *Clerk {
	t.Helper()
	key := make([]byte, 24)
	_, _ = rand.Read(key)
	c := &Clerk{
		SecretKey: "sk_live_" + rand.Text(), WebhookSecret: "whsec_" + base64.StdEncoding.EncodeToString(key), InstanceID: "ins_" + rand.Text(),
		users: make(map[string]ClerkUser), closed: make(chan struct{}), clock: time.Now().Add(-24 * time.Hour).UnixMilli(),
	}
	server := httptest.NewServer(c)
	c.URL = server.URL
	t.Cleanup(func() {
		close(c.closed)
		server.CloseClientConnections()
		server.Close()
	})
	return c
}

// Create makes a user, and reports it.
func (c *Clerk) Create(name string) ClerkUser {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.tick()
	u := ClerkUser{
		ID: "user_" + rand.Text(), Email: strings.ToLower(name) + "@example.com", FirstName: name, LastName: "Tester",
		ImageURL: "https://img.example/" + name + "/1.png", CreatedAt: now, UpdatedAt: now,
	}
	c.users[u.ID] = u
	c.report("user.created", wire(u))
	return u
}

// Adopt takes a user over as it is, without a report.
func (c *Clerk) Adopt(u ClerkUser) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[u.ID] = u
}

// Update changes a user, and reports it.
func (c *Clerk) Update(id string, change func(*ClerkUser)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.users[id]
	if !ok {
		return
	}
	change(&u)
	u.UpdatedAt = c.tick()
	c.users[id] = u
	c.report("user.updated", wire(u))
}

// Delete removes a user, and reports it.
func (c *Clerk) Delete(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.users[id]; !ok {
		return
	}
	delete(c.users, id)
	c.tick()
	c.report("user.deleted", map[string]any{"id": id, "object": "user", "deleted": true})
}

// EndSession reports the end of a session; kind is "ended", "removed" or "revoked".
func (c *Clerk) EndSession(kind, id, userID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.tick()
	c.report("session."+kind, map[string]any{
		"object": "session", "id": id, "user_id": userID, "status": kind, "created_at": now, "updated_at": now,
		"expire_at": now + 7*24*3600*1000, "abandon_at": now + 30*24*3600*1000,
	})
}

// Report reports any event at all.
func (c *Clerk) Report(kind string, data any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tick()
	c.report(kind, data)
}

func (c *Clerk) tick() int64 {
	c.clock++
	return c.clock
}

func (c *Clerk) report(kind string, data any) {
	body, err := json.Marshal(map[string]any{
		"object": "event", "type": kind, "timestamp": c.clock, "instance_id": c.InstanceID, "data": data,
		"event_attributes": map[string]any{"http_request": map[string]any{"client_ip": "192.0.2.1", "user_agent": "test"}},
	})
	if err != nil {
		panic(err) // strings and numbers only
	}
	c.outbox = append(c.outbox, Message{ID: "msg_" + rand.Text(), Body: body})
}

func wire(u ClerkUser) map[string]any {
	status := "verified"
	if u.Unverified {
		status = "unverified"
	}
	return map[string]any{
		"object": "user", "id": u.ID, "first_name": u.FirstName, "last_name": u.LastName, "username": null(u.Username),
		"image_url": u.ImageURL, "has_image": true, "primary_email_address_id": "idn_" + u.ID,
		"email_addresses": []any{
			map[string]any{"id": "idn_other", "email_address": "other@example.com", "verification": nil},
			map[string]any{"id": "idn_" + u.ID, "email_address": u.Email, "verification": map[string]any{"status": status, "strategy": "email_code"}},
		},
		"phone_numbers": []any{}, "private_metadata": map[string]any{"secret": "never to be kept"}, "public_metadata": map[string]any{},
		"created_at": u.CreatedAt, "updated_at": u.UpdatedAt, "last_sign_in_at": nil, "banned": false, "locked": false,
	}
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// Users returns all users by id.
func (c *Clerk) Users() map[string]ClerkUser {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.users)
}

// Messages returns what was reported since the last call, in order.
func (c *Clerk) Messages() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.outbox
	c.outbox = nil
	return out
}

// Break makes requests fail as f says; n counts them from 0. f runs before the request is served,
// and may change users. Nil ends it.
func (c *Clerk) Break(f func(n int, r *http.Request) ClerkFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = f
}

// Requests returns the request lines so far, and when each came.
func (c *Clerk) Requests() ([]string, []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests), slices.Clone(c.times)
}

// ServeHTTP is the Backend API.
func (c *Clerk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	n, faults := len(c.requests), c.faults
	c.requests, c.times = append(c.requests, r.Method+" "+r.URL.RequestURI()), append(c.times, time.Now())
	c.mu.Unlock()
	if faults != nil {
		if fault := faults(n, r); fault != ClerkHealthy {
			c.fail(w, r, fault)
			return
		}
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+c.SecretKey:
		clerkError(w, 401, "authentication_invalid")
	case r.Method != http.MethodGet:
		clerkError(w, 405, "method_not_allowed")
	case r.URL.Path == "/v1/users":
		c.list(w, r)
	case r.URL.Path == "/v1/users/count":
		answerJSON(w, 200, map[string]any{"object": "total_count", "total_count": len(c.Users())})
	default:
		clerkError(w, 404, "resource_not_found")
	}
}

func (c *Clerk) fail(w http.ResponseWriter, r *http.Request, fault ClerkFault) {
	switch fault {
	case ClerkBusy:
		w.Header().Set("Retry-After", "1")
		clerkError(w, 429, "too_many_requests")
	case ClerkBusyMute:
		clerkError(w, 429, "too_many_requests")
	case ClerkFails:
		clerkError(w, 500, "internal_clerk_error")
	case ClerkGateway:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(502)
		fmt.Fprint(w, "<html>Bad gateway</html>")
	case ClerkIsEmpty:
		answerJSON(w, 200, []any{})
	case ClerkCutsShort:
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `[{"id":"user_`)
	case ClerkDrips:
		c.drip(w, r)
	case ClerkSendsHuge:
		fmt.Fprint(w, "[")
		for block := strings.Repeat(" ", 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write([]byte(block)); err != nil {
				return
			}
		}
	default:
		panic(http.ErrAbortHandler)
	}
}

func (c *Clerk) drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		fmt.Fprint(w, " ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-c.closed:
			return
		}
	}
}

func (c *Clerk) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(cmp.Or(q.Get("limit"), "10"))
	offset, err2 := strconv.Atoi(cmp.Or(q.Get("offset"), "0"))
	if err != nil || err2 != nil || limit < 1 || limit > 500 || offset < 0 || len(q["user_id"]) > 100 {
		clerkError(w, 422, "form_param_value_invalid")
		return
	}
	all := slices.Collect(maps.Values(c.Users()))
	if ids := q["user_id"]; len(ids) > 0 {
		all = slices.DeleteFunc(all, func(u ClerkUser) bool { return !slices.Contains(ids, u.ID) })
	}
	byCreation := func(a, b ClerkUser) int {
		return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), strings.Compare(a.ID, b.ID))
	}
	slices.SortFunc(all, byCreation)
	if order := q.Get("order_by"); order != "created_at" && order != "+created_at" {
		slices.Reverse(all) // the newest first, as without any order
	}
	all = all[min(offset, len(all)):]
	out := make([]any, 0, limit)
	for _, u := range all[:min(limit, len(all))] {
		out = append(out, wire(u))
	}
	answerJSON(w, 200, out)
}

func clerkError(w http.ResponseWriter, status int, code string) {
	answerJSON(w, status, map[string]any{"errors": []any{map[string]any{"code": code, "message": code, "long_message": "see " + code}}, "clerk_trace_id": rand.Text()})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// Send delivers one message as Svix does: signed for the moment of sending, and sent again under the
// same id until the answer is 2xx, at most eight times. It returns how often it was sent; Svix would
// wait longer and longer in between, and here nobody waits.
func (c *Clerk) Send(ctx context.Context, client *http.Client, address string, m Message) (attempts int, err error) {
	for attempts < 8 {
		attempts++
		var res *http.Response
		if res, err = client.Do(c.Sign(ctx, address, m, time.Now())); err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode/100 == 2 {
			return attempts, nil
		}
		err = fmt.Errorf("%s: HTTP status %d", m.ID, res.StatusCode)
	}
	return attempts, err
}

// Sign returns the request that carries m (https://docs.svix.com/receiving/verifying-payloads/how-manual).
func (c *Clerk) Sign(ctx context.Context, address string, m Message, at time.Time) *http.Request {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.WebhookSecret, "whsec_"))
	if err != nil {
		panic(err) // NewClerk made it
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", m.ID, timestamp, m.Body)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(string(m.Body)))
	if err != nil {
		panic(err) // the test's own address
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Svix-Webhooks/1.24.0")
	r.Header.Set("Svix-Id", m.ID)
	r.Header.Set("Svix-Timestamp", timestamp)
	r.Header.Set("Svix-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return r
}
