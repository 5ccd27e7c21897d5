package identity

import (
	"fmt"
	"time"
)

// Reason says why a token was refused. It is for logs and metrics; clients never see it, so that
// nobody can probe the rules one by one.
type Reason int

// The reasons. The zero value means that nothing was wrong.
const (
	Accepted        Reason = iota
	Malformed              // not a compact token, or not strict JSON or base64url inside
	BadHeader              // a header parameter is missing, mistyped or not allowed
	BadClaims              // a claim is missing or mistyped
	UnknownIssuer          // iss is none of the configured issuers
	BadAlgorithm           // alg is not one the issuer may use, or not the key's
	BadType                // typ does not fit the issuer's profile
	Expired                // exp has passed
	NotYetValid            // nbf or iat lies in the future
	BadAudience            // aud does not name us
	BadParty               // azp is missing or not allowed
	InactiveSession        // sts is not "active"
	UnknownKey             // the issuer's set has no such key
	BadSignature           // the signature does not verify
	SeveralTokens          // more than one Authorization header or session cookie
	TokenInQuery           // a token stands in the URL
	reasonCount
)

var reasonNames = [reasonCount]string{
	Accepted: "accepted", Malformed: "malformed", BadHeader: "bad_header", BadClaims: "bad_claims",
	UnknownIssuer: "unknown_issuer", BadAlgorithm: "bad_algorithm", BadType: "bad_type",
	Expired: "expired", NotYetValid: "not_yet_valid", BadAudience: "bad_audience",
	BadParty: "bad_party", InactiveSession: "inactive_session", UnknownKey: "unknown_key",
	BadSignature: "bad_signature", SeveralTokens: "several_tokens", TokenInQuery: "token_in_query",
}

// String returns the reason as one word for a log field or a metric label.
func (r Reason) String() string {
	if r < 0 || r >= reasonCount {
		return "unknown"
	}
	return reasonNames[r]
}

// Refusal is the error of a token that is not acceptable: answer 401. Its text holds no part of the
// token and may be logged.
type Refusal struct{ Reason Reason }

// Error returns the reason as a sentence.
func (r *Refusal) Error() string { return "token refused: " + r.Reason.String() }

// Unavailable is the error when the issuer's keys cannot be had, so that nobody can say whether the
// token is good: answer 503, never 401.
type Unavailable struct {
	// Issuer is the configured issuer whose keys are missing.
	Issuer string
	// RetryAfter is when asking again makes sense; at least a second.
	RetryAfter time.Duration
}

// Error names the issuer.
func (u *Unavailable) Error() string { return fmt.Sprintf("keys of %s are unavailable", u.Issuer) }
