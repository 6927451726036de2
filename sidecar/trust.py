"""Connections whose ends are not trusted any more are ended, in both directions.

Theory of operation. A certificate is judged when a connection is made, and whom we trust changes while it lives: an
anchor is dropped, an identity, a certificate or an authority is revoked. On every such change all mesh connections that
are open are looked at again (`net.trust.why_not`), a slice at a time, so that requests go on meanwhile. What becomes
known during one round is looked at in the next.

Who lost our trust is told no more than that: each open exchange fails, so that the other side of it hears why, then
GOAWAY, then the end. A peer that has not read what it was sent before gets nothing more of it, and one that does not
read the goodbye is not waited for: `GOODBYE_MAX_S` and a turn of the sweep later the socket is closed.

Nobody gets in between. A connection is registered with the driver in the same step in which its peer was checked, or
checked once more after that (`net.upstream`), and a handshake that began before the change is judged by what holds at
its end.

Our own certificate changes too. Who dialled with the old one dials again (`Outbound.retire_connections`). If another
authority signs for us now, callers are asked to come again as well, spread over a few seconds: so what the older
authority vouches for is out of use soon, and nothing breaks on the day it goes. If the older authority is revoked,
connections made under it end at once, as they do at the other end.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator
from random import Random

from certs.svid import X509Svid
from sidecar.errors import TrustLost
from sidecar.exchange import Exchange, State
from sidecar.http.session import ErrorCode
from sidecar.identity.source import IdentitySource
from sidecar.net.connection import Connection
from sidecar.net.errors import TlsError
from sidecar.net.slices import in_slices, uncollected
from sidecar.net.trust import why_not, why_not_ours
from sidecar.runtime import Runtime

log = logging.getLogger(__name__)

GOODBYE_MAX_S = 1.0
"""How long who lost our trust may take to read that. With the sweep's step and the wait for the end of the stream
(`net.connection.LINGER_S`) within the 5 s of row F15."""
REISSUED_SPREAD_S = 5.0
"""Over which callers come again when another authority signs for us."""

ROW = "F15"


class TrustKeeper:
    """Of one data plane."""

    def __init__(
        self,
        identity: IdentitySource,
        runtime: Runtime,
        ended: Callable[[Connection, TlsError], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`ended` is told of each connection that is ended, and why. `now`: Unix seconds."""
        self._identity = identity
        self._runtime = runtime
        self._driver = runtime.driver
        self._ended = ended
        self._now = now
        self._chance: Random = runtime.chance
        self._is_due = False
        self._is_looking = False
        self._svid = identity.svid

    def __repr__(self) -> str:
        return f"<TrustKeeper {'looking' if self._is_looking else 'at rest'}>"

    def changed(self) -> None:
        """Something of the identity did. Call it after every change; it returns at once."""
        svid, before = self._identity.svid, self._svid
        self._svid = svid
        if svid is not None and before is not None and svid.chain_der[1:] != before.chain_der[1:]:
            self._ask_callers_to_come_again(svid)
        self._is_due = True
        if not self._is_looking:
            self._is_looking = True
            self._driver.spawn(self._look)

    def refusal(self, connection: Connection) -> TlsError | None:
        """Why a connection may not be, by what is known now. None: it may, or it is none of the mesh."""
        peer, bundle, before = connection.peer, self._identity.bundle, connection.verified_under
        if peer is None or bundle is None:
            return None
        revocations, now = self._identity.revocations, self._now()
        if error := why_not(peer, bundle, revocations, now, before):
            return error
        own, current = connection.own, self._identity.svid
        if own is not None and current is not None and own is not current:
            error = why_not_ours(own, bundle, revocations, now, before)
            # Without anything better it stays: it is for the others to refuse us.
            if error and why_not_ours(current, bundle, revocations, now) is None:
                return error
        connection.verified_under = bundle
        return None

    async def _look(self) -> None:
        try:
            while self._is_due:
                self._is_due = False
                with uncollected():
                    await in_slices(self._round())
        finally:
            self._is_looking = False

    def _round(self) -> Generator[None, None, None]:
        told: Counter[tuple[str, str]] = Counter()
        for connection in self._driver.connections:
            yield
            if connection.peer is None or connection.close_at is not None:
                continue
            if error := self.refusal(connection):
                told[connection.kind, str(error)] += 1
                self.end(connection, error)
        for (kind, why), count in told.items():
            facts: dict[str, object] = {"row": ROW, "kind": kind, "connections": count, "why": why}
            log.warning("connections ended: they are not trusted any more", extra=facts)

    def end(self, connection: Connection, error: TlsError) -> None:
        """At once, with all that is open on it."""
        session, driver = connection.session, self._driver
        connection.close_at = driver.tick() + GOODBYE_MAX_S
        if connection.kind == "mesh_client":
            session.drain()  # whoever waits for a place on it gets none
        # First those that wait for the app: they would get the places of the others, and reach it.
        for exchange in sorted(self._runtime.exchanges_on(session), key=_is_relayed):
            exchange.fail(TrustLost(str(error)))
        if connection.unsent:
            connection.close()  # what waits for it to read is not for it any more
        session.shutdown(ErrorCode.NO_ERROR)
        driver.touched.add(session)
        driver.flush()
        self._ended(connection, error)

    def _ask_callers_to_come_again(self, svid: X509Svid) -> None:
        now = self._driver.tick()
        for connection in self._driver.connections:
            if connection.kind == "mesh_server" and connection.own is not svid:
                at = now + self._chance.uniform(0, REISSUED_SPREAD_S)
                connection.retire_at = at if connection.retire_at is None else min(at, connection.retire_at)


def _is_relayed(exchange: Exchange) -> bool:
    return exchange.state is not State.PARKED
