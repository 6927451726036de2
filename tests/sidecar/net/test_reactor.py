"""One epoll for all sockets: who is called, in which rounds, and that nobody owns the loop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from sidecar.net import reactor as module
from sidecar.net.reactor import Reactor
from tests.sidecar.net.support import settled, socket_pair
from tests.trio_support import trio_test


class Rounds:
    """Counts rounds, and what was called in each."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open = False

    def before(self) -> None:
        assert not self.open
        self.open = True
        self.calls.append([])

    def after(self) -> None:
        self.open = False

    def note(self, name: str) -> None:
        assert self.open, "called outside of a round"
        self.calls[-1].append(name)

    @property
    def all(self) -> list[str]:
        return [name for calls in self.calls for name in calls]


@asynccontextmanager
async def reacting(rounds: Rounds) -> AsyncIterator[Reactor]:
    async with trio.open_nursery() as nursery:
        reactor = Reactor(rounds.before, rounds.after)
        nursery.start_soon(reactor.run)
        yield reactor
        nursery.cancel_scope.cancel()


def reader(sock: socket.socket, rounds: Rounds, name: str, octets: int = 65_536) -> Callable[[], None]:
    def read() -> None:
        rounds.note(name)
        sock.recv(octets)

    return read


@trio_test
async def test_sockets_that_are_ready_together_share_a_round() -> None:
    """What they had to say is flushed once."""
    rounds = Rounds()
    async with reacting(rounds) as reactor:
        ends = [socket_pair() for _ in range(3)]
        for index, (ours, peer) in enumerate(ends):
            peer.send(b"x")
            reactor.add(ours.fileno(), reader(ours, rounds, str(index)))
        await settled(lambda: len(rounds.all) == 3)
        assert [sorted(calls) for calls in rounds.calls] == [["0", "1", "2"]]
        for pair in ends:
            reactor.remove(pair[0].fileno())
            for sock in pair:
                sock.close()


@trio_test
async def test_what_is_left_in_the_kernel_is_read_before_anything_is_sent() -> None:
    """A callback may read as little as it likes; up to ROUNDS_MAX times its turn goes on."""
    rounds = Rounds()
    async with reacting(rounds) as reactor:
        ours, peer = socket_pair()
        peer.send(b"abc")
        reactor.add(ours.fileno(), reader(ours, rounds, "one", 1))
        await settled(lambda: len(rounds.all) == 3)
        assert rounds.calls == [["one"] * 3]
        reactor.remove(ours.fileno())
        ours.close()
        peer.close()


@trio_test
async def test_whoever_asks_is_called_again_although_the_kernel_has_nothing() -> None:
    """TLS decrypts more than it hands out; asked for inside a round and outside of one."""
    rounds = Rounds()
    async with reacting(rounds) as reactor:
        ours, peer = socket_pair()

        def callback() -> None:
            rounds.note("one")
            if len(rounds.all) < 3:
                reactor.again(ours.fileno())

        reactor.add(ours.fileno(), callback)
        await trio.testing.wait_all_tasks_blocked()
        assert rounds.all == []
        reactor.again(ours.fileno())
        await settled(lambda: len(rounds.all) == 3)
        await trio.testing.wait_all_tasks_blocked()
        assert rounds.calls == [["one"]] * 3  # what was said is sent in between: others must not wait for it
        reactor.remove(ours.fileno())
        ours.close()
        peer.close()


@trio_test
async def test_a_callback_that_raises_costs_nobody_else_anything(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the others of its round are called, and so are later rounds."""
    rounds = Rounds()
    async with reacting(rounds) as reactor:
        (bad, bad_peer), (good, good_peer) = socket_pair(), socket_pair()

        def fails() -> None:
            bad.recv(1)
            raise RuntimeError("a bug")

        bad_peer.send(b"x")
        good_peer.send(b"x")
        reactor.add(bad.fileno(), fails)
        reactor.add(good.fileno(), reader(good, rounds, "good"))
        await settled(lambda: rounds.all == ["good"])
        good_peer.send(b"x")
        await settled(lambda: rounds.all == ["good", "good"])
        for sock in (bad, good):
            reactor.remove(sock.fileno())
        for sock in (bad, bad_peer, good, good_peer):
            sock.close()
    assert "a bug" in caplog.text


@trio_test
async def test_a_callback_may_remove_another_of_its_round() -> None:
    """Which then is not called: its descriptor may be somebody else's already."""
    rounds = Rounds()
    async with reacting(rounds) as reactor:
        ends = [socket_pair() for _ in range(2)]

        def callback(mine: int) -> Callable[[], None]:
            def run() -> None:
                rounds.note(str(mine))
                for ours, _ in ends:
                    reactor.remove(ours.fileno())

            return run

        for index, (ours, peer) in enumerate(ends):
            peer.send(b"x")
            reactor.add(ours.fileno(), callback(index))
        await settled(lambda: rounds.all)
        await trio.testing.wait_all_tasks_blocked()
        assert len(rounds.all) == 1
        for pair in ends:
            for sock in pair:
                sock.close()


@trio_test
async def test_a39_a_socket_that_is_always_ready_does_not_own_the_loop() -> None:
    """Every other task runs between two wake-ups of the reactor, which are ROUNDS_MAX rounds each."""
    rounds = Rounds()
    seen: list[int] = []
    async with reacting(rounds) as reactor:
        ours, peer = socket_pair()
        peer.send(b"x")
        reactor.add(ours.fileno(), lambda: rounds.note("busy"))  # reads nothing, so it stays ready
        await settled(lambda: rounds.all)
        for _ in range(20):
            seen.append(len(rounds.all))
            await trio.lowlevel.checkpoint()
        reactor.remove(ours.fileno())
        ours.close()
        peer.close()
    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) <= 2 * module.ROUNDS_MAX  # trio runs the tasks of one turn in any order
    assert sum(steps) > 0


@trio_test
async def test_after_its_end_adding_and_removing_does_nothing() -> None:
    """Connections outlive the reactor by a moment when everything is cancelled."""
    rounds = Rounds()
    ours, peer = socket_pair()
    async with reacting(rounds) as reactor:
        reactor.add(ours.fileno(), reader(ours, rounds, "one"))
        await trio.testing.wait_all_tasks_blocked()
    reactor.remove(ours.fileno())
    reactor.add(peer.fileno(), reader(peer, rounds, "two"))
    reactor.again(peer.fileno())
    ours.close()
    peer.close()
    assert rounds.all == []


@trio_test
async def test_a_wake_up_after_the_end_writes_into_nobody_elses_file() -> None:
    """The alarm's number is free for others then, and connections that end wake up each other."""
    rounds = Rounds()
    ours, peer = socket_pair()
    async with reacting(rounds) as reactor:
        reactor.add(ours.fileno(), reader(ours, rounds, "ours"))
        await trio.testing.wait_all_tasks_blocked()
    others = [os.memfd_create("other") for _ in range(4)]  # the lowest free numbers, the alarm's among them
    reactor.again(ours.fileno())
    written = [os.fstat(other).st_size for other in others]
    for other in others:
        os.close(other)
    ours.close()
    peer.close()
    assert written == [0, 0, 0, 0]
