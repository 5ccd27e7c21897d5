-- +goose Up
CREATE TABLE users (
  id           TEXT PRIMARY KEY,
  issuer       TEXT NOT NULL,
  subject      TEXT NOT NULL,
  email        TEXT NOT NULL DEFAULT '',
  display_name TEXT NOT NULL DEFAULT '',
  image_url    TEXT NOT NULL DEFAULT '',
  bio          TEXT NOT NULL DEFAULT '',
  locale       TEXT NOT NULL DEFAULT '',
  timezone     TEXT NOT NULL DEFAULT '',
  version      INTEGER NOT NULL,
  created_at   INTEGER NOT NULL, -- microseconds since 1970, UTC
  updated_at   INTEGER NOT NULL,
  UNIQUE (issuer, subject)
) STRICT;

CREATE TABLE audit_events (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL REFERENCES users (id),
  kind    TEXT NOT NULL,
  actor   TEXT NOT NULL,
  fields  TEXT NOT NULL, -- names, separated by spaces
  at      INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_events_user ON audit_events (user_id, id);

-- +goose Down
DROP TABLE audit_events;
DROP TABLE users;
