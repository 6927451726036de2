"""The socket of the Workload API against what a hostile or broken local process can send it.

Whoever has the socket is this workload already; the worst that may come of it is that this one caller gets nothing."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
import trio

from protos.spiffe import workload_pb2 as pb
from sidecar.config import Timeouts
from sidecar.errors import ConfigError
from sidecar.http.frames import PREFACE
from sidecar.identity.workload_api.calls import MESSAGE_OCTETS_MAX
from sidecar.identity.workload_api.endpoint import CONNECTIONS_MAX, STREAMS_MAX, bind_endpoint, peer_of
from tests.sidecar.identity.workload_api.served import Served, client, serving
from tests.sidecar.mesh import WEB
from tests.trio_support import trio_test

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HEAD = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/SpiffeWorkloadAPI/FetchX509SVID"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"workload.spiffe.io", b"true"),
]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def headers(stream: int, fields: list[tuple[bytes, bytes]] = HEAD, *, end: bool = False) -> bytes:
    """HPACK literals without indexing (RFC 7541 section 6.2.2); lengths below 127."""
    block = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)
    return frame(1, 0x4 | end, stream, block)


async def connected(served: Served) -> trio.SocketStream:
    return await trio.open_unix_socket(str(served.path))


async def end_of(stream: trio.SocketStream) -> bytes:
    """All that comes until the server has ended the connection."""
    got = b""
    try:
        while data := await stream.receive_some(65_536):
            got += data
    except trio.BrokenResourceError:
        pass
    return got


async def still_serves(served: Served) -> bool:
    """Whoever asks properly is answered."""

    def ask() -> str:
        with client(served.path) as one:
            return next(one.x509_svids()).svids[0].spiffe_id

    return await trio.to_thread.run_sync(ask) == str(WEB)


@trio_test
async def test_g29_a_call_without_the_security_header_gets_nothing(tmp_path: Path) -> None:
    """INVALID_ARGUMENT for every method, known or not, and counted: who only tricks a client does not set headers."""
    async with serving(tmp_path) as served:
        served.join()

        def ask() -> list[grpc.StatusCode]:
            codes = []
            with client(served.path) as one:
                for method in ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "FetchJWTSVID", "Nothing"):
                    with pytest.raises(grpc.RpcError) as raised:
                        list(one.stream(method, pb.X509SVIDRequest(), pb.X509SVIDResponse, header=False))
                    codes.append(raised.value.code())
            return codes

        assert await trio.to_thread.run_sync(ask) == [grpc.StatusCode.INVALID_ARGUMENT] * 5
        assert served.refused == [("G29", "no_security_header")] * 5
        assert await still_serves(served)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nworkload.spiffe.io: true\r\n\r\n",
        b"POST /SpiffeWorkloadAPI/FetchX509SVID HTTP/1.1\r\nHost: a\r\nworkload.spiffe.io: true\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x00\xf1\x01",
        b"\0" * 64,
    ],
)
def test_g29_what_does_not_begin_with_http2_is_told_nothing(octets: bytes, tmp_path: Path) -> None:
    """HTTP/1.1 is what a tricked client speaks: not one octet comes back."""

    @trio_test
    async def run() -> None:
        async with serving(tmp_path) as served:
            served.join()
            async with await connected(served) as stream:
                await stream.send_all(octets)
                assert await end_of(stream) == b""
            assert served.refused == [("G29", "not_http2")]

    run()


Attack = Callable[[trio.SocketStream], Awaitable[None]]


def sends(octets: bytes) -> Attack:
    async def attack(stream: trio.SocketStream) -> None:
        await stream.send_all(PREFACE + octets)

    return attack


PING_FLOOD = SETTINGS + frame(6, 0, 0, b"12345678") * 200_000
SETTINGS_FLOOD = SETTINGS * 50_000
RESETS = SETTINGS + b"".join(
    headers(1 + 2 * n, end=False) + frame(3, 0, 1 + 2 * n, b"\0\0\0\x08") for n in range(5_000)
)


@pytest.mark.parametrize("engine", ["relay", "reference"])
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(sends(frame(0, 0, 1, b"x")), id="DATA before SETTINGS"),
        pytest.param(sends(SETTINGS + frame(0, 0, 0, b"x")), id="DATA on stream 0"),
        pytest.param(sends(SETTINGS + frame(1, 4, 2, b"")), id="an even stream"),
        pytest.param(sends(SETTINGS + frame(1, 0, 1, b"") + frame(6, 0, 0, b"12345678")), id="PING inside a head"),
        pytest.param(sends(SETTINGS + (1 << 23).to_bytes(3) + b"\0\0" + b"\0" * 4), id="a frame of eight megabytes"),
        pytest.param(sends(SETTINGS + frame(1, 4, 1, b"\xff" * 40)), id="HPACK that is none"),
        pytest.param(sends(SETTINGS + frame(4, 0, 0, b"\0\4\xff\xff\xff\xff")), id="a window beyond 2^31"),
        pytest.param(sends(PING_FLOOD), id="a flood of PING"),
        pytest.param(sends(SETTINGS_FLOOD), id="a flood of SETTINGS"),
        pytest.param(sends(RESETS), id="rapid reset"),
        pytest.param(sends(SETTINGS + frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 10_000), id="CONTINUATION for ever"),
    ],
)
def test_a_connection_that_breaks_http2_or_floods_is_ended(attack: Attack, engine: str, tmp_path: Path) -> None:
    """That one and no other; the engine's budgets stand before these calls as before any."""

    @trio_test
    async def run() -> None:
        async with serving(tmp_path, engine=engine) as served:
            served.join()
            async with await connected(served) as stream, trio.open_nursery() as nursery:

                async def send() -> None:
                    try:
                        await attack(stream)
                    except trio.BrokenResourceError:
                        pass

                nursery.start_soon(send)
                await end_of(stream)
                nursery.cancel_scope.cancel()
            assert not served.endpoint.calls.open
            assert await still_serves(served)

    run()


