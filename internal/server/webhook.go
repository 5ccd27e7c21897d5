package server

import (
	"net/http"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/problem"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
)

const webhookPath = "/v1/webhooks/clerk"

// webhookRate is for each address, and counted apart from everybody else's: a flood of strangers must not
// keep Clerk out, nor guesses at a signature go on for long.
var webhookRate = ratelimit.Rate{Limit: 1000, Window: time.Minute}

// webhook takes Clerk's reports when there is a secret to know them by.
func (s *Server) webhook(p *policy) (http.Handler, error) {
	issuer, ok := clerkIssuer(s.cfg)
	if !ok || len(p.cfg.ClerkWebhookSecrets) == 0 {
		return http.HandlerFunc(notFound), nil
	}
	keys := make([][]byte, len(p.cfg.ClerkWebhookSecrets))
	for i, secret := range p.cfg.ClerkWebhookSecrets {
		keys[i] = []byte(secret.Reveal())
	}
	return clerk.NewWebhook(clerk.WebhookConfig{
		Secrets: func() [][]byte { return keys },
		Apply:   newMirror(s.store, p.users, issuer).event,
		Seen:    func(_ *http.Request, receipt clerk.Receipt) { s.silence.Heard(receipt) },
		Logger:  s.log,
	})
}

// bar is asked of every verified caller, and costs two look-ups in memory.
func (s *Server) bar(p *identity.Principal) (answer problem.Details, barred bool) {
	switch verdict := s.standing.Standing(p.Issuer, p.Subject, p.SessionID); {
	case verdict.Revoked:
		return problem.InvalidToken, true
	case verdict.Status == users.Suspended:
		return problem.AccountSuspended, true
	case verdict.Status == users.Deleted:
		return problem.AccountDeleted, true
	}
	return answer, false
}
