package probes

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func keyConfusion() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-04", Title: "HMAC made with the public key",
			Sends:        "the valid token's claims signed by HS256, HS384 and HS512 with the public key as secret: SPKI, PKCS#1 and X.509 PEM, each with and without the final newline, with a leading newline, with CRLF, on one line; DER; JWK; the raw modulus. Every encoding with the HMAC of the token's size, the commonest with the other two, all with all under --active",
			Passes:       "all refused",
			Fails:        "any accepted as the valid token is",
			Inconclusive: "the token is HMAC, or no public key is found that verifies it (no key set by discovery, none by --jwks)",
			Guard:        "the bytes of the PEM matter: fast-jwt 6.1.0 is fooled only when the key's file begins with a newline, 3.1.0 only by PKCS#1. Only a key that verifies the given token proves anything by a refusal",
			Knobs:        []string{"--jwks", "--jwt-key"},
			Refs:         []string{"RFC 8725 sections 2.1 and 3.1", "CVE-2015-9235", "CVE-2022-29217", "CVE-2023-48223", "CVE-2026-34950", "CVE-2026-48526"},
			Why:          "The key that everybody may read signs tokens that the API believes.",
			Fix:          "Bind each key to its algorithm by type; never hand one key callback to HMAC and RSA.",
			Run:          confusedKey,
		}),
	}
}

func confusedKey(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	if strings.HasPrefix(t.Alg(), "HS") {
		return audit.Unproven("the token is signed by HMAC: there is no public key to confuse"), nil
	}
	keys, proven, err := verifiers(ctx, s, t)
	if err != nil {
		return audit.Unproven("%v", err).Unlock("--jwks"), nil
	}
	list, err := confusions(t, keys, s.Allows(audit.Active))
	if err != nil {
		return audit.Verdict{}, err
	}
	v, err := forgeries(ctx, s, list)
	if err == nil && v.Outcome == audit.Pass && !proven {
		return audit.Unproven("%d public keys are known and none of them verifies the given token, so refusing them proves nothing", len(keys)).
			With(v.Evidence...).Unlock("--jwks with the key set of this token's issuer"), nil
	}
	return v, err
}

// verifiers are the public keys that verify t, and whether one was found; otherwise those likeliest to.
func verifiers(ctx context.Context, s *audit.Session, t jws.Token) (keys []publicKey, proven bool, err error) {
	known, err := knownKeys(ctx, s)
	if err != nil {
		return nil, false, err
	}
	var named, others []publicKey
	for _, k := range known {
		switch {
		case k.Public == nil:
		case verifies(k.Public, t):
			return []publicKey{k}, true, nil
		case k.Kid != "" && k.Kid == t.Kid():
			named = append(named, k)
		default:
			others = append(others, k)
		}
	}
	keys = append(named, others...)
	if len(keys) == 0 {
		return nil, false, fmt.Errorf("%w that can be read", errNoKeys)
	}
	return keys[:1], false, nil
}

// knownKeys are the published ones and that of --jwt-key.
func knownKeys(ctx context.Context, s *audit.Session) ([]publicKey, error) {
	var keys []publicKey
	if signer, err := s.Signer(); err == nil {
		if private, ok := signer.Key.(crypto.Signer); ok {
			keys = append(keys, publicKey{Kid: signer.Kid, Use: "sig", Public: private.Public()})
		}
	}
	set, err := keySet(ctx, s)
	switch {
	case err == nil:
		return slices.Concat(set.Keys, keys), nil // the published one first: its own bytes count
	case errors.Is(err, errNoKeys) && len(keys) > 0:
		return keys, nil
	}
	return nil, err
}

// verifies says whether the token's signature was made with the private half of public.
func verifies(public crypto.PublicKey, t jws.Token) bool {
	alg := t.Alg()
	input := []byte(t.Raw[:max(0, strings.LastIndexByte(t.Raw, '.'))])
	if k, ok := public.(ed25519.PublicKey); ok {
		return alg == "EdDSA" && ed25519.Verify(k, input, t.Signature)
	}
	if len(alg) != 5 {
		return false
	}
	h, sum := digestFor(alg, input)
	switch k := public.(type) {
	case *rsa.PublicKey:
		if alg[:2] == "PS" {
			return rsa.VerifyPSS(k, h, sum, t.Signature, nil) == nil
		}
		return alg[:2] == "RS" && rsa.VerifyPKCS1v15(k, h, sum, t.Signature) == nil
	case *ecdsa.PublicKey:
		half := len(t.Signature) / 2
		r, s := new(big.Int).SetBytes(t.Signature[:half]), new(big.Int).SetBytes(t.Signature[half:])
		return alg[:2] == "ES" && ecdsa.Verify(k, sum, r, s)
	}
	return false
}

