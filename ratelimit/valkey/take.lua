-- One decision over the logs KEYS, each a list of the times of its admissions in microseconds,
-- oldest first. All charges are admitted and recorded, or nothing is written.
--
-- ARGV: "1" to record, "0" to look; then limit and window in microseconds for each log.
-- Reply: 1 or 0 for admitted or not; then for each log how many of its admissions lie in the window
-- before this one, and the age of the oldest of them, or where the log is full, of the one that
-- must leave before another is admitted.

local function at(key, i) return tonumber(redis.call('LINDEX', key, i)) end

-- How many of the n stamps are at or before cut, given that the first is. Looks at ever longer
-- spans from the oldest, then halves: a log of ten thousand is never walked.
local function expired(key, n, cut)
  local low, high = 0, 1
  while high < n and at(key, high) <= cut do
    low, high = high, math.min(2 * high, n)
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if at(key, middle) <= cut then low = middle else high = middle end
  end
  return high
end

-- The server's clock, held at the newest admission when it steps back: stamps stay in order, and
-- nothing is forgotten too soon. A log that lies more than a minute and its window ahead was written
-- by a clock that was plainly wrong. It begins anew: held until the clock catches up, it would refuse
-- everybody for that long.
local time = redis.call('TIME')
time = time[1] * 1000000 + time[2]
local now = time
local held, dead = {}, {}
for i = 1, #KEYS do
  local newest = at(KEYS[i], -1)
  if newest then
    held[i] = redis.call('LLEN', KEYS[i])
    if newest - time > ARGV[2 * i + 1] + 60000000 then
      held[i], dead[i] = nil, held[i]
    else
      now = math.max(now, newest)
    end
  end
end

local reply = { 1 }
for i = 1, #KEYS do
  local key, limit = KEYS[i], tonumber(ARGV[2 * i])
  local cut = now - ARGV[2 * i + 1]
  local live, stamp = 0, now
  if held[i] then
    live, stamp = held[i], at(key, 0)
    if stamp <= cut then
      dead[i] = expired(key, live, cut)
      live = live - dead[i]
      stamp = live > 0 and at(key, dead[i]) or now
    end
    if live >= limit then
      reply[1] = 0
      if live > limit then stamp = at(key, -limit) end
    end
  end
  reply[2 * i], reply[2 * i + 1] = live, now - stamp
end

if reply[1] == 1 and ARGV[1] == '1' then
  local stamp = string.format('%.0f', now)
  for i = 1, #KEYS do
    if dead[i] then redis.call('LTRIM', KEYS[i], dead[i], -1) end
    redis.call('RPUSH', KEYS[i], stamp)
    redis.call('PEXPIRE', KEYS[i], ARGV[2 * i + 1] / 1000 + 1000)
  end
end
return reply
