"""Trust that changes while connections are open: two sidecars' data planes, real sockets, real TLS, both engines."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Generator
from dataclasses import replace

import h11
import pytest
import trio

from certs.authority_id import authority_ids, key_id
from certs.bundle import TrustBundle
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid
from sidecar.config import Limits
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.net.connection import Connection
from sidecar.net.listener import Gate, bind, bound_address, serve
from sidecar.net.pool import Pool
from sidecar.net.tls import client_context, handshake
from sidecar.rules.snapshot import Endpoint
from sidecar.trust import REISSUED_SPREAD_S
from tests.certs.forge import Authority
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh
from tests.sidecar.net.support import settled
from tests.sidecar.support import (
    ANY,
    ORDERS_NAME,
    App,
    AppRequest,
    Caller,
    Pair,
    Side,
    allow,
    calling,
    serving,
    two_sides,
)
from tests.trio_support import trio_test

BILLING = SpiffeId.for_workload(TD, "shop", "billing")
BAR_S = 5.0
"""Of row F15: so long may it take."""

REVOKED = {
    "identity": lambda side: Revocations(identities=frozenset({side.spiffe_id})),
    "serial": lambda side: Revocations(serials=frozenset({side.identity.svid.serial})),
    "authority": lambda side: Revocations(authorities=frozenset({"f" * 32, key_id_of(side.identity.svid)})),
}


def key_id_of(svid: X509Svid) -> str:
    """Of the one who signed it."""
    return ids_of(svid)[0]


def ids_of(svid: X509Svid) -> list[str]:
    return list(authority_ids(svid.chain_der[1:]))


class Streaming(App):
    """Sends a piece, and the end when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()
        self.broken_off: list[bytes] = []

    async def serve_one(self, request: AppRequest) -> None:
        await request.head(200)
        await request.data(b"first")
        await self._wait(request)
        await request.data(b"last")
        await request.end()

    async def _wait(self, request: AppRequest) -> None:
        """Until told to go on, or the caller is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, request, nursery.cancel_scope)
            await self.go_on.wait()
            nursery.cancel_scope.cancel()
        if not self.go_on.is_set():
            raise trio.BrokenResourceError

    async def _watch(self, request: AppRequest, scope: trio.CancelScope) -> None:
        try:
            gone = not await request._stream.receive_some(1)
        except trio.BrokenResourceError:
            gone = True
        if gone:
            self.broken_off.append(request.target)
            scope.cancel()


class Silent(Streaming):
    """Answers nothing before it is told to."""

    async def serve_one(self, request: AppRequest) -> None:
        await self._wait(request)
        await request.answer(b"done")


def mesh_with_intermediates() -> tuple[Mesh, Authority, Authority]:
    """Two that may sign: everybody begins under one of their own."""
    mesh = Mesh()
    (one,), (other,) = mesh.intermediates(1), mesh.intermediates(1)
    return mesh, one, other


async def under_own_authorities(pair: Pair) -> None:
    """`web` and `orders` hold certificates with numbers of their own, under intermediates of their own."""
    mesh = pair.web.mesh
    for number, side in enumerate((pair.web, pair.orders), 1):
        svid = mesh.svid(side.spiffe_id, chain=mesh.intermediates(1), serial=number)
        side.identity.set(svid=replace(svid, serial=number))


def mesh_connections(side: Side) -> list[Connection]:
    return [one for one in side.driver.connections if one.peer is not None]


def refused(side: Side, row: str, reason: str = "") -> int:
    return sum(n for (a, b), n in side.metrics._refused.items() if a == row and (not reason or b == reason))


async def looked(side: Side) -> None:
    """Every connection was looked at."""
    await settled(lambda: not side.plane._trust._is_looking)


async def ended(pair: Pair) -> None:
    """Both sidecars are rid of every connection between them, in time."""
    with trio.fail_after(BAR_S):
        await settled(lambda: not mesh_connections(pair.web) and not mesh_connections(pair.orders))


# What is open ends


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@pytest.mark.parametrize("what", REVOKED)
@pytest.mark.parametrize("who", ["caller", "callee"])
@trio_test
async def test_f15_a_stream_with_a_revoked_peer_is_broken_off(who: str, what: str, engine: str) -> None:
    """In the middle, at both ends: the caller's stream breaks, the app's is cancelled, the connection is closed."""
    app = Streaming()
    async with serving(app) as address, two_sides(address, engine=engine) as pair:
        await under_own_authorities(pair)
        judge, revoked = (pair.orders, pair.web) if who == "caller" else (pair.web, pair.orders)
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/stream")
            assert (await caller.head()).status_code == 200
            assert await caller.read() == b"first"
            judge.identity.set(revocations=REVOKED[what](revoked))
            with trio.fail_after(BAR_S), pytest.raises(h11.RemoteProtocolError):
                await caller.rest()
            await settled(lambda: app.broken_off == [b"/stream"])
            await ended(pair)
        ((exchange, _),) = judge.records
        assert exchange.how_ended == "trust_lost"
        assert what in str(exchange.error)
        assert refused(judge, "F15", "trust_lost") == 1
        async with calling(pair.web.app_address) as caller:  # and it does not come back
            await caller.ask()
            assert (await caller.head()).status_code == 503
            await caller.rest()
        assert refused(judge, "F15", "peer_revoked") > 0


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@pytest.mark.parametrize("who", ["caller", "callee"])
@trio_test
async def test_f15_who_waits_for_an_answer_is_told_503(who: str, engine: str) -> None:
    """UNAVAILABLE, in whole, and why; the app's request is cancelled."""
    app = Silent()
    async with serving(app) as address, two_sides(address, engine=engine) as pair:
        judge, revoked = (pair.orders, pair.web) if who == "caller" else (pair.web, pair.orders)
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/slow")
            await settled(lambda: app.requests)
            judge.identity.set(revocations=REVOKED["identity"](revoked))
            with trio.fail_after(BAR_S):
                assert (await caller.head()).status_code == 503
                assert json.loads(await caller.rest())["title"] == (
                    "The other end of the connection is not trusted any more."
                )
            await settled(lambda: app.broken_off == [b"/slow"])
            await ended(pair)


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test
async def test_f15_a_dropped_anchor_ends_what_was_signed_under_it(engine: str) -> None:
    """Open and new connections of its holder; others stay, with what is open on them."""
    app, old, new = Streaming(), Mesh(), Mesh()
    both = TrustBundle.of(TD, [old.root.der, new.root.der])
    async with serving(app) as address, two_sides(address, engine=engine, mesh=new) as pair:  # noqa: SIM117
        async with trio.open_nursery() as nursery:
            billing = Side(nursery, old, BILLING, engine=engine)
            billing.apply(services={ORDERS_NAME: [pair.orders.endpoint()]})
            pair.orders.apply(policies=[allow(WEB, BILLING)])
            for side in (pair.web, pair.orders, billing):
                side.identity.set(bundle=both)
            async with calling(pair.web.app_address) as kept, calling(billing.app_address) as lost:
                for caller, path in ((kept, "/kept"), (lost, "/lost")):
                    await caller.ask(path)
                    assert (await caller.head()).status_code == 200
                    assert await caller.read() == b"first"
                pair.orders.identity.set(bundle=new.bundle)
                with trio.fail_after(BAR_S), pytest.raises(h11.RemoteProtocolError):
                    await lost.rest()
                await settled(lambda: app.broken_off == [b"/lost"])
                app.go_on.set()
                assert await kept.rest() == b"last"
            async with calling(billing.app_address) as lost:
                await lost.ask()
                assert (await lost.head()).status_code == 503
                await lost.rest()
            assert refused(pair.orders, "F02") > 0
            assert [c.peer and c.peer.identity for c in mesh_connections(pair.orders)] == [WEB]
            nursery.cancel_scope.cancel()


