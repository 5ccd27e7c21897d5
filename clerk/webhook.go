package clerk

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/problem"
)

const (
	// MaxWebhookBody is the size in bytes of the longest message that is read.
	MaxWebhookBody = 1 << 20
	// WebhookTimeout bounds an answer. Svix waits for 15 s and calls a later answer a failure.
	WebhookTimeout = 9 * time.Second
)

// Result is what became of one message.
type Result int

// The results. The zero value is none of them.
const (
	NoResult      Result = iota
	Applied              // 200: it had its effect
	WithoutEffect        // 200: seen before, or older than what is known
	Ignored              // 200: a type that is not ours
	OtherInstance        // 200: from another Clerk instance, or an example of its dashboard
	BadSignature         // 401
	Malformed            // 400: signed, and yet not an event, or cut short
	TooLarge             // 413
	Failed               // 503: Svix will send it again
	Turned               // BeforeVerify or BeforeRefuse has answered
)

// String returns the result as one word for a metric label.
func (r Result) String() string {
	names := [...]string{
		"none", "applied", "without_effect", "ignored", "other_instance", "bad_signature", "malformed", "too_large", "failed", "turned_away",
	}
	if r < 0 || int(r) >= len(names) {
		return names[NoResult]
	}
	return names[r]
}

// Receipt is what happened to one message, for counters and the silence alarm.
type Receipt struct {
	Result Result
	// Type is the event's type when it is one of ours, else "": strangers make no labels.
	Type string
	// At is when the message came.
	At time.Time
	// Lag is how long after the event it came; 0 when unknown.
	Lag time.Duration
}

// Signed says that the message did come from Clerk.
func (r Receipt) Signed() bool {
	switch r.Result {
	case Applied, WithoutEffect, Ignored, OtherInstance, Failed:
		return true
	}
	return false
}

// WebhookConfig says what a [Webhook] needs. Secrets and Apply are required.
type WebhookConfig struct {
	// Secrets returns the keys of which any may have signed; see [DecodeWebhookSecrets]. It is asked
	// for every message, so that a rotation needs no restart.
	Secrets func() [][]byte
	// Apply carries out an event, once for each id: the id is stored in the same transaction as the
	// effect. applied is false when there was nothing to do. After an error nothing may have stayed,
	// and the sender is asked to send again. Several calls may run at once, also with the same id.
	Apply func(ctx context.Context, e Event, id string) (applied bool, err error)
	// InstanceID, when set, is the only instance whose events have an effect.
	InstanceID string
	// BeforeVerify is asked before a body is read; false means that it has answered the request
	// itself. Nil lets everybody through.
	BeforeVerify func(http.ResponseWriter, *http.Request) bool
	// BeforeRefuse is asked before a bad signature is refused, so that guessing has a price of its
	// own; false means that it has answered itself.
	BeforeRefuse func(http.ResponseWriter, *http.Request) bool
	// Seen is told the outcome of every message. It must not wait.
	Seen func(*http.Request, Receipt)
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger gets failures, without anything of the message but its id and type. Default none.
	Logger *slog.Logger
}

// Validate returns every fault at once.
func (c WebhookConfig) Validate() error {
	var faults []error
	switch {
	case c.Secrets == nil:
		faults = append(faults, errors.New("Secrets must be set"))
	case len(c.Secrets()) == 0:
		faults = append(faults, errors.New("Secrets returns none: without a secret anybody could send"))
	}
	if c.Secrets != nil {
		for _, key := range c.Secrets() {
			if len(key) < 24 {
				faults = append(faults, errors.New("Secrets returns a key of less than 24 bytes"))
			}
		}
	}
	if c.Apply == nil {
		faults = append(faults, errors.New("Apply must be set"))
	}
	return errors.Join(faults...)
}

// Webhook is the handler that Clerk's messages are sent to. It needs no token in front of it: the
// signature is the proof.
type Webhook struct {
	cfg WebhookConfig
}

// NewWebhook returns the handler.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Webhook{cfg: cfg}, nil
}

// badSignature says the same whatever is wrong with it.
var badSignature = problem.Details{
	Code: "invalid-signature", Status: http.StatusUnauthorized, Title: "Unauthorized", Type: "about:blank",
	Detail: "The webhook's signature is not valid.",
}

// ServeHTTP answers 200 when the message needs no second sending, and an error when it does.
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem.Write(w, r, problem.MethodNotAllowed)
		return
	}
	receipt := h.receive(w, r)
	if h.cfg.Seen != nil {
		h.cfg.Seen(r, receipt)
	}
}

// receive goes from the cheap to the dear: headers, body, signature, and only then JSON and the store.
func (h *Webhook) receive(w http.ResponseWriter, r *http.Request) Receipt {
	receipt := Receipt{At: h.cfg.Now()}
	ctx, cancel := context.WithTimeout(r.Context(), WebhookTimeout)
	defer cancel()
	if h.cfg.BeforeVerify != nil && !h.cfg.BeforeVerify(w, r) {
		return receipt.as(Turned)
	}
	envelope, err := readEnvelope(r.Header, receipt.At)
	if err != nil {
		return receipt.as(h.refuse(w, r))
	}
	body, result := readBody(w, r)
	if result != NoResult {
		return receipt.as(result)
	}
	if !envelope.signed(h.cfg.Secrets(), body) {
		return receipt.as(h.refuse(w, r))
	}
	event, err := ParseEvent(body)
	if err != nil {
		h.cfg.Logger.Warn("clerk webhook: signed, but not an event", "id", envelope.id, "error", err)
		problem.Write(w, r, problem.BadRequest.With("The body is not an event of Clerk's."))
		return receipt.as(Malformed)
	}
	return h.apply(ctx, w, r, receipt.of(event), event, envelope.id)
}

// readBody reads all of the body, and answers itself when it cannot.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, Result) {
	// A server without such bounds answers "not supported" here, or has its own.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(WebhookTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxWebhookBody))
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
		return body, NoResult
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		problem.Write(w, r, problem.TooLarge)
		return nil, TooLarge
	}
	problem.Write(w, r, problem.BadRequest.With("The body could not be read."))
	return nil, Malformed
}

// refuse answers a bad signature.
func (h *Webhook) refuse(w http.ResponseWriter, r *http.Request) Result {
	if h.cfg.BeforeRefuse != nil && !h.cfg.BeforeRefuse(w, r) {
		return Turned
	}
	problem.Write(w, r, badSignature)
	return BadSignature
}

func (h *Webhook) apply(ctx context.Context, w http.ResponseWriter, r *http.Request, receipt Receipt, e Event, id string) Receipt {
	result := Ignored
	switch {
	case h.cfg.InstanceID != "" && e.InstanceID != h.cfg.InstanceID:
		h.cfg.Logger.Warn("clerk webhook: an event of another instance", "id", id)
		result = OtherInstance
	case e.Kind != Unknown:
		applied, err := h.cfg.Apply(ctx, e, id)
		if err != nil {
			h.cfg.Logger.Error("clerk webhook: not applied", "id", id, "type", e.Type, "error", err)
			problem.Write(w, r, problem.StoreDown.After(5*time.Second))
			return receipt.as(Failed)
		}
		if result = WithoutEffect; applied {
			result = Applied
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return receipt.as(result)
}

func (r Receipt) as(result Result) Receipt {
	r.Result = result
	return r
}

func (r Receipt) of(e Event) Receipt {
	if e.Kind != Unknown {
		r.Type = e.Type
	}
	if !e.At.IsZero() {
		r.Lag = max(0, r.At.Sub(e.At))
	}
	return r
}
