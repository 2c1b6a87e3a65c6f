CREATE TABLE removals (         -- attempts that count no more: forgotten by hand, or damaged; the attempt itself stays
    attempt INTEGER PRIMARY KEY REFERENCES attempts(id), since TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE acceptances (      -- somebody declared two keys equivalent: where a study has `new`, `old` is used
    id INTEGER PRIMARY KEY, old TEXT NOT NULL REFERENCES nodes(key), new TEXT NOT NULL, kind TEXT NOT NULL,
    reason TEXT NOT NULL, since TEXT NOT NULL, withdrawn TEXT
);
CREATE TABLE collected (        -- objects that garbage collection took, or that were never brought here
    digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL, since TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE seals (            -- a digest over each attempt with its files, so that a damaged row is told
    attempt INTEGER PRIMARY KEY REFERENCES attempts(id), digest TEXT NOT NULL
);
CREATE TABLE steps (            -- the curves of training, a row for each optimizer step
    attempt INTEGER NOT NULL REFERENCES attempts(id), step INTEGER NOT NULL,
    epoch REAL, loss REAL, learning_rate REAL, grad_norm REAL, PRIMARY KEY (attempt, step)
) WITHOUT ROWID;
CREATE TABLE forecasts (        -- what the plan had foretold of an attempt
    attempt INTEGER PRIMARY KEY REFERENCES attempts(id), forecast TEXT NOT NULL -- JSON
);
DROP VIEW results;