@trio_test
async def test_f15_a_chain_that_still_leads_to_an_anchor_stays() -> None:
    """More anchors, fewer that nobody needs, revocations of others: no connection is made anew."""
    app, other = Streaming(), Mesh()
    async with serving(app) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask()
        await caller.head()
        assert await caller.read() == b"first"
        open_now = mesh_connections(pair.web) + mesh_connections(pair.orders)
        more = TrustBundle.of(TD, [other.root.der, pair.web.mesh.root.der])
        tainted = Revocations(tainted_authorities=frozenset({key_id(pair.web.mesh.root.key.public_key())}))
        others = Revocations(identities=frozenset({BILLING}), serials=frozenset({1}))
        changes: list[tuple[TrustBundle | None, Revocations | None]] = [
            (more, None),
            (pair.web.mesh.bundle, None),
            (None, others),
            (None, tainted),
            (None, NOTHING_REVOKED),
        ]
        for bundle, revocations in changes:
            for side in (pair.web, pair.orders):
                side.identity.set(bundle=bundle, revocations=revocations)
                await looked(side)
        assert mesh_connections(pair.web) + mesh_connections(pair.orders) == open_now
        assert not any(one.session.draining for one in open_now)
        app.go_on.set()
        assert await caller.rest() == b"last"


