package users

import (
	"context"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gantryhq/gantry/problem"
)

// PublicProfile is a user as everybody sees it.
type PublicProfile struct {
	Handle      string `json:"handle" example:"ann_lee"`
	DisplayName string `json:"display_name"`
	ImageURL    string `json:"image_url"`
	Bio         string `json:"bio"`
}

type publicInput struct {
	Handle string `path:"handle" maxLength:"64" doc:"The handle, lower case"`
}

type publicOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         PublicProfile
}

func (h *handler) public(ctx context.Context, in *publicInput) (*publicOutput, error) {
	if handle, err := handleRule(in.Handle); err != nil || handle == "" {
		return nil, refusal{problem.NotFound}
	}
	u, err := h.service.Public(ctx, in.Handle)
	if err != nil {
		return nil, h.failed(err)
	}
	return &publicOutput{
		CacheControl: "no-cache",
		Body:         PublicProfile{Handle: u.Handle, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio},
	}, nil
}

// AdminView is a user as admins see it.
type AdminView struct {
	Profile
	Issuer string      `json:"issuer"`
	Status Status      `json:"status" enum:"active,suspended,deleted"`
	Recent []EventView `json:"recent_events" doc:"The last three, newest first"`
}

// UserList is a page of users.
type UserList struct {
	Users []AdminView `json:"users"`
	Next  string      `json:"next,omitempty" doc:"The cursor of the next page; absent on the last"`
}

type listInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"The size of the page"`
	Cursor string `query:"cursor" maxLength:"512" doc:"next of the page before, with the same filter"`
	Status string `query:"status" enum:"active,suspended,deleted" doc:"Only users of this status"`
	Match  string `query:"q" maxLength:"254" doc:"Only users whose whole id, subject, handle or e-mail address this is"`
}

// Resolve refuses unknown parameters together with every other fault; huma on its own would tell of
// them alone.
func (in *listInput) Resolve(ctx huma.Context) (faults []error) {
	u := ctx.URL()
	for name := range u.Query() {
		if !slices.Contains([]string{"limit", "cursor", "status", "q"}, name) && len(faults) < maxUnknown {
			faults = append(faults, &huma.ErrorDetail{Location: "query." + token(name), Message: "is not a parameter of this list"})
		}
	}
	return faults
}

type listOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         UserList
}

func (h *handler) list(ctx context.Context, in *listInput) (*listOutput, error) {
	page, err := h.service.List(ctx, ListQuery{Status: Status(in.Status), Match: in.Match, Cursor: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, h.failed(err)
	}
	out := &listOutput{CacheControl: "private, no-store", Body: UserList{Users: make([]AdminView, len(page.Users)), Next: page.Next}}
	for i, u := range page.Users {
		out.Body.Users[i] = AdminView{Profile: profile(u.User), Issuer: u.Issuer, Status: u.Status, Recent: eventViews(u.Recent)}
	}
	return out, nil
}

// StandingView is what an admin's write came to.
type StandingView struct {
	ID        string    `json:"id"`
	Status    Status    `json:"status" enum:"active,suspended,deleted"`
	Plan      string    `json:"plan"`
	Version   int64     `json:"version"`
	UpdatedAt time.Time `json:"updated_at"`
}

type standingOutput struct {
	ETag     string `header:"ETag"`
	Replayed string `header:"Idempotent-Replayed" doc:"true when the key was used before, and nothing was done"`
	Body     StandingView
}

type governInput struct {
	Key string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. The same request with the same key within a day has no further effect, and is given the first answer"`
	ID  string `path:"id" maxLength:"64" doc:"The user's id" example:"usr_4TB2QK"`
}

type planInput struct {
	Key     string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. The same request with the same key within a day has no further effect, and is given the first answer"`
	ID      string `path:"id" maxLength:"64" doc:"The user's id" example:"usr_4TB2QK"`
	RawBody []byte
	Body    PlanChange
}

// PlanChange is the body of PUT plan.
type PlanChange struct {
	Plan string `json:"plan" maxLength:"64" doc:"The plan's name; empty for the one in the token" example:"pro"`
}

func (h *handler) suspend(ctx context.Context, in *governInput) (*standingOutput, error) {
	return h.govern(in, "suspend", nil, func(o Once) (Outcome, error) { return h.service.Suspend(ctx, h.caller(ctx), in.ID, o) })
}

func (h *handler) reinstate(ctx context.Context, in *governInput) (*standingOutput, error) {
	return h.govern(in, "reinstate", nil, func(o Once) (Outcome, error) { return h.service.Reinstate(ctx, h.caller(ctx), in.ID, o) })
}

func (h *handler) setPlan(ctx context.Context, in *planInput) (*standingOutput, error) {
	return h.govern(&governInput{Key: in.Key, ID: in.ID}, "plan", in.RawBody, func(o Once) (Outcome, error) {
		return h.service.SetPlan(ctx, h.caller(ctx), in.ID, in.Body.Plan, o)
	})
}

// govern reads the key and answers with the outcome of do.
func (h *handler) govern(in *governInput, verb string, body []byte, do func(Once) (Outcome, error)) (*standingOutput, error) {
	once, bad := onceOf(in.Key, verb+" "+in.ID, "", body)
	if len(bad) > 0 {
		return nil, refusal{invalid(bad[0].Pointer, bad[0].Detail)}
	}
	o, err := do(once)
	if err != nil {
		return nil, h.failed(err)
	}
	u := o.User
	return &standingOutput{
		ETag: etag(u.Version), Replayed: replayed(o),
		Body: StandingView{ID: u.ID, Status: u.Status, Plan: u.Plan, Version: u.Version, UpdatedAt: u.UpdatedAt},
	}, nil
}
