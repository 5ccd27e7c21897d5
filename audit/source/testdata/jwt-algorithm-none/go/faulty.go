package auth

import "github.com/golang-jwt/jwt/v5"

func key(t *jwt.Token) (any, error) {
	if t.Method == jwt.SigningMethodNone { // want
		return jwt.UnsafeAllowNoneSignatureType, nil // want
	}
	return []byte(nil), nil
}

func parser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{"RS256", "none"})) // want
}