def svid_of(side: Side) -> X509Svid:
    assert side.identity.svid is not None
    return side.identity.svid


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test
async def test_f15_requests_of_a_revoked_caller_that_wait_do_not_reach_the_app(engine: str) -> None:
    """One connection to the app: what waits for it gets no place when those before it are broken off."""
    app = Silent()
    limits = Limits(app_connections_max=1)
    async with serving(app) as address, two_sides(address, engine=engine, limits=limits) as pair:
        async with calling(pair.web.app_address) as one, calling(pair.web.app_address) as two:
            await one.ask("/one")
            await settled(lambda: len(app.requests) == 1)
            await two.ask("/two")
            await settled(lambda: pair.orders.runtime.live_count == 2)
            pair.orders.identity.set(revocations=REVOKED["identity"](pair.web))
            for caller in (one, two):
                assert (await caller.head()).status_code == 503
                await caller.rest()
        await ended(pair)
        await settled(lambda: app.broken_off)
        assert [request.target for request in app.requests] == [b"/one"]
        ended_first = pair.orders.records[0][0].head
        assert ended_first is not None
        assert ended_first.path == "/two", "who waits goes first, or it would get the place of who does not"


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test
async def test_f15_callers_that_wait_for_a_place_do_not_get_it_on_a_connection_that_ends(engine: str) -> None:
    """The stream that is broken off makes room on a connection that nobody may use."""
    app = Silent()
    limits = Limits(streams_per_connection_max=1)
    async with serving(app) as address, two_sides(address, engine=engine, limits=limits) as pair:
        pair.web.plane._outbound._make_pool = one_connection(pair.web)
        async with calling(pair.web.app_address) as one, calling(pair.web.app_address) as two:
            await one.ask("/one")
            await settled(lambda: len(app.requests) == 1)
            await two.ask("/two")
            await settled(lambda: pair.web.runtime.live_count == 2)
            pair.web.identity.set(revocations=REVOKED["identity"](pair.orders))
            for caller in (one, two):
                assert (await caller.head()).status_code == 503
                await caller.rest()
        await ended(pair)
        assert [request.target for request in app.requests] == [b"/one"]


def one_connection(side: Side) -> Callable[[Endpoint, str], Pool]:
    """A pool that may have no second connection."""

    def made(endpoint: Endpoint, service: str) -> Pool:
        pool = side.plane._mesh_pool(endpoint, service)
        pool._connections_max = 1
        return pool

    return made


@trio_test
async def test_f15_who_is_ended_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """One line that names the peer and why, one entry of the access log, one count of the row."""
    async with serving(App()) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask()
        await caller.head()
        await caller.rest()
        with caplog.at_level(logging.WARNING, "sidecar.trust"):
            pair.web.identity.set(revocations=REVOKED["identity"](pair.orders))
            await ended(pair)
        (line,) = [r for r in caplog.records if r.name == "sidecar.trust"]
        assert (line.row, line.kind, line.connections) == ("F15", "mesh_client", 1)  # type: ignore[attr-defined]
        assert str(ORDERS) in line.why  # type: ignore[attr-defined]
        entry = (await pair.web.log_lines(2))[1]
        assert (entry["row"], entry["reason"], entry["direction"]) == ("F15", "trust_lost", "outbound")
        assert entry["remote"] == str(pair.orders.mesh_address)
        assert b'row="F15"' in pair.web.metrics.export()


