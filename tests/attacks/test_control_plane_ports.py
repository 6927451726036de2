"""Peers without a certificate at the control plane's ports: they get nothing, and take nothing from anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from control_plane.api.server import Addresses
from control_plane.app import serve
from control_plane.config import ControlPlaneConfig, ListenAddress

ANY = ListenAddress("127.0.0.1", 0)
GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 64,
    b"\x16\x03\x01\xff\xff" + b"\xff" * 1_000,
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" * 20,
    b"\0" * 4_096,
]
JOIN_CONNECTIONS_MAX = 256


async def served(data_dir: Path, until: asyncio.Event, started: asyncio.Future[Addresses]) -> None:
    config = ControlPlaneConfig(data_dir=data_dir, listen=ANY, join_listen=ANY)
    task = asyncio.create_task(serve(config, started=started.set_result))
    await until.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_answered(addresses: Addresses) -> bool:
    """Does the operator's socket still speak HTTP/2?"""
    reader, writer = await asyncio.open_unix_connection(str(addresses.operator_socket))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    frame = await asyncio.wait_for(reader.readexactly(9), 5)
    writer.close()
    return frame[3] == 4


@pytest.mark.parametrize("octets", GARBAGE, ids=range(len(GARBAGE)))
def test_g17_garbage_at_a_port_ends_its_connection_and_nothing_else(octets: bytes, tmp_path: Path) -> None:
    """Closed without a word that helps; the control plane goes on."""

    async def main() -> None:
        stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(served(tmp_path / "cp", stop, started))
        addresses = await started
        for address in (addresses.listen, addresses.join_listen):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(octets)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), 15)
                assert b"HTTP/" not in answer
                assert len(answer) < 64
            writer.close()
        assert await is_answered(addresses)
        stop.set()
        await task

    asyncio.run(main())


def test_i03_connections_to_the_join_port_leave_descriptors_to_others(tmp_path: Path) -> None:
    """Anybody may connect there; whoever connects too often is turned away at the door."""

    async def main() -> None:
        stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(served(tmp_path / "cp", stop, started))
        addresses = await started
        join = addresses.join_listen
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket()) for _ in range(JOIN_CONNECTIONS_MAX + 64)]
            turned_away = 0
            for sock in socks:
                sock.setblocking(False)
                await loop.sock_connect(sock, (join.host, join.port))
            while turned_away < 64:  # the test's own time limit is the bound: without a cap this never ends
                await asyncio.sleep(0.01)
                turned_away = sum(is_closed(sock) for sock in socks)
            assert turned_away == 64
            assert await is_answered(addresses)
        stop.set()
        await task

    asyncio.run(asyncio.wait_for(main(), 20))


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
