package auth

import "github.com/golang-jwt/jwt/v5"

// parser refuses "none" and jwt.UnsafeAllowNoneSignatureType.
func parser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}))
}

const none = "none"
