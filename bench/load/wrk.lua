-- One line for the table, like the other generators'; wrk gives microseconds.
function done(summary, latency)
	local e = summary.errors
	io.write(string.format(
		'TURN {"tool":"wrk","rate":%.1f,"sent":%d,"p50":%d,"p95":%d,"p99":%d,"errors":%d}\n',
		summary.requests / summary.duration * 1e6, summary.requests,
		latency:percentile(50), latency:percentile(95), latency:percentile(99),
		e.status + e.connect + e.read + e.write + e.timeout))
end
