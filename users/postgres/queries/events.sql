-- name: AppendEvent :exec
INSERT INTO audit_events (user_id, seq, kind, actor, fields, at, prev, hash)
VALUES (@user_id, @seq, @kind, @actor, @fields, @at, @prev, @hash);

-- name: Events :many
SELECT * FROM audit_events WHERE user_id = @user_id AND seq > @after ORDER BY seq LIMIT @n::bigint;

-- name: RecentEvents :many
-- The last three of each user as the caller has read it, whatever was appended since.
SELECT e.* FROM (SELECT unnest(@ids::text[]) AS id, unnest(@counts::bigint[]) AS events) AS u
JOIN audit_events AS e ON e.user_id = u.id AND e.seq > u.events - 3 AND e.seq <= u.events
ORDER BY e.user_id, e.seq DESC;

-- name: HoldAppends :exec
-- Waits for the transactions that have appended, and keeps others from it until the end of this one.
LOCK TABLE audit_events IN SHARE MODE;

-- name: LastEvent :one
SELECT coalesce(max(id), 0)::bigint FROM audit_events;

-- name: Chains :many
SELECT * FROM audit_events
WHERE (user_id, seq) > (@user_id::text, @seq::bigint)
ORDER BY user_id, seq LIMIT @n::bigint;
