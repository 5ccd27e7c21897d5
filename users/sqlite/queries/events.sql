-- name: AppendEvent :exec
INSERT INTO audit_events (user_id, seq, kind, actor, fields, at, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: Events :many
SELECT * FROM audit_events WHERE user_id = ? AND seq > ? ORDER BY seq LIMIT ?;

-- name: RecentEvents :many
SELECT e.* FROM users AS u JOIN audit_events AS e ON e.user_id = u.id AND e.seq > u.events - 3
WHERE u.id IN (sqlc.slice(ids))
ORDER BY e.user_id, e.seq DESC;

-- name: LastEvent :one
SELECT CAST(coalesce(max(id), 0) AS INTEGER) FROM audit_events;

-- name: Chains :many
SELECT * FROM audit_events
WHERE user_id >= sqlc.arg(user_id) AND (user_id > sqlc.arg(user_id) OR seq > sqlc.arg(seq))
ORDER BY user_id, seq LIMIT sqlc.arg(n);

-- name: SealEvent :exec
UPDATE audit_events SET prev = ?, hash = ? WHERE id = ?;

-- name: SetHead :exec
UPDATE users SET events = ?, head = ? WHERE id = ?;
