// Package identity turns a bearer token into a [Principal], or into a 401.
//
// Begin with [New], keep [Verifier.Run] running, and put [Verifier.Middleware] in front of the
// handler; or call [Verifier.Cached] and [Verifier.Verify] with a token string, no HTTP needed:
//
//	v, err := identity.New([]identity.Issuer{{URL: "https://clerk.example.com"}}, identity.Config{})
//	go v.Run(ctx)
//	principal, err := v.Verify(ctx, token)
//
// Keys come only from the configured issuers, each looked up by the exact "iss"; nothing in a token
// can name a key, a URL or an algorithm. Tokens are read by a parser of our own, stricter than the
// usual libraries: duplicate names, unknown critical headers, sloppy base64 and case-folded names
// are refused.
//
// The surprise: keys that cannot be had are never the caller's fault. [Verifier.Verify] then returns
// an [*Unavailable] (503), not a [*Refusal] (401), and keys once fetched keep working through an
// outage of their issuer for [Config.MaxStale].
package identity
