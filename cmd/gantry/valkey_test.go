//go:build unix

package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
)

// sharing wants a door whose limits and cache are in Valkey, and check --live to say so.
func sharing(t *testing.T, env ...string) {
	t.Helper()
	d := start(t, env...)
	if out, code := d.command("check", "--live"); code != 0 || !strings.Contains(out, "cache     good") {
		t.Errorf("check --live: exit %d:\n%s", code, out)
	}
	h := d.token("user_1")
	d.until(func() bool {
		res, _ := d.do("GET", "/v1/users/me/", h, nil)
		return res.StatusCode == 200 && res.Header.Get("X-Gantry-Ratelimit-Mode") == ""
	})
	if res, text := d.do("GET", "/health", nil, nil); res.StatusCode != 200 || strings.Contains(text, `"fail"`) {
		t.Errorf("/health = %d %s", res.StatusCode, text)
	}
}

func TestADoorSpeaksTLSToValkey(t *testing.T) {
	t.Parallel()
	r := testenv.NewTLSRedis(t)
	sharing(t, "VALKEY_URL=rediss://"+r.Addr, "VALKEY_CA_FILE="+r.CAFile)
}

func TestADoorUsesAClusterOfValkeys(t *testing.T) {
	t.Parallel()
	var addrs []string
	for _, node := range testenv.NewRedisCluster(t) {
		addrs = append(addrs, node.Addr)
	}
	sharing(t, "VALKEY_URL=valkey://"+strings.Join(addrs, ","))
}

// TestADoorNeedsLittleOfValkey is the access that ratelimit/valkey and cache/valkey document, for one user.
func TestADoorNeedsLittleOfValkey(t *testing.T) {
	t.Parallel()
	r := testenv.NewRedis(t)
	r.Must(strings.Fields("ACL SETUSER gantry on >p@ss resetchannels ~{gantry:rl}:* ~gantry:cache:* -@all" +
		" +eval +evalsha +time +lindex +llen +ltrim +rpush +pexpire +zadd +zremrangebyscore +zcard +expire +ping +info +config|get" +
		" +hello +auth +client|tracking +client|setname +select +get +set +getrange +del +pttl +hgetall +hset +hdel")...)
	sharing(t, "VALKEY_URL=redis://"+url.UserPassword("gantry", "p@ss").String()+"@"+r.Addr)
}

func TestADoorStartsWhileValkeyIsAway(t *testing.T) {
	t.Parallel()
	r := testenv.NewRedis(t)
	r.Kill()
	d := start(t, "VALKEY_URL=redis://"+r.Addr)
	h := d.token("user_1")
	if res, text := d.do("GET", "/v1/users/me/", h, nil); res.StatusCode != 200 || res.Header.Get("X-Gantry-Ratelimit-Mode") != "local" {
		t.Errorf("while Valkey is away = %d %s %s, want 200 by the door's own limits", res.StatusCode, res.Header.Get("X-Gantry-Ratelimit-Mode"), text)
	}
	r.Start()
	d.until(func() bool {
		res, _ := d.do("GET", "/v1/users/me/", h, nil)
		return res.Header.Get("X-Gantry-Ratelimit-Mode") == ""
	})
}
