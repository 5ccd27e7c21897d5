-- name: Claim :execrows
INSERT INTO claims (scope, key, fingerprint, result, at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (scope, key) DO UPDATE
SET fingerprint = excluded.fingerprint, result = excluded.result, at = excluded.at, expires_at = excluded.expires_at
WHERE claims.expires_at <= excluded.at;

-- name: FindClaim :one
SELECT * FROM claims WHERE scope = ? AND key = ?;

-- name: SettleClaim :exec
UPDATE claims SET result = ? WHERE scope = ? AND key = ?;

-- name: ForgetClaims :exec
DELETE FROM claims WHERE scope = ?;

-- name: SweepClaims :execrows
DELETE FROM claims WHERE (scope, key) IN (SELECT c.scope, c.key FROM claims AS c WHERE c.expires_at <= ? LIMIT ?);

-- name: Revoke :exec
INSERT INTO revocations (issuer, session_id, subject, until, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (issuer, session_id) DO UPDATE
SET subject = CASE WHEN excluded.subject <> '' THEN excluded.subject ELSE revocations.subject END,
  until = max(revocations.until, excluded.until), at = excluded.at;

-- name: Revocations :many
SELECT * FROM revocations
WHERE at >= sqlc.arg(at) AND (at > sqlc.arg(at) OR session_id > sqlc.arg(id))
ORDER BY at, session_id LIMIT sqlc.arg(n);

-- name: RevokedSessions :many
SELECT * FROM revocations WHERE issuer = ? AND subject = ? ORDER BY at LIMIT ?;

-- name: SweepRevocations :execrows
DELETE FROM revocations WHERE (issuer, session_id) IN (SELECT r.issuer, r.session_id FROM revocations AS r WHERE r.until <= ? LIMIT ?);
