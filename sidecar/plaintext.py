"""Plaintext into a port of the service: who may come so and until when, and the end of those who may no longer.

Theory of operation. A port has a plaintext listener if the configuration says so (`inbound[].plaintext`), but it is
PeerAuthentication that opens it: with PERMISSIVE or DISABLE, from the peers and until the date it names. Everything
else is STRICT, and so is a sidecar that has no snapshot: what comes in is closed before a byte of it is looked at.
Those who got in have no identity (row C24) and are judged, relayed and bounded like everybody else.

The question is asked again whenever the answer may have changed: on every new snapshot, and a few times a second for
end dates. Who would no longer be let in is put out: each open exchange fails, then the connection ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from sidecar.caller import mode_at
from sidecar.config import Inbound
from sidecar.http.session import ErrorCode
from sidecar.inbound import InboundPeer
from sidecar.net.connection import Connection, Driver
from sidecar.rules.addresses import compile_blocks
from sidecar.rules.match import Matcher
from sidecar.rules.snapshot import PortTls, Snapshot, TlsMode
from sidecar.runtime import Runtime
from sidecar.telemetry.access_log import rfc3339

log = logging.getLogger(__name__)

YEAR_9999 = 253_370_764_800.0
"""Its beginning; later dates cannot be written."""

KIND = "plaintext_server"
"""Of `Connection.kind`."""

# Constant words for metrics and logs.
NOT_READY = "not_ready"
STRICT = "plaintext_strict"
ENDED = "plaintext_ended"
OTHER_PEER = "plaintext_other_peer"

ROW_OF_REFUSAL = "C24"
"""STRICT is default."""

_WHY = {
    STRICT: "no PeerAuthentication makes the port PERMISSIVE or DISABLE",
    ENDED: "the end date of the PeerAuthentication has come",
}


def refusal(snapshot: Snapshot | None, port: int, source_ip: str | None, now: float) -> str:
    """Why a plaintext connection from `source_ip` (None: from anywhere) to `port` may not be; "" if it may.

    `now`: Unix seconds."""
    if snapshot is None:
        return NOT_READY
    tls = snapshot.peer_authentication.port(port)
    if mode_at(tls, now) is TlsMode.STRICT:
        return STRICT if tls.mode is TlsMode.STRICT else ENDED
    if source_ip is not None and tls.peers and not _blocks(tls.peers)(source_ip):
        return OTHER_PEER
    return ""


@lru_cache(maxsize=256)  # of pure values, one for each port
def _blocks(peers: tuple[str, ...]) -> Matcher:
    return compile_blocks(peers)


class PlaintextEdge:
    """The plaintext connections of one sidecar."""

    def __init__(self, runtime: Runtime, ports: tuple[Inbound, ...], now: Callable[[], float] = time.time) -> None:
        """`now`: Unix seconds."""
        self._runtime = runtime
        self._driver: Driver = runtime.driver
        self._ports = [one for one in ports if one.plaintext is not None]
        self._now = now
        self._open: dict[Connection, InboundPeer] = {}
        self._told: dict[int, tuple[str, PortTls]] = {}

    def __repr__(self) -> str:
        return f"<PlaintextEdge of {len(self._ports)} ports, {len(self._open)} connections>"

    def refusal(self, port: int, source_ip: str | None) -> str:
        return refusal(self._runtime.snapshot, port, source_ip, self._now())

    @contextmanager
    def watched(self, connection: Connection, peer: InboundPeer) -> Iterator[None]:
        """While the block runs, the connection is put out as soon as it may no longer be."""
        self._open[connection] = peer
        try:
            yield
        finally:
            del self._open[connection]

    def enforce(self) -> None:
        """Put out who would not be let in now. Call it on every new snapshot and a few times a second."""
        for port in self._ports:
            self._tell(port)
        for connection, peer in list(self._open.items()):
            if peer.end_if_refused():
                connection.session.shutdown(ErrorCode.NO_ERROR)
                self._driver.touched.add(connection.session)

    def _tell(self, inbound: Inbound) -> None:
        """One line whenever what becomes of a port's plaintext has changed."""
        snapshot = self._runtime.snapshot
        if snapshot is None:
            return
        why, tls = self.refusal(inbound.port, None), snapshot.peer_authentication.port(inbound.port)
        if self._told.get(inbound.port) == (why, tls):
            return
        self._told[inbound.port] = why, tls
        facts: dict[str, object] = {"port": inbound.port, "listener": str(inbound.plaintext)}
        if tls.source:
            facts["policy"] = tls.source
        if why:
            log.warning("plaintext connections are refused", extra={**facts, "why": _WHY[why]})
        else:
            facts |= {
                "until": rfc3339(min(tls.until, YEAR_9999)) if tls.until else "no end",
                "peers": ", ".join(tls.peers) or "everybody",
            }
            log.warning("plaintext connections are taken", extra=facts)
