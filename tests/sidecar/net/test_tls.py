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
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority_id import key_id
from certs.bundle import TrustBundle
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.net.errors import (
    AlpnMissing,
    HandshakeFailed,
    PeerRefused,
    PeerRevoked,
    RefusedByPeer,
    TlsError,
    WrongPeer,
)
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
from tests.certs.forge import Authority, make_ca, odd_rsa_key, raw_names, uri, usage
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


def _illegal_ids() -> dict[str, dict[str, Any]]:
    ids = {
        "no path": "spiffe://mesh.local",
        "another scheme": "https://mesh.local/ns/shop/sa/web",
        "upper case": "spiffe://Mesh.local/ns/shop/sa/web",
        "query": f"{WEB}?x",
        "percent": "spiffe://mesh.local/ns/shop/sa/%77eb",
        "port": "spiffe://mesh.local:1/ns/shop/sa/web",
        "dots": "spiffe://mesh.local/ns/x/../shop/sa/web",
        "slash at the end": f"{WEB}/",
        "2,049 octets": str(WEB) + "x" * (2_049 - len(str(WEB))),
    }
    return {f"F05 {name}": {"names": (uri(one),)} for name, one in ids.items()}


ILLEGAL: dict[str, dict[str, Any]] = {
    "F03 another trust domain": {"names": (uri("spiffe://other.example/ns/shop/sa/web"),)},
    "F04 two URIs": {"names": (uri(str(WEB)), uri(str(ORDERS)))},
    **_illegal_ids(),
    "F05 no URI": {"names": (x509.DNSName("web.shop"),)},
    "F06 a signing certificate": {
        "constraints": x509.BasicConstraints(ca=True, path_length=0),
        "key_usage": usage("digital_signature", "key_cert_sign"),
    },
    "F07 keyCertSign": {"key_usage": usage("digital_signature", "key_cert_sign")},
    "F07 cRLSign": {"key_usage": usage("digital_signature", "crl_sign")},
    "F08 no extended key usage": {"purposes": None},
    "F08 one purpose": {"purposes": [ExtendedKeyUsageOID.CODE_SIGNING]},
    "F08 servers only": {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]},
    "F08 clients only": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "F10 NUL in the ID": {"names": raw_names((6, str(WEB).encode() + b"\0.example"))},
    "F10 no ASCII": {"names": raw_names((6, str(WEB).encode() + b"\xe9"))},
    "F10 an otherName beside it": {
        "names": (uri(str(WEB)), x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x03ann"))
    },
    "F10 the ID as a DNS name": {"names": raw_names((2, str(WEB).encode()))},
}


@pytest.mark.parametrize("bad_side", ["server", "client"])
@pytest.mark.parametrize("case", ILLEGAL)
@trio_test
async def test_f03_f04_f05_f06_f07_f08_f10_what_openssl_accepts_is_refused(case: str, bad_side: str) -> None:
    """Either OpenSSL refuses it in the handshake, or `check_peer` does after it; both ends are as strict."""
    bad, good = MESH.svid(WEB, **ILLEGAL[case]), MESH.svid(WEB)
    server = server_context(bad if bad_side == "server" else good, MESH.bundle)
    client = client_context(bad if bad_side == "client" else good, MESH.bundle)
    met = await meet(server, client)
    judge = met.client if bad_side == "server" else met.server
    with pytest.raises(PeerRefused) as caught:
        check(judge)
    if isinstance(judge, ssl.SSLSocket):
        same = {"F05", "F10"} if case[:3] == "F10" else {case[:3]}  # a name that cannot be read names nobody
        assert caught.value.row in same, "OpenSSL does not see this one: the row is ours"
    if case[:3] in ("F03", "F04"):
        assert isinstance(judge, ssl.SSLSocket), "nobody but us sees this one"
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


@pytest.mark.parametrize(("octets", "row"), [(6_000, "F22"), (40_000, "")])
@trio_test
async def test_f22_huge_certificates_are_refused(octets: int, row: str) -> None:
    """Three intermediates of 6 kB are more than 16 KiB together; OpenSSL itself stops at 100 kB, before any of it is
    parsed (SSL_CTX_set_max_cert_list(3))."""
    ballast = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\4\0" + bytes(octets))
    chain: list[Authority] = [MESH.root]
    now = time.time()
    for number in range(3):
        name, issuer = f"i{number}", chain[-1]
        extra = [(ballast, False)]
        chain.append(make_ca(name, issuer=issuer, extra=extra, not_before=now - 3600, not_after=now + 3600))
    fat = MESH.svid(WEB, chain=chain[1:])
    met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(fat, MESH.bundle))
    with pytest.raises(TlsError) as caught:
        check(met.server)
    assert caught.value.row == row
    if not row:
        assert "excessive message size" in str(caught.value)
    met.close()


