"""Plaintext into a port of a service: who may, until when, as what, and how it ends. Real sockets on loopback."""

from __future__ import annotations

import logging
from dataclasses import replace

import h11
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset

from sidecar.http.session import Fields
from sidecar.plaintext import ENDED, NOT_READY, OTHER_PEER, STRICT, refusal
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    PeerAuthentication,
    PortTls,
    Protocol,
    Rule,
    Source,
    When,
)
from tests.attacks.support import snapshot
from tests.sidecar.edge import DISABLE, EVERYBODY, NOW, PERMISSIVE, allowing, edge, fetch, on_port
from tests.sidecar.h2c_app import H2App, H2Request, serving_h2c
from tests.sidecar.mesh import ORDERS, WEB
from tests.sidecar.support import (
    ORDERS_NAME,
    PORT,
    App,
    AppRequest,
    Side,
    allow,
    calling,
    deny,
    rule_for,
    serving,
)
from tests.trio_support import trio_test


async def refused(side: Side) -> list[tuple[object, object]]:
    """Row and reason of the one connection that was."""
    lines = await side.log_lines(1)
    return [(line.get("row"), line.get("reason")) for line in lines]


class Downloads(App):
    """Begins an answer and goes on with it when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()

    async def serve_one(self, request: AppRequest) -> None:
        await request.head(200, [(b"content-length", b"9")])
        await request.data(b"first")
        await self.go_on.wait()
        await request.data(b"last")
        await request.end()


# Who may


@trio_test
async def test_c24_strict_is_the_default_and_closes_at_once() -> None:
    """A listener alone opens nothing: the connection ends, is counted, and logged with row, reason and address."""
    app = App()
    async with serving(app) as address, edge(address, PortTls()) as side:
        assert await fetch(side) == 0
        assert await refused(side) == [("C24", STRICT)]
        assert f'hauberk_refused_total{{reason="{STRICT}",row="C24"}} 1' in _metrics(side)
        assert side.records == []
    assert app.connections == 0


def _metrics(side: Side) -> str:
    text = side.metrics.export().decode()
    return text.replace(f'row="C24",reason="{STRICT}"', f'reason="{STRICT}",row="C24"')


@trio_test
async def test_without_a_snapshot_nobody_comes_in() -> None:
    """No policy means no."""
    async with serving(App()) as address, edge(address, None) as side:
        assert await fetch(side) == 0
        assert await refused(side) == [("C24", NOT_READY)]


@pytest.mark.parametrize("tls", [PERMISSIVE, DISABLE], ids=["permissive", "disable"])
def test_permissive_and_disable_take_plaintext_without_an_identity(tls: PortTls) -> None:
    """The app is reached; nobody is named to it or in the log, whatever the caller claims (rows D01, D02)."""

    @trio_test
    async def run() -> None:
        app = App()
        claims = [("x-forwarded-client-cert", "URI=spiffe://mesh.local/ns/shop/sa/web"), ("x_hauberk_user", "ann")]
        async with serving(app) as address, edge(address, tls) as side:
            assert await fetch(side, "/a?b", fields=claims) == 200
            (line,) = await side.log_lines(1)
        assert (line.get("source"), line["decision"], line["path"]) == (None, "allow", "/a")
        (request,) = app.requests
        assert request.target == b"/a?b"
        names = {name for name, _ in request.fields}
        assert not names & {b"x-forwarded-client-cert", b"x_hauberk_user"}

    run()


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        (Rule(), 200),
        (rule_for(WEB), 403),
        (Rule(sources=(Source(principals=("*",)),)), 403),
        (Rule(sources=(Source(not_principals=(ORDERS.principal,)),)), 403),
        (Rule(sources=(Source(not_namespaces=("bank",)),)), 403),
        (Rule(when=(When(key="source.principal", not_values=(ORDERS.principal,)),)), 403),
        (Rule(sources=(Source(ip_blocks=("127.0.0.0/8",)),)), 200),
        (Rule(sources=(Source(not_ip_blocks=("127.0.0.0/8",)),)), 403),
        (Rule(when=(When(key="connection.sni", not_values=("x",)),)), 403),
        (Rule(when=(When(key="destination.ip", values=("127.0.0.1",)),)), 200),
    ],
)  # fmt: skip
def test_c24_no_allow_rule_about_identities_lets_nobody_in(rule: Rule, status: int) -> None:
    """What a caller lacks matches nothing in ALLOW, negative conditions included; addresses are known and do."""

    @trio_test
    async def run() -> None:
        async with serving(App()) as address, edge(address, PERMISSIVE, allowing(rule)) as side:
            assert await fetch(side) == status

    run()


@trio_test
async def test_deny_rules_hold_for_plaintext_callers() -> None:
    """By what they ask for, and by having no principal: DENY matches what is missing."""
    denied = AuthorizationPolicy(
        namespace="shop",
        name="members-only",
        action=Action.DENY,
        rules=(Rule(sources=(Source(not_principals=("*",)),), operations=deny("/members").rules[0].operations),),
    )
    async with serving(App()) as address, edge(address, PERMISSIVE, EVERYBODY, deny("/secret/*"), denied) as side:
        assert await fetch(side, "/secret/x") == 403
        assert await fetch(side, "/members") == 403
        assert await fetch(side, "/open") == 200


@trio_test
async def test_only_named_peers_come_in() -> None:
    """`plaintext-from`: another address is closed before a byte of it is read."""
    tls = replace(PERMISSIVE, peers=("127.0.0.2/32", "10.0.0.0/8"))
    async with serving(App()) as address, edge(address, tls) as side:
        assert await fetch(side, source="127.0.0.2") == 200
        assert await fetch(side, source="127.0.0.1") == 0
        _, line = await side.log_lines(2)
        assert (line["row"], line["reason"]) == ("C24", OTHER_PEER)


@trio_test
async def test_the_end_date_ends_it_for_new_and_for_open_connections() -> None:
    """`plaintext-until`: from then on the port is STRICT, without a new snapshot."""
    time = [NOW]
    app = Downloads()
    tls = replace(PERMISSIVE, until=NOW + 60)
    async with serving(app) as address, edge(address, tls, now=lambda: time[0]) as side:
        async with calling(side.plaintext[PORT]) as caller:
            await caller.ask()
            await caller.head()
            assert await caller.read() == b"first"
            time[0] = NOW + 60
            with pytest.raises(h11.RemoteProtocolError):  # the sweep comes by
                await caller.rest()
        assert await fetch(side) == 0
        ended, closed = await side.log_lines(2)
        assert (ended["decision"], ended["rule"]) == ("deny", "peer-authentication")
        assert closed["reason"] == ENDED


@trio_test
async def test_no_request_is_served_after_the_end_even_before_anybody_came_by_to_end_it() -> None:
    """The connection is still there, its next request is denied; and so is what is judged again by a new snapshot."""
    time = [NOW]
    app = Downloads()
    app.go_on.set()
    tls = replace(PERMISSIVE, until=NOW + 60)
    async with serving(app) as address, edge(address, tls, now=lambda: time[0], sweeps=False) as side:
        async with calling(side.plaintext[PORT]) as caller:
            await caller.ask()
            await caller.head()
            await caller.rest()
            caller.next_request()
            time[0] = NOW + 60
            await caller.ask()
            assert (await caller.head()).status_code == 403
            await caller.rest()
        time[0], app.go_on = NOW, trio.Event()
        async with calling(side.plaintext[PORT]) as caller:
            await caller.ask()
            await caller.head()
            assert side.runtime.snapshot is not None
            strict = replace(side.runtime.snapshot, version=2, peer_authentication=on_port(PortTls()))
            at_once(side.runtime.applying(strict))
            with pytest.raises(h11.RemoteProtocolError):
                await caller.rest()
        assert len(app.requests) == 2
        denied = [call.denied for _, call in side.records if call.denied]
        assert [(one.rule, one.version) for one in denied] == [("peer-authentication", 1), ("peer-authentication", 2)]


def test_the_answer_is_a_pure_function_of_snapshot_address_and_time() -> None:
    """Ports of their own, the rest, peers and dates."""
    peers = PeerAuthentication(
        rest=replace(PERMISSIVE, until=NOW),
        ports={80: replace(DISABLE, peers=("2001:db8::/32",)), 81: PortTls(until=NOW)},
    )
    taken = replace(snapshot(), peer_authentication=peers)
    assert refusal(None, 80, "2001:db8::1", NOW) == NOT_READY
    assert refusal(taken, 80, "2001:db8::1", NOW) == ""
    assert refusal(taken, 80, None, NOW) == ""
    assert refusal(taken, 80, "2001:db9::1", NOW) == OTHER_PEER
    assert refusal(taken, 80, "", NOW) == OTHER_PEER
    assert refusal(taken, 81, "10.0.0.1", NOW - 1) == STRICT
    assert refusal(taken, 82, "10.0.0.1", NOW - 1) == ""
    assert refusal(taken, 82, "10.0.0.1", NOW) == ENDED


# The end


@trio_test
async def test_a_port_that_becomes_strict_ends_open_plaintext_and_nothing_else() -> None:
    """HTTP/1.1: the download breaks off and its connection ends; a stream from the mesh to the same port goes on."""
    app = Downloads()
    async with serving(app) as address, edge(address) as side:
        web = Side(side._nursery, side.mesh, WEB)
        web.apply(services={ORDERS_NAME: [side.endpoint()]})
        async with calling(side.plaintext[PORT]) as plain, calling(web.app_address) as member:
            for caller in (plain, member):
                await caller.ask()
                assert (await caller.head()).status_code == 200
                assert await caller.read() == b"first"
            with trio.fail_after(1):
                side.apply(policies=(EVERYBODY,), peers=on_port(PortTls()))
                with pytest.raises(h11.RemoteProtocolError):  # the end of the connection, in the middle of the body
                    await plain.rest()
            (record,) = side.records
            assert record[0].how_ended == "denied"
            assert record[1].denied is not None
            assert (record[1].denied.rule, record[1].denied.version) == ("peer-authentication", 2)
            app.go_on.set()
            assert await member.rest() == b"last"
        assert await fetch(side) == 0


class _Streaming(H2App):
    async def serve_one(self, request: H2Request) -> None:
        await request.head([(b":status", b"200")])
        await trio.sleep_forever()


@trio_test
async def test_an_open_http2_stream_ends_with_the_right_to_plaintext() -> None:
    """The stream is reset, then the connection says goodbye."""
    async with serving_h2c(_Streaming()) as app, edge(app, protocol=Protocol.HTTP2) as side:
        where = side.plaintext[PORT]
        stream = await trio.open_tcp_stream(where.host, where.port)
        async with stream:
            client = H2Connection(H2Configuration(header_encoding=None))
            client.initiate_connection()
            head: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/")]
            client.send_headers(1, head, end_stream=True)
            await stream.send_all(client.data_to_send())
            seen: list[object] = []
            while not any(isinstance(event, ResponseReceived) for event in seen):
                seen += client.receive_data(await stream.receive_some(65_536))
            with trio.fail_after(1):
                side.apply(policies=(EVERYBODY,), peers=on_port(PortTls()))
                while data := await stream.receive_some(65_536):
                    seen += client.receive_data(data)
        assert any(isinstance(event, StreamReset) for event in seen)
        assert any(isinstance(event, ConnectionTerminated) for event in seen)


@trio_test
async def test_a_new_snapshot_that_still_takes_plaintext_leaves_connections_alone() -> None:
    """And judges their requests again, as it does everybody's."""
    app = Downloads()
    async with serving(app) as address, edge(address) as side, calling(side.plaintext[PORT]) as caller:
        await caller.ask("/kept")
        await caller.head()
        side.apply(policies=(EVERYBODY, deny("/secret")), peers=on_port(DISABLE))
        app.go_on.set()
        assert await caller.rest() == b"firstlast"
        caller.next_request()
        await caller.ask("/secret")
        assert (await caller.head()).status_code == 403
        await caller.rest()


