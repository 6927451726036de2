"""What must survive a restart.

- `base`    the `Store` interface every back end keeps; `tests/contract/` holds the suite that says what it means
- `sqlite`  the embedded one: nothing to install, one file
- `sqlite_history`  its resources, and what they were at every version
- `sqlite_identity` its certificates, nodes, authorities and revocations
- `sqlite_tokens`, `sqlite_endpoints`  its join tokens, its endpoints; `sqlite_reads`  what only asks
- `trust`   what decides whom the mesh trusts, under a MAC; `sqlite_trust` keeps it in step with the rows
- `migrations/`  its schema, one SQL file a step, applied in order
"""
