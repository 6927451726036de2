-- What decides whom the mesh trusts, listed, and the MAC over that list. One row; none: nothing vouches for it yet.

CREATE TABLE trust_seal (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    statement TEXT NOT NULL,            -- JSON; see control_plane/store/trust.py
    mac       BLOB NOT NULL             -- HMAC-SHA256 under a key made from the key-encryption key
) STRICT;

-- Whom a token lets in and who a node is, each row by itself; empty: nothing vouches for it.
ALTER TABLE join_token ADD COLUMN mac BLOB NOT NULL DEFAULT x'';
ALTER TABLE node ADD COLUMN mac BLOB NOT NULL DEFAULT x'';
