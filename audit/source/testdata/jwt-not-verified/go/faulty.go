package auth

import (
	"errors"
	"net/http"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4/jwt"
	gojwt "github.com/golang-jwt/jwt/v5"
)

func subject(r *http.Request) (string, error) {
	claims := gojwt.MapClaims{}
	_, _, err := gojwt.NewParser().ParseUnverified(r.Header.Get("Authorization"), claims) // want
	if err != nil {
		return "", errors.New("no token")
	}
	return claims.GetSubject()
}

func claims(token *jwt.JSONWebToken) (map[string]any, error) {
	out := map[string]any{}
	return out, token.UnsafeClaimsWithoutVerification(&out) // want
}

func verifier(p *oidc.Provider) *oidc.IDTokenVerifier {
	return p.Verifier(&oidc.Config{ClientID: "api", InsecureSkipSignatureCheck: true}) // want
}
