-- name: Newest :one
SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now,
  CAST(coalesce(j.launch, 0) AS INTEGER) AS launch, CAST(coalesce(j.revision, 0) AS INTEGER) AS revision
FROM (SELECT 1) AS one
LEFT JOIN (SELECT launch, revision FROM rollout_journal ORDER BY launch DESC, revision DESC LIMIT 1) AS j ON true;

-- name: Lines :many
SELECT * FROM rollout_journal WHERE launch = ? AND revision > ? ORDER BY revision LIMIT ?;

-- name: Ends :many
SELECT j.* FROM rollout_journal AS j
WHERE j.launch > (SELECT coalesce(max(m.launch), 0) FROM rollout_journal AS m) - CAST(sqlc.arg(n) AS INTEGER)
  AND (j.revision = 1 OR j.revision = (SELECT max(o.revision) FROM rollout_journal AS o WHERE o.launch = j.launch))
ORDER BY j.launch, j.revision;

-- name: AppendLine :exec
INSERT INTO rollout_journal (launch, revision, base, line) VALUES (?, ?, ?, ?);

-- name: ForgetLaunches :exec
DELETE FROM rollout_journal WHERE launch <= ?;

-- name: ForgetShares :exec
DELETE FROM rollout_shares WHERE at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - CAST(sqlc.arg(age) AS INTEGER);

-- name: Hold :exec
INSERT INTO rollout_lease (id, holder, until)
VALUES (1, sqlc.arg(holder), CAST(unixepoch('subsec') * 1000000 AS INTEGER) + CAST(sqlc.arg(length) AS INTEGER))
ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE rollout_lease.holder = excluded.holder OR rollout_lease.until <= CAST(unixepoch('subsec') * 1000000 AS INTEGER);

-- name: Holder :many
SELECT holder FROM rollout_lease WHERE until > CAST(unixepoch('subsec') * 1000000 AS INTEGER);

-- name: Release :exec
DELETE FROM rollout_lease WHERE holder = ?;

-- name: Publish :exec
INSERT INTO rollout_shares (instance, body, at) VALUES (?, ?, CAST(unixepoch('subsec') * 1000000 AS INTEGER))
ON CONFLICT (instance) DO UPDATE SET body = excluded.body, at = excluded.at;

-- name: Shares :many
SELECT instance, body, CAST(unixepoch('subsec') * 1000000 AS INTEGER) - at AS age FROM rollout_shares ORDER BY instance LIMIT ?;
