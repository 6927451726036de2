"""The data plane: one process beside one service. Read this, then `inbound.py`, then `exchange.py`.

    main, app       start; the composition root: parts, listeners, one nursery
    config(_load)   the frozen Config tree, read strictly
    handover        the command line's process becomes the sidecar's (`__main__`), with nothing of it left
    describe        the Config tree as plain data, for /config and for that
    inbound         THE STRAIGHT LINE from other workloads to the app: understand, decide, connect, relay
    caller          who is at the other end of such a connection, and what each port makes of them
    authentication  the door to jwks/
    plaintext       who may come without mTLS, until when, and the end of those who may no longer
    outbound        the same from the app into the mesh: understand, resolve, connect, relay
    exchange        one request and its answer, sans-IO, by the table of states and events in `course`
    flow, answers   one direction of its body; an error as an answer
    runtime         what both share: the snapshot in force, the exchanges that are open
    data_plane      all of the above wired to sockets, without knowing where policy comes from

    http/           sans-IO protocol sessions behind one interface; two HTTP/2 engines; what may cross
    rules/          decisions: pure functions of a frozen Snapshot
    jwks/           users' tokens: where they stand, whose keys verify them; loaded when there is a rule about them
    net/            sockets: listeners, TLS, the reactor, the pump, pools
    identity/       joining, the current certificate, its renewal
    control/        gRPC to the control plane: watch, apply, acknowledge
    telemetry/      metrics, access log, trace, the process's own log

    admin           /ready /live /metrics /config /status
    observe         what is told of an exchange when it ended
    decisions       denials on their way to the control plane, bounded, without secrets
    listening       whether the app can be reached past its sidecar, as the kernel tells it
    supervise       `hauberk run`: the sidecar first, then the app (`child`), and out in order
    errors          what can go wrong with a request, and what each side is told

Arrows: main -> app -> data_plane -> inbound, outbound -> runtime, exchange -> http, rules. `http`, `exchange` and
`rules` import no trio, socket, ssl, time or random; a test keeps it so.
"""
