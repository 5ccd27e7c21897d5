INSERT INTO audit_events (user_id, kind, actor, fields, at) VALUES (?, ?, ?, ?, ?)
