-- Orders and receipts. The bodies are JSON whose shape aurixel.payments owns: no card details, no names, no addresses.
CREATE TABLE orders (
  id         TEXT PRIMARY KEY,
  account    TEXT NOT NULL,
  backend    TEXT NOT NULL,
  state      TEXT NOT NULL,
  payment    TEXT,
  open       INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  rev        INTEGER NOT NULL CHECK (rev >= 1),
  body       BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX orders_by_payment ON orders (backend, payment) WHERE payment IS NOT NULL;
CREATE INDEX orders_by_account ON orders (account, created_ms, id);
CREATE INDEX orders_by_time ON orders (created_ms, id);
CREATE INDEX orders_open ON orders (id) WHERE open = 1;

CREATE TABLE receipts (
  number   INTEGER PRIMARY KEY CHECK (number >= 1),
  order_id TEXT NOT NULL UNIQUE,
  account  TEXT NOT NULL,
  at_ms    INTEGER NOT NULL,
  body     BLOB NOT NULL
) STRICT;
