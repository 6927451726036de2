"""One subscriber: what it was sent, what it said to that, what it should be sent next. Sans-IO.

The rules, each with a test:

1. Versions sent on one stream grow strictly within an epoch, and the first is larger than what the subscriber said it
   holds. (H14: an older one would be refused by the sidecar.)
2. Content that was sent last and not rejected since is never sent again on the stream.
3. At most one snapshot is unanswered. What comes up meanwhile waits, and only the newest waits: a slow subscriber skips
   to it. After `ANSWER_S` without an answer the newest goes out anyway, so that a subscriber that forgets to answer
   still hears of a revoked right.
4. A rejected snapshot is not repeated; its reason stays until a newer one is acknowledged (H16).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from control_plane.errors import InvalidRequest
from control_plane.model import IssuedRecord, Workload
from protos.hauberk.v1 import discovery_pb2

ANSWER_S = 5.0
REASON_CHARS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A snapshot but for its epoch and version."""

    own: discovery_pb2.Snapshot = field(repr=False)
    shared: discovery_pb2.Snapshot = field(default_factory=discovery_pb2.Snapshot, repr=False)
    """What others are sent too; large, so it is copied only when it goes out. Neither is ever changed."""
    digest: bytes
    """Equal for equal content."""

    @property
    def message(self) -> discovery_pb2.Snapshot:
        """Both, in a message of its own."""
        whole = discovery_pb2.Snapshot()
        whole.CopyFrom(self.own)
        whole.MergeFrom(self.shared)
        return whole


@dataclass(frozen=True, slots=True)
class _Offer:
    content: Content
    epoch: int
    version: int


class Session:
    """State of one Watch stream."""

    def __init__(
        self,
        *,
        workload: Workload,
        instance: str,
        epoch_held: int,
        version_held: int,
        epoch: int,
        certificate: IssuedRecord | None = None,
        serial: int = 0,
        issuer_ids: tuple[str, ...] = (),
    ) -> None:
        """`certificate`: the one the stream was opened with, if the store knows it; `serial` and `issuer_ids`: what it
        says itself."""
        self.workload = workload
        self.instance = instance
        self.certificate = certificate
        self.serial = serial
        self.issuer_ids = issuer_ids
        self.in_force: discovery_pb2.Snapshot | None = None
        """The part of its own of the newest snapshot it acknowledged on this stream."""
        self.subscriptions: frozenset[str] = frozenset()
        held = version_held if epoch_held == epoch else 0
        self.acknowledged_version = held
        self.rejected_version = 0
        self.rejected_reason = ""
        self._floor = held
        """Next version must be larger."""
        self._epoch = epoch
        self._sent: _Offer | None = None
        self._pending: _Offer | None = None
        self._unanswered_since: float | None = None

    def __repr__(self) -> str:
        facts = [f"sent={self.sent_version}", f"acknowledged={self.acknowledged_version}"]
        if self._pending:
            facts.append(f"pending={self._pending.version}")
        if self._unanswered_since is not None:
            facts.append("unanswered")
        return f"<Session {self.label} {' '.join(facts)}>"

    @property
    def key(self) -> tuple[int, str]:
        return self.workload.workload_id, self.instance

    @property
    def label(self) -> str:
        """For people: SPIFFE ID and instance."""
        return f"{self.workload.spiffe_id}#{self.instance}"

    @property
    def sent_version(self) -> int:
        return self._sent.version if self._sent else 0

    @property
    def target_version(self) -> int:
        """Of the newest content this subscriber has or will be sent."""
        return self._pending.version if self._pending else self.sent_version

    @property
    def newest_version(self) -> int:
        """A new offer must be larger."""
        return max(self._floor, self.target_version)

    def subscribe(self, services: Iterable[str]) -> None:
        self.subscriptions = frozenset(services)

    def is_new(self, content: Content, epoch: int) -> bool:
        """Would this content tell the subscriber anything? (rule 2)"""
        newest = self._pending or self._sent
        return newest is None or newest.content.digest != content.digest or newest.epoch != epoch

    def offer(self, content: Content, *, epoch: int, version: int) -> None:
        """New content. Dropped without trace if it is what was sent last: a change and its undoing within a burst."""
        if epoch != self._epoch:
            self._epoch, self._floor = epoch, 0
            self._pending = None
            self.acknowledged_version = self.rejected_version = 0
        elif version <= self.newest_version:
            raise AssertionError(f"{self!r} was offered version {version}")
        if self._sent and self._sent.content.digest == content.digest and self._sent.epoch == epoch:
            self._pending = None
            return
        self._pending = _Offer(content, epoch, version)

    def take(self, now: float) -> discovery_pb2.Snapshot | None:
        """What to send now, or None: nothing, or not yet. Taken is as good as sent."""
        if self._pending is None or self.wait_s(now) > 0:
            return None
        self._sent, self._pending = self._pending, None
        self._floor = self._sent.version
        self._unanswered_since = now
        message = self._sent.content.message
        message.epoch, message.version = self._sent.epoch, self._sent.version
        return message

    def wait_s(self, now: float) -> float:
        """How long what is pending must wait for an answer to what was sent. 0.0: it need not."""
        if self._unanswered_since is None:
            return 0.0
        return max(0.0, self._unanswered_since + ANSWER_S - now)

    def acknowledge(self, epoch: int, version: int) -> None:
        """Raises InvalidRequest for a version never sent."""
        if not self._answers(epoch, version):
            return
        self.acknowledged_version = max(self.acknowledged_version, version)
        if self._sent is not None and version == self._sent.version:
            self.in_force = self._sent.content.own
        if version >= self.rejected_version:
            self.rejected_reason = ""

    def reject(self, epoch: int, version: int, reason: str) -> None:
        """Raises InvalidRequest for a version never sent."""
        if not self._answers(epoch, version):
            return
        self.rejected_version = max(self.rejected_version, version)
        printable = "".join(char if char.isprintable() else " " for char in reason[:REASON_CHARS_MAX])
        self.rejected_reason = printable.strip() or "no reason given"

    def has_settled(self, version: int) -> bool:
        """Has the subscriber said yes or no to that version or a newer one, or need it not be asked?"""
        answered = max(self.acknowledged_version, self.rejected_version)
        return answered >= version or self.target_version < version

    def _answers(self, epoch: int, version: int) -> bool:
        """Is this an answer to something sent in this epoch? Also ends the wait for it."""
        if epoch != self._epoch:
            return False
        if version > self.sent_version:
            raise InvalidRequest(f"version {version} was answered but never sent on this stream")
        if version == self.sent_version:
            self._unanswered_since = None
        return True
