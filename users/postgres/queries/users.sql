-- name: FindUser :one
SELECT * FROM users WHERE issuer = @issuer AND subject = @subject;

-- name: LockUser :one
SELECT * FROM users WHERE issuer = @issuer AND subject = @subject FOR UPDATE;

-- name: LockUserByID :one
SELECT * FROM users WHERE id = @id FOR UPDATE;

-- name: FindHandle :one
SELECT * FROM users WHERE handle = @handle AND handle <> '';

-- name: InsertUser :execrows
INSERT INTO users (
  id, issuer, subject, handle, status, plan, email, display_name, image_url, bio, locale, timezone,
  version, created_at, updated_at, source_updated_at, events, head, access_changed_at
) VALUES (
  @id, @issuer, @subject, @handle, @status, @plan, @email, @display_name, @image_url, @bio, @locale, @timezone,
  @version, @created_at, @updated_at, sqlc.narg(source_updated_at), @events, @head,
  CASE WHEN @status <> 'active' OR @plan <> '' THEN clock_timestamp() END
)
ON CONFLICT (issuer, subject) DO NOTHING;

-- name: UpdateUser :execrows
UPDATE users SET
  access_changed_at = CASE WHEN status <> @status OR plan <> @plan THEN clock_timestamp() ELSE access_changed_at END,
  handle = @handle, status = @status, plan = @plan, email = @email, display_name = @display_name,
  image_url = @image_url, bio = @bio, locale = @locale, timezone = @timezone, version = @version,
  updated_at = @updated_at, source_updated_at = sqlc.narg(source_updated_at), events = @events, head = @head
WHERE id = @id;

-- name: ListUsers :many
SELECT * FROM users
WHERE (created_at, id) < (@at::timestamptz, @id::text)
ORDER BY created_at DESC, id DESC LIMIT @n::bigint;

-- name: ListUsersWithStatus :many
SELECT * FROM users
WHERE status = @status AND (created_at, id) < (@at::timestamptz, @id::text)
ORDER BY created_at DESC, id DESC LIMIT @n::bigint;

-- name: MatchUsers :many
SELECT u.* FROM (
  SELECT a.id FROM users AS a WHERE a.id = @match::text
  UNION SELECT b.id FROM users AS b WHERE b.subject = @match::text
  UNION SELECT c.id FROM users AS c WHERE c.handle = lower(@match::text) AND c.handle <> ''
  UNION SELECT d.id FROM users AS d WHERE lower(d.email) = lower(@match::text)
) AS found JOIN users AS u ON u.id = found.id
WHERE (u.status = @status::text OR @status::text = '') AND (u.created_at, u.id) < (@at::timestamptz, @id::text)
ORDER BY u.created_at DESC, u.id DESC LIMIT @n::bigint;

-- name: Standings :many
SELECT id, issuer, subject, status, plan, version, access_changed_at FROM users
WHERE access_changed_at IS NOT NULL AND (access_changed_at, id) > (@at::timestamptz, @after::text)
ORDER BY access_changed_at, id LIMIT @n::bigint;

-- name: Heads :many
SELECT id, events, head FROM users WHERE id > @after ORDER BY id LIMIT @n::bigint;
