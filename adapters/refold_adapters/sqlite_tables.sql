CREATE TABLE _refold_checkpoint (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    position INTEGER NOT NULL,
    heads BLOB NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE _refold_collections (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    records INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE _refold_records (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES _refold_collections (id),
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    state BLOB,
    UNIQUE (collection, key)
);
CREATE INDEX _refold_records_newest ON _refold_records (collection, position);
CREATE TABLE _refold_conflicts (
    id TEXT NOT NULL,
    closed INTEGER NOT NULL,
    kind TEXT NOT NULL,
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    fields TEXT NOT NULL,
    open INTEGER NOT NULL,
    time INTEGER,
    replica TEXT,
    seq INTEGER,
    by_hand INTEGER NOT NULL,
    PRIMARY KEY (id, closed, fields)
) WITHOUT ROWID;
CREATE INDEX _refold_conflicts_of_records ON _refold_conflicts (collection, key);
CREATE INDEX _refold_conflicts_open ON _refold_conflicts (id) WHERE closed = 0 AND open = 1;
CREATE TABLE _refold_references (
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    field TEXT NOT NULL,
    target TEXT NOT NULL,
    target_key TEXT NOT NULL,
    PRIMARY KEY (collection, key, field)
) WITHOUT ROWID;
CREATE INDEX _refold_references_to ON _refold_references (target, target_key);
CREATE TABLE _refold_unique (
    collection TEXT NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    time INTEGER NOT NULL,
    replica TEXT NOT NULL,
    seq INTEGER NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (collection, field, value, time, replica, seq, key)
) WITHOUT ROWID;
CREATE INDEX _refold_unique_of_records ON _refold_unique (collection, key);
CREATE TABLE _refold_chain (
    position INTEGER PRIMARY KEY,
    previous INTEGER NOT NULL
);
CREATE TABLE _refold_requests (
    request_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
