CREATE TABLE nodes (            -- what a key was made of
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL,
    settings TEXT NOT NULL,     -- JSON: section -> its settings, as they were hashed
    inputs TEXT NOT NULL        -- JSON: role -> key of the node that it reads
);
CREATE TABLE environments (     -- where something was computed
    digest TEXT PRIMARY KEY, settings TEXT NOT NULL
);
CREATE TABLE attempts (         -- one row for each time that somebody tried; never changed afterwards
    id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES nodes(key), kind TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('done', 'diverged', 'out-of-memory', 'failed', 'interrupted')),
    message TEXT NOT NULL, started TEXT NOT NULL, seconds REAL NOT NULL,
    device TEXT NOT NULL, environment TEXT NOT NULL REFERENCES environments(digest),
    figures TEXT NOT NULL,      -- JSON: name -> number
    reads TEXT NOT NULL,        -- JSON: role -> file name -> digest of the bytes that were read
    study TEXT NOT NULL, address TEXT NOT NULL
);
CREATE INDEX attempts_by_key ON attempts(key, id);
CREATE TABLE outputs (          -- the files of an attempt
    attempt INTEGER NOT NULL REFERENCES attempts(id), name TEXT NOT NULL,
    digest TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (attempt, name)
) WITHOUT ROWID;
CREATE TABLE declarations (     -- what each study declared when it was last applied
    study TEXT NOT NULL, address TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (study, address)
) WITHOUT ROWID;
CREATE VIEW results AS          -- the newest finished attempt of each node on each device
    SELECT a.* FROM attempts a JOIN (
        SELECT max(id) AS id FROM attempts WHERE outcome IN ('done', 'diverged')
        GROUP BY key, CASE kind WHEN 'profile' THEN device END
    ) newest ON newest.id = a.id;
