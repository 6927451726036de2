-- What decides whom the mesh trusts, listed, and the MAC over that list. One row; none: nothing vouches for it yet.

CREATE TABLE trust_seal (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    statement TEXT NOT NULL,            -- JSON; see control_plane/store/trust.py
    mac       BLOB NOT NULL             -- HMAC-SHA256 under a key made from the key-encryption key
) STRICT;
