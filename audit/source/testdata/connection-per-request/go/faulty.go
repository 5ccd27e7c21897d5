package api

import (
	"context"
	"database/sql"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

func users(w http.ResponseWriter, r *http.Request) {
	db, err := sql.Open("postgres", "postgres://app:hunter2@db/app") // want
	if err != nil {
		http.Error(w, "database", http.StatusInternalServerError)
		return
	}
	defer db.Close()
	count(r.Context())
}

func count(ctx context.Context) {
	redis.NewClient(&redis.Options{Addr: "cache:6379"}).Incr(ctx, "users") // want
}

func orders(c *gin.Context) {
	conn, err := pgx.Connect(c, "postgres://db/app") // want
	_, _ = conn, err
}
