"""Where a connection says it comes from, what it says it is for, and what it turns out to speak (security.md C)."""

from __future__ import annotations

import pytest
import trio

from certs.spiffe_id import SpiffeId
from sidecar.config import Address, Timeouts
from sidecar.http.frames import PREFACE
from sidecar.http.session import Fields
from sidecar.rules.snapshot import PortTls, Protocol, Rule, Source, TlsMode, When
from sidecar.telemetry.access_log import RefusedConnection
from tests.attacks.support import ALLOW_ALL, Target, attacker, request, target
from tests.attacks.support import App as Scribe
from tests.attacks.support import settled as eventually
from tests.sidecar.edge import EVERYBODY, PERMISSIVE, allowing, edge, fetch
from tests.sidecar.mesh import TD, WEB
from tests.sidecar.support import (
    ORDERS_NAME,
    PORT,
    App,
    calling,
    rule_for,
    serving,
    two_sides,
)
from tests.trio_support import trio_test

BILLING = SpiffeId.for_workload(TD, "shop", "billing")
PROXY_V1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 1111 8080\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\1\x0a\0\0\2\x04\x57\x1f\x90"
GET = b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n"


def asking(host: bytes, path: bytes = b"/") -> Fields:
    return [(name, host if name == b":authority" else value) for name, value in request(path)]


def refusals(it: Target) -> list[tuple[str, str]]:
    return [(one.row, one.reason) for one in it.log.entries if isinstance(one, RefusedConnection)]


# C18, C26: what a connection is for


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"orders.shop", 200),
        (b"ORDERS.shop.:8080", 200),
        (b"orders.shop.svc", 200),
        (b"orders.shop.svc.cluster.local", 200),
        (b"billing.shop", 421),
        (b"orders.bank", 421),
        (b"billing.shop:8080", 421),
        (b"billing.shop.svc.cluster.local", 421),
        # Names of the caller's own making
        (b"orders", 200),
        (b"localhost:8080", 200),
        (b"127.0.0.1:8080", 200),
        (b"[::1]", 200),
        (b"www.shop.example.com", 200),
    ],
)
def test_c18_the_host_of_another_service_is_misdirected(host: bytes, status: int) -> None:
    """A connection made to orders.shop by name carries no request for another service, whatever policy would say of
    that host (RFC 9110 section 15.5.20)."""

    @trio_test
    async def run() -> None:
        app = Scribe()
        async with target(ALLOW_ALL, app=app) as it, attacker(it, asks_for="orders.shop") as peer:
            assert (await peer.ask(asking(host))).status == status
            (record,) = it.records
        assert (app.received == b"") is (status == 421)
        error = record[0].error  # type: ignore[attr-defined]  # an Exchange
        assert (error.row if error else "") == ("C18" if status == 421 else "")

    run()


@trio_test
async def test_c18_without_a_server_name_the_host_is_not_compared() -> None:
    """It is judged, and goes to this service's app, as ever."""
    async with target(ALLOW_ALL, app=Scribe()) as it, attacker(it) as peer:
        assert (await peer.ask(asking(b"billing.shop"))).status == 200


@trio_test
async def test_c18_one_endpoint_that_serves_two_names_is_dialled_for_each() -> None:
    """A connection made for one service is never used for another, so their own sidecar asks nothing that is 421."""
    async with serving(App()) as app, two_sides(app, policies=(EVERYBODY,)) as pair:
        endpoint = pair.orders.endpoint()
        pair.web.apply(services={ORDERS_NAME: [endpoint], "billing.shop": [endpoint]})
        async with calling(pair.web.app_address) as caller:
            statuses = []
            for name in (ORDERS_NAME, "billing.shop", ORDERS_NAME):
                await caller.ask(name=name)
                statuses.append((await caller.head()).status_code)
                await caller.rest()
                caller.next_request()
        assert statuses == [200, 503, 200]  # the endpoint is orders' sidecar: it takes no connection for billing
        line = next(one for one in await pair.orders.log_lines(2) if one.get("row"))
        assert (line["row"], line["reason"]) == ("C26", "other_service")


@pytest.mark.parametrize("name", ["billing.shop", "orders.bank", "www.example.com", "orders.shop.evil.com", "secret"])
def test_c26_a_server_name_that_is_not_declared_is_refused_and_leads_nowhere(name: str) -> None:
    """There is no passthrough: the connection ends before a request is read, and nobody is dialled."""

    @trio_test
    async def run() -> None:
        app = Scribe()
        async with target(ALLOW_ALL, app=app) as it:
            try:
                async with attacker(it, asks_for=name) as peer:
                    assert (await peer.ask(asking(name.encode()))).end == "closed"
            except trio.BrokenResourceError:
                pass  # closed before it could even ask
            await eventually(lambda: refusals(it))
            assert refusals(it) == [("C26", "other_service")]
            assert [one.sni for one in it.log.entries if isinstance(one, RefusedConnection)] == [name.encode()]
            assert it.records == []
        assert app.connections == []

    run()


