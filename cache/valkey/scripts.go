package valkey

import valkeygo "github.com/valkey-io/valkey-go"

// generation is the length of a generation, with which each value begins.
const generation = 16

var (
	// look returns what is under the key and how long that lives; it begins a generation where there is none.
	look = valkeygo.NewLuaScript(`
local kept = redis.call('GET', KEYS[1])
if kept then return {kept, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1], 0}`)

	// keep stores a value if its generation has not ended.
	keep = valkeygo.NewLuaScript(`
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1`)

	// renew prolongs the lease ARGV[1] by ARGV[2] ms. The hash has the epoch, the run id of the server it was begun on,
	// from when it may be read and when writers need no longer wait, and under @id the end of each lease. A new
	// epoch, with the name ARGV[6], begins
	//   - on another server, or when the hash is lost: the windows of the old epoch may be open yet;
	//   - when a lease has lapsed: then all windows have, as none is longer than the shortest lease;
	//   - when the caller wrote without invalidating (ARGV[5]), unless nobody reads for a while yet.
	// It is used after ARGV[3] ms. After the moment ARGV[4] the call does nothing. It returns the time and, in ms
	// from then: the end of the shortest lease, and from when it may be read and written.
	renew = valkeygo.NewLuaScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now > tonumber(ARGV[4]) then return {now} end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local h, fields = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do h[fields[i]] = fields[i + 1] end
local first, lapsed = now + ARGV[2], false
for field, value in pairs(h) do
  if string.sub(field, 1, 1) == '@' then
    lapsed = lapsed or tonumber(value) <= now
    if field ~= '@' .. ARGV[1] then first = math.min(first, tonumber(value)) end
  end
end
local moved = h.run ~= run
local dirty = ARGV[5] == '1' and not moved and now + ARGV[2] / 2 >= tonumber(h.read)
if moved or lapsed or dirty then
  local used = now + ARGV[3]
  h = {epoch = ARGV[6], read = used, write = used}
  if lapsed and not moved then h.write = now end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'epoch', h.epoch, 'run', run, 'read', string.format('%.0f', h.read), 'write', string.format('%.0f', h.write))
  first = now + ARGV[2]
end
redis.call('HSET', KEYS[1], '@' .. ARGV[1], string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 3600000)
return {now, h.epoch, first - now, h.read - now, h.write - now}`)
)
