SELECT id, user_id, kind, actor, fields, at FROM audit_events WHERE user_id = ? ORDER BY id DESC LIMIT ?
