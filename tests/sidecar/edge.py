"""A service with a plaintext listener, as its sidecar's data plane has it; real sockets, and a clock of the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import h11
import trio

from sidecar.config import Address, Inbound, Timeouts
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    PeerAuthentication,
    PortTls,
    Protocol,
    Rule,
    TlsMode,
)
from tests.sidecar.mesh import ORDERS, Mesh
from tests.sidecar.net.support import settled
from tests.sidecar.support import ANY, PORT, Caller, Side

PERMISSIVE, DISABLE = PortTls(mode=TlsMode.PERMISSIVE), PortTls(mode=TlsMode.DISABLE)
NOW = 1_800_000_000.0


def allowing(*rules: Rule) -> AuthorizationPolicy:
    return AuthorizationPolicy(namespace="shop", name="allow", action=Action.ALLOW, rules=rules)


EVERYBODY = allowing(Rule())


def on_port(tls: PortTls) -> PeerAuthentication:
    """This port only; the others stay STRICT."""
    return PeerAuthentication(ports={PORT: tls})


@asynccontextmanager
async def edge(
    app: Address,
    tls: PortTls | None = PERMISSIVE,
    *policies: AuthorizationPolicy,
    protocol: Protocol = Protocol.HTTP1,
    listen: Address = ANY,
    now: Callable[[], float] = lambda: NOW,
    timeouts: Timeouts | None = None,
    sweeps: bool = True,
) -> AsyncIterator[Side]:
    """`orders` with a plaintext listener; `tls`: what its port takes, None: no snapshot yet."""
    async with trio.open_nursery() as nursery:
        inbound = Inbound(port=PORT, app=app, protocol=protocol, plaintext=listen)
        side = Side(nursery, Mesh(), ORDERS, inbound=[inbound], now=now, timeouts=timeouts)
        if sweeps:
            nursery.start_soon(side.plane.sweep)
        if tls is not None:
            side.apply(policies=policies or (EVERYBODY,), peers=on_port(tls))
        yield side
        with trio.fail_after(5):
            await settled(lambda: not side.runtime.live_count)
        nursery.cancel_scope.cancel()


async def fetch(
    side: Side, path: str = "/", *, source: str = "127.0.0.1", fields: Sequence[tuple[str, str]] = ()
) -> int:
    """Status of a GET in plaintext from that address; 0: the connection was closed without an answer."""
    where = side.plaintext[PORT]
    stream = await trio.open_tcp_stream(where.host, where.port, local_address=source)
    async with stream:
        caller = Caller(stream)
        try:
            await caller.ask(path, fields=fields)
            answer = await caller.head()
            await caller.rest()
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return 0
        return answer.status_code
