package valkey

import (
	"strings"

	driver "github.com/valkey-io/valkey-go"
)

// TakeText and BeatText are what the server is told.
var TakeText, BeatText = takeText, beatText

// NewAtClock is New for a store whose script reads the time, in microseconds, from a key in place of
// the server's clock.
func NewAtClock(client driver.Client, key string) (*Store, error) {
	s, err := New(client, Config{})
	if err == nil {
		// A pool of goroutines on two busy cores may take longer than a request should wait.
		s.timeout = beatTimeout
		clock := "{ math.floor(redis.call('GET', '" + key + "') / 1000000), redis.call('GET', '" + key + "') % 1000000 }"
		s.take = driver.NewLuaScript(strings.Replace(takeText, "redis.call('TIME')", clock, 1))
	}
	return s, err
}
