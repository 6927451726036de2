"""One connection that is never silent does not own the event loop (security.md A39)."""

from __future__ import annotations

import pytest
import trio

from sidecar.config import Limits
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.net.connection import SLICE_OCTETS
from tests.attacks.support import ALLOW_ALL, App, attacker, request, settled, target
from tests.contract.http2 import frame
from tests.trio_support import trio_test

RECORD_OCTETS = 16_384
"""Of TLS: what one read may give beyond a slice."""
SLICES_MAX = 8
"""Read in a row before every other task has had a turn."""
MEGABYTES = frame(0x42, 0, 0, bytes(7)) * 65_536


@trio_test
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
async def test_a39_megabytes_of_frames_are_worked_on_slice_by_slice(engine: str) -> None:
    """A megabyte at once: every piece is bounded, others run in between, and another connection is served."""
    limits = Limits(glitches_max=1_000_000)
    turns = 0
    slices: list[tuple[int, int]] = []
    """(octets, turns of another task so far)"""

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with target(ALLOW_ALL, app=App(), engine=engine, limits=limits) as it, attacker(it) as peer:
        (connection,) = (one for one in it.driver.connections if one.kind == "mesh_server")
        receive = connection.session.receive

        def counted(data: bytes) -> None:
            slices.append((len(data), turns))
            receive(data)

        connection.session.receive = counted  # type: ignore[method-assign]
        async with attacker(it) as other, trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            nursery.start_soon(peer.flush, MEGABYTES)
            await settled(lambda: slices)
            assert (await other.ask(request(b"/meanwhile"))).status == 200
            await settled(lambda: sum(octets for octets, _ in slices) >= len(MEGABYTES))
            nursery.cancel_scope.cancel()
        assert max(octets for octets, _ in slices) <= SLICE_OCTETS + RECORD_OCTETS
        seen = [turn for _, turn in slices]
        assert all(late > early for early, late in zip(seen, seen[SLICES_MAX:], strict=False))
        assert (await peer.ask(request(b"/still-there"))).status == 200