@trio_test
async def test_f15_plaintext_callers_and_apps_are_not_touched() -> None:
    """They have no certificate to lose: the app's own connections stay, whatever is revoked."""
    async with serving(App()) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask()
        await caller.head()
        await caller.rest()
        kept = [one for side in (pair.web, pair.orders) for one in side.driver.connections if one.peer is None]
        assert {one.kind for one in kept} == {"app_server", "app_client"}
        pair.web.identity.set(revocations=REVOKED["identity"](pair.orders))
        pair.orders.identity.set(revocations=REVOKED["identity"](pair.web))
        await ended(pair)
        still = [one for side in (pair.web, pair.orders) for one in side.driver.connections]
        assert still == kept
        assert not any(one.session.draining for one in still)


# Handshakes under way


class Held:
    """A peer that holds a handshake back until it is told to go on."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self.heard = bytearray()


def change(side: Side, peer: Side, what: str) -> None:
    """What happens to `peer` in `side`'s eyes while their handshake is under way."""
    if what == "anchor":
        side.identity.set(bundle=Mesh().bundle)
    else:
        side.identity.set(revocations=REVOKED["identity"](peer))


@pytest.mark.parametrize("what", ["anchor", "identity"])
@trio_test
async def test_f15_a_caller_revoked_during_its_handshake_does_not_get_in(what: str) -> None:
    """OpenSSL verifies with the bundle of the handshake's beginning; what holds at its end decides."""
    app = App()
    async with serving(app) as address, two_sides(address) as pair:
        where = pair.orders.mesh_address
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context(svid_of(pair.web), pair.web.mesh.bundle).wrap_bio(incoming, outgoing)
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            await stream.send_all(outgoing.read())
            incoming.write(await stream.receive_some(65_536))  # the server has answered with its own half
            change(pair.orders, pair.web, what)
            client.do_handshake()
            client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            await stream.send_all(outgoing.read())
            assert not mesh_connections(pair.orders)
            with trio.fail_after(BAR_S):
                assert await everything(stream) == b""
        await settled(lambda: refused(pair.orders, "F15" if what == "identity" else "F02"))
        assert not pair.orders.records


async def everything(stream: trio.SocketStream) -> bytes:
    got = b""
    try:
        while data := await stream.receive_some(65_536):
            got += data
    except trio.BrokenResourceError:
        pass
    return got


