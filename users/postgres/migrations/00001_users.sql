-- Instances of two versions share the database while one is rolled out or back, so a migration may add
-- what the version before it does not know, and must leave alone what that version uses.
--
-- Ids compare by bytes, whatever the database's collation.

-- +goose Up
CREATE TABLE users (
  id                text COLLATE "C" PRIMARY KEY,
  issuer            text COLLATE "C" NOT NULL,
  subject           text COLLATE "C" NOT NULL,
  handle            text COLLATE "C" NOT NULL DEFAULT '',
  status            text NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
  plan              text NOT NULL DEFAULT '',
  email             text NOT NULL DEFAULT '',
  display_name      text NOT NULL DEFAULT '',
  image_url         text NOT NULL DEFAULT '',
  bio               text NOT NULL DEFAULT '',
  locale            text NOT NULL DEFAULT '',
  timezone          text NOT NULL DEFAULT '',
  version           bigint NOT NULL,
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  source_updated_at timestamptz, -- null for never
  access_changed_at timestamptz, -- when status or plan last changed, by this server's clock; null for never
  events            bigint NOT NULL DEFAULT 0,
  head              text NOT NULL DEFAULT '',
  CONSTRAINT users_issuer_subject UNIQUE (issuer, subject)
);

CREATE UNIQUE INDEX users_handle ON users (handle) WHERE handle <> '';
CREATE INDEX users_list ON users (created_at, id);
CREATE INDEX users_status ON users (status, created_at, id);
CREATE INDEX users_subject ON users (subject);
CREATE INDEX users_email ON users (lower(email));
CREATE INDEX users_access ON users (access_changed_at, id) WHERE access_changed_at IS NOT NULL;

CREATE TABLE audit_events (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id text COLLATE "C" NOT NULL REFERENCES users (id),
  seq     bigint NOT NULL,
  kind    text NOT NULL,
  actor   text NOT NULL,
  fields  text[] NOT NULL,
  at      timestamptz NOT NULL,
  prev    text NOT NULL,
  hash    text NOT NULL,
  CONSTRAINT audit_events_chain UNIQUE (user_id, seq)
);

CREATE TABLE claims (
  scope       text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL,
  result      bytea NOT NULL,
  at          timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL,
  PRIMARY KEY (scope, key)
);

CREATE INDEX claims_expiry ON claims (expires_at);

CREATE TABLE revocations (
  issuer     text COLLATE "C" NOT NULL,
  session_id text COLLATE "C" NOT NULL,
  subject    text COLLATE "C" NOT NULL,
  until      timestamptz NOT NULL,
  at         timestamptz NOT NULL, -- by this server's clock
  PRIMARY KEY (issuer, session_id)
);

CREATE INDEX revocations_feed ON revocations (at, session_id);
CREATE INDEX revocations_expiry ON revocations (until);
CREATE INDEX revocations_subject ON revocations (issuer, subject, at);

-- +goose Down
DROP TABLE revocations;
DROP TABLE claims;
DROP TABLE audit_events;
DROP TABLE users;
