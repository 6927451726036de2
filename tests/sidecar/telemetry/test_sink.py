"""Writing to a descriptor of any kind never blocks the loop and never changes it for those who share it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.telemetry.sink import Sink
from tests.trio_support import trio_test


def fill(fd: int) -> int:
    """Fill a pipe through a description of its own; how many octets it took."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    count = 0
    try:
        while True:
            count += os.write(own, b"x" * select.PIPE_BUF)
    except BlockingIOError:
        return count
    finally:
        os.close(own)


def read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def is_blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


@trio_test
async def test_i08_a_full_pipe_makes_only_the_writer_wait() -> None:
    """The pipe stays blocking for everybody else, the loop goes on, and the write comes through when it is read."""
    read_fd, write_fd = os.pipe()
    filled = fill(write_fd)
    with Sink(write_fd) as sink:
        assert is_blocking(write_fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.write, b"late\n")
            await trio.testing.wait_all_tasks_blocked()
            assert read_exactly(read_fd, filled) == b"x" * filled
        assert os.read(read_fd, 100) == b"late\n"
    os.close(write_fd)
    os.close(read_fd)


@trio_test
async def test_i08_a_pipe_that_may_not_be_opened_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth case: the pipe of another user. It is polled before each write."""
    read_fd, write_fd = os.pipe()
    filled = fill(write_fd)

    def refuse(*_: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        sink = Sink(write_fd)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.write, b"late\n")
        await trio.testing.wait_all_tasks_blocked()
        assert read_exactly(read_fd, filled) == b"x" * filled
    assert os.read(read_fd, 100) == b"late\n"
    sink.close()
    os.close(write_fd)
    os.close(read_fd)


@trio_test
async def test_a_socket_is_written_without_blocking() -> None:
    """Standard error under systemd is a socket; its flags stay as they are."""
    ours, theirs = socket.socketpair()
    filled = 0
    try:
        while True:
            filled += ours.send(b"x" * 4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
    with Sink(ours.fileno()) as sink:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.write, b"late\n")
            await trio.testing.wait_all_tasks_blocked()
            assert is_blocking(ours.fileno())
            assert read_exactly(theirs.fileno(), filled) == b"x" * filled
        assert theirs.recv(100) == b"late\n"
    ours.send(b"still open")
    ours.close()
    theirs.close()


@trio_test
async def test_a_file_is_written_at_the_place_its_other_writers_are(tmp_path: Path) -> None:
    """`2>log` shares one offset: opening the file again would overwrite what others wrote."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before\n")
    with Sink(fd) as sink:
        await sink.write(b"ours\n")
        os.write(fd, b"after\n")
    os.close(fd)
    assert path.read_bytes() == b"before\nours\nafter\n"


@trio_test
async def test_a_terminal_is_written() -> None:
    """The ordinary case on a laptop."""
    master, slave = pty.openpty()
    with Sink(slave) as sink:
        await sink.write(b"hello\n")
    assert os.read(master, 100).replace(b"\r\n", b"\n") == b"hello\n"
    os.close(slave)
    os.close(master)


@trio_test
async def test_the_null_device_takes_everything() -> None:
    """It cannot be polled, and need not be."""
    with open(os.devnull, "wb") as null, Sink(null.fileno()) as sink:
        await sink.write(b"x" * 100_000)


@trio_test
async def test_a_pipe_nobody_reads_is_an_error_of_the_write() -> None:
    """EPIPE is raised to the caller, who counts the lines as lost."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with Sink(write_fd) as sink:
        with pytest.raises(BrokenPipeError):
            await sink.write(b"x")
        sink.close()
    os.close(write_fd)


def test_a_closed_descriptor_is_refused_at_once() -> None:
    """Raises OSError rather than fail at the first line."""
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Sink(write_fd)
    os.close(read_fd)
