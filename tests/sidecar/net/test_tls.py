"""sidecar.net.tls with real handshakes on socket pairs: rows of security.md section F."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from cryptography import x509

from certs.authority_id import key_id
from certs.bundle import TrustBundle
from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.net.errors import AlpnMissing, HandshakeFailed, PeerRefused, RefusedByPeer, TlsError, WrongPeer
from sidecar.net.tls import (
    PeerCertificate,
    check_peer,
    client_context,
    handshake,
    map_ssl_error,
    peer_chain,
    server_context,
    server_name,
    unverified_client_context,
)
from sidecar.telemetry import logs
from tests.certs.forge import uri, usage
from tests.sidecar.mesh import CONTROL_PLANE, ORDERS, TD, WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()


@dataclass
class Met:
    """How a handshake went at both ends."""

    server: ssl.SSLSocket | TlsError
    client: ssl.SSLSocket | TlsError

    def both(self) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
        assert isinstance(self.server, ssl.SSLSocket)
        assert isinstance(self.client, ssl.SSLSocket)
        return self.server, self.client

    def close(self) -> None:
        for end in (self.server, self.client):
            if isinstance(end, ssl.SSLSocket):
                end.close()


def pair() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


async def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> Met:
    """Both handshakes over a socket pair. A failed end hangs up, as it does in life."""
    left, right = pair()
    met: dict[bool, ssl.SSLSocket | TlsError] = {}

    async def one(sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> None:
        try:
            met[server_side] = await handshake(sock, context, server_side=server_side)
        except TlsError as error:
            met[server_side] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, left, server, True)
        nursery.start_soon(one, right, client, False)
    return Met(met[True], met[False])


def check(
    end: ssl.SSLSocket | TlsError, expected: Collection[SpiffeId] | None = None, trust_domain: TrustDomain = TD
) -> PeerCertificate:
    """What the user of tls.py does: a failed handshake is as final as a failed check."""
    if isinstance(end, TlsError):
        raise end
    return check_peer(end, trust_domain, time.time(), expected)


async def first_read(end: ssl.SSLSocket) -> bytes:
    while True:
        try:
            return end.recv(100)
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(end)


@trio_test
async def test_two_workloads_learn_each_others_identity() -> None:
    """The legal case: both ends know who is there, and all facts of the certificate are right."""
    web, orders = MESH.svid(WEB), MESH.svid(ORDERS)
    met = await meet(server_context(orders, MESH.bundle), client_context(web, MESH.bundle))
    server, client = met.both()
    at_server, at_client = check(server), check(client, {ORDERS})
    assert at_server.identity == WEB
    assert at_client == PeerCertificate(
        identity=ORDERS,
        der=orders.chain_der[0],
        not_after=orders.not_after,
        sha256_hex=hashlib.sha256(orders.chain_der[0]).hexdigest(),
        serial=4711,
        issuers_der=(MESH.root.der,),  # OpenSSL sends what it finds when nothing follows the leaf
        authority_ids=(key_id(MESH.root.key.public_key()),),
    )
    assert client.version() == "TLSv1.3"
    met.close()


@pytest.mark.parametrize("bad_side", ["server", "client"])
@pytest.mark.parametrize(("starts_in_s", "lifetime_s"), [(-60, -10), (60, 90)], ids=["expired", "not yet valid"])
@trio_test
async def test_f01_certificates_out_of_time_are_refused(bad_side: str, starts_in_s: float, lifetime_s: float) -> None:
    """F01: OpenSSL refuses with an alert; the one who judged says why."""
    bad, good = MESH.svid(WEB, starts_in_s=starts_in_s, lifetime_s=lifetime_s), MESH.svid(WEB)
    server = server_context(bad if bad_side == "server" else good, MESH.bundle)
    client = client_context(bad if bad_side == "client" else good, MESH.bundle)
    met = await meet(server, client)
    with pytest.raises(PeerRefused) as caught:
        check(met.client if bad_side == "server" else met.server)
    assert caught.value.row == "F01"
    met.close()


@pytest.mark.parametrize("bad_side", ["server", "client"])
@trio_test
async def test_f02_another_ca_is_refused(bad_side: str) -> None:
    """F02: same names, another key signed them."""
    bad, good = Mesh().svid(WEB), MESH.svid(WEB)
    server = server_context(bad if bad_side == "server" else good, MESH.bundle)
    client = client_context(bad if bad_side == "client" else good, MESH.bundle)
    met = await meet(server, client)
    with pytest.raises(PeerRefused) as caught:
        check(met.client if bad_side == "server" else met.server)
    assert caught.value.row == "F02"
    met.close()


ILLEGAL: dict[str, dict[str, Any]] = {
    "F03": {"names": (uri("spiffe://other.example/ns/shop/sa/web"),)},
    "F04": {"names": (uri(str(WEB)), uri(str(ORDERS)))},
    "F05": {"names": (uri("https://mesh.local/ns/shop/sa/web"),)},
    "F06": {
        "constraints": x509.BasicConstraints(ca=True, path_length=0),
        "key_usage": usage("digital_signature", "key_cert_sign"),
    },
    "F08": {"purposes": None},
}


@pytest.mark.parametrize("bad_side", ["server", "client"])
@pytest.mark.parametrize("row", ILLEGAL)
@trio_test
async def test_f03_f04_and_what_openssl_accepts_is_refused_after_the_handshake(row: str, bad_side: str) -> None:
    """F03 to F08: the handshake succeeds, `check_peer` does not; strict OpenSSL may have stopped it before."""
    bad, good = MESH.svid(WEB, **ILLEGAL[row]), MESH.svid(WEB)
    server = server_context(bad if bad_side == "server" else good, MESH.bundle)
    client = client_context(bad if bad_side == "client" else good, MESH.bundle)
    met = await meet(server, client)
    with pytest.raises(PeerRefused) as caught:
        check(met.client if bad_side == "server" else met.server)
    assert caught.value.row in (row, "")
    if row in ("F03", "F04"):
        assert caught.value.row == row, "OpenSSL does not see this one: the row is ours"
    met.close()


@trio_test
async def test_f03_the_refusal_names_the_peer_for_the_log() -> None:
    """F03: who knocked from the other trust domain is in the error's text."""
    stranger = MESH.svid(WEB, names=(uri("spiffe://other.example/ns/shop/sa/web"),))
    met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(stranger, MESH.bundle))
    with pytest.raises(PeerRefused, match=r"spiffe://other\.example/ns/shop/sa/web"):
        check(met.server)
    met.close()


