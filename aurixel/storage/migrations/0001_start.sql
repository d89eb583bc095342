-- Amounts are nano-dollars, instants milliseconds since the epoch (UTC), flags 0 or 1.
-- The checks repeat what the guards of the operations already hold: a store that was written by hand says so.

CREATE TABLE accounts (
  id          TEXT PRIMARY KEY,
  state       TEXT NOT NULL CHECK (state IN ('open', 'closing', 'removed')),
  available   INTEGER NOT NULL CHECK (available >= 0),
  credited    INTEGER NOT NULL CHECK (credited >= 0),
  spent       INTEGER NOT NULL CHECK (spent >= 0),
  written_off INTEGER NOT NULL CHECK (written_off >= 0),
  ver         INTEGER NOT NULL,
  log_n       INTEGER NOT NULL,
  log_took    INTEGER NOT NULL,
  want        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A row is both the lease and the holder: they come and go together.
CREATE TABLE leases (
  account TEXT NOT NULL,
  inc     TEXT NOT NULL,
  amount  INTEGER NOT NULL CHECK (amount >= 0),
  seq     INTEGER NOT NULL,
  PRIMARY KEY (account, inc)
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_by_inc ON leases (inc, account);

CREATE TABLE movements (
  account TEXT NOT NULL,
  n       INTEGER NOT NULL CHECK (n >= 1),
  id      TEXT NOT NULL,
  kind    TEXT NOT NULL,
  amount  INTEGER NOT NULL,
  at_ms   INTEGER NOT NULL,
  reason  TEXT NOT NULL,
  ref     TEXT NOT NULL,
  author  TEXT NOT NULL,
  took    INTEGER,
  PRIMARY KEY (account, n),
  UNIQUE (account, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX movements_open ON movements (account, n) WHERE took IS NULL;

CREATE TABLE usage (
  request_id    TEXT PRIMARY KEY,
  account       TEXT NOT NULL,
  inc           TEXT NOT NULL,
  s             INTEGER NOT NULL,
  key_id        TEXT NOT NULL,
  model         TEXT NOT NULL,
  upstream      TEXT NOT NULL,
  operation     TEXT NOT NULL,
  dialect       TEXT NOT NULL,
  stream        INTEGER NOT NULL,
  client_ip     TEXT NOT NULL,
  at_ms         INTEGER NOT NULL,
  done_ms       INTEGER NOT NULL,
  cell          TEXT NOT NULL,
  measured      INTEGER NOT NULL,
  status        INTEGER NOT NULL,
  counts        TEXT NOT NULL,
  cost          INTEGER NOT NULL CHECK (cost >= 0),
  price_version INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_by_frame ON usage (account, inc, s, cost);

CREATE TABLE rollups (
  id      INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  hour    INTEGER NOT NULL,
  model   TEXT NOT NULL,
  key_id  TEXT NOT NULL,
  inc     TEXT NOT NULL,
  s       INTEGER NOT NULL,
  UNIQUE (account, hour, model, key_id, inc)
) STRICT;

CREATE TABLE rollup_sums (
  rollup INTEGER NOT NULL,
  unit   TEXT NOT NULL,
  n      INTEGER NOT NULL CHECK (n >= 0),
  PRIMARY KEY (rollup, unit)
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
  inc        TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('live', 'recovering', 'dead', 'done', 'abandoned')),
  claimed_by TEXT NOT NULL,
  beat       INTEGER NOT NULL,
  since_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE profiles (
  account     TEXT PRIMARY KEY,
  email       TEXT NOT NULL,
  email_lower TEXT NOT NULL UNIQUE,
  status      TEXT NOT NULL,
  created_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
  id         TEXT PRIMARY KEY,
  account    TEXT NOT NULL,
  hash       BLOB NOT NULL,
  name       TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER,
  revoked_ms INTEGER,
  limits     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_account ON keys (account, created_ms, id);

CREATE TABLE catalogue (
  version INTEGER PRIMARY KEY,
  at_ms   INTEGER NOT NULL,
  author  TEXT NOT NULL,
  body    BLOB NOT NULL
) STRICT;
