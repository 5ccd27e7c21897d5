INSERT INTO users (id, issuer, subject, email, display_name, image_url, bio, locale, timezone, version, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (issuer, subject) DO NOTHING