@pytest.mark.parametrize("what", ["anchor", "identity"])
@trio_test
async def test_f15_a_server_revoked_during_its_handshake_gets_no_request(what: str) -> None:
    """The same for whom we dial; the request that waited for it is told 503."""
    async with trio.open_nursery() as nursery:
        mesh = Mesh()
        web, orders = Side(nursery, mesh, WEB), Side(nursery, mesh, ORDERS)
        held = Held()
        listener = bind(ANY, "held")

        async def slow(sock: object) -> None:
            held.begun.set()
            await held.go_on.wait()
            tls = await handshake(sock, orders.identity.server_context(), server_side=True)  # type: ignore[arg-type]
            tls.send(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS: the client takes it that it was let in
            while True:
                try:
                    data = tls.recv(65_536)
                except ssl.SSLWantReadError:
                    await trio.lowlevel.wait_readable(tls)
                    continue
                if not data:
                    break
                held.heard += data
            tls.close()

        nursery.start_soon(serve, listener, Gate(10), slow)
        web.apply(services={ORDERS_NAME: [orders.endpoint(address=bound_address(listener))]})
        async with calling(web.app_address) as caller:
            await caller.ask("/secret")
            await held.begun.wait()
            change(web, orders, what)
            held.go_on.set()
            assert (await caller.head()).status_code == 503
            await caller.rest()
        assert b"secret" not in held.heard
        assert not mesh_connections(web)
        assert refused(web, "F15" if what == "identity" else "F02")
        (entry, *_) = await web.log_lines(2)
        assert (entry["direction"], entry["remote"]) == ("outbound", str(bound_address(listener)))
        nursery.cancel_scope.cancel()


@trio_test
async def test_f15_a_server_revoked_between_its_check_and_its_first_words_gets_no_request() -> None:
    """It waits with them until it is revoked; the connection that was only just made is not used."""
    async with trio.open_nursery() as nursery:
        mesh = Mesh()
        web, orders = Side(nursery, mesh, WEB), Side(nursery, mesh, ORDERS)
        held = Held()
        listener = bind(ANY, "held")

        async def slow(sock: object) -> None:
            tls = await handshake(sock, orders.identity.server_context(), server_side=True)  # type: ignore[arg-type]
            with tls:
                held.begun.set()
                await held.go_on.wait()
                tls.send(b"\0\0\0\4\0\0\0\0\0")
                await trio.sleep_forever()

        nursery.start_soon(serve, listener, Gate(10), slow)
        web.apply(services={ORDERS_NAME: [orders.endpoint(address=bound_address(listener))]})
        async with calling(web.app_address) as caller:
            await caller.ask("/secret")
            await held.begun.wait()
            await settled(lambda: mesh_connections(web))
            web.identity.set(revocations=REVOKED["identity"](orders))
            held.go_on.set()
            assert (await caller.head()).status_code == 503
            await caller.rest()
        await settled(lambda: not mesh_connections(web))
        nursery.cancel_scope.cancel()


# Our own certificate


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test
async def test_f15_connections_made_under_our_own_revoked_authority_end_once_there_is_another(engine: str) -> None:
    """Not before: until then there is nothing better. In both directions."""
    app = Streaming()
    mesh, one, other = mesh_with_intermediates()
    async with serving(app) as address, two_sides(address, engine=engine, mesh=mesh) as pair:
        for side in (pair.web, pair.orders):
            side.identity.set(svid=mesh.svid(side.spiffe_id, chain=[one]))
        revoked = Revocations(authorities=frozenset({key_id(one.key.public_key())}))
        for side in (pair.web, pair.orders):
            async with calling(pair.web.app_address) as caller:
                app.go_on = trio.Event()
                pair.web.identity.set(svid=mesh.svid(WEB, chain=[one]))
                pair.orders.identity.set(svid=mesh.svid(ORDERS, chain=[one]))
                await settled(lambda: not mesh_connections(pair.web))
                await caller.ask()
                await caller.head()
                assert await caller.read() == b"first"
                connections = mesh_connections(side)
                # Its peer was under another authority, so that only our own is at stake.
                for connection in connections:
                    assert connection.peer is not None
                    connection.peer = replace(connection.peer, authority_ids=())
                side.identity.set(revocations=revoked)
                await looked(side)
                assert mesh_connections(side) == connections
                side.identity.set(svid=mesh.svid(side.spiffe_id, chain=[other]))
                app.go_on.set()
                with trio.fail_after(BAR_S), pytest.raises(h11.RemoteProtocolError):
                    await caller.rest()
                await ended(pair)
                side.identity.set(revocations=NOTHING_REVOKED)


@trio_test
async def test_callers_come_again_when_another_authority_signs_for_us() -> None:
    """So nothing is left under the older one when it goes; a renewal under the same authority disturbs nobody."""
    mesh, one, other = mesh_with_intermediates()
    async with serving(App()) as address, two_sides(address, mesh=mesh) as pair:
        pair.orders.identity.set(svid=mesh.svid(ORDERS, chain=[one]))
        async with calling(pair.web.app_address) as caller:
            await ask(caller)
            (connection,) = mesh_connections(pair.orders)
            pair.orders.identity.set(svid=mesh.svid(ORDERS, chain=[one]))
            assert connection.retire_at is None
            pair.orders.identity.set(svid=mesh.svid(ORDERS, chain=[other]))
            (connection,) = mesh_connections(pair.orders)
            assert connection.retire_at is not None
            assert connection.retire_at <= pair.orders.driver.now + REISSUED_SPREAD_S
            pair.orders.plane._aging.look_at(connection, connection.retire_at)
            pair.orders.driver.flush()
            await settled(lambda: connection not in mesh_connections(pair.orders))
            await ask(caller)
            (connection,) = mesh_connections(pair.web)
            assert connection.peer is not None
            assert connection.peer.issuers_der[:1] == (other.der,)


async def ask(caller: Caller, path: str = "/") -> None:
    """One request that must be served."""
    await caller.ask(path)
    assert (await caller.head()).status_code == 200
    await caller.rest()
    caller.next_request()


# Rotation under load


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test(timeout_s=60)
async def test_an_anchor_is_replaced_under_load_without_one_failed_request(engine: str) -> None:
    """Prepare, switch, drop: new requests, open streams and uploads go on; whoever holds the old one is refused."""
    app, old, new = App(), Mesh(), Mesh()
    both = TrustBundle.of(TD, [old.root.der, new.root.der])
    async with serving(app) as address, two_sides(address, engine=engine, mesh=old) as pair:
        statuses: list[int] = []
        stop = trio.Event()

        async def load(path: str) -> None:
            async with calling(pair.web.app_address) as caller:
                while not stop.is_set():
                    await caller.ask(path)
                    statuses.append((await caller.head()).status_code)
                    assert await caller.rest() == path.encode()
                    caller.next_request()

        async def some_requests() -> None:
            target = len(statuses) + 20
            await settled(lambda: len(statuses) >= target)

        def is_under_new() -> bool:
            live = mesh_connections(pair.web) + mesh_connections(pair.orders)
            shown = [(c.own.chain_der, c.peer.issuers_der) for c in live if c.own and c.peer]
            return all(new.root.der in ours and new.root.der in theirs for ours, theirs in shown)

        async with trio.open_nursery() as nursery:
            for side in (pair.web, pair.orders):
                nursery.start_soon(side.plane.sweep)
            async with trio.open_nursery() as clients:
                for number in range(4):
                    clients.start_soon(load, f"/{number}")
                await some_requests()
                for side in (pair.web, pair.orders):  # prepare: one after the other
                    side.identity.set(bundle=both)
                    await some_requests()
                for side in (pair.web, pair.orders):  # switch; the server last, so callers are under its old one
                    side.identity.set(svid=new.svid(side.spiffe_id, with_anchor=True))
                    await some_requests()
                with trio.fail_after(REISSUED_SPREAD_S + BAR_S):
                    await settled(is_under_new)
                for side in (pair.orders, pair.web):  # drop
                    side.identity.set(bundle=new.bundle)
                    await some_requests()
                stop.set()
            assert set(statuses) == {200}
            assert len(statuses) > 100
            assert not refused(pair.web, "F15")
            assert not refused(pair.orders, "F15")
            pair.web.identity.set(svid=old.svid(WEB))
            async with calling(pair.web.app_address) as caller:
                await caller.ask()
                assert (await caller.head()).status_code == 503
                await caller.rest()
            assert refused(pair.orders, "F02") > 0
            nursery.cancel_scope.cancel()


# Many


@trio_test
async def test_other_tasks_have_their_turn_while_many_connections_are_looked_at() -> None:
    """A step of the round is one connection; how long a turn may be is for `in_slices`."""
    async with serving(App()) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await ask(caller)
        pair.orders.identity.set(bundle=TrustBundle.of(TD, [Mesh().root.der, pair.orders.mesh.root.der]))
        await settled(lambda: not pair.orders.plane._trust._is_looking)
        steps = sum(1 for _ in pair.orders.plane._trust._round())
        assert steps == len(pair.orders.driver.connections)
        await ask(caller)


@trio_test
async def test_a_change_during_a_round_is_looked_at_in_another() -> None:
    """Nobody who was passed already is forgotten."""
    app = Streaming()
    async with serving(app) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask()
        await caller.head()
        assert await caller.read() == b"first"
        keeper = pair.orders.plane._trust
        whole, rounds = keeper._round, []

        def with_a_change_at_its_end() -> Generator[None, None, None]:
            yield from whole()
            rounds.append(1)
            pair.orders.identity.set(revocations=REVOKED["identity"](pair.web))  # the same again: no change

        keeper._round = with_a_change_at_its_end  # type: ignore[method-assign]
        keeper.changed()
        with trio.fail_after(BAR_S), pytest.raises(h11.RemoteProtocolError):
            await caller.rest()
        await ended(pair)