@pytest.mark.parametrize("bad_side", ["server", "client"])
@trio_test
async def test_f23_an_authority_with_a_weak_key_is_refused(bad_side: str) -> None:
    """Not only leaves: RSA with exponent 3, which OpenSSL lets pass, in a certificate that the peer sends along."""
    now = time.time()
    key = odd_rsa_key(exponent=3)
    weak = make_ca("weak", issuer=MESH.root, key=key, not_before=now - 3600, not_after=now + 3600)
    bad, good = MESH.svid(WEB), MESH.svid(WEB)
    bad = replace(bad, chain_der=(*bad.chain_der, weak.der))
    server = server_context(bad if bad_side == "server" else good, MESH.bundle)
    client = client_context(bad if bad_side == "client" else good, MESH.bundle)
    met = await meet(server, client)
    with pytest.raises(PeerRefused) as caught:
        check(met.client if bad_side == "server" else met.server)
    assert caught.value.row == "F23"
    met.close()


# Revocation

INTERMEDIATE = MESH.intermediates(1)
OF_INTERMEDIATE = key_id(INTERMEDIATE[0].key.public_key())

REVOKED = {
    "identity": Revocations(identities=frozenset({WEB})),
    "serial": Revocations(serials=frozenset({4711})),
    "authority": Revocations(authorities=frozenset({OF_INTERMEDIATE})),
}


@pytest.mark.parametrize("bad_side", ["server", "client"])
@pytest.mark.parametrize("what", REVOKED)
@trio_test
async def test_f15_a_revoked_peer_is_refused_after_the_handshake(what: str, bad_side: str) -> None:
    """With its own error, by both ends; OpenSSL knows nothing of it."""
    svid = MESH.svid(WEB, chain=INTERMEDIATE)
    met = await meet(server_context(svid, MESH.bundle), client_context(svid, MESH.bundle))
    server, client = met.both()
    judge = client if bad_side == "server" else server
    for revocations in (NOTHING_REVOKED, Revocations(tainted_authorities=frozenset({OF_INTERMEDIATE}))):
        peer = check_peer(judge, TD, time.time(), None, revocations)
        assert peer.authority_ids == (OF_INTERMEDIATE,)
        assert peer.issuers_der == (INTERMEDIATE[0].der,)
    with pytest.raises(PeerRevoked, match=what) as caught:
        check_peer(judge, TD, time.time(), None, REVOKED[what])
    assert (caught.value.row, caught.value.reason) == ("F15", "peer_revoked")
    met.close()


@trio_test
async def test_f15_revocation_is_asked_between_who_it_is_and_whether_it_is_the_one_looked_for() -> None:
    """A certificate that is none is no business of revocation; a revoked one is told as such, wherever it is found."""
    other = MESH.svid(WEB, names=(uri("spiffe://other.example/ns/shop/sa/web"),))
    for svid, kind in ((other, PeerRefused), (MESH.svid(WEB), PeerRevoked)):
        met = await meet(server_context(svid, MESH.bundle), client_context(MESH.svid(WEB), MESH.bundle))
        assert isinstance(met.client, ssl.SSLSocket)
        with pytest.raises(kind):
            check_peer(met.client, TD, time.time(), {ORDERS}, REVOKED["serial"])
        met.close()


@trio_test
async def test_identical_chains_are_kept_once_for_all_connections() -> None:
    """A thousand callers under one authority cost its certificate once."""
    peers = []
    for _ in range(2):
        svid = MESH.svid(WEB, chain=INTERMEDIATE)
        met = await meet(server_context(MESH.svid(ORDERS), MESH.bundle), client_context(svid, MESH.bundle))
        peers.append(check(met.server))
        met.close()
    assert peers[0].issuers_der is peers[1].issuers_der
    assert peers[0].authority_ids is peers[1].authority_ids


@pytest.mark.parametrize("name", ["*.shop", "*.*.shop", "orders.shop", "*", "xn--orders-.shop"])
@trio_test
async def test_f28_dns_names_in_a_certificate_prove_nothing(name: str) -> None:
    """There is no edge yet that takes them, so there is no wildcard that could match too much: who has another's DNS
    name in its certificate is still nobody but its SPIFFE ID, asked for by that name or not."""
    svid = MESH.svid(WEB, names=(uri(str(WEB)), x509.DNSName(name)))
    met = await meet(server_context(svid, MESH.bundle), client_context(svid, MESH.bundle))
    assert check(met.server).identity == WEB
    with pytest.raises(WrongPeer):
        check(met.client, {ORDERS})
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
