-- name: FindUser :one
SELECT * FROM users WHERE issuer = ? AND subject = ?;

-- name: GetUser :one
SELECT * FROM users WHERE id = ?;

-- name: FindHandle :one
SELECT * FROM users WHERE handle = ? AND handle <> '';

-- name: InsertUser :execrows
INSERT INTO users (
  id, issuer, subject, handle, status, plan, email, display_name, image_url, bio, locale, timezone,
  version, created_at, updated_at, source_updated_at, access_changed_at, events, head
) VALUES (
  sqlc.arg(id), sqlc.arg(issuer), sqlc.arg(subject), sqlc.arg(handle), sqlc.arg(status), sqlc.arg(plan),
  sqlc.arg(email), sqlc.arg(display_name), sqlc.arg(image_url), sqlc.arg(bio), sqlc.arg(locale), sqlc.arg(timezone),
  sqlc.arg(version), sqlc.arg(created_at), sqlc.arg(updated_at), sqlc.arg(source_updated_at), sqlc.arg(access_changed_at),
  sqlc.arg(events), sqlc.arg(head)
)
ON CONFLICT (issuer, subject) DO NOTHING;

-- name: UpdateUser :execrows
UPDATE users SET
  access_changed_at = CASE WHEN status <> sqlc.arg(status) OR plan <> sqlc.arg(plan) THEN CAST(sqlc.arg(now) AS INTEGER) ELSE access_changed_at END,
  handle = sqlc.arg(handle), status = sqlc.arg(status), plan = sqlc.arg(plan), email = sqlc.arg(email),
  display_name = sqlc.arg(display_name), image_url = sqlc.arg(image_url), bio = sqlc.arg(bio),
  locale = sqlc.arg(locale), timezone = sqlc.arg(timezone), version = sqlc.arg(version), updated_at = sqlc.arg(updated_at),
  source_updated_at = sqlc.arg(source_updated_at), events = sqlc.arg(events), head = sqlc.arg(head)
WHERE id = sqlc.arg(id);

-- name: ListUsers :many
SELECT * FROM users
WHERE created_at <= sqlc.arg(at) AND (created_at < sqlc.arg(at) OR id < sqlc.arg(id))
ORDER BY created_at DESC, id DESC LIMIT sqlc.arg(n);

-- name: ListUsersWithStatus :many
SELECT * FROM users
WHERE status = sqlc.arg(status) AND created_at <= sqlc.arg(at) AND (created_at < sqlc.arg(at) OR id < sqlc.arg(id))
ORDER BY created_at DESC, id DESC LIMIT sqlc.arg(n);

-- name: MatchUsers :many
SELECT m.* FROM users AS m
WHERE m.id IN (
    SELECT u.id FROM users AS u WHERE u.id = sqlc.arg(match)
    UNION SELECT u.id FROM users AS u WHERE u.subject = sqlc.arg(match)
    UNION SELECT u.id FROM users AS u WHERE u.handle = lower(sqlc.arg(match)) AND u.handle <> ''
    UNION SELECT u.id FROM users AS u WHERE lower(u.email) = lower(sqlc.arg(match))
  )
  AND (m.status = sqlc.arg(status) OR CAST(sqlc.arg(status) AS TEXT) = '')
  AND m.created_at <= sqlc.arg(at) AND (m.created_at < sqlc.arg(at) OR m.id < sqlc.arg(id))
ORDER BY m.created_at DESC, m.id DESC LIMIT sqlc.arg(n);

-- name: Standings :many
SELECT id, issuer, subject, status, plan, version, access_changed_at FROM users
WHERE access_changed_at > 0 AND access_changed_at >= sqlc.arg(at) AND (access_changed_at > sqlc.arg(at) OR id > sqlc.arg(id))
ORDER BY access_changed_at, id LIMIT sqlc.arg(n);

-- name: Heads :many
SELECT id, events, head FROM users WHERE id > ? ORDER BY id LIMIT ?;