@pytest.mark.parametrize("expected", [{ORDERS}, {ORDERS, CONTROL_PLANE}, set()], ids=["one", "two", "nobody"])
@trio_test
async def test_f11_any_other_identity_of_the_mesh_is_not_the_server_looked_for(expected: set[SpiffeId]) -> None:
    """F11: a valid certificate of the same root, but not whom we dialled; an empty set is met by nobody."""
    met = await meet(server_context(MESH.svid(WEB), MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle))
    with pytest.raises(WrongPeer, match=str(WEB)) as caught:
        check(met.client, expected)
    assert caught.value.row == "F11"
    met.close()


@pytest.mark.parametrize("old_side", ["server", "client"])
@trio_test
async def test_f12_tls_1_2_is_refused(old_side: str) -> None:
    """F12: nobody talks us down."""
    server, client = server_context(MESH.svid(WEB), MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle)
    old = server if old_side == "server" else client
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    met = await meet(server, client)
    error = met.client if old_side == "server" else met.server
    assert isinstance(error, HandshakeFailed | RefusedByPeer)
    assert "version" in str(error) or "protocol" in str(error)
    met.close()


@trio_test
async def test_f12_check_peer_does_not_rely_on_the_context() -> None:
    """F12: even a context somebody weakened does not get TLS 1.2 past the check."""
    server, client = server_context(MESH.svid(WEB), MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle)
    for context in (server, client):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    met = await meet(server, client)
    with pytest.raises(HandshakeFailed) as caught:
        check(met.server)
    assert caught.value.row == "F12"
    met.close()


@trio_test
async def test_f14_sessions_are_never_resumed() -> None:
    """F14: a client that offers its last session gets a full handshake, so its certificate is judged anew."""
    server, client = server_context(MESH.svid(ORDERS), MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle)
    met = await meet(server, client)
    served, dialled = met.both()
    served.send(b"x")
    assert await first_read(dialled) == b"x"  # tickets would have come before this
    session = dialled.session
    assert session is None or not session.has_ticket
    met.close()

    left, right = pair()
    again = client.wrap_socket(right, do_handshake_on_connect=False, session=session)

    async def serve() -> None:
        (await handshake(left, server, server_side=True)).close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        while True:
            try:
                again.do_handshake()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(again)
    assert not again.session_reused
    again.close()


@pytest.mark.parametrize("offered", [None, ["http/1.1"]], ids=["none", "another"])
@pytest.mark.parametrize("odd_side", ["server", "client"])
@trio_test
async def test_f17_a_peer_without_alpn_h2_is_refused(offered: list[str] | None, odd_side: str) -> None:
    """F17: OpenSSL finishes the handshake without ALPN; nothing may be said on such a connection."""
    server, client = server_context(MESH.svid(WEB), MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle)
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if odd_side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_REQUIRED
    plain.load_verify_locations(cadata=MESH.root.der)
    lend_identity(plain)
    if offered is not None:
        plain.set_alpn_protocols(offered)
    met = await meet(plain if odd_side == "server" else server, plain if odd_side == "client" else client)
    with pytest.raises(AlpnMissing) as caught:
        check(met.client if odd_side == "server" else met.server)
    assert caught.value.row == "F17"
    met.close()


