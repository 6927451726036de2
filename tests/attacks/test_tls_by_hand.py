"""What a peer with a valid certificate can do below HTTP: the openssl command and CPython's ssl against a mesh port.

Edges that speak TLS 1.2 or prove DNS names do not exist: the rows about them (F13, F28) are tested for what stands in
their place, a mesh that has neither renegotiation nor names other than SPIFFE IDs."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from h2.events import StreamReset

from certs.bundle import TrustBundle
from certs.revocation import Revocations
from certs.svid import X509Svid
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.http.frames import PREFACE
from sidecar.net import tls_messages
from sidecar.net.connection import Connection
from sidecar.net.tls import client_context, server_context
from tests.attacks.support import ALLOW_ALL, App, Target, attacker, request, settled, target
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh
from tests.trio_support import trio_test

HELLO = PREFACE + b"\0\0\0\4\0\0\0\0\0"
"""The client's preface and its SETTINGS (RFC 9113 section 3.4)."""
EARLY_REQUEST = HELLO + b"\0\0\x04\x01\x05\0\0\0\x01\x82\x84\x86\x83"
"""With a request that needs no table: GET / http, and a field that is wrong; nobody may get to see it."""


class OpenSsl:
    """The files that the command wants, and its calls."""

    def __init__(self, directory: Path, svid: X509Svid, mesh: Mesh) -> None:
        self.directory = directory
        self.certificate, self.anchors = directory / "svid.pem", directory / "anchors.pem"
        self.certificate.write_bytes(svid.key_pem() + svid.chain_pem())
        self.anchors.write_bytes(mesh.bundle.pem())

    def command(self, address: tuple[str, int], *options: str) -> list[str]:
        pem = str(self.certificate)
        where = f"{address[0]}:{address[1]}"
        return ["openssl", "s_client", "-connect", where, "-CAfile", str(self.anchors), "-cert", pem,
                "-key", pem, "-cert_chain", pem, "-alpn", "h2", *options]  # fmt: skip

    async def client(self, it: Target, *options: str, say: bytes = b"") -> str:
        """All that it prints; `say` is sent, then it takes its leave."""
        done = await trio.run_process(
            self.command(it.address, *options), stdin=say, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
        return done.stdout.decode("latin-1")

    @contextmanager
    def talking(self, address: tuple[str, int], *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """One that stays, told what to do through its standard input."""
        command = self.command(address, *options)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as one:
            try:
                yield one
            finally:
                one.kill()


def mesh_connections(it: Target) -> list[Connection]:
    return [one for one in it.driver.connections if one.kind == "mesh_server"]


def read_until(one: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """Blocks. Ends with the output at the latest."""
    assert one.stdout is not None
    got = b""
    while wanted not in got and (more := os.read(one.stdout.fileno(), 65_536)):
        got += more
    return got


def rows_of(it: Target) -> list[str]:
    return [getattr(entry, "row", "") for entry in it.log.entries]


def refused(it: Target, row: str) -> int:
    return sum(count for (one, _), count in it.metrics._refused.items() if one == row)


# Versions, renegotiation, early data


@trio_test
async def test_f12_openssl_is_not_let_in_with_tls_1_2(tmp_path: Path) -> None:
    """With everything else right."""
    async with target(ALLOW_ALL, app=App()) as it:
        said = await OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh).client(it, "-tls1_2")
        assert "alert protocol version" in said
        assert not mesh_connections(it)
        assert "TLSv1.3" in await OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh).client(it)


@trio_test
async def test_f13_there_is_no_renegotiation(tmp_path: Path) -> None:
    """TLS 1.3 has none; a context somebody weakened to TLS 1.2 refuses it, and `check_peer` refuses such a peer."""
    async with target(ALLOW_ALL, app=App()) as it:
        for context in (it.identity.server_context(), it.identity.client_context()):
            assert context.options & ssl.OP_NO_RENEGOTIATION
        weak = it.identity.server_context()
        weak.minimum_version = weak.maximum_version = ssl.TLSVersion.TLSv1_2
        left = socket.create_server(("127.0.0.1", 0))
        done: list[str] = []

        def serve() -> None:
            sock, _ = left.accept()
            with weak.wrap_socket(sock, server_side=True) as tls:
                try:
                    while tls.recv(100):
                        pass
                except ssl.SSLError as error:
                    done.append(error.reason or "")

        openssl = OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with openssl.talking(left.getsockname(), "-tls1_2") as one:
                await trio.to_thread.run_sync(read_until, one, b"Verify return code")
                assert one.stdin is not None
                one.stdin.write(b"R\n")
                one.stdin.flush()
                said = await trio.to_thread.run_sync(read_until, one, b"no renegotiation")
            left.close()
        assert b"no renegotiation" in said
        it.identity.set(svid=it.mesh.svid(ORDERS))
        it.identity.server_context().minimum_version = ssl.TLSVersion.TLSv1_2
        await openssl.client(it, "-tls1_2", say=HELLO)
        await settled(lambda: "F12" in rows_of(it))
        assert not mesh_connections(it)


@contextmanager
def server_with_early_data(openssl: OpenSsl, mesh: Mesh) -> Iterator[tuple[str, int]]:
    """Somebody else's, of the same mesh: its tickets allow early data."""
    pem = openssl.directory / "server.pem"
    svid = mesh.svid(ORDERS)
    pem.write_bytes(svid.key_pem() + svid.chain_pem())
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(pem), "-key", str(pem), "-tls1_3",
               "-early_data", "-alpn", "h2", "-CAfile", str(openssl.anchors)]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as one:
        try:
            said = read_until(one, b"ACCEPT 127.0.0.1:")
            found = re.search(rb"ACCEPT 127\.0\.0\.1:(\d+)\n", said)
            assert found is not None, said
            yield "127.0.0.1", int(found[1])
        finally:
            one.kill()


