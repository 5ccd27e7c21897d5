SELECT id, issuer, subject, email, display_name, image_url, bio, locale, timezone, version, created_at, updated_at
FROM users WHERE issuer = ? AND subject = ?
