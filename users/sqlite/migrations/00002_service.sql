-- +goose Up
ALTER TABLE users ADD COLUMN handle TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted'));
ALTER TABLE users ADD COLUMN plan TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN source_updated_at INTEGER NOT NULL DEFAULT 0; -- 0 for never
ALTER TABLE users ADD COLUMN access_changed_at INTEGER NOT NULL DEFAULT 0; -- when status or plan last changed, 0 for never
ALTER TABLE users ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN head TEXT NOT NULL DEFAULT '';

CREATE UNIQUE INDEX users_handle ON users (handle) WHERE handle <> '';
CREATE INDEX users_list ON users (created_at, id);
CREATE INDEX users_status ON users (status, created_at, id);
CREATE INDEX users_subject ON users (subject);
CREATE INDEX users_email ON users (lower(email));
CREATE INDEX users_access ON users (access_changed_at, id) WHERE access_changed_at > 0;

ALTER TABLE audit_events ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit_events ADD COLUMN prev TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_events ADD COLUMN hash TEXT NOT NULL DEFAULT '';
-- The hashes of what is there already are 00003's, in Go.
UPDATE audit_events SET seq = (SELECT count(*) FROM audit_events AS e WHERE e.user_id = audit_events.user_id AND e.id <= audit_events.id);

DROP INDEX audit_events_user;
CREATE UNIQUE INDEX audit_events_chain ON audit_events (user_id, seq);

CREATE TABLE claims (
  scope       TEXT NOT NULL,
  key         TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  result      BLOB NOT NULL,
  at          INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX claims_expiry ON claims (expires_at);

CREATE TABLE revocations (
  issuer     TEXT NOT NULL,
  session_id TEXT NOT NULL,
  subject    TEXT NOT NULL,
  until      INTEGER NOT NULL,
  at         INTEGER NOT NULL,
  PRIMARY KEY (issuer, session_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_feed ON revocations (at, session_id);
CREATE INDEX revocations_expiry ON revocations (until);
CREATE INDEX revocations_subject ON revocations (issuer, subject, at);

-- +goose Down
DROP TABLE revocations;
DROP TABLE claims;
DROP INDEX audit_events_chain;
CREATE INDEX audit_events_user ON audit_events (user_id, id);
ALTER TABLE audit_events DROP COLUMN hash;
ALTER TABLE audit_events DROP COLUMN prev;
ALTER TABLE audit_events DROP COLUMN seq;
DROP INDEX users_access;
DROP INDEX users_email;
DROP INDEX users_subject;
DROP INDEX users_status;
DROP INDEX users_list;
DROP INDEX users_handle;
ALTER TABLE users DROP COLUMN head;
ALTER TABLE users DROP COLUMN events;
ALTER TABLE users DROP COLUMN access_changed_at;
ALTER TABLE users DROP COLUMN source_updated_at;
ALTER TABLE users DROP COLUMN plan;
ALTER TABLE users DROP COLUMN status;
ALTER TABLE users DROP COLUMN handle;