async def get_ticket(openssl: OpenSsl, mesh: Mesh, session: Path) -> None:
    """Of that other server, into the file."""
    session.unlink(missing_ok=True)
    with server_with_early_data(openssl, mesh) as address, openssl.talking(address, "-sess_out", str(session)):
        await settled(lambda: session.exists() and b"END SSL SESSION" in session.read_bytes())


@trio_test
async def test_f16_early_data_is_not_taken(tmp_path: Path) -> None:
    """A client that has a ticket from somebody else and sends its request with the first flight: nobody reads it."""
    app = App()
    async with target(ALLOW_ALL, app=app) as it:
        openssl = OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh)
        session, early = tmp_path / "session.pem", tmp_path / "early"
        early.write_bytes(EARLY_REQUEST)
        await get_ticket(openssl, it.mesh, session)
        said = await openssl.client(it, "-sess_in", str(session), "-early_data", str(early))
        assert "Early data was rejected" in said
        assert "New, TLSv1.3" in said
        assert app.received == b""
        assert not it.records


# Resumption


@trio_test
async def test_f14_openssl_gets_no_ticket_and_resumes_nothing(tmp_path: Path) -> None:
    """Reconnecting with what it has of our session, and with a ticket of somebody else: a full handshake each time."""
    async with target(ALLOW_ALL, app=App()) as it:
        openssl = OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh)
        session = tmp_path / "ours.pem"
        said = await openssl.client(it, "-reconnect", "-sess_out", str(session), say=HELLO)
        assert said.count("New, TLSv1.3") == 6
        assert "Reused" not in said
        assert not session.exists(), "there is no ticket to keep"
        await get_ticket(openssl, it.mesh, session)
        said = await openssl.client(it, "-sess_in", str(session))
        assert "New, TLSv1.3" in said
        assert "Reused" not in said


Change = Callable[[Target, X509Svid], None]


def _revoke(it: Target, svid: X509Svid) -> None:
    it.identity.set(revocations=Revocations(identities=frozenset({svid.spiffe_id})))


def _drop_anchor(it: Target, svid: X509Svid) -> None:
    it.identity.set(bundle=Mesh().bundle)


def _outlive(it: Target, svid: X509Svid) -> None:
    while time.time() < svid.not_after:
        time.sleep(0.01)  # OpenSSL looks at the clock of the machine, so there is no other way


def visit(
    address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bytes, ssl.SSLSession | None, bool]:
    """Blocks: what the server said first (nothing: it hung up), the session, and whether it was resumed."""
    with socket.create_connection(address) as sock:
        try:
            with context.wrap_socket(sock, session=session) as tls:
                tls.sendall(HELLO)
                said = tls.recv(100)
                return said, tls.session, bool(tls.session_reused)
        except (ssl.SSLError, ConnectionError):
            return b"", None, False


