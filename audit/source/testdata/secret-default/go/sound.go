package config

import (
	"errors"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

// const jwtSecret = "a-constant-secret"
const (
	secretFile   = "/run/secrets/jwt"
	envJWTSecret = "JWT_SECRET"
	jwtSecretKey = "jwt.secret"
	weakSecret   = "env-weak-secret"
	ruleSecret   = "JWT-06"
	help         = `const jwtSecret = "x"`
)

type Config struct {
	Secret string `env:"JWT_SECRET,required" json:"secret"`
	Level  string `env:"LOG_LEVEL" envDefault:"info"`
}

func load() (string, error) {
	secret := os.Getenv("JWT_SECRET")
	if secret == "" || secret == "changeme" {
		return "", errors.New("JWT_SECRET is not set")
	}
	return secret, nil
}

func sign(t *jwt.Token, key []byte) (string, error) { return t.SignedString(key) }
