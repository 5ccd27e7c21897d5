-- +goose Up
CREATE TABLE rollout_journal (
  launch   INTEGER NOT NULL, -- counts the launches, from 1
  revision INTEGER NOT NULL, -- from 1 in each launch, without gaps
  base     TEXT NOT NULL,    -- the upstream of the configuration at that moment
  line     TEXT NOT NULL,    -- the record, byte for byte
  PRIMARY KEY (launch, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_lease (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  holder TEXT NOT NULL,
  until  INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT;

CREATE TABLE rollout_shares (
  instance TEXT PRIMARY KEY,
  body     TEXT NOT NULL,
  at       INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE rollout_journal;
DROP TABLE rollout_lease;
DROP TABLE rollout_shares;
