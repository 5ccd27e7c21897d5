package config

import (
	"cmp"
	"os"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spf13/viper"
)

const jwtSecret = "a-constant-secret" // want

var signingKey = []byte("another-constant") // want

type Config struct {
	Secret string `env:"JWT_SECRET" envDefault:"from-a-tag"` // want
	Port   int    `env:"PORT" envDefault:"8000"`
}

func getenv(name, standard string) string { return cmp.Or(os.Getenv(name), standard) }

func load() (string, string, string) {
	secret := os.Getenv("SESSION_SECRET")
	if secret == "" {
		sessionSecret := "when-nothing-is-set" // want
		secret = sessionSecret
	}
	viper.SetDefault("jwt.secret", "viper-default")              // want
	other := cmp.Or(os.Getenv("COOKIE_SECRET"), "or-this")       // want
	return secret, other, getenv("JWT_SECRET", "helper-default") // want
}

func sign(t *jwt.Token) (string, error) {
	return t.SignedString([]byte("written-out")) // want
}
