"""Binding that explains itself, and an accept loop that outlives a shortage."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from sidecar.config import Address
from sidecar.errors import ConfigError
from sidecar.net.listener import Gate, bind, bound_address, serve
from tests.sidecar.net.support import read_all, read_exactly, settled
from tests.trio_support import trio_test

ANY = Address("127.0.0.1", 0)
ServeOne = Callable[[socket.socket], Awaitable[None]]


# bind


def test_port_zero_takes_any_free_one() -> None:
    """And `bound_address` tells which."""
    with bind(ANY, "mesh_listen") as sock:
        address = bound_address(sock)
        assert address.host == "127.0.0.1"
        assert address.port > 0
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_a_port_in_use_is_explained() -> None:
    """Field, address, reason and the way out."""
    with bind(ANY, "mesh_listen") as sock:
        address = bound_address(sock)
        with pytest.raises(ConfigError) as caught:
            bind(address, "outbound.listen")
    text = str(caught.value)
    assert text.startswith(f"outbound.listen: cannot listen on 127.0.0.1:{address.port}: the port is in use")
    assert "choose another" in text


def test_an_address_of_another_machine_is_explained() -> None:
    """192.0.2.0/24 is documentation's (RFC 5737) and nobody's."""
    with pytest.raises(ConfigError, match=r"admin: cannot listen on 192\.0\.2\.1:0: this machine has no such address"):
        bind(Address("192.0.2.1", 0), "admin")


def test_a_port_that_was_just_closed_can_be_bound_again() -> None:
    """A restart must not wait for TIME_WAIT."""
    sock = bind(ANY, "x")
    address = bound_address(sock)
    with socket.create_connection((address.host, address.port)):
        sock.accept()[0].close()
    sock.close()
    bind(address, "x").close()


def test_ipv6_addresses_are_bound_as_such() -> None:
    """`::1` is loopback too."""
    with bind(Address("::1", 0), "x") as sock:
        assert str(bound_address(sock)).startswith("[::1]:")


def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600, from the first moment."""
    path = tmp_path / "app.sock"
    with bind(Address(path=str(path)), "admin") as sock:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert bound_address(sock) == Address(path=str(path))


def test_a_socket_left_behind_is_replaced_but_a_file_never(tmp_path: Path) -> None:
    """A crash leaves its socket; anything else at that path is somebody's."""
    path = tmp_path / "app.sock"
    bind(Address(path=str(path)), "admin").close()
    bind(Address(path=str(path)), "admin").close()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(ConfigError, match="admin: cannot listen on unix:"):
        bind(Address(path=str(file)), "admin")
    assert file.read_text() == "precious"


# serve


@asynccontextmanager
async def serving(listener: socket.socket, gate: Gate, serve_one: ServeOne) -> AsyncIterator[tuple[str, int]]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, gate, serve_one)
        address = bound_address(listener)
        yield address.host, address.port
        nursery.cancel_scope.cancel()


