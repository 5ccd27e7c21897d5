-- wrk's part: every request is the next user's, so that all users' tokens go round.
-- Arguments after "--": the file of tokens, one a line, and "read" or "write".

local requests, tokens, at = {}, {}, 0

local function headers(token)
	return { ["Authorization"] = "Bearer " .. token, ["Accept"] = "application/json" }
end

local function read()
	at = at % #requests + 1
	return requests[at]
end

-- A write of what is there already may be no write at all, so each brings another text.
local function write()
	at = at + 1
	local h = headers(tokens[at % #tokens + 1])
	h["Content-Type"] = "application/json"
	return wrk.format("PATCH", nil, h, '{"bio":"text ' .. at .. '"}')
end

function init(args)
	for token in io.lines(args[1]) do
		tokens[#tokens + 1] = token
		requests[#requests + 1] = wrk.format("GET", nil, headers(token))
	end
	request = args[2] == "write" and write or read
end

-- One line for measure.py; latencies and the duration are in microseconds.
function done(summary, latency)
	local e = summary.errors
	io.write(string.format(
		'RESULT {"requests":%d,"duration":%d,"p50":%d,"p95":%d,"p99":%d,"refused":%d,"socket":%d,"late":%d}\n',
		summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(95), latency:percentile(99),
		e.status, e.connect + e.read + e.write, e.timeout))
end
