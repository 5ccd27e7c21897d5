-- Says that an instance is alive and counts those that are. KEYS: the sorted set of instances by the
-- time of their last word, in seconds. ARGV: this instance; how many seconds a word lasts.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
