-- A state's index as version 1 of the schema made it.
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'lorafile','first','2026-11-21 16:25:46.644581+00:00');
CREATE TABLE attempts (         -- one row for each time that somebody tried; never changed afterwards
    id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES nodes(key), kind TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('done', 'diverged', 'out-of-memory', 'failed', 'interrupted')),
    message TEXT NOT NULL, started TEXT NOT NULL, seconds REAL NOT NULL,
    device TEXT NOT NULL, environment TEXT NOT NULL REFERENCES environments(digest),
    figures TEXT NOT NULL,      -- JSON: name -> number
    reads TEXT NOT NULL,        -- JSON: role -> file name -> digest of the bytes that were read
    study TEXT NOT NULL, address TEXT NOT NULL
);
INSERT INTO "attempts" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','train','done','','2026-11-01T10:00:00+00:00',3.0,'cpu','f2695d5fb27c20bcf9678d6d348e65a25df491e0b87ad2f9ba31a008fb35c963','{"final_loss": 2.5, "other": NaN, "steps": 2}','{}','old','rank/r=8/seed=42:train');
INSERT INTO "attempts" VALUES(2,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','predict','done','','2026-11-01T10:01:00+00:00',0.0,'','f2695d5fb27c20bcf9678d6d348e65a25df491e0b87ad2f9ba31a008fb35c963','{"examples": 2}','{}','old','rank/r=8/seed=42:predict/test/likelihood');
INSERT INTO "attempts" VALUES(3,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','score','done','','2026-11-01T10:02:00+00:00',0.0,'','f2695d5fb27c20bcf9678d6d348e65a25df491e0b87ad2f9ba31a008fb35c963','{"examples": 2, "log_loss": 0.25}','{}','old','rank/r=8/seed=42:score/test');
CREATE TABLE declarations (     -- what each study declared when it was last applied
    study TEXT NOT NULL, address TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (study, address)
) WITHOUT ROWID;
INSERT INTO "declarations" VALUES('old','rank/r=8/seed=42:train','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','train');
CREATE TABLE environments (     -- where something was computed
    digest TEXT PRIMARY KEY, settings TEXT NOT NULL
);
INSERT INTO "environments" VALUES('f2695d5fb27c20bcf9678d6d348e65a25df491e0b87ad2f9ba31a008fb35c963','{"device": "cpu", "torch": "2.9"}');
CREATE TABLE nodes (            -- what a key was made of
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL,
    settings TEXT NOT NULL,     -- JSON: section -> its settings, as they were hashed
    inputs TEXT NOT NULL        -- JSON: role -> key of the node that it reads
);
INSERT INTO "nodes" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','train',1,'{"adapter": {"lora_alpha": 16, "method": "lora", "r": 8}, "seed": 42, "training": {"learning_rate": 0.1}}','{"train": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}');
INSERT INTO "nodes" VALUES('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','predict',1,'{"task": {"output": "likelihood"}}','{"adapter": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "data": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO "nodes" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','score',2,'{"metrics": ["log_loss"]}','{"likelihood": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}');
CREATE TABLE outputs (          -- the files of an attempt
    attempt INTEGER NOT NULL REFERENCES attempts(id), name TEXT NOT NULL,
    digest TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (attempt, name)
) WITHOUT ROWID;
INSERT INTO "outputs" VALUES(1,'curve.jsonl.gz','6680993a82209d821e4b9bcad968f2a4e11eb716bfe9064d0ccd9119163110e3',108);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX attempts_by_key ON attempts(key, id);
CREATE VIEW results AS          -- the newest finished attempt of each node on each device
    SELECT a.* FROM attempts a JOIN (
        SELECT max(id) AS id FROM attempts WHERE outcome IN ('done', 'diverged')
        GROUP BY key, CASE kind WHEN 'profile' THEN device END
    ) newest ON newest.id = a.id;
COMMIT;
PRAGMA user_version = 1;
