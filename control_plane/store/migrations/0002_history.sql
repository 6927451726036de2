-- Every change of resources: who made it, when, and what each resource became.

-- One row a version. `version` is the clock's revision that the change made.
CREATE TABLE history (
    version INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    by      TEXT NOT NULL,
    what    TEXT NOT NULL               -- apply | delete | rollback to N | imported
) STRICT;

-- What a resource became. The rows of versions that are no longer in `history` but on which a later one stands stay.
CREATE TABLE history_change (
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    version   INTEGER NOT NULL,
    what      TEXT NOT NULL CHECK (what IN ('created', 'updated', 'deleted')),
    yaml      TEXT,                     -- NULL: deleted
    source    TEXT,
    by        TEXT NOT NULL,
    at        REAL NOT NULL,
    PRIMARY KEY (kind, namespace, name, version),
    CHECK ((what = 'deleted') = (yaml IS NULL) AND (yaml IS NULL) = (source IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX history_change_version ON history_change (version);

-- One row. What was in force before `version` is not known any more.
CREATE TABLE history_floor (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL CHECK (version > 0)
) STRICT;

-- A store from before there was a history begins it with what it holds now.
INSERT INTO history_floor SELECT 1, revision FROM clock;
INSERT INTO history
    SELECT clock.revision, (SELECT max(applied_at) FROM resource), 'hauberk', 'imported'
    FROM clock WHERE EXISTS (SELECT 1 FROM resource);
INSERT INTO history_change
    SELECT kind, namespace, name, clock.revision, 'created', yaml, source, applied_by, applied_at FROM resource, clock;
