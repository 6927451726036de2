"""The SPIFFE Workload API: workloads on this machine ask, on a unix socket, who they are and whom to trust.

Read in this order:

* `endpoint`   the socket: bound, guarded, its connections and what is overdue on them
* `calls`      gRPC, server side, sans-IO: streams of a session become calls of methods
* `api`        the methods
* `feeds`      a stream of answers: everything, again after every change, the newest to whoever is slow
* `tokens`     JWT-SVIDs as the control plane issued them, kept for half of their life

A sidecar without `workload_api` in its configuration loads none of this.

Source: the SPIFFE Workload Endpoint and SPIFFE Workload API specifications. Who may ask is decided by the socket's
mode: whoever reaches it is this workload, and a security header keeps out what was tricked into calling (row G29).
"""
