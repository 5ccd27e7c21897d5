package testenv_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

func TestRedisComesBackEmptyOnTheSamePort(t *testing.T) {
	r := testenv.NewRedis(t)
	r.Must("SET", "k", "v")
	if got := r.Must("GET", "k"); got != "v" {
		t.Fatalf("GET = %q, want v", got)
	}
	r.Kill()
	if _, err := r.Do("PING"); err == nil {
		t.Fatal("it answers after Kill")
	}
	r.Start()
	if got := r.Must("DBSIZE"); got != "0" {
		t.Errorf("it holds %s keys after Start, want none", got)
	}
}

func TestAStalledRedisTakesConnectionsAndSaysNothing(t *testing.T) {
	r := testenv.NewRedis(t)
	r.Stall()
	answer := make(chan error, 1)
	go func() {
		_, err := r.Do("PING")
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Errorf("a stalled server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	r.Continue()
	if err := <-answer; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after Continue: %v", err)
	}
}

func TestRedisSpeaksTLSAndClusters(t *testing.T) {
	if got := testenv.NewTLSRedis(t).Must("PING"); got != "PONG" {
		t.Errorf("TLS: %q", got)
	}
	for _, node := range testenv.NewRedisCluster(t) {
		if slots := node.Must("CLUSTER", "SLOTS"); strings.Count(slots, "127.0.0.1") != 3 {
			t.Errorf("a node knows of %q", slots)
		}
	}
}
