CREATE TABLE checkpoint (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    position INTEGER NOT NULL,
    heads BLOB NOT NULL,
    digest TEXT
);
CREATE TABLE routed (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    position INTEGER NOT NULL
);
CREATE TABLE unseen (
    only INTEGER PRIMARY KEY CHECK (only = 1)
);
INSERT INTO unseen VALUES (1);
CREATE TABLE suspects (
    place TEXT PRIMARY KEY,
    twin TEXT NOT NULL,
    unfinished INTEGER NOT NULL
);
CREATE TABLE accounted (
    place TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (place, hash)
) WITHOUT ROWID;
CREATE TABLE collections (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    twin TEXT NOT NULL,
    place TEXT NOT NULL,
    stands TEXT,
    position INTEGER NOT NULL DEFAULT 0,
    files BLOB,
    UNIQUE (twin, path)
);
CREATE TABLE records (
    collection INTEGER NOT NULL REFERENCES collections (id),
    key TEXT NOT NULL,
    folder INTEGER NOT NULL REFERENCES folders (id),
    PRIMARY KEY (collection, key)
) WITHOUT ROWID;
CREATE INDEX members ON records (folder, collection, key);
CREATE TABLE dirty (
    folder INTEGER PRIMARY KEY REFERENCES folders (id),
    whole INTEGER NOT NULL
);
