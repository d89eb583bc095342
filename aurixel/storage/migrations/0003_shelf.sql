-- Shelves: the few documents of plugins that bring credit in. The body is JSON whose shape the plugin owns.
CREATE TABLE shelf_docs (
  shelf TEXT NOT NULL,
  id    TEXT NOT NULL,
  rev   INTEGER NOT NULL CHECK (rev >= 1),
  body  BLOB NOT NULL,
  PRIMARY KEY (shelf, id)
) STRICT, WITHOUT ROWID;
