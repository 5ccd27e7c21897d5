package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
)

// parseStatic reads the keys that need no network: a JWK set, or one public key in PEM.
func parseStatic(text []byte, algorithms []string) (*keySet, error) {
	text = bytes.TrimSpace(text)
	if bytes.HasPrefix(text, []byte("{")) {
		set, skipped, err := parseKeySet(text, algorithms)
		if err != nil {
			return nil, err
		}
		set.skipped = skipped
		return set, nil
	}
	return parsePEM(text, algorithms)
}

// parsePEM reads one public key. Environment files often hold the line breaks as "\n".
func parsePEM(text []byte, algorithms []string) (*keySet, error) {
	block, rest := pem.Decode(bytes.ReplaceAll(text, []byte(`\n`), []byte("\n")))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM block and not a JWK set")
	}
	public, err := parsePublic(block)
	if err != nil {
		return nil, err
	}
	k, err := pemKey(public)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(algorithms, k.alg) {
		return nil, errors.New("the key is for " + k.alg + ", which Algorithms does not list")
	}
	return &keySet{any: k}, nil
}

func parsePublic(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not a public key in PKIX form")
		}
		return public, nil
	case "RSA PUBLIC KEY":
		public, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not a public key in PKCS #1 form")
		}
		return public, nil
	default:
		return nil, errors.New("must be a PUBLIC KEY")
	}
}

func pemKey(public crypto.PublicKey) (*key, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if why := weakness(public); why != "" {
			return nil, errors.New(why)
		}
		return &key{alg: RS256, public: public}, nil
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, errors.New("the EC key is not on P-256")
		}
		return &key{alg: ES256, public: public}, nil
	case ed25519.PublicKey:
		return &key{alg: EdDSA, public: public}, nil
	default:
		return nil, errors.New("key type is not supported")
	}
}
