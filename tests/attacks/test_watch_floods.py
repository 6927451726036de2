"""One member of the mesh that talks too much must not cost the others their control plane (security.md G25, R12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from control_plane.api.discovery import MESSAGES_BURST, MESSAGES_PER_S, paced
from protos.hauberk.v1 import discovery_pb2 as pb


def test_g25_a_flood_of_messages_waits_in_its_sender() -> None:
    """A burst passes at once; after it, messages are read only as fast as a sidecar may send them."""
    clock = [1_000.0]

    async def flood() -> AsyncIterator[pb.WatchRequest]:
        while True:
            yield pb.WatchRequest()

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    async def main() -> int:
        taken = 0
        async for _ in paced(flood(), lambda: clock[0], sleep):
            if clock[0] >= 1_010.0:
                break
            taken += 1
        return taken

    taken = asyncio.run(main())
    assert MESSAGES_BURST <= taken <= MESSAGES_BURST + 10 * MESSAGES_PER_S + 1
