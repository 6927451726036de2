"""Large bodies: intact, in little memory, and in nobody's way.

100 MB pass a reader that takes a burst and then waits until other requests, on the same sidecars, have been answered.
Both sidecars must stay within GROWTH_OCTETS_MAX of the memory they had.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.apps.web import BURST, pattern
from tests.e2e.clients import ask
from tests.e2e.harness import Member, eventually
from tests.interop.conftest import Shop

OCTETS = 100_000_000
GROWTH_OCTETS_MAX = 16 * 1024 * 1024
OTHERS = 5
"""Requests that are answered between two bursts."""
BURSTS_WATCHED = 10
"""So many single bursts; then the rest ten at a time."""

PROTOCOLS = pytest.mark.parametrize("is_http2", [False, True], ids=["http1", "h2c"])


@dataclass(slots=True)
class Memory:
    """The most that each sidecar had."""

    members: tuple[Member, ...]
    before: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = {member.name: member.resident_octets for member in self.members}

    def look(self) -> None:
        for member in self.members:
            self.most[member.name] = max(self.most.get(member.name, 0), member.resident_octets)

    @property
    def growth(self) -> dict[str, int]:
        return {name: most - self.before[name] for name, most in self.most.items()}


@pytest.fixture
def memory(shop: Shop) -> Memory:
    for member in (shop.web, shop.orders):
        shop.eventually_idle(member)
    for _ in range(50):  # what a sidecar needs for any traffic is not growth
        assert ask(shop.port("orders"), "/echo", "POST", b"x" * 100_000).status == 200
    return Memory((shop.web, shop.orders))


@contextmanager
def client(shop: Shop, is_http2: bool) -> Iterator[httpx.Client]:
    base = f"http://127.0.0.1:{shop.port('orders')}"
    with httpx.Client(base_url=base, http1=not is_http2, http2=is_http2, timeout=60, trust_env=False) as client:
        yield client


def others_go_on(shop: Shop) -> None:
    """While a body is stuck, other requests of the same callers to the same app are answered without delay."""
    for _ in range(OTHERS):
        began = time.monotonic()
        assert ask(shop.port("orders"), "/hello").body == b"hello\n"
        assert time.monotonic() - began < 2.0


def whole_digest() -> str:
    digest = hashlib.sha256()
    for piece in pattern(OCTETS):
        digest.update(piece)
    return digest.hexdigest()


@PROTOCOLS
def test_100_mb_down_past_a_slow_reader(shop: Shop, memory: Memory, is_http2: bool) -> None:
    """The client takes a megabyte, then waits until others were served."""
    digest, size = hashlib.sha256(), 0
    with client(shop, is_http2) as slow, slow.stream("GET", f"/octets/{OCTETS}") as answer:
        for burst in answer.iter_bytes(BURST):
            digest.update(burst)
            size += len(burst)
            if size <= BURSTS_WATCHED * BURST or size % (BURSTS_WATCHED * BURST) == 0:
                others_go_on(shop)
                memory.look()
    assert (size, digest.hexdigest()) == (OCTETS, whole_digest())
    assert max(memory.growth.values()) < GROWTH_OCTETS_MAX, memory.growth


@PROTOCOLS
def test_100_mb_up_past_a_slow_reader(shop: Shop, memory: Memory, is_http2: bool) -> None:
    """The app takes a megabyte, then waits until another request tells it to go on."""
    seen: list[Any] = []

    def upload() -> None:
        with client(shop, is_http2) as sender:
            headers = {"content-length": str(OCTETS)}
            seen.append(sender.put("/slow", content=pattern(OCTETS), headers=headers).json())

    ask(shop.port("orders"), "/close", "POST")
    thread = threading.Thread(target=upload)
    thread.start()
    try:
        for number in range(1, BURSTS_WATCHED + 1):
            eventually(lambda: read_so_far(shop) > number * BURST, 20, "the app was given the next burst")  # noqa: B023
            others_go_on(shop)
            memory.look()
            assert read_so_far(shop) < (number + 2) * BURST  # uvicorn holds some of it too
            ask(shop.port("orders"), "/release/1", "POST")
        ask(shop.port("orders"), f"/release/{OCTETS // BURST}", "POST")
        while thread.is_alive():
            memory.look()
            thread.join(0.1)
    finally:
        thread.join(30)
    assert seen == [{"octets": OCTETS, "sha256": whole_digest()}]
    assert max(memory.growth.values()) < GROWTH_OCTETS_MAX, memory.growth


def read_so_far(shop: Shop) -> int:
    return int(ask(shop.port("orders"), "/release/0", "POST").body)


@PROTOCOLS
@pytest.mark.parametrize("with_length", [True, False], ids=["length", "no_length"])
def test_100_mb_up_and_the_digest_back(shop: Shop, is_http2: bool, with_length: bool) -> None:
    """At full speed, with its length told and without."""
    headers = {"content-length": str(OCTETS)} if with_length else {}
    with client(shop, is_http2) as sender:
        seen = sender.post("/echo", content=pattern(OCTETS), headers=headers).json()
    assert (seen["octets"], seen["sha256"]) == (OCTETS, whole_digest())


def test_r20_many_stuck_bodies_leave_room_for_others(shop: Shop, memory: Memory) -> None:
    """Sixty readers that have stopped hold sixty windows, not sixty bodies, and nobody up (security.md R20)."""
    with client(shop, True) as slow:
        streams = [slow.send(slow.build_request("GET", f"/octets/{OCTETS}"), stream=True) for _ in range(60)]
        others_go_on(shop)
        memory.look()
        for answer in streams:
            assert answer.status_code == 200
    assert max(memory.growth.values()) < GROWTH_OCTETS_MAX, memory.growth
    for member in (shop.web, shop.orders):
        shop.eventually_idle(member)
    assert json.loads(ask(shop.port("orders"), "/echo").body)["method"] == "GET"