def lend_identity(context: ssl.SSLContext) -> None:
    svid = MESH.svid(WEB)
    descriptor = os.memfd_create("test")
    os.write(descriptor, svid.key_pem() + svid.chain_pem())
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


@trio_test
async def test_f18_a_client_learns_of_its_refusal_at_its_first_read() -> None:
    """F18: the client's handshake "succeeds" without a certificate; its first read meets the alert."""
    met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(None, MESH.bundle))
    assert isinstance(met.server, HandshakeFailed), "the server wants a certificate"
    assert isinstance(met.client, ssl.SSLSocket), "the client believes all is well"
    check(met.client, {ORDERS})
    with pytest.raises(ssl.SSLError) as caught:
        await first_read(met.client)
    assert isinstance(map_ssl_error(caught.value), RefusedByPeer)
    met.close()


@trio_test
async def test_f19_bytes_sent_before_a_hangup_are_never_read_as_authenticated() -> None:
    """F19 (CVE-2023-40217): plaintext, then a reset, before TLS began: no socket comes out that would read it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        client.sendall(b"GET /admin HTTP/1.1\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(TlsError):
            await handshake(accepted, server_context(MESH.svid(ORDERS), MESH.bundle), server_side=True)
        assert accepted.fileno() == -1


@trio_test
async def test_f20_plaintext_to_a_tls_port_is_refused_without_an_answer_in_plaintext() -> None:
    """F20: an HTTP request gets no banner; whatever comes back is a TLS alert record (type 21)."""
    left, right = pair()
    right.send(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    with pytest.raises(HandshakeFailed) as caught:
        await handshake(left, server_context(MESH.svid(ORDERS), MESH.bundle), server_side=True)
    assert caught.value.row == "F20"
    with right:
        try:
            answer = right.recv(1000)
        except ConnectionResetError:  # closed with our request unread
            answer = b""
    assert answer[:1] in (b"", b"\x15")


@pytest.mark.parametrize(("count", "legal"), [(3, True), (4, False), (12, False)])
@trio_test
async def test_f22_chains_longer_than_three_intermediates_are_refused(count: int, legal: bool) -> None:
    """F22: OpenSSL follows a dozen; three is the most a legal mesh has."""
    deep = MESH.svid(WEB, chain=MESH.intermediates(count), with_anchor=True)
    met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(deep, MESH.bundle))
    if legal:
        assert check(met.server).identity == WEB
    else:
        with pytest.raises(PeerRefused) as caught:
            check(met.server)
        assert caught.value.row == "F22"
    met.close()


def test_f26_there_is_no_context_without_anchors() -> None:
    """F26: verifying against nothing is impossible, even with a bundle that dodged its own checks."""
    empty = TrustBundle(trust_domain=TD, anchors_der=())
    with pytest.raises(ValueError, match="without anchors"):
        server_context(MESH.svid(WEB), empty)
    with pytest.raises(ValueError, match="without anchors"):
        client_context(None, empty)


@trio_test
async def test_the_whole_chain_is_visible_before_it_is_trusted() -> None:
    """A joiner looks for its pin in the chain as sent, anchor included, without verifying anything."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_alpn_protocols(["h2"])
    svid = MESH.svid(CONTROL_PLANE, with_anchor=True)
    descriptor = os.memfd_create("test")
    os.write(descriptor, svid.key_pem() + svid.chain_pem())
    server.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    met = await meet(server, unverified_client_context())
    assert isinstance(met.client, ssl.SSLSocket)
    assert peer_chain(met.client) == list(svid.chain_der)
    assert svid.chain_der[-1] == MESH.root.der
    met.close()


@trio_test
async def test_a_servers_view_of_the_chain_has_the_leaf_too() -> None:
    """OpenSSL leaves the peer's own certificate out on servers; CPython puts it back, and the length check needs it."""
    web = MESH.svid(WEB, chain=MESH.intermediates(2))
    met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(web, MESH.bundle))
    assert isinstance(met.server, ssl.SSLSocket)
    assert peer_chain(met.server) == list(web.chain_der)
    met.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_keys_leave_no_file_behind() -> None:
    """The key goes through a memory file that is closed when the context is made."""
    svid = MESH.svid(WEB)
    before = open_descriptors()
    context = server_context(svid, MESH.bundle)
    assert open_descriptors() == before
    assert context.num_tickets == 0


def test_a_key_that_does_not_fit_makes_no_context() -> None:
    """A certificate for another key is refused when the context is made, and nothing leaks."""
    svid, other = MESH.svid(WEB), MESH.svid(WEB)
    mixed = type(svid)(
        spiffe_id=WEB,
        chain_der=svid.chain_der,
        private_key=other.private_key,
        not_before=svid.not_before,
        not_after=svid.not_after,
        serial=1,
    )
    before = open_descriptors()
    with pytest.raises(ssl.SSLError):
        server_context(mixed, MESH.bundle)
    assert open_descriptors() == before


