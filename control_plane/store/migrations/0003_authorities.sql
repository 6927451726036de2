-- Authorities, nodes, and what was taken away from whom.

CREATE TABLE authority (
    authority_id    TEXT PRIMARY KEY,
    level           TEXT NOT NULL CHECK (level IN ('root', 'intermediate', 'jwt')),
    phase           TEXT NOT NULL CHECK (phase IN ('requested', 'prepared', 'active', 'old', 'tainted', 'revoked')),
    parent_id       TEXT NOT NULL,
    public_key_der  BLOB NOT NULL,
    certificate_der BLOB NOT NULL,
    sealed_key      BLOB NOT NULL,      -- AES-256-GCM under the key-encryption key; empty: kept elsewhere
    not_before      REAL NOT NULL,
    not_after       REAL NOT NULL,
    prepared_at     REAL NOT NULL,
    activated_at    REAL,
    tainted_at      REAL,
    revoked_at      REAL,
    predecessor_id  TEXT NOT NULL,
    succession      BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX authority_active ON authority (level) WHERE phase = 'active';

CREATE TABLE node (
    node_id          TEXT PRIMARY KEY,
    workload_id      INTEGER NOT NULL REFERENCES workload (workload_id),
    token_id         TEXT NOT NULL,
    public_key_der   BLOB NOT NULL,     -- empty: it has no node key
    joined_at        REAL NOT NULL,
    expires_at       REAL NOT NULL,
    confirmed_number INTEGER NOT NULL,
    alarm            TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX node_token ON node (token_id);

CREATE TABLE revocation (
    kind   TEXT NOT NULL CHECK (kind IN ('identity', 'serial', 'token')),
    value  TEXT NOT NULL,
    at     REAL NOT NULL,
    by     TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

-- A number for each certificate, in the order issued, and whose line it belongs to.
CREATE TABLE certificate (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    serial      TEXT NOT NULL UNIQUE,   -- hexadecimal: 159 bits do not fit an INTEGER
    spiffe_id   TEXT NOT NULL,
    workload_id INTEGER REFERENCES workload (workload_id),
    not_before  REAL NOT NULL,
    not_after   REAL NOT NULL,
    issued_at   REAL NOT NULL,
    node_id     TEXT NOT NULL,          -- empty: nobody's
    issuer_id   TEXT NOT NULL,
    root_id     TEXT NOT NULL
) STRICT;
CREATE INDEX certificate_expiry ON certificate (not_after);
CREATE INDEX certificate_node ON certificate (node_id);
INSERT INTO certificate (serial, spiffe_id, workload_id, not_before, not_after, issued_at, node_id, issuer_id, root_id)
    SELECT serial, spiffe_id, workload_id, not_before, not_after, issued_at, '', '', '' FROM issued ORDER BY issued_at;
DROP TABLE issued;
