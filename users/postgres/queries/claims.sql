-- name: Claim :execrows
INSERT INTO claims (scope, key, fingerprint, result, at, expires_at)
VALUES (@scope, @key, @fingerprint, @result, @at, @expires_at)
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, result = excluded.result, at = excluded.at, expires_at = excluded.expires_at
WHERE claims.expires_at <= excluded.at;

-- name: FindClaim :one
SELECT * FROM claims WHERE scope = @scope AND key = @key;

-- name: SettleClaim :exec
UPDATE claims SET result = @result WHERE scope = @scope AND key = @key;

-- name: ForgetClaims :exec
DELETE FROM claims WHERE scope = @scope;

-- name: SweepClaims :execrows
-- Several instances sweep at once: each takes what no other has in hand.
DELETE FROM claims WHERE ctid = ANY (ARRAY(
  SELECT c.ctid FROM claims AS c WHERE c.expires_at <= @at ORDER BY c.expires_at LIMIT @n::bigint FOR UPDATE SKIP LOCKED
));

-- name: Revoke :exec
INSERT INTO revocations (issuer, session_id, subject, until, at)
VALUES (@issuer, @session_id, @subject, @until, clock_timestamp())
ON CONFLICT (issuer, session_id) DO UPDATE
SET subject = coalesce(nullif(excluded.subject, ''), revocations.subject),
  until = greatest(revocations.until, excluded.until), at = excluded.at;

-- name: Revocations :many
SELECT * FROM revocations
WHERE (at, session_id) > (@at::timestamptz, @after::text)
ORDER BY at, session_id LIMIT @n::bigint;

-- name: RevokedSessions :many
SELECT * FROM revocations WHERE issuer = @issuer AND subject = @subject ORDER BY at LIMIT @n::bigint;

-- name: SweepRevocations :execrows
DELETE FROM revocations WHERE ctid = ANY (ARRAY(
  SELECT r.ctid FROM revocations AS r WHERE r.until <= @at ORDER BY r.until LIMIT @n::bigint FOR UPDATE SKIP LOCKED
));