@trio_test
async def test_random_octets_harm_nobody(tmp_path: Path) -> None:
    """Two hundred connections of noise behind a good beginning; nothing unexpected is logged."""
    rng = random.Random(29)
    async with serving(tmp_path, timeouts=Timeouts(headers_s=0.5)) as served:
        served.join()
        for _ in range(200):
            async with await connected(served) as stream:
                noise = rng.randbytes(rng.randrange(400))
                begin = rng.choice([b"", PREFACE, PREFACE + SETTINGS, PREFACE + SETTINGS + headers(1)])
                try:
                    await stream.send_all(begin + noise)
                except trio.BrokenResourceError:
                    pass
        assert await still_serves(served)


@pytest.mark.parametrize("declared", [MESSAGE_OCTETS_MAX + 1, 0xFFFFFFFF])
def test_a_message_that_is_too_large_is_refused_by_its_length(declared: int, tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED before it has come; nothing of it is kept."""

    @trio_test
    async def run() -> None:
        async with serving(tmp_path) as served:
            served.join()
            async with await connected(served) as stream:
                await stream.send_all(
                    PREFACE + SETTINGS + headers(1) + frame(0, 0, 1, b"\0" + struct.pack(">I", declared) + b"a" * 100)
                )
                got = b""
                with trio.fail_after(5):
                    while frame(3, 0, 1, b"\0\0\0\0") not in got:  # RST_STREAM(NO_ERROR) follows the status
                        got += await stream.receive_some(65_536)
                assert not served.endpoint.calls.open
            assert await still_serves(served)

    run()


@trio_test
async def test_slow_callers_are_not_waited_for(tmp_path: Path) -> None:
    """One that says nothing, one that stops within the preface, a frame or a head, one without its message."""
    async with serving(tmp_path, timeouts=Timeouts(headers_s=0.3)) as served:
        served.join()
        for octets in (b"", PREFACE[:10]):
            async with await connected(served) as stream:
                await stream.send_all(octets)
                assert await end_of(stream) == b""
        for octets in (PREFACE + SETTINGS + headers(1)[:20], PREFACE + SETTINGS + frame(1, 0, 1, b"")):
            async with await connected(served) as stream:
                await stream.send_all(octets)
                assert await end_of(stream)  # our SETTINGS, and a GOAWAY
        async with await connected(served) as stream:
            await stream.send_all(PREFACE + SETTINGS + headers(1))
            got = b""
            with trio.fail_after(5):
                while frame(3, 0, 1, b"\0\0\0\0") not in got:
                    got += await stream.receive_some(65_536)
        assert await still_serves(served)


@trio_test
async def test_a_thousand_connections_leave_room_for_nobody_but_harm_nobody(tmp_path: Path) -> None:
    """At most `CONNECTIONS_MAX` are kept, the rest is closed at once; when they go, all is well."""
    async with serving(tmp_path, timeouts=Timeouts(headers_s=30)) as served:
        served.join()
        streams = [await connected(served) for _ in range(1_000)]
        ended = 0

        async def wait_ended(stream: trio.SocketStream) -> None:
            nonlocal ended
            await end_of(stream)
            ended += 1
            if ended == 1_000 - CONNECTIONS_MAX:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(wait_ended, stream)
        assert served.endpoint.refused_connections == 1_000 - CONNECTIONS_MAX
        for stream in streams:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await still_serves(served)


@trio_test
async def test_streams_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """REFUSED_STREAM; those within it are served."""
    async with serving(tmp_path) as served:
        served.join()
        async with await connected(served) as stream:
            opened = [headers(1 + 2 * n) + frame(0, 1, 1 + 2 * n, b"\0" * 5) for n in range(STREAMS_MAX + 3)]
            await stream.send_all(PREFACE + SETTINGS + b"".join(opened))
            got = b""
            with trio.fail_after(5):
                while got.count(b"\0\0\x04\x03\0") < 3:
                    got += await stream.receive_some(65_536)
            assert len(served.endpoint.calls.open) == STREAMS_MAX


# The socket's file


def test_the_socket_is_ours_alone_unless_the_configuration_says_otherwise(tmp_path: Path) -> None:
    """0600 whatever the umask; 0660 if that was asked for."""
    for mode in ("0600", "0660"):
        path = tmp_path / mode
        old = os.umask(0)
        try:
            bind_endpoint(str(path), mode).close()
        finally:
            os.umask(old)
        assert stat.S_IMODE(path.lstat().st_mode) == int(mode, 8)


def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    """Nobody listens there, and it is ours."""
    path = tmp_path / "agent.sock"
    bind_endpoint(str(path), "0600").close()
    listener = bind_endpoint(str(path), "0600")
    with listener, socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        accepted, _ = listener.accept()
        with accepted:
            caller = peer_of(accepted)
            assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_what_is_not_a_dead_socket_of_ours_stays(tmp_path: Path) -> None:
    """A file, a link, a socket that somebody serves: refused with the way out."""
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket is there; choose another path or remove it"):
        bind_endpoint(str(path), "0600")
    assert path.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="no socket is there"):
        bind_endpoint(str(link), "0600")
    served = tmp_path / "served"
    with bind_endpoint(str(served), "0600"), pytest.raises(ConfigError, match="another process serves there"):
        bind_endpoint(str(served), "0600")
    with pytest.raises(ConfigError, match="make its directory first"):
        bind_endpoint(str(tmp_path / "none" / "agent.sock"), "0600")


def test_a_socket_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be a trap, or somebody's."""
    path = tmp_path / "agent.sock"
    bind_endpoint(str(path), "0600").close()
    monkeypatch.setattr(os, "geteuid", lambda: path.lstat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        bind_endpoint(str(path), "0600")
    assert path.is_socket()


def test_a_user_without_the_right_cannot_connect() -> None:
    """The kernel asks for the right to write (unix(7)). As root, for nobody else may become somebody else."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "agent.sock"
        os.chmod(directory, 0o755)  # noqa: S103  # who is kept out is kept out by the socket
        with bind_endpoint(str(path), "0600"):
            if os.geteuid() == 0:
                assert connected_as_nobody(path) == errno.EACCES
                path.chmod(0o666)
                assert connected_as_nobody(path) == 0
            else:
                assert not path.lstat().st_mode & 0o077


def connected_as_nobody(path: Path) -> int:
    """The error number, or 0."""
    os.seteuid(65_534)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path))
    finally:
        os.seteuid(0)
