"""All subscribers: who must be told what is new, and who has said yes to it.

Theory of operation. A change of the store calls `notify`. `run` gathers what comes within `debounce_s` and then
`flush`es: the world is loaded once, every subscriber's snapshot is compiled, and where it differs from what that
subscriber was last told it is offered to its session (`push.session`), whose writer is woken. Compiling is plain
computation without an await, so everybody gets their snapshot from one and the same world (security.md H13).

Versions are revisions of the store. A subscriber's snapshot can also change without one (it subscribed to another
service, it reconnected): then the store is asked for a fresh revision, so that for each subscriber a version names one
content and a newer content has a larger version.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from control_plane.errors import ControlPlaneError, PermissionDenied, Revoked, Unavailable
from control_plane.model import InstanceKey
from control_plane.push.session import Session
from control_plane.push.snapshot import World, WorldLoader, compile_content
from control_plane.store.base import Store
from protos.hauberk.v1 import discovery_pb2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """How far a version has come. Names are `Session.label`s."""

    acknowledged: tuple[str, ...]
    pending: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]
    """(who, why)"""


class Subscriber:
    """A session, and the way to wake its writer."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.woken = asyncio.Event()
        self.end: ControlPlaneError | None = None
        """Why the stream is to end, once it is."""

    def close(self, why: ControlPlaneError) -> None:
        self.end = self.end or why
        self.woken.set()

    async def wait_next(self, now: Callable[[], float]) -> discovery_pb2.Snapshot:
        """The next snapshot to send. Raises why the stream must end."""
        while True:
            self.woken.clear()
            if self.end is not None:
                raise self.end
            due = self.session.take(now())
            if due is not None:
                return due
            wait_s = self.session.wait_s(now()) or None  # None: nothing is held back, wait to be woken
            try:
                async with asyncio.timeout(wait_s):
                    await self.woken.wait()
            except TimeoutError:
                continue


class Hub:
    """See the module's docstring."""

    def __init__(self, store: Store, loader: WorldLoader, *, debounce_s: float) -> None:
        self._store = store
        self._loader = loader
        self._debounce_s = debounce_s
        self._subscribers: dict[Subscriber, None] = {}
        """Oldest first."""
        self._of_instance: defaultdict[InstanceKey, list[Subscriber]] = defaultdict(list)
        """The same ones, oldest first."""
        self._changed = asyncio.Event()
        self._answered = asyncio.Event()
        self._closing: ControlPlaneError | None = None

    def __repr__(self) -> str:
        return f"<Hub subscribers={len(self._subscribers)}>"

    def __iter__(self) -> Iterator[Session]:
        return iter([one.session for one in self._subscribers])

    def add(self, session: Session) -> Subscriber:
        """A stream begins. An older one of the same instance stays until its handler notices; see `Registry`."""
        subscriber = Subscriber(session)
        self._subscribers[subscriber] = None
        self._of_instance[session.key].append(subscriber)
        if self._closing:
            subscriber.close(self._closing)
        else:
            self.refresh(subscriber)
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Idempotent."""
        if subscriber in self._subscribers:
            del self._subscribers[subscriber]
            of_instance = self._of_instance[subscriber.session.key]
            of_instance.remove(subscriber)
            if not of_instance:
                del self._of_instance[subscriber.session.key]
            self._tell_waiters()

    def others(self, subscriber: Subscriber) -> list[Subscriber]:
        """Other streams of the same instance, oldest first."""
        return [one for one in self._of_instance.get(subscriber.session.key, ()) if one is not subscriber]

    def notify(self) -> None:
        """The store changed."""
        self._changed.set()

    @property
    def is_due(self) -> bool:
        """Has something changed since the last flush?"""
        return self._changed.is_set()

    async def run(self) -> None:
        """Flushes after changes, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._debounce_s)
            try:
                self.flush()
            except Exception:
                # The world could not be loaded, or the disk is full (security.md J03): everybody keeps what they have,
                # and the next change tries again. Ending here would end every push for ever.
                log.exception("snapshots could not be made")

    def flush(self) -> None:
        """Offers every subscriber what is new to it, now."""
        self._changed.clear()
        world = self._loader.load()
        members = {one.workload_id for one in world.workloads}
        for subscriber in list(self._subscribers):
            if subscriber.session.workload.workload_id not in members:
                subscriber.close(
                    PermissionDenied("this workload was removed from the mesh; join again with a new token")
                )
                continue
            if why := _revoked(subscriber.session, world):
                subscriber.close(Revoked(f"your certificate was revoked, by its {why}"))
                continue
            world = self._offer(subscriber, world)

    def refresh(self, subscriber: Subscriber) -> None:
        """The same for one subscriber whose wishes changed."""
        self._offer(subscriber, self._loader.load())

    def answered(self) -> None:
        """A subscriber acknowledged or rejected something."""
        self._tell_waiters()

    def close(self, why: ControlPlaneError | None = None) -> None:
        """Ends every stream, and those that still come."""
        self._closing = why or Unavailable("the control plane is stopping; reconnect")
        for subscriber in list(self._subscribers):
            subscriber.close(self._closing)

    async def wait_acknowledged(
        self, version: int, timeout_s: float, is_present: Callable[[InstanceKey], bool]
    ) -> Propagation:
        """Until every sidecar whose snapshot changed at `version` has answered it, or time is up.

        A sidecar that loses its stream meanwhile stays pending as long as `is_present` says that it may come back."""
        self.flush()
        concerned: dict[InstanceKey, str] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    report = self._propagation(version, concerned, is_present)
                    if not report.pending or self._closing:
                        return report
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            return self._propagation(version, concerned, is_present)

    def _offer(self, subscriber: Subscriber, world: World) -> World:
        session = subscriber.session
        content = compile_content(world, session.workload, session.subscriptions)
        if not session.is_new(content, world.epoch):
            return world
        if world.revision <= session.newest_version:
            world = self._loader.advanced(self._store.next_revision())
        session.offer(content, epoch=world.epoch, version=world.revision)
        subscriber.woken.set()
        return world

    def _propagation(
        self, version: int, concerned: dict[InstanceKey, str], is_present: Callable[[InstanceKey], bool]
    ) -> Propagation:
        sessions = {session.key: session for session in self}  # of two streams of one instance the newer counts
        for key, session in sessions.items():
            if session.target_version >= version:
                concerned.setdefault(key, session.label)
        acknowledged, pending, rejected = [], [], []
        for key, label in concerned.items():
            held = sessions.get(key)
            if held is None:
                if is_present(key):
                    pending.append(label)
            elif held.acknowledged_version >= version:
                acknowledged.append(label)
            elif held.rejected_version >= version:
                rejected.append((label, held.rejected_reason))
            elif not held.has_settled(version):
                pending.append(label)
        return Propagation(
            acknowledged=tuple(sorted(acknowledged)), pending=tuple(sorted(pending)), rejected=tuple(sorted(rejected))
        )

    def _tell_waiters(self) -> None:
        self._answered.set()


def _revoked(session: Session, world: World) -> str:
    """Why what the stream was opened with is worth nothing any more; empty: it is."""
    return world.trust.revocations.refusal(session.workload.spiffe_id, session.serial, session.issuer_ids)
