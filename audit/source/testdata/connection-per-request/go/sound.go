package api

import (
	"context"
	"database/sql"
	"net/http"
	"sync"

	"github.com/redis/go-redis/v9"
)

type server struct{ db *sql.DB }

func New(dsn string) (*server, error) {
	db, err := sql.Open("pgx", dsn)
	return &server{db}, err
}

// users does not sql.Open("postgres", dsn).
func (s *server) users(w http.ResponseWriter, r *http.Request) {
	_, _ = s.db.QueryContext(r.Context(), "select 'sql.Open()'")
	client().Incr(context.Background(), "users")
}

var (
	once  sync.Once
	cache *redis.Client
)

func client() *redis.Client {
	once.Do(func() {
		cache = redis.NewClient(&redis.Options{Addr: "cache:6379"})
	})
	return cache
}
