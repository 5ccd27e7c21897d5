package probes

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// secretRoot is the hole of signing keys that others know or can guess.
const secretRoot = "secret"

func keyHygiene() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-28", Title: "What the public key set gives away", Severity: audit.Critical, Mode: audit.Passive, Category: audit.Identity,
			Root:         secretRoot,
			Sends:        "GET of the key set and of the discovery document, unless they were read before",
			Passes:       "public members only, RSA of at least 2048 bits, each kid once",
			Fails:        "a private member (`d`, `p`, `k` and their like); RSA under 2048 bits or a kid that stands twice is a medium failure",
			Inconclusive: "no key set was found",
			Guard:        "every key is parsed before the verdict; a kid may stand twice for two types of key (RFC 7517 section 4.5)",
			Knobs:        []string{"--jwks"},
			Refs:         []string{"RFC 7517 section 9.2", "CWE-522"},
			Why:          "A private key in the public set lets everybody sign tokens as any user.",
			Fix:          "Export public keys only.",
			Confirms:     true, // a document either says it or not
			Run:          keysGivenAway,
		},
	}
}

// privateMembers of a JSON Web Key (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

func keysGivenAway(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	set, err := keySet(ctx, s)
	if errors.Is(err, errNoKeys) && symmetric(s) && s.Target().JWKS == "" {
		return audit.DoesNotApply("the tokens are signed with a shared secret, and no key set is published"), nil
	}
	if err != nil {
		return audit.Unproven("").Unlock("--jwks"), err
	}
	private := hidePrivate(s, set)
	v := judgeKeys(s, set, private)
	if set.Fetched != nil {
		v = v.With(set.Fetched)
	}
	return v, nil
}

// symmetric says whether the given token is signed with an HMAC.
func symmetric(s *audit.Session) bool {
	t, err := s.Token()
	return err == nil && strings.HasPrefix(t.Alg(), "HS")
}

// hidePrivate keeps what it finds out of the report, and names it.
func hidePrivate(s *audit.Session, set *keyset) []string {
	var found []string
	for _, k := range set.Keys {
		for _, name := range privateMembers {
			if k.Raw[name] == nil {
				continue
			}
			found = append(found, fmt.Sprintf("%s of key %q", name, k.Kid))
			s.Hide(text(k.Raw, name))
		}
	}
	return found
}

func judgeKeys(s *audit.Session, set *keyset, private []string) audit.Verdict {
	if len(private) > 0 {
		return audit.Failed("%s holds private members: %s", set.URL, strings.Join(private[:min(len(private), 8)], ", "))
	}
	var weak, remarks []string
	seen := map[string]bool{}
	readable := 0
	for _, k := range set.Keys {
		if public, ok := k.Public.(*rsa.PublicKey); ok && public.N.BitLen() < 2048 {
			weak = append(weak, fmt.Sprintf("key %q has %d bits", k.Kid, public.N.BitLen()))
		}
		name := text(k.Raw, "kty") + " " + k.Kid
		if k.Kid != "" && seen[name] {
			weak = append(weak, fmt.Sprintf("kid %q stands twice", k.Kid))
		}
		seen[name] = true
		if k.Err == nil {
			readable++
		}
		remarks = append(remarks, keyRemarks(k)...)
	}
	if strings.HasPrefix(set.URL, "http://") && !s.Target().Local() {
		remarks = append(remarks, "it is published over plain http")
	}
	switch {
	case len(weak) > 0:
		return audit.Failed("%s: %s", set.URL, strings.Join(weak[:min(len(weak), 8)], ", ")).As(audit.Medium)
	case readable == 0:
		return audit.Unproven("none of the keys at %s can be read: %v", set.URL, set.Keys[0].Err)
	}
	message := fmt.Sprintf("no private members in %d public keys", len(set.Keys))
	if len(remarks) > 0 {
		message += "; " + strings.Join(remarks[:min(len(remarks), 4)], ", ")
	}
	return audit.Passed("%s", message)
}

// keyRemarks are about what a careful issuer sets and many leave out.
func keyRemarks(k publicKey) []string {
	var list []string
	if k.Raw != nil && k.Alg == "" {
		list = append(list, fmt.Sprintf("key %q names no alg", k.Kid))
	}
	if k.Raw != nil && k.Use == "" && k.Raw["key_ops"] == nil {
		list = append(list, fmt.Sprintf("key %q names no use", k.Kid))
	}
	if k.Err != nil {
		list = append(list, fmt.Sprintf("key %q cannot be read: %v", k.Kid, k.Err))
	}
	return list
}