def dialled(where: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(where)
    sock.setblocking(False)
    return sock


async def echo(sock: socket.socket) -> None:
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(100)
        if not data:
            return
        sock.send(data)


@trio_test
async def test_each_connection_is_served_non_blocking_and_closed_at_its_end() -> None:
    """And the gate counts those that are open."""
    gate = Gate(10)
    async with serving(bind(ANY, "x"), gate, echo) as where:
        with dialled(where) as one, dialled(where) as two:
            one.send(b"one")
            two.send(b"two")
            assert await read_exactly(one, 3) == b"one"
            assert await read_exactly(two, 3) == b"two"
            assert gate.open == 2
        await settled(lambda: gate.open == 0)
    assert gate.refused == 0


@trio_test
async def test_i03_the_newest_connection_is_refused_when_there_are_too_many() -> None:
    """Those that are served stay; a place that is free again is given away."""
    gate = Gate(2)
    async with serving(bind(ANY, "x"), gate, echo) as where:
        first, second, third = dialled(where), dialled(where), dialled(where)
        assert await read_all(third) == b""
        assert (gate.open, gate.refused) == (2, 1)
        first.send(b"1")
        assert await read_exactly(first, 1) == b"1"
        first.close()
        await settled(lambda: gate.open == 1)
        fourth = dialled(where)
        fourth.send(b"4")
        assert await read_exactly(fourth, 1) == b"4"
        for sock in (second, third, fourth):
            sock.close()


@trio_test
async def test_i03_a_burst_does_not_slip_past_the_gate() -> None:
    """A connection counts from its accept, not from when its task begins."""
    gate = Gate(3)
    counts: list[int] = []

    async def count(sock: socket.socket) -> None:
        counts.append(gate.open)
        await echo(sock)

    listener = bind(ANY, "x")
    address = bound_address(listener)
    clients = [dialled((address.host, address.port)) for _ in range(20)]  # all wait in the backlog
    async with serving(listener, gate, count):
        await settled(lambda: gate.open + gate.refused == 20)
        assert (gate.open, gate.refused) == (3, 17)
    assert max(counts) <= 3
    for sock in clients:
        sock.close()


class Failing(socket.socket):
    """A listener whose `accept` fails first, as often as it is told."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            code = self.failures.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


def failing(*codes: int) -> Failing:
    listener = Failing(fileno=bind(ANY, "x").detach())
    listener.setblocking(False)
    listener.failures = list(codes)
    return listener


@trio_test
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_i04_a_shortage_is_paused_for_and_outlived(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """The connection that could not be accepted is served when there is room again."""
    caplog.set_level(logging.WARNING)
    async with serving(failing(code, code), Gate(10), echo) as where:
        with dialled(where) as client:
            client.send(b"still here")
            assert await read_exactly(client, 10) == b"still here"
    warnings = [r for r in caplog.records if "want of resources" in r.message]
    assert len(warnings) == 2
    assert getattr(warnings[0], "error") == errno.errorcode[code]  # noqa: B009 - an extra field of the record


@trio_test
async def test_a_peer_that_is_gone_before_it_was_accepted_is_nothing() -> None:
    """ECONNABORTED, EAGAIN: no pause, no line in the log."""
    async with serving(failing(errno.ECONNABORTED, errno.EAGAIN), Gate(10), echo) as where:
        with dialled(where) as client:
            client.send(b"next")
            assert await read_exactly(client, 4) == b"next"


def test_any_other_error_of_accept_is_a_bug_and_propagates() -> None:
    """Surviving what nobody understands hides it."""

    async def main() -> None:
        listener = failing(errno.EINVAL)
        address = bound_address(listener)
        with dialled((address.host, address.port)), trio.fail_after(10):
            await serve(listener, Gate(1), echo)

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert caught.group_contains(OSError, match="Invalid argument")


@trio_test
async def test_what_goes_wrong_on_one_connection_ends_that_one(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and closed; the listener goes on."""
    caplog.set_level(logging.ERROR)

    async def bug_then_echo(sock: socket.socket) -> None:
        await trio.lowlevel.wait_readable(sock)
        if sock.recv(1, socket.MSG_PEEK) == b"!":
            raise AssertionError("cannot happen")
        await echo(sock)

    gate = Gate(10)
    async with serving(bind(ANY, "x"), gate, bug_then_echo) as where:
        with dialled(where) as bad, dialled(where) as good:
            bad.send(b"!")
            with pytest.raises(ConnectionResetError):  # closed with its byte unread
                await read_all(bad)
            good.send(b"ok")
            assert await read_exactly(good, 2) == b"ok"
            assert gate.open == 1
    assert "unexpected error on a connection" in caplog.text


@trio_test
async def test_the_end_of_serving_closes_the_listener() -> None:
    """The port is free again."""
    listener = bind(ANY, "x")
    async with serving(listener, Gate(1), echo):
        pass
    assert listener.fileno() == -1