@trio_test
async def test_a_cancelled_handshake_closes_its_socket() -> None:
    """F21: the listener's deadline cancels a peer that says nothing; the socket must not stay behind."""
    left, right = pair()
    with trio.move_on_after(0):
        await handshake(left, server_context(MESH.svid(WEB), MESH.bundle), server_side=True)
    assert left.fileno() == -1
    right.close()


async def _hang_up(right: socket.socket) -> None:
    right.close()


async def _half_a_hello(right: socket.socket) -> None:
    right.send(b"\x16\x03\x01\x02\x00\x01")
    right.close()


@pytest.mark.parametrize("peer", [_hang_up, _half_a_hello])
@trio_test
async def test_a_peer_that_goes_away_in_the_middle_is_a_failed_handshake(
    peer: Callable[[socket.socket], Awaitable[None]],
) -> None:
    """Whatever the socket raises becomes one typed error."""
    left, right = pair()
    await peer(right)
    with pytest.raises(HandshakeFailed):
        await handshake(left, server_context(MESH.svid(WEB), MESH.bundle), server_side=True)


# Server names


async def named(name: bytes, *, in_flight: tuple[bytes, bytes] = (b"", b"")) -> str | TlsError:
    """What a server of ours makes of a client that asks for `name`; `in_flight`: replaced in its first message."""
    left, right = pair()
    context = client_context(MESH.svid(WEB), MESH.bundle)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name or None)
    met: list[str | TlsError] = []

    async def serve() -> None:
        try:
            server = await handshake(left, server_context(MESH.svid(ORDERS), MESH.bundle), server_side=True)
        except TlsError as error:
            met.append(error)
        else:
            met.append(server_name(server))
            server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        while not met:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                break
            right.sendall(outgoing.read().replace(*in_flight) if in_flight[0] else outgoing.read())
            while not met:
                await trio.lowlevel.checkpoint()
                try:
                    incoming.write(right.recv(65_536))
                    break
                except BlockingIOError:
                    continue
    right.close()
    return met[0]


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        (b"", ""),
        (b"orders.shop", "orders.shop"),
        (b"Orders.SHOP", "orders.shop"),
        (b"orders.shop.", "orders.shop"),
        (b"outbound_.8080_._.orders.shop.svc.cluster.local", "outbound_.8080_._.orders.shop.svc.cluster.local"),
        (b"10.0.0.1", ""),  # OpenSSL sends no address
        (b"a" * 63 + b".b", "a" * 63 + ".b"),
    ],
)
@trio_test
async def test_a_server_learns_what_name_it_was_asked_for(asked: bytes, noted: str) -> None:
    """SNI (RFC 6066 section 3): lower case, without the trailing dot; nothing if nothing was said."""
    assert await named(asked) == noted


@pytest.mark.parametrize(
    "asked", [b"a..b", b"a b", b"a/../b", b"10.0.0.300", b"a.1", b"x\ny.shop", b"*.shop", b"a" * 64, b"a." * 127 + b"a"]
)
@trio_test
async def test_d07_a_server_name_that_is_none_ends_the_handshake(asked: bytes) -> None:
    """Before anything is known of the client; nothing of the name is kept, so none reaches a log."""
    error = await named(asked)
    assert isinstance(error, HandshakeFailed)
    assert error.row == "D07"
    assert asked.decode() not in str(error)


@trio_test
async def test_d07_a_server_name_that_is_no_text_ends_the_handshake_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CPython reports it to the hook for what cannot be raised, which would write to standard error, and wait."""
    hooked: list[object] = []

    def hook(found: sys.UnraisableHookArgs) -> None:
        hooked.append(found.exc_type)
        logs.unraisable(found)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    error = await named(b"secret.shop", in_flight=(b"secret", b"s\xe9cr\xff\x1b"))
    assert isinstance(error, HandshakeFailed)
    assert hooked == [UnicodeDecodeError]
    assert caplog.records == []


@trio_test
async def test_a_client_asks_for_a_name_without_having_it_checked() -> None:
    """Who is there is a question of the SPIFFE ID; the name is sent as it is, and no table of IDNA is loaded for it."""
    left, right = pair()
    served: list[str] = []

    async def serve() -> None:
        server = await handshake(left, server_context(MESH.svid(ORDERS), MESH.bundle), server_side=True)
        served.append(server_name(server))
        server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await handshake(
            right, client_context(MESH.svid(WEB), MESH.bundle), server_side=False, ask_for="billing.shop"
        )
    assert check(client, {ORDERS}).identity == ORDERS
    assert served == ["billing.shop"]
    client.close()
