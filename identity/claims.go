package identity

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxName is the longest subject, session, organisation or party id, in bytes. They reach headers,
// logs and database keys.
const maxName = 255

// claims are the ones that decide. The zero time means absent.
type claims struct {
	all       object
	issuer    string
	subject   string
	audience  []string
	party     string // azp
	session   string // sid
	id        string // jti
	status    string // sts
	expires   time.Time
	notBefore time.Time
	issuedAt  time.Time
}

// readClaims reads the payload. Names are matched byte for byte: "EXP" is not "exp".
func readClaims(payload []byte) (*claims, Reason) {
	all, err := parseObject(payload, maxDepth)
	if err != nil {
		return nil, Malformed
	}
	c := &claims{all: all}
	ok := c.readNames() && c.readTimes() && c.readAudience()
	if !ok {
		return nil, BadClaims
	}
	return c, Accepted
}

// readNames reads the ids; iss and sub are required here, the others by profile.
func (c *claims) readNames() bool {
	for _, claim := range [...]struct {
		name     string
		text     *string
		required bool
	}{
		{"iss", &c.issuer, true},
		{"sub", &c.subject, true},
		{"azp", &c.party, false},
		{"sid", &c.session, false},
		{"jti", &c.id, false},
		{"sts", &c.status, false},
	} {
		v, present := c.all.get(claim.name)
		if !present && !claim.required {
			continue
		}
		text, ok := v.str()
		if !ok || (claim.name != "iss" && !printable(text, maxName)) {
			return false
		}
		*claim.text = text
	}
	return true
}

// readTimes reads exp, which is required, nbf and iat.
func (c *claims) readTimes() bool {
	for _, claim := range [...]struct {
		name     string
		at       *time.Time
		required bool
	}{
		{"exp", &c.expires, true},
		{"nbf", &c.notBefore, false},
		{"iat", &c.issuedAt, false},
	} {
		v, present := c.all.get(claim.name)
		if !present && !claim.required {
			continue
		}
		var ok bool
		if *claim.at, ok = numericDate(v); !ok {
			return false
		}
	}
	return true
}

// numericDate reads seconds since 1970 as a JSON number in [0, 2^53), fractions allowed (RFC 7519
// section 2). A string is not a number, whatever it holds.
func numericDate(v value) (time.Time, bool) {
	if len(v) == 0 || (v[0] != '-' && !isDigit(v[0])) {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	if err != nil || seconds < 0 || seconds >= 1<<53 {
		return time.Time{}, false
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), true
}

// readAudience reads aud: a string, or an array of them (RFC 7519 section 4.1.3).
func (c *claims) readAudience() bool {
	v, present := c.all.get("aud")
	if !present {
		return true
	}
	if one, ok := v.str(); ok {
		c.audience = []string{one}
		return true
	}
	var ok bool
	c.audience, ok = v.strs()
	return ok
}

// check holds the claims and the header's typ against the issuer's rules at the time now.
func (i Issuer) check(e *envelope, c *claims, now time.Time, leeway time.Duration) Reason {
	switch {
	case !slices.Contains(i.algorithms(), e.alg):
		return BadAlgorithm
	case !i.Profile.allowsType(e.typ):
		return BadType
	case !now.Before(c.expires.Add(leeway)): // RFC 7519 section 4.1.4
		return Expired
	case c.starts().After(now.Add(leeway)): // RFC 7519 sections 4.1.5 and 4.1.6
		return NotYetValid
	case !i.allowsAudience(c):
		return BadAudience
	case !i.allowsParty(c):
		return BadParty
	case i.Profile == Clerk && c.all.has("sts") && c.status != "active":
		return InactiveSession
	case i.Profile == AccessToken && !c.completeAccessToken():
		return BadClaims
	default:
		return Accepted
	}
}

// starts returns the later of nbf and iat: when the token becomes valid.
func (c *claims) starts() time.Time {
	if c.issuedAt.After(c.notBefore) {
		return c.issuedAt
	}
	return c.notBefore
}

// allowsType holds typ against the profile. Media types are compared without regard to case, and
// "application/" may be left out (RFC 7515 section 4.1.9).
func (p Profile) allowsType(typ string) bool {
	short := strings.TrimPrefix(strings.ToLower(typ), "application/")
	if p == AccessToken {
		return short == "at+jwt" // RFC 9068 section 4
	}
	return typ == "" || short == "jwt"
}

// allowsAudience: once an audience is configured, a token must name it (RFC 8725 section 3.9).
func (i Issuer) allowsAudience(c *claims) bool {
	return i.Audience == "" || slices.Contains(c.audience, i.Audience)
}

func (i Issuer) allowsParty(c *claims) bool {
	if c.party == "" {
		return !i.RequireAZP
	}
	return len(i.AuthorizedParties) == 0 || slices.Contains(i.AuthorizedParties, c.party)
}

// completeAccessToken wants the claims that RFC 9068 section 2.2 requires beyond the common ones.
func (c *claims) completeAccessToken() bool {
	client, _ := c.all.get("client_id")
	id, ok := client.str()
	return ok && printable(id, maxName) && c.id != "" && c.all.has("iat")
}