func digestFor(alg string, input []byte) (crypto.Hash, []byte) {
	kinds := map[string]struct {
		id  crypto.Hash
		new func() hash.Hash
	}{"384": {crypto.SHA384, sha512.New384}, "512": {crypto.SHA512, sha512.New}}
	kind, found := kinds[alg[2:]]
	if !found {
		kind.id, kind.new = crypto.SHA256, sha256.New
	}
	d := kind.new()
	d.Write(input)
	return kind.id, d.Sum(nil)
}

// secretText is a public key as some server may hold it in memory.
type secretText struct {
	label  string
	bytes  []byte
	common bool
}

// confusions are the tokens signed with every encoding of the keys.
func confusions(t jws.Token, keys []publicKey, all bool) ([]forgery, error) {
	first := "HS256"
	if alg := t.Alg(); len(alg) == 5 && (alg[2:] == "384" || alg[2:] == "512") {
		first = "HS" + alg[2:]
	}
	var list, rest []forgery
	for _, k := range keys {
		for _, secret := range encodings(k) {
			for _, alg := range []string{"HS256", "HS384", "HS512"} {
				forged, err := jws.Sign(jws.With(t.Header, map[string]any{"alg": alg}), t.Payload, alg, secret.bytes)
				if err != nil {
					return nil, err
				}
				f := forgery{alg + " with the public key as " + secret.label, forged}
				switch {
				case alg == first:
					list = append(list, f)
				case secret.common || all:
					rest = append(rest, f)
				}
			}
		}
	}
	return append(list, rest...), nil
}

// encodings of a public key, the commonest first, none twice.
func encodings(k publicKey) []secretText {
	var list []secretText
	add := func(label string, b []byte, common bool) {
		for _, known := range list {
			if bytes.Equal(known.bytes, b) {
				return
			}
		}
		if len(b) > 0 {
			list = append(list, secretText{label, b, common})
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public)
	if err == nil {
		addPEM(add, "SPKI", "PUBLIC KEY", spki)
	}
	if r, ok := k.Public.(*rsa.PublicKey); ok {
		der := x509.MarshalPKCS1PublicKey(r)
		addPEM(add, "PKCS#1", "RSA PUBLIC KEY", der)
		add("PKCS#1 DER", der, false)
		add("raw modulus", r.N.Bytes(), false)
	}
	if certificate := certificateOf(k); certificate != nil {
		addPEM(add, "X.509", "CERTIFICATE", certificate)
		add("X.509 DER", certificate, false)
	}
	add("SPKI DER", spki, false)
	addJWK(add, k)
	return list
}

// addPEM adds the ways in which PEM is stored: as files have it, and as environment variables do.
func addPEM(add func(string, []byte, bool), name, kind string, der []byte) {
	file := string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	bare := strings.TrimSuffix(file, "\n")
	body := base64.StdEncoding.EncodeToString(der)
	unwrapped := "-----BEGIN " + kind + "-----\n" + body + "\n-----END " + kind + "-----"
	for _, form := range []struct {
		label, text string
		common      bool
	}{
		{"with final newline", file, true},
		{"without final newline", bare, kind == "PUBLIC KEY"},
		{"with leading newline", "\n" + file, kind == "PUBLIC KEY"},
		{"with leading newline, without final one", "\n" + bare, false},
		{"with CRLF", strings.ReplaceAll(file, "\n", "\r\n"), false},
		{"with CRLF, without final one", strings.ReplaceAll(bare, "\n", "\r\n"), false},
		{"on one line", strings.ReplaceAll(bare, "\n", ""), false},
		{"on one line with written \\n", strings.ReplaceAll(bare, "\n", `\n`), false},
		{"unwrapped, with final newline", unwrapped + "\n", false},
		{"unwrapped, without final newline", unwrapped, false},
		{"bare base64", body, false},
	} {
		add(name+" PEM "+form.label, []byte(form.text), form.common)
	}
}

// certificateOf is the one published with the key (RFC 7517 section 4.7); another cannot be known.
func certificateOf(k publicKey) []byte {
	chain, _ := k.Raw["x5c"].([]any)
	if len(chain) == 0 {
		return nil
	}
	first, _ := chain[0].(string)
	der, err := base64.StdEncoding.DecodeString(first)
	if err != nil {
		return nil
	}
	return der
}

// addJWK adds the key as JSON: as published, and with the required members alone (RFC 7638 section 3).
func addJWK(add func(string, []byte, bool), k publicKey) {
	if k.Raw != nil {
		if text, err := json.Marshal(k.Raw); err == nil {
			add("JWK as published", text, false)
		}
		add("the member n", []byte(text(k.Raw, "n")), false)
		add("the member x", []byte(text(k.Raw, "x")), false)
	}
	if raw, err := audit.JWK(k.Public); err == nil {
		if text, err := json.Marshal(raw); err == nil {
			add("JWK", text, false)
		}
	}
}
