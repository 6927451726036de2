"""The link to the control plane: gRPC spoken by the `h2` package on trio. Read watcher.py first.

watcher         ControlLink: keeps one Watch stream up, hands snapshots to the sidecar, reconnects
subscription    what to say on that stream and which snapshots to believe; sans-IO
identity_calls  Renew and Confirm, and connections made with our certificate
rpc             a gRPC channel: sockets and tasks
calls           its protocol state; sans-IO
wire            gRPC in bytes
errors          RpcError and the rest of the tree
"""
