-- name: Newest :one
SELECT clock_timestamp()::timestamptz AS now, coalesce(j.launch, 0)::bigint AS launch, coalesce(j.revision, 0)::bigint AS revision
FROM (SELECT 1) AS one
LEFT JOIN (SELECT launch, revision FROM rollout_journal ORDER BY launch DESC, revision DESC LIMIT 1) AS j ON true;

-- name: Lines :many
SELECT * FROM rollout_journal WHERE launch = @launch AND revision > @after ORDER BY revision LIMIT @n::bigint;

-- name: Ends :many
SELECT j.* FROM rollout_journal AS j
WHERE j.launch > (SELECT coalesce(max(m.launch), 0) FROM rollout_journal AS m) - @n::bigint
  AND (j.revision = 1 OR j.revision = (SELECT max(o.revision) FROM rollout_journal AS o WHERE o.launch = j.launch))
ORDER BY j.launch, j.revision;

-- name: Prepare :exec
-- Keeps other writers out until the end of the transaction, whose commit then waits for the disk, also where
-- the database is set not to.
SELECT pg_advisory_xact_lock(@key::bigint),
  set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true);

-- name: AppendLine :exec
INSERT INTO rollout_journal (launch, revision, base, line) VALUES (@launch, @revision, @base, @line);

-- name: Notify :exec
SELECT pg_notify(@channel::text, '');

-- name: ForgetLaunches :exec
DELETE FROM rollout_journal WHERE launch <= @launch;

-- name: ForgetShares :exec
DELETE FROM rollout_shares WHERE at < clock_timestamp() - make_interval(secs => @age::float8);

-- name: Hold :exec
INSERT INTO rollout_lease (id, holder, until)
VALUES (1, @holder, clock_timestamp() + make_interval(secs => @length::float8))
ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE rollout_lease.holder = excluded.holder OR rollout_lease.until <= clock_timestamp();

-- name: Holder :many
SELECT holder FROM rollout_lease WHERE until > clock_timestamp();

-- name: Release :exec
DELETE FROM rollout_lease WHERE holder = @holder;

-- name: Publish :exec
INSERT INTO rollout_shares (instance, body, at) VALUES (@instance, @body, clock_timestamp())
ON CONFLICT (instance) DO UPDATE SET body = excluded.body, at = excluded.at;

-- name: Shares :many
SELECT instance, body, (extract(epoch FROM clock_timestamp() - at) * 1000000)::bigint AS age FROM rollout_shares ORDER BY instance LIMIT @n::bigint;
