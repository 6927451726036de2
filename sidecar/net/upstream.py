"""Opening connections: to other sidecars over mutual TLS, to the app in the clear. Each fit to be a `Pool`'s `dial`.

A mesh connection counts as open only when the other end has spoken. In TLS 1.3 the client's handshake is over before
the server has judged the client's certificate, so only the first bytes back prove that it was accepted (row F18). Until
then no request is given to the connection, so a refusal never loses one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import trio

from sidecar.config import Address, Config, Inbound
from sidecar.errors import ConnectFailed
from sidecar.http.engines import http2_session
from sidecar.http.http1 import Http1Client
from sidecar.http.session import Session
from sidecar.identity.source import IdentitySource
from sidecar.net.connection import Connection, Driver
from sidecar.net.dial import dial
from sidecar.net.errors import TlsError
from sidecar.net.tls import check_peer, handshake
from sidecar.rules.snapshot import Endpoint
from sidecar.rules.snapshot import Protocol as Speaks

APP_IDLE_S = 3.0
"""HTTP/1.1 connections to the app are dropped before the app's own keep-alive (5 s is common) ends under a request."""


Ended = Callable[[Session], None]
"""Told of a session when its connection is over: `Session.fault` may say why."""


class MeshGuard(Protocol):
    """Who has a say in connections to other sidecars."""

    def refusal(self, connection: Connection) -> TlsError | None:
        """Why a connection may not be, by what is known now; None: it may."""

    def refused(self, error: TlsError, address: str) -> None:
        """Told of the endpoints that were not who they had to be."""


async def dial_mesh(
    driver: Driver,
    config: Config,
    identity: IdentitySource,
    endpoint: Endpoint,
    service: str,
    guard: MeshGuard,
    ended: Ended,
) -> Connection:
    """A connection to another sidecar that proved to be `endpoint.identity`, and was asked for `service`
    ("name.namespace"). Raises ConnectFailed."""
    limit = config.timeouts
    if not identity.is_ready:
        raise ConnectFailed("this sidecar has no certificate yet")
    sock = None
    connection = None
    try:
        with trio.fail_after(limit.connect_s):
            sock = await dial(_address(endpoint.address))
        own, bundle, context = identity.svid, identity.bundle, identity.client_context()  # of the same moment
        assert own is not None
        with trio.fail_after(limit.handshake_s):
            sock = await handshake(sock, context, server_side=False, ask_for=service)
            peer = check_peer(sock, own.spiffe_id.trust_domain, time.time(), {endpoint.identity}, identity.revocations)
            session = http2_session(config.http2_engine, None, config.limits, driver.clock)
            connection = Connection(driver, sock, session, kind="mesh_client", peer=peer)
            connection.own, connection.verified_under = own, bundle
            lifetime = min(peer.not_after, own.not_after) - time.time()
            connection.expires_at = driver.tick() + lifetime
            connection.retire_at = driver.now + lifetime / 2
            driver.spawn(_run, connection, ended)
            await connection.wait_spoken()
            if error := guard.refusal(connection):  # trust may have changed before the driver knew the connection
                raise error
    except BaseException as e:
        if connection is not None:
            connection.close()
        elif sock is not None:
            sock.close()
        if isinstance(e, TlsError) and e.row:
            guard.refused(e, endpoint.address)
        if isinstance(e, (OSError, trio.TooSlowError, TlsError)):
            raise ConnectFailed(_why(e, endpoint.address)) from None
        raise
    return connection


async def dial_app(driver: Driver, config: Config, inbound: Inbound, ended: Ended) -> Connection:
    """A connection to the app. Raises ConnectFailed."""
    try:
        with trio.fail_after(config.timeouts.connect_s):
            sock = await dial(inbound.app)
    except (OSError, trio.TooSlowError) as e:
        raise ConnectFailed(f"the app does not accept connections: {_why(e, str(inbound.app))}") from None
    session: Session
    if inbound.protocol is Speaks.HTTP2:
        session = http2_session(config.http2_engine, None, config.limits, driver.clock)
    else:
        session = Http1Client(limits=config.limits)
    connection = Connection(driver, sock, session, kind="app_client")
    if inbound.protocol is Speaks.HTTP1:
        connection.idle_s = APP_IDLE_S
        connection.acks_at_once = not inbound.app.path
    driver.spawn(_run, connection, ended)
    return connection


async def _run(connection: Connection, ended: Ended) -> None:
    try:
        await connection.run()
    finally:
        ended(connection.session)


def _address(text: str) -> Address:
    """ "ip:port" or "[ip6]:port", as `sidecar.rules.decode` let it through."""
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


def _why(error: BaseException, address: str) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"{address} did not answer in time; is a firewall between, or the address advertised wrong?"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {address}"
    return f"{address}: {error}"
