"""Getting to every sidecar what it must know, within a second of a change.

- `snapshot`  the world as the store has it, and the one snapshot a workload needs of it
- `trust`     whom everybody trusts: anchors, revocations, the keys of JWT-SVIDs
- `encode`    policies as protobuf messages
- `session`   one subscriber, sans-IO: what it was sent, what it acknowledged, whether something is due
- `acknowledged`  who knows which authority: what rotations of the CA wait for
- `hub`       all subscribers: gathers bursts of changes, wakes only those whose snapshot changed, waits for ACKs
"""
