-- What the control plane remembers. All times are Unix seconds.

CREATE TABLE fact (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row. Every change of a resource or an endpoint makes `revision` larger in the same transaction.
CREATE TABLE clock (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    epoch    INTEGER NOT NULL CHECK (epoch > 0),
    revision INTEGER NOT NULL CHECK (revision > 0)
) STRICT;

CREATE TABLE join_token (
    token_id        TEXT PRIMARY KEY,
    secret_sha256   BLOB NOT NULL,      -- never the secret
    spiffe_id       TEXT NOT NULL,
    service         TEXT NOT NULL,
    namespace       TEXT NOT NULL,
    service_account TEXT NOT NULL,
    labels          TEXT NOT NULL,      -- JSON object, keys sorted
    created_at      REAL NOT NULL,
    created_by      TEXT NOT NULL,
    expires_at      REAL NOT NULL,
    consumed_at     REAL                -- NULL: not used yet
) STRICT, WITHOUT ROWID;
CREATE INDEX join_token_expiry ON join_token (expires_at);

CREATE TABLE workload (
    workload_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    spiffe_id       TEXT NOT NULL,
    service         TEXT NOT NULL,
    namespace       TEXT NOT NULL,
    service_account TEXT NOT NULL,
    labels          TEXT NOT NULL,
    joined_at       REAL NOT NULL,
    removed_at      REAL                -- NULL: a member
) STRICT;
CREATE UNIQUE INDEX workload_live ON workload (spiffe_id, service, labels) WHERE removed_at IS NULL;

CREATE TABLE issued (
    serial      TEXT PRIMARY KEY,       -- hexadecimal: 159 bits do not fit an INTEGER
    spiffe_id   TEXT NOT NULL,
    workload_id INTEGER REFERENCES workload (workload_id),
    not_before  REAL NOT NULL,
    not_after   REAL NOT NULL,
    issued_at   REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX issued_expiry ON issued (not_after);

CREATE TABLE resource (
    kind       TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    yaml       TEXT NOT NULL,
    source     TEXT NOT NULL,
    version    INTEGER NOT NULL,
    applied_at REAL NOT NULL,
    applied_by TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE endpoint (
    workload_id INTEGER NOT NULL REFERENCES workload (workload_id),
    instance    TEXT NOT NULL,
    address     TEXT NOT NULL,
    ports       TEXT NOT NULL,          -- JSON object: port -> protocol
    PRIMARY KEY (workload_id, instance)
) STRICT, WITHOUT ROWID;
