"""THE WIRE: what the control plane, the sidecars and the operators' command say to each other, in Protocol Buffers.

hauberk/v1/identity.proto   joining the mesh with a token, renewing a certificate     (sidecar -> control plane)
hauberk/v1/discovery.proto  the snapshot a sidecar lives by; ACK, NACK, advertise      (sidecar <-> control plane)
hauberk/v1/config.proto     apply, get, list, delete, explain                          (operator -> control plane)
hauberk/v1/admin.proto      join tokens, status                                        (operator -> control plane)
spiffe/workload.proto       the SPIFFE Workload API; not ours to change               (workload -> sidecar)

`*_pb2.py` and `*_pb2.pyi` are generated beside their source by `make protos` and committed, so that an installation
needs no compiler. `tests/test_project.py` generates them anew and fails if they are not the same.

Evolution rules
---------------
Sidecars and control planes of neighbouring releases work together: the control plane is upgraded first, and a sidecar
may be one minor release older. Therefore, in a released `v1`:

1. A field's number, type, cardinality and meaning never change.
2. A field that is no longer used is removed by `reserved` with its number *and* its name.
3. An enum's zero value is `..._UNSPECIFIED` and is refused by whoever receives it; numbers are never used again.
4. **What a sidecar does not know, it refuses.** An unknown field or enum value anywhere in a `Snapshot` makes the
   sidecar NACK it whole, because a condition that is skipped is a door left open. So a new field of `Snapshot` or of a
   message in it is sent only to a sidecar whose `Hello.sidecar_version` knows it; for an older one the control plane
   either compiles to what that sidecar understands, with the same meaning or a stricter one, or refuses the policy at
   `apply`, naming the workloads that are too old. It is never left out silently.
5. Everywhere else (requests, status, heartbeats) an unknown field is ignored, and an absent one means what it meant
   before the field existed.
6. New methods may be added to a service at any time, together with their row in `control_plane/api/authz.py`: a method
   without a row is refused at start.
7. Anything that cannot be done under these rules is a `hauberk.v2` package beside this one, served together with it.

Units stand last in field names (`_s`: seconds; `_der`: DER bytes); times are Unix seconds as `double`; identities are
SPIFFE IDs as URIs unless the comment says otherwise; addresses are "ip:port".
"""