# DISABLE


@trio_test
async def test_on_a_disabled_port_members_have_no_identity_either() -> None:
    """Rules about principals do not match them, and the app is told of nobody; when the date has come they have one."""
    time = [NOW]
    app = App()
    async with serving(app) as address, edge(address, now=lambda: time[0]) as side:
        web = Side(side._nursery, side.mesh, WEB)
        web.apply(services={ORDERS_NAME: [side.endpoint()]})

        async def ask() -> int:
            async with calling(web.app_address) as caller:
                await caller.ask()
                status = (await caller.head()).status_code
                await caller.rest()
            return status

        side.apply(policies=(allow(WEB),), peers=on_port(replace(DISABLE, until=NOW + 60)))
        assert await ask() == 403
        time[0] += 60
        assert await ask() == 200
        side.apply(policies=(EVERYBODY,), peers=on_port(DISABLE))
        assert await ask() == 200
        with_identity, without = app.requests
        assert with_identity.values(b"x-forwarded-client-cert")
        assert not without.values(b"x-forwarded-client-cert")
        assert [call.source for _, call in side.records] == ["", str(WEB), ""]
        side.apply(policies=(allow(WEB),), peers=PeerAuthentication(rest=DISABLE, ports={PORT: PERMISSIVE}))
        assert await ask() == 200


# What is told


@trio_test
async def test_the_log_says_once_why_a_listener_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """At the first snapshot, and whenever it changes; nothing for a snapshot that changes nothing of it."""
    caplog.set_level(logging.INFO, "sidecar.plaintext")
    async with serving(App()) as address, edge(address, PortTls()) as side:
        side.apply(policies=(EVERYBODY,), peers=on_port(PortTls()))
        side.apply(peers=on_port(replace(PERMISSIVE, until=NOW + 1, peers=("10.0.0.0/8",), source="mtls.yaml:3")))
        side.apply(peers=on_port(replace(PERMISSIVE, until=NOW, source="mtls.yaml:3")))
    told = [(one.getMessage(), one.__dict__.get("why"), one.__dict__.get("policy")) for one in caplog.records]
    assert told == [
        ("plaintext connections are refused", "no PeerAuthentication makes the port PERMISSIVE or DISABLE", None),
        ("plaintext connections are taken", None, "mtls.yaml:3"),
        ("plaintext connections are refused", "the end date of the PeerAuthentication has come", "mtls.yaml:3"),
    ]
    assert caplog.records[1].__dict__["peers"] == "10.0.0.0/8"
