package probes

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func encrypted() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-24", Title: "Unsigned token inside an encrypted one",
			Sends:        "the valid token's claims as an unsigned token (`alg` none), encrypted to each of the server's public keys (RSA-OAEP-256, ECDH-ES; A256GCM; `cty` JWT)",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "no public key is known that is meant for encryption: one that signs only is refused trivially",
			Guard:        "keys with `use` enc and RSA keys without `use` count; RSA keys for signatures are tried too, and prove something only when accepted",
			Knobs:        []string{"--jwks"},
			Refs:         []string{"CVE-2026-29000", "CWE-347", "RFC 7519 section 5.2"},
			Why:          "Everybody can encrypt to a public key: what is inside was signed by nobody.",
			Fix:          "After decryption, require a signed inner token.",
			Run:          encryptedUnsigned,
		}),
	}
}

func encryptedUnsigned(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	keys, err := knownKeys(ctx, s)
	if err != nil {
		return audit.Unproven("%v", err).Unlock("--jwks"), nil
	}
	list, meant := wrappings(t, keys)
	if len(list) == 0 {
		return audit.Unproven("no public key is known that can encrypt").Unlock("--jwks"), nil
	}
	v, err := forgeries(ctx, s, list)
	if err == nil && v.Outcome == audit.Pass && !meant {
		return audit.Unproven("refused, but no known public key is meant for encryption").With(v.Evidence...).
			Unlock("--jwks with the encryption key, if the API takes encrypted tokens"), nil
	}
	return v, err
}

// maxWrapped bounds how many keys are tried.
const maxWrapped = 4

// wrappings of an unsigned token, and whether one of the keys is meant for encryption.
func wrappings(t jws.Token, keys []publicKey) (list []forgery, meant bool) {
	inner := jws.Compact([]byte(`{"alg":"none"}`), t.Payload, nil)
	for _, k := range keys {
		alg, forEncryption := encryptionOf(k)
		if alg == "" || len(list) == maxWrapped {
			continue
		}
		header := map[string]any{"alg": alg, "cty": "JWT"}
		if k.Kid != "" {
			header["kid"] = k.Kid
		}
		wrapped, err := jws.Encrypt(k.Public, header, []byte(inner))
		if err != nil {
			continue // too small or broken a key: others may do
		}
		meant = meant || forEncryption
		list = append(list, forgery{"unsigned token encrypted by " + alg, wrapped})
	}
	return list, meant
}

// encryptionOf is how to encrypt to a key, empty when it cannot be, and whether that is what it is for.
func encryptionOf(k publicKey) (alg string, meant bool) {
	switch k.Public.(type) {
	case *rsa.PublicKey:
		if k.Alg == "RSA-OAEP" {
			return k.Alg, true
		}
		open := k.Raw != nil && k.Use == "" && k.Alg == "" // published without saying what it is for
		return "RSA-OAEP-256", open || k.Use == "enc" || k.Alg == "RSA-OAEP-256"
	case *ecdsa.PublicKey:
		if k.Use == "enc" || k.Alg == "ECDH-ES" {
			return "ECDH-ES", true
		}
	}
	return "", false
}