@pytest.mark.parametrize("tickets", [False, True], ids=["as shipped", "tickets on"])
@pytest.mark.parametrize("change", [_revoke, _drop_anchor, _outlive])
@trio_test
async def test_f14_no_session_brings_back_who_is_not_trusted_any_more(change: Change, tickets: bool) -> None:
    """Expired, revoked, or under an anchor that is gone: its last session opens no door, with CPython's ssl, even if
    somebody switched tickets on, for a resumed session is refused as such."""
    old, new = Mesh(), Mesh()
    async with target(ALLOW_ALL, app=App(), mesh=new) as it:
        it.identity.set(bundle=TrustBundle.of(TD, [old.root.der, new.root.der]))
        lifetime_s = 2.5 if change is _outlive else 3600
        svid = old.svid(WEB, lifetime_s=lifetime_s)
        client = client_context(svid, new.bundle)
        if tickets:
            server = it.identity.server_context()
            server.options &= ~ssl.OP_NO_TICKET
            server.num_tickets = 2
        said, session, _ = await trio.to_thread.run_sync(visit, it.address, client)
        assert said, "at first it is let in"
        assert session is not None
        assert session.has_ticket is tickets
        before = len(it.log.entries)
        if change is _outlive:
            await trio.to_thread.run_sync(change, it, svid)
        else:
            change(it, svid)
        for held in (session, None):
            said, _, _ = await trio.to_thread.run_sync(visit, it.address, client, held)
            assert said == b""
        await settled(lambda: len(it.log.entries) >= before + 2)
        assert not mesh_connections(it)
        assert set(rows_of(it)) <= {"F14", "F15", "F01", "F02"}
        if tickets and change is not _drop_anchor:
            assert "F14" in rows_of(it), "the session was resumed, and refused for it"


# Messages besides data


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@pytest.mark.parametrize(("updates", "survives"), [(90, True), (130, False)])
@trio_test
async def test_f24_a_flood_of_key_updates_ends_its_connection(
    tmp_path: Path, updates: int, survives: bool, engine: str
) -> None:
    """They are all there before the sidecar reads: OpenSSL would handle them in one read, however many there are."""
    async with target(ALLOW_ALL, app=App(), engine=engine) as it:
        with OpenSsl(tmp_path, it.mesh.svid(WEB), it.mesh).talking(it.address) as one:
            await trio.to_thread.run_sync(read_until, one, b"Verify return code")
            await settled(lambda: mesh_connections(it))
            (connection,) = mesh_connections(it)
            assert one.stdin is not None
            for _ in range(updates):  # without a checkpoint, so the sidecar reads none of them
                one.stdin.write(b"K\n")
                one.stdin.flush()
                assert b"KEYUPDATE" in read_until(one, b"KEYUPDATE")
            one.stdin.write(HELLO)
            one.stdin.flush()
            if survives:
                await settled(lambda: connection._has_spoken)
                assert connection in mesh_connections(it)
            else:
                await settled(lambda: connection not in mesh_connections(it))
                assert not connection._has_spoken, "what came after the flood was thrown away"
                assert refused(it, "F24") == 1
        async with attacker(it) as peer:  # nobody else's connection ends with it
            assert (await peer.ask(request())).status == 200


