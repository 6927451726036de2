"""What every change of resources goes through, one at a time: is it still what the caller saw, who gains and who loses
by it, and how far has it come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from control_plane.errors import FailedPrecondition, InvalidRequest
from control_plane.model import Change
from control_plane.policy.impact.compute import Impact, Line, compute
from control_plane.push.hub import Hub, Propagation
from control_plane.push.imagined import targets
from control_plane.push.snapshot import World, WorldLoader
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import config_pb2 as pb
from sidecar.rules.errors import DecodeError

WAIT_S_DEFAULT = 10.0
WAIT_S_MAX = 300.0


class ResourceChanges:
    """Shared by all handlers that change resources."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        hub: Hub,
        loader: WorldLoader,
        impact_timeout_s: float,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._registry = registry
        self._hub = hub
        self._loader = loader
        self._impact_timeout_s = impact_timeout_s
        self._now = now
        self._clock = clock
        self.one_at_a_time = asyncio.Lock()
        """Held from looking at what there is to storing: so what a caller is told is what happens."""

    def check_base(self, base_version: int) -> None:
        """Raises FailedPrecondition if a resource was changed after that version. 0: the caller does not mind."""
        newest = self._store.resources_version
        if base_version and newest > base_version:
            by = self._store.history(1)[0].by
            raise FailedPrecondition(
                f"resources were changed meanwhile: version {newest} by {by}, and you looked at version {base_version};"
                " nothing was stored. Look again, then repeat it"
            )

    async def impact(self, after: World) -> pb.Impact:
        """Who gains and who loses what if the world becomes `after`. Sidecars are served meanwhile.

        Raises InvalidRequest for a world that sidecars would refuse."""
        before, now = self._loader.load(), self._now()
        callers = [one.spiffe_id for one in before.workloads]
        ends_at = self._clock() + self._impact_timeout_s

        def look() -> Impact:
            is_expired = lambda: self._clock() > ends_at  # noqa: E731  # it is that short
            return compute(callers, before.trust_domain, targets(before, after), now=now, is_expired=is_expired)

        try:
            return _message(await asyncio.to_thread(look))
        except DecodeError as error:
            raise InvalidRequest(f"sidecars would refuse this: {error}; nothing was stored") from error

    async def propagation(self, version: int, timeout_s: float) -> pb.Propagation:
        """Until every sidecar concerned has answered, or time is up."""
        timeout_s = timeout_s if timeout_s > 0 else WAIT_S_DEFAULT
        report = await self._hub.wait_acknowledged(
            version, min(timeout_s, WAIT_S_MAX), lambda key: key in self._registry
        )
        return _propagation(report)


def change_message(change: Change) -> pb.Change:
    key = change.key
    return pb.Change(kind=key.kind, namespace=key.namespace, name=key.name, what=change.what)


def _message(impact: Impact) -> pb.Impact:
    return pb.Impact(lines=map(_line, impact.lines), left_off_count=impact.left_off_count)


def _line(line: Line) -> pb.ImpactLine:
    return pb.ImpactLine(
        gains=line.gains,
        from_identity=line.caller,
        to_service=line.service,
        what=line.what,
        before=line.before,
        after=line.after,
        shadow=line.shadow,
    )


def _propagation(report: Propagation) -> pb.Propagation:
    return pb.Propagation(
        acknowledged=report.acknowledged,
        pending=report.pending,
        rejected=[pb.Rejection(workload=who, reason=why) for who, why in report.rejected],
    )
