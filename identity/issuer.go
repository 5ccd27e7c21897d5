package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Profile names the kind of token an issuer signs. The rule sets exclude one another, so that a
// token of one kind cannot pass for the other (RFC 8725 section 3.12).
type Profile int

// The profiles.
const (
	Clerk       Profile = iota // session tokens: azp instead of aud, sts, organisations
	OIDC                       // tokens whose aud must name us
	AccessToken                // OAuth access tokens: typ at+jwt, aud, client_id, jti (RFC 9068)
)

// String returns the profile's name.
func (p Profile) String() string {
	switch p {
	case Clerk:
		return "clerk"
	case OIDC:
		return "oidc"
	case AccessToken:
		return "access-token"
	default:
		return fmt.Sprintf("profile(%d)", int(p))
	}
}

// Algorithms that can be listed in an Issuer (RFC 7518 section 3.1, RFC 8037 section 3.1).
const (
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// Issuer is one party whose tokens are accepted, and the rules for them.
type Issuer struct {
	// URL is compared with "iss" byte for byte. Required.
	URL string
	// JWKSURL is where the keys are: https, or http on loopback. Empty means the Clerk profile's
	// URL/.well-known/jwks.json, or what the OIDC discovery document of URL says.
	JWKSURL string
	// Static is a PEM public key or a JWK set in JSON. When set, nothing is ever fetched. A PEM key
	// has no id and answers for every "kid".
	Static []byte
	// Profile is the kind of token. The zero value is Clerk.
	Profile Profile
	// Audience must be in "aud". Required by the OIDC and AccessToken profiles; with Clerk, empty
	// means that aud is not looked at.
	Audience string
	// AuthorizedParties is what "azp" may be, when it is present. Empty means that azp is not
	// checked, and that the session cookie is never accepted.
	AuthorizedParties []string
	// RequireAZP refuses tokens without "azp".
	RequireAZP bool
	// Algorithms may list RS256, ES256 and EdDSA; empty means RS256 alone. A key of another
	// algorithm is not used.
	Algorithms []string
}

// Validate reports every fault at once. It never fetches anything.
func (i Issuer) Validate() error {
	return errors.Join(i.validateName(), i.validateKeys(), i.validateRules())
}

func (i Issuer) validateName() error {
	if !printable(i.URL, 2048) {
		return errors.New("URL must be set and hold visible ASCII only")
	}
	if i.Static == nil && i.JWKSURL == "" {
		if err := checkURL(i.URL); err != nil {
			return fmt.Errorf("URL: %w", err)
		}
	}
	return nil
}

func (i Issuer) validateKeys() error {
	if i.Static != nil {
		_, err := parseStatic(i.Static, i.algorithms())
		if err != nil {
			return fmt.Errorf("Static: %w", err)
		}
		return nil
	}
	if i.JWKSURL != "" {
		if err := checkURL(i.JWKSURL); err != nil {
			return fmt.Errorf("JWKSURL: %w", err)
		}
	}
	return nil
}

func (i Issuer) validateRules() error {
	var faults []error
	if i.Profile < Clerk || i.Profile > AccessToken {
		faults = append(faults, errors.New("Profile is not one of Clerk, OIDC and AccessToken"))
	}
	// A missing audience is a fault and not a silent "any" (CVE-2020-26160, CVE-2024-5798).
	if i.Audience == "" && i.Profile != Clerk {
		faults = append(faults, fmt.Errorf("Audience must be set for profile %s", i.Profile))
	}
	if slices.Contains(i.AuthorizedParties, "") {
		faults = append(faults, errors.New("AuthorizedParties must not hold an empty entry"))
	}
	for _, alg := range i.Algorithms {
		if alg != RS256 && alg != ES256 && alg != EdDSA {
			faults = append(faults, errors.New("Algorithms may hold RS256, ES256 and EdDSA only"))
		}
	}
	return errors.Join(faults...)
}

func (i Issuer) algorithms() []string {
	if len(i.Algorithms) == 0 {
		return []string{RS256}
	}
	return i.Algorithms
}

// wellKnown returns URL with a path of the well-known kind after it; a trailing slash of URL does
// not count (OpenID Connect Discovery 1.0 section 4.1).
func (i Issuer) wellKnown(name string) string {
	return strings.TrimSuffix(i.URL, "/") + "/.well-known/" + name
}

// checkURL accepts an absolute https URL without user, query and fragment, and http on loopback.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("must be an absolute URL")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return errors.New("must have no user, query or fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	default:
		return errors.New("must be https (http only on loopback)")
	}
}

// isLoopback says whether host is this machine by its name alone (RFC 6761 section 6.3).
func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
