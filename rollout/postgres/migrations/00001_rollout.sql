-- +goose Up
CREATE TABLE rollout_journal (
  launch   bigint NOT NULL, -- counts the launches, from 1
  revision bigint NOT NULL, -- from 1 in each launch, without gaps
  base     text NOT NULL,   -- the upstream of the configuration at that moment
  line     text NOT NULL,   -- the record, byte for byte
  PRIMARY KEY (launch, revision)
);

CREATE TABLE rollout_lease (
  id     integer PRIMARY KEY CHECK (id = 1),
  holder text NOT NULL,
  until  timestamptz NOT NULL
);

-- Every instance writes its row each second during a launch: room in the page keeps that off the index.
CREATE TABLE rollout_shares (
  instance text PRIMARY KEY,
  body     text NOT NULL,
  at       timestamptz NOT NULL
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE rollout_journal;
DROP TABLE rollout_lease;
DROP TABLE rollout_shares;
