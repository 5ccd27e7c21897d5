package users

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gantryhq/gantry/problem"
)

// Profile is a user as its owner sees it.
type Profile struct {
	ID          string    `json:"id" doc:"Gantry's own id" example:"usr_4TB2QK"`
	Subject     string    `json:"subject" doc:"The issuer's id of the user"`
	Handle      string    `json:"handle" doc:"The public name; empty for none" example:"ann_lee"`
	Plan        string    `json:"plan" doc:"The user's own plan; empty for the one in the token"`
	Email       string    `json:"email" doc:"As the issuer has it" example:"ann@example.com"`
	DisplayName string    `json:"display_name" example:"Ann Lee"`
	ImageURL    string    `json:"image_url"`
	Bio         string    `json:"bio"`
	Locale      string    `json:"locale" doc:"BCP 47" example:"pt-BR"`
	Timezone    string    `json:"timezone" doc:"IANA" example:"Europe/Berlin"`
	Version     int64     `json:"version" doc:"Counts changes; the ETag" example:"3"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func profile(u User) Profile {
	return Profile{
		ID: u.ID, Subject: u.Subject, Handle: u.Handle, Plan: u.Plan, Email: u.Email, DisplayName: u.DisplayName,
		ImageURL: u.ImageURL, Bio: u.Bio, Locale: u.Locale, Timezone: u.Timezone, Version: u.Version,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
	}
}

type getInput struct {
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag that was read; 304 when it is still current"`
}

type profileOutput struct {
	Status       int
	ETag         string `header:"ETag" doc:"The version, for If-Match and If-None-Match"`
	CacheControl string `header:"Cache-Control"`
	Replayed     string `header:"Idempotent-Replayed" doc:"true when the key was used before, and nothing was done"`
	Body         Profile
}

func answer(o Outcome) *profileOutput {
	return &profileOutput{
		Status: http.StatusOK, ETag: etag(o.User.Version), CacheControl: "private, no-cache",
		Replayed: replayed(o), Body: profile(o.User),
	}
}

// replayed is the header's value; an empty one is not sent.
func replayed(o Outcome) string {
	if o.Replayed {
		return "true"
	}
	return ""
}

// etag is strong: the version changes with every write (RFC 9110 section 8.8.3).
func etag(version int64) string { return `"v` + strconv.FormatInt(version, 10) + `"` }

func (h *handler) get(ctx context.Context, in *getInput) (*profileOutput, error) {
	u, err := h.service.Me(ctx, h.caller(ctx))
	if err != nil {
		return nil, h.failed(err)
	}
	if in.IfNoneMatch != "" && matches(in.IfNoneMatch, u.Version) {
		return nil, huma.ErrorWithHeaders(huma.Status304NotModified(), http.Header{"Etag": {etag(u.Version)}})
	}
	return answer(Outcome{User: u}), nil
}

// matches reads a list of entity tags (RFC 9110 section 13.1.1).
func matches(list string, version int64) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "*" || strings.TrimPrefix(item, "W/") == etag(version) {
			return true
		}
	}
	return false
}

// condition reads If-Match, which is optional: a client that sends it is protected against lost updates,
// and one that does not changes only the fields it names, which a merge patch keeps apart from all
// others.
func condition(ifMatch string) Match {
	if ifMatch == "" {
		return nil
	}
	return func(v int64) bool { return !strings.HasPrefix(ifMatch, "W/") && matches(ifMatch, v) }
}

type patchInput struct {
	IfMatch     string `header:"If-Match" doc:"The ETag that was read; 412 when it is no longer current"`
	Key         string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. The same request with the same key within a day has no further effect, and is given the first answer"`
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte `contentType:"application/merge-patch+json"`
}

func (h *handler) patch(ctx context.Context, in *patchInput) (*profileOutput, error) {
	if !isJSON(in.ContentType) {
		return nil, refusal{problem.UnsupportedMedia}
	}
	p, faults, ok := readPatch(in.RawBody)
	if !ok {
		return nil, refusal{problem.BadRequest.With("The body must be a JSON object in which each name stands once.")}
	}
	once, bad := onceOf(in.Key, "PATCH /v1/users/me", in.IfMatch, in.RawBody)
	if faults = append(faults, bad...); len(faults) > 0 {
		d := problem.Unprocessable
		d.Faults = faults
		return nil, refusal{d}
	}
	o, err := h.service.Change(ctx, h.caller(ctx), p, condition(in.IfMatch), once)
	if err != nil {
		return nil, h.failed(err)
	}
	return answer(o), nil
}

type deleteInput struct {
	IfMatch string `header:"If-Match" doc:"The ETag that was read; 412 when it is no longer current"`
	Key     string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. The same request with the same key within a day has no further effect, and is given the first answer"`
}

