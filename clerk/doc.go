// Package clerk is what Gantry knows of Clerk: its keys, its webhooks and its Backend API.
//
// Begin with [ParsePublishableKey]: from it alone follow the issuer and the JWKS address. [NewWebhook]
// receives what Clerk reports, [NewBackend] asks it, and [Reconcile] makes a table of users true to it
// again after reports were lost, which Clerk says can happen:
//
//	hook, err := clerk.NewWebhook(clerk.WebhookConfig{Secrets: secrets, Apply: apply})
//	mux.Handle("/v1/webhooks/clerk", hook)
//
// The surprise: a report is never the truth, only a hint that arrives late, twice, out of order or not
// at all. So every effect is compared by the time of change that Clerk gives it, and a user is removed
// only after a complete listing, and after Clerk was asked about that very user once more.
//
// No error of this package holds any part of a key, and no log line any part of a message.
package clerk