def test_f24_few_are_counted_for_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that renews its keys now and then, for ever, is let be; what we send ourselves does not count."""
    ours, theirs = socket.socketpair()
    context = server_context(Mesh().svid(ORDERS), Mesh().bundle)
    sock = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(1_000):
        tls_messages._note(sock, "read", 772, 22, 24, b"")
        tls_messages._note(sock, "write", 772, 22, 24, b"")
        tls_messages._note(sock, "read", 772, 257, 23, b"")
        now += 1.1 / tls_messages.PER_SECOND_MAX
    assert not tls_messages.is_flooded(sock)
    theirs.send(b"what came after")
    for _ in range(tls_messages.PER_SECOND_MAX + 1):
        tls_messages._note(sock, "read", 772, 22, 4, b"")
    assert tls_messages.is_flooded(sock)
    assert socket.socket.recv(sock, 100, socket.MSG_DONTWAIT) == b"", "and nothing of it is left for OpenSSL to read"
    assert theirs.recv(1) == b""
    sock.close()
    theirs.close()


# The end of a connection


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@pytest.mark.parametrize("with_notice", [False, True], ids=["FIN alone", "close_notify"])
@trio_test
async def test_f25_a_connection_that_ends_is_no_end_of_a_body(with_notice: bool, engine: str) -> None:
    """Truncation, with close_notify or without (RFC 8446 section 6.1): only END_STREAM ends a body, so the app's
    request breaks off."""
    app = App(b"")
    async with target(ALLOW_ALL, app=app, engine=engine) as it:
        async with attacker(it) as peer:
            stream = peer.open(request(b"/upload", b"POST"), end=False)
            peer.h2.send_data(stream, b"all my orders, and")
            await peer.flush()
            await settled(lambda: b"all my orders, and" in app.received)
            if with_notice:
                with pytest.raises(ssl.SSLWantReadError):
                    peer.stream._ssl_object.unwrap()
                await peer.stream.transport_stream.send_all(peer.stream._outgoing.read())
            peer.stream.transport_stream.socket.shutdown(socket.SHUT_WR)
            await settled(lambda: it.records)
        ((exchange, _),) = it.records
        assert exchange.how_ended == "client_reset"  # type: ignore[attr-defined]
        assert not app.received.endswith(b"0\r\n\r\n"), "the last chunk would say that this was all"


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@trio_test
async def test_f25_a_reset_of_the_app_is_a_reset_for_the_caller(engine: str) -> None:
    """The other way: an answer cut short is not one that ended."""
    app = App(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    async with target(ALLOW_ALL, app=app, engine=engine) as it, attacker(it) as peer:
        stream = peer.open(request())
        await peer.flush()
        await settled(lambda: app.connections)
        (connection,) = [one for one in it.driver.connections if one.kind == "app_client"]
        await settled(lambda: it.runtime.live_count and connection.session.open_streams)
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        reset = await peer.until(lambda event: isinstance(event, StreamReset) and event.stream_id == stream)
        assert isinstance(reset, StreamReset)


# Before the handshake is over


def in_records(hello: bytes, size: int) -> bytes:
    """A record's content, cut into records of at most `size` octets."""
    content = hello[5:]
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("identity", ["legal", "none"])
@trio_test
async def test_f27_a_hello_in_a_thousand_records_meets_the_same_checks(identity: str) -> None:
    """Nothing looks into a ClientHello before OpenSSL does, so there is nothing to walk around: who has a certificate
    gets in, who has none does not, whatever the records look like. Only TLS 1.3 is offered."""
    async with target(ALLOW_ALL, app=App()) as it:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        svid = it.mesh.svid(WEB) if identity == "legal" else None
        client = client_context(svid, it.mesh.bundle).wrap_bio(incoming, outgoing)
        async with await trio.open_tcp_stream(*it.address) as stream:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            await stream.send_all(in_records(outgoing.read(), 1))
            incoming.write(await stream.receive_some(65_536))
            client.do_handshake()
            client.write(HELLO)
            await stream.send_all(outgoing.read())
            if identity == "legal":
                await settled(lambda: mesh_connections(it))
            else:
                await settled(lambda: it.log.entries)
                assert not mesh_connections(it)


@pytest.mark.parametrize(
    "record",
    [b"\x16\x03\x01\0\0", b"\x14\x03\x03\0\x01\x01", b"\x15\x03\x03\0\x02\x01\x5a", b"\x17\x03\x03\0\0"],
    ids=["empty handshake", "change cipher spec", "warning", "empty data"],
)
@trio_test
async def test_f27_a_flood_of_records_before_the_hello_ends_the_connection(record: bytes) -> None:
    """Not at the deadline: at once. The others are served."""
    async with target(ALLOW_ALL, app=App()) as it:
        stream = await trio.open_tcp_stream(*it.address)
        async with stream:
            try:
                await stream.send_all(record * 20_000)
                while await stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                pass
        assert "F21" not in rows_of(it), "nobody waited for the deadline"
        assert len(it.log.entries) == 1
        async with attacker(it) as peer:
            assert (await peer.ask(request())).status == 200
