package valkey

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/ratelimit"
	driver "github.com/valkey-io/valkey-go"
)

// ErrEvicts says that a server may throw logs away when it is short of memory, which resets limits.
var ErrEvicts = errors.New("maxmemory-policy is not noeviction: limits may be reset without a word")

// ErrOld says that a server is older than Redis 6.2.
var ErrOld = errors.New("the server is older than Redis 6.2")

// Check returns every reason why limits would not be kept: the server cannot be reached, refuses
// what the store does, is too old ([ErrOld]), or may evict logs ([ErrEvicts]). What the server's
// access rules keep from us is not a fault. It counts this instance for a moment.
func (s *Store) Check(ctx context.Context) error {
	if _, err := s.Beat(ctx); err != nil {
		return err
	}
	probe := []ratelimit.Charge{{Policy: "check", Rate: ratelimit.Rate{Limit: 1, Window: ratelimit.MinWindow}}}
	if _, err := s.decide(ctx, beatTimeout, probe, true); err != nil { // the first one also connects and loads the script
		return err
	}
	var faults []error
	for addr, node := range s.client.Nodes() {
		if err := checkNode(ctx, node); err != nil {
			faults = append(faults, fmt.Errorf("valkey: %s: %w", addr, err))
		}
	}
	return errors.Join(faults...)
}

func checkNode(ctx context.Context, node driver.Client) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	info, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		info = "" // not permitted, or gone: then the decisions say so
	}
	policy := field(info, "maxmemory_policy")
	config, err := node.Do(ctx, node.B().ConfigGet().Parameter("maxmemory-policy").Build()).AsStrMap()
	if err == nil {
		policy = config["maxmemory-policy"]
	}
	var faults []error
	if policy != "" && policy != "noeviction" {
		faults = append(faults, fmt.Errorf("%w (it is %s)", ErrEvicts, policy))
	}
	if old(field(info, "redis_version")) {
		faults = append(faults, ErrOld)
	}
	return errors.Join(faults...)
}

// field reads a line of INFO.
func field(info, name string) string {
	_, rest, _ := strings.Cut(info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r")
	return value
}

// old reads 7.0.15; what cannot be read is not old. Valkey says 7.2 and more.
func old(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err := strconv.Atoi(major)
	if err != nil {
		return false
	}
	y, err := strconv.Atoi(minor)
	return err == nil && (x < 6 || x == 6 && y < 2)
}