type deleteOutput struct {
	Replayed string `header:"Idempotent-Replayed" doc:"true when the key was used before, and nothing was done"`
}

func (h *handler) delete(ctx context.Context, in *deleteInput) (*deleteOutput, error) {
	once, bad := onceOf(in.Key, "DELETE /v1/users/me", in.IfMatch, nil)
	if len(bad) > 0 {
		return nil, refusal{invalid(bad[0].Pointer, bad[0].Detail)}
	}
	o, err := h.service.Delete(ctx, h.caller(ctx), condition(in.IfMatch), once)
	if err != nil {
		return nil, h.failed(err)
	}
	return &deleteOutput{Replayed: replayed(o)}, nil
}

// Export is the answer of /v1/users/me/export.
type Export struct {
	User     ExportedUser      `json:"user"`
	Events   []EventView       `json:"events" doc:"The audit log, oldest first"`
	Sessions []ExportedSession `json:"revoked_sessions"`
}

// ExportedUser is all of a user.
type ExportedUser struct {
	Profile
	Issuer          string     `json:"issuer"`
	Status          Status     `json:"status"`
	SourceUpdatedAt *time.Time `json:"source_updated_at,omitempty" doc:"The issuer's time of what was last taken over from it"`
	Head            string     `json:"audit_head" doc:"The hash of the last event"`
}

// ExportedSession is a session that was ended.
type ExportedSession struct {
	SessionID string    `json:"session_id"`
	RevokedAt time.Time `json:"revoked_at"`
	Until     time.Time `json:"until"`
}

// EventView is an audit event as clients see it.
type EventView struct {
	Seq    int64     `json:"seq" doc:"The place in the user's chain, from 1"`
	Kind   Kind      `json:"kind" example:"user.updated"`
	Actor  string    `json:"actor" doc:"The subject that did it"`
	Fields []string  `json:"fields" doc:"The names of what was changed"`
	At     time.Time `json:"at"`
	Hash   string    `json:"hash" doc:"SHA-256 over the event and the hash before it"`
}

func eventViews(events []Event) []EventView {
	views := make([]EventView, len(events))
	for i, e := range events {
		views[i] = EventView{Seq: e.Seq, Kind: e.Kind, Actor: e.Actor, Fields: append([]string{}, e.Fields...), At: e.At, Hash: e.Hash}
	}
	return views
}

// exportOutput is written as it is read, so that a long log needs no memory.
type exportOutput struct {
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	Disposition  string `header:"Content-Disposition"`
	Body         func(huma.Context)
}

func (h *handler) export(ctx context.Context, _ *struct{}) (*exportOutput, error) {
	caller := h.caller(ctx)
	u, err := h.service.Me(ctx, caller)
	if err != nil {
		return nil, h.failed(err)
	}
	return &exportOutput{
		ContentType: "application/json", CacheControl: "private, no-store", Disposition: `attachment; filename="export.json"`,
		Body: func(hc huma.Context) {
			if err := h.writeExport(ctx, hc, u); err != nil {
				h.cfg.Logger.Error("users export", "error", err)
				panic(http.ErrAbortHandler) // it has begun: cut off, it cannot be taken for whole
			}
		},
	}, nil
}

func (h *handler) writeExport(ctx context.Context, hc huma.Context, u User) error {
	w := hc.BodyWriter()
	e := ExportedUser{Profile: profile(u), Issuer: u.Issuer, Status: u.Status, Head: u.Head}
	if !u.SourceUpdatedAt.IsZero() {
		e.SourceUpdatedAt = &u.SourceUpdatedAt
	}
	doc := jsonParts{w: w}
	doc.text(`{"user":`).value(e).text(`,"events":[`)
	err := h.service.eachEvent(ctx, u, func(i int64, v EventView) error {
		if i > 0 {
			doc.text(",")
		}
		return doc.value(v).err
	})
	if err != nil {
		return err
	}
	revoked, err := h.service.revokedSessions(ctx, u)
	if err != nil {
		return err
	}
	sessions := make([]ExportedSession, len(revoked))
	for i, r := range revoked {
		sessions[i] = ExportedSession{SessionID: r.SessionID, RevokedAt: r.At, Until: r.Until}
	}
	return doc.text(`],"revoked_sessions":`).value(sessions).text("}\n").err
}

// jsonParts writes a document piece by piece, until the first error.
type jsonParts struct {
	w   interface{ Write([]byte) (int, error) }
	err error
}

func (p *jsonParts) text(s string) *jsonParts {
	if p.err == nil {
		_, p.err = p.w.Write([]byte(s))
	}
	return p
}

func (p *jsonParts) value(v any) *jsonParts {
	text, err := json.Marshal(v)
	if p.err == nil {
		p.err = err
	}
	return p.text(string(text))
}
