"""The control plane: who is who (certificates), who may do what (policy), and telling every sidecar within a second.

The map, in the order to read it:

- `model`      the nouns: Workload, JoinTokenRecord, IssuedRecord, ResourceRecord, EndpointRecord
- `app`        the one composition function: everything is made and wired there
- `state`      what is open while it serves; `handlers` are made over it
- `config`     one frozen configuration tree, parsed once, strictly
- `errors`     one tree of errors; each carries the gRPC status it becomes
- `store/`     what must survive a restart: the `Store` interface, and SQLite
- `ca/`        the certificate authority
- `tokens`     join tokens: made, spent once, rate-limited
- `policy/`    parse, check, compile and explain policy documents
- `decisions`  what sidecars denied, as they reported it, for explain
- `registry`   which sidecars are there, where they can be reached, and when they are gone
- `push/`      a snapshot per workload, and getting it to every sidecar (ACK, NACK)
- `api/`       the gRPC services; `api/authz` says who may call what, `api/server` is the only one that knows gRPC
- `audit`      a record of every mutation, issuance and refusal
- `cli/`       the `hauberk` command
"""
