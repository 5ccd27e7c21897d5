UPDATE users SET email = ?, display_name = ?, image_url = ?, bio = ?, locale = ?, timezone = ?, version = ?, updated_at = ?
WHERE id = ? AND version = ?
