"""Windows that never open, or open by one octet at a time, over real sockets: what waits is bounded, and ends."""

from __future__ import annotations

import pytest
import trio
from h2.events import Event, StreamReset
from h2.settings import SettingCodes

from sidecar.config import Timeouts
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.http.session import ErrorCode
from tests.attacks.support import ALLOW_ALL, App, Target, attacker, request, settled, target
from tests.trio_support import trio_test

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)

STREAMS = 40
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000
TIMEOUTS = Timeouts(idle_s=300, request_s=300)


def held(it: Target) -> list[int]:
    """Octets of answers that wait, of each open exchange."""
    return [x.response.held for x in it.runtime._live if x.response is not None]


def unsent(it: Target) -> int:
    return sum(connection.unsent for connection in it.driver.connections)


def within_bounds(it: Target) -> bool:
    """64 KiB an exchange, and a slice that had been read already; and little on the way to the socket."""
    limits = it.config.limits
    each = limits.stream_window_octets + 65_536
    return all(octets <= each for octets in held(it)) and unsent(it) <= limits.output_octets_max + 65_536


@trio_test
async def test_a13_windows_of_one_octet_on_many_streams_cost_a_bounded_memory(engine: str) -> None:
    """CVE-2019-9511: forty large answers asked for, and taken octet by octet. The app is read no further."""
    async with target(ALLOW_ALL, app=App(LARGE), engine=engine) as it, attacker(it) as peer, attacker(it) as other:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
        await peer.flush()
        streams = [peer.open(request(b"/large")) for _ in range(STREAMS)]
        await peer.flush()
        await settled(lambda: len(held(it)) == STREAMS and all(held(it)))
        for _ in range(20):
            for stream in streams:
                peer.h2.increment_flow_control_window(1, stream)
            await peer.flush()
            await trio.lowlevel.checkpoint()
            assert within_bounds(it)
        assert sum(held(it)) <= STREAMS * (65_535 + 65_536)
        answer = await other.ask(request(b"/also-large"))
        assert (answer.status, len(answer.body), answer.end) == (200, 4_000_000, "ended")
        assert within_bounds(it)


@trio_test
async def test_a20_a_window_that_stays_shut_ends_its_streams_and_not_the_connection(engine: str) -> None:
    """RST(CANCEL) after five minutes without progress; until then memory stays what it was."""
    async with target(ALLOW_ALL, app=App(LARGE), engine=engine, timeouts=TIMEOUTS) as it, attacker(it) as peer:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await peer.flush()
        streams = {peer.open(request(b"/large")) for _ in range(STREAMS)}
        await peer.flush()
        await settled(lambda: len(held(it)) == STREAMS and all(held(it)))
        reset: set[int] = set()

        def is_last_reset(event: Event) -> bool:
            if isinstance(event, StreamReset):
                assert event.error_code == ErrorCode.CANCEL
                reset.add(event.stream_id)
            return reset == streams

        now = it.driver.tick()
        it.runtime.sweep(now + 299)
        it.driver.flush()
        assert it.runtime.live_count == STREAMS
        assert within_bounds(it)
        it.runtime.sweep(now + 302)
        it.driver.flush()
        assert await peer.until(is_last_reset) is not None
        assert it.runtime.live_count == 0
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        assert (await peer.ask(request(b"/small"))).status == 200
