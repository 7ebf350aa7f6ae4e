CREATE TABLE replicas (
    id INTEGER PRIMARY KEY,
    replica TEXT NOT NULL UNIQUE
);
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    replica INTEGER NOT NULL REFERENCES replicas (id),
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (replica, seq)
);
CREATE TABLE owner (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    replica TEXT NOT NULL
);