@trio_test
async def test_c26_a_host_or_a_tunnel_that_names_nothing_declared_leads_nowhere() -> None:
    """Neither from the app outwards (404, nobody is asked for it) nor, by CONNECT, from the mesh inwards."""
    async with serving(App()) as app, two_sides(app) as pair:
        for name in ("www.example.com", "127.0.0.1", "a.b.c"):
            async with calling(pair.web.app_address) as caller:
                await caller.ask(name=name)
                assert (await caller.head()).status_code == 404
                await caller.rest()
        where = pair.web.app_address
        assert (await _exchange(where, b"CONNECT www.example.com:443 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert pair.web.lookups == []
    app_ = Scribe()
    async with target(ALLOW_ALL, app=app_) as it, attacker(it) as peer:
        head = [(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:22")]
        assert (await peer.ask(head)).status in (0, 405)
    assert app_.connections == []


async def _exchange(address: Address, data: bytes, source: str = "") -> bytes:
    """All that comes back; b"" if the connection was closed without a word."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    received = b""
    async with stream:
        try:
            await stream.send_all(data)
            while more := await stream.receive_some(65_536):
                received += more
        except trio.BrokenResourceError:
            pass
    return received


@trio_test
async def test_the_server_name_is_a_fact_for_policy() -> None:
    """connection.sni: our own sidecars send the service's name."""
    rule = Rule(when=(When(key="connection.sni", values=("orders.shop",)),))
    async with (
        serving(App()) as app,
        two_sides(app, policies=(allowing(rule),)) as pair,
        calling(pair.web.app_address) as caller,
    ):
        await caller.ask()
        assert (await caller.head()).status_code == 200
        await caller.rest()
    async with target(allowing(rule), app=Scribe()) as it, attacker(it) as peer:
        assert (await peer.ask(request())).status == 403


# C25: what it speaks


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (Protocol.HTTP1, PREFACE + b"\0\0\0\4\0\0\0\0\0"),
        (Protocol.HTTP2, GET),
        (Protocol.HTTP2, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (Protocol.HTTP2, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    ],
)
def test_c25_what_is_declared_is_spoken_whatever_it_looks_like(protocol: Protocol, said: bytes) -> None:
    """Another protocol is neither guessed nor passed through: the connection ends, and the app never hears of it."""

    @trio_test
    async def run() -> None:
        app = Scribe()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.run)
            async with edge(app.address, protocol=protocol) as side:
                assert await _exchange(side.plaintext[PORT], said) == b""
                (line,) = await side.log_lines(1)
                assert (line["row"], line["reason"]) == ("C25", "protocol_mismatch")
            nursery.cancel_scope.cancel()
        assert app.connections == []

    run()


@trio_test
async def test_c25_what_is_no_http_at_all_is_answered_as_such() -> None:
    """On a port declared http1: 400, and never passed on as bytes."""
    app = Scribe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.run)
        async with edge(app.address) as side:
            assert (await _exchange(side.plaintext[PORT], b"\x16\x03\x01\x02\x00\x01")).startswith(b"HTTP/1.1 400")
        nursery.cancel_scope.cancel()
    assert app.connections == []


@pytest.mark.parametrize("said", [b"", b"PRI * HT", b"PRO", b"\r\n\r\n\0"])
def test_c25_who_waits_for_the_server_to_speak_first_is_not_waited_for(said: bytes) -> None:
    """Nothing, or too little to tell what it is, within `headers_s`: closed."""

    @trio_test
    async def run() -> None:
        async with serving(App()) as app, edge(app, timeouts=Timeouts(headers_s=0.1)) as side:
            assert await _exchange(side.plaintext[PORT], said) == b""
            (line,) = await side.log_lines(1)
            assert (line["row"], line["reason"]) == ("C25", "first_octets_timeout")

    run()


# C27, C29: where it comes from


@pytest.mark.parametrize("preamble", [PROXY_V1, PROXY_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2])
def test_c27_nobody_says_for_another_where_a_connection_comes_from(protocol: Protocol, preamble: bytes) -> None:
    """A PROXY preamble ends the connection, in plaintext and on the mesh port: addresses are the socket's own."""

    @trio_test
    async def run() -> None:
        from_claimed = allowing(Rule(sources=(Source(ip_blocks=("10.0.0.0/8",)),)))
        async with serving(App()) as app, edge(app, PERMISSIVE, from_claimed, protocol=protocol) as side:
            assert await _exchange(side.plaintext[PORT], preamble + GET) == b""
            assert b"HTTP" not in await _exchange(side.mesh_address, preamble + GET)
            one, other = await side.log_lines(2)
            assert (one["row"], one["reason"]) == ("C27", "proxy_protocol")
            assert other["reason"] == "handshake_failed"
            assert side.records == []

    run()


@trio_test
async def test_c27_a_preamble_in_pieces_is_known_too() -> None:
    """Octet by octet."""
    async with serving(App()) as app, edge(app) as side:
        where = side.plaintext[PORT]
        stream = await trio.open_tcp_stream(where.host, where.port)
        async with stream:
            try:
                for octet in PROXY_V2:
                    await stream.send_all(bytes([octet]))
                    await trio.lowlevel.checkpoint()
                assert await stream.receive_some(1) == b""
            except trio.BrokenResourceError:
                pass
        (line,) = await side.log_lines(1)
        assert (line["row"], line["reason"]) == ("C27", "proxy_protocol")


@trio_test
async def test_c29_a_v4_caller_of_a_v6_listener_is_a_v4_address() -> None:
    """The kernel says ::ffff:127.0.0.1; blocks of policy and of `plaintext-from` are held against 127.0.0.1."""
    tls = PortTls(mode=TlsMode.PERMISSIVE, peers=("127.0.0.0/8",))
    rules = [
        (Rule(sources=(Source(ip_blocks=("127.0.0.1/32",)),)), 200),
        (Rule(sources=(Source(not_ip_blocks=("127.0.0.0/8",)),)), 403),
        (Rule(sources=(Source(ip_blocks=("::/0",)),)), 403),
        (Rule(when=(When(key="destination.ip", values=("127.0.0.1/32",)),)), 200),
    ]
    for rule, status in rules:
        async with serving(App()) as app, edge(app, tls, allowing(rule), listen=Address("::", 0)) as side:
            side.plaintext[PORT] = Address("127.0.0.1", side.plaintext[PORT].port)
            assert await fetch(side) == status
    async with serving(App()) as app, edge(app, tls, listen=Address("::", 0)) as side:
        side.plaintext[PORT] = Address("::1", side.plaintext[PORT].port)
        assert await fetch(side, source="::1") == 0


@trio_test
async def test_c29_a_connection_s_addresses_have_one_spelling_from_the_beginning() -> None:
    """What is reported of a decision, too: never ::ffff:127.0.0.1."""
    async with serving(App()) as app, edge(app, PERMISSIVE, allowing(rule_for(WEB)), listen=Address("::", 0)) as side:
        side.plaintext[PORT] = Address("127.0.0.1", side.plaintext[PORT].port)
        assert await fetch(side) == 403
        reported = side.decisions.take()
    assert reported is not None
    (decision,) = reported.decisions
    assert (decision.asked.source_ip, decision.asked.destination_ip) == ("127.0.0.1", "127.0.0.1")


@trio_test
async def test_c29_addresses_of_mesh_connections_are_facts_too() -> None:
    """source.ip and destination.ip of an mTLS connection, by the socket."""
    rule = Rule(
        sources=(Source(principals=(WEB.principal,), ip_blocks=("127.0.0.0/8",)),),
        when=(When(key="destination.ip", values=("127.0.0.1",)),),
    )
    for policy, status in ((allowing(rule), 200), (allowing(Rule(sources=(Source(ip_blocks=("10.0.0.0/8",)),))), 403)):
        async with target(policy, app=Scribe()) as it, attacker(it) as peer:
            assert (await peer.ask(request())).status == status


# C28: what it asks for


OVERRIDES = [
    ("x-http-method-override", "DELETE"),
    ("X-HTTP-Method", "DELETE"),
    ("X_Method_Override", "DELETE"),
    ("x.http.method.override", "DELETE"),
    ("x-http_method-override", "DELETE"),
]


@trio_test
async def test_c28_what_replaces_the_method_is_removed_at_the_edge() -> None:
    """In every spelling a server may read so: the app acts on the method that was judged. From the mesh they pass."""
    app = App()
    async with serving(app) as address, edge(address) as side:
        assert await fetch(side, fields=[*OVERRIDES, ("x-http-methods", "kept")]) == 200
    (request_,) = app.requests
    assert [name for name, _ in request_.fields if b"method" in name] == [b"x-http-methods"]
    app = App()
    async with serving(app) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask(fields=OVERRIDES[:2])
        await caller.head()
        await caller.rest()
    (request_,) = app.requests
    assert request_.values(b"x-http-method-override") == [b"DELETE"]
