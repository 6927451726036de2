"""What sidecars decided, as they reported it: kept a while in memory for `hauberk explain --decision`. Sans-IO.

Theory of operation. A report comes from one workload, known by the certificate of its connection, and is about requests
that came to that workload. It is believed in that, and in nothing else: what it says is checked for shape and size,
dropped and counted if it is not as a sidecar makes it, and kept under the workload that said it. The caller of a denied
request knows its id, so a second workload may report the same: both are kept, none replaces the other, and whoever asks
is told that there are two.

Memory is bounded by count and by size. Each workload has a ring of its own; when many report, each ring is shorter, so
one that floods pushes out its own decisions and nobody else's.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.limits import RateLimit
from control_plane.model import Workload
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.secrets import is_secret

PER_WORKLOAD_MAX = 1_000
ALL_MAX = 20_000
PER_WORKLOAD_OCTETS_MAX = 4_194_304
ALL_OCTETS_MAX = 67_108_864
WORKLOADS_MAX = 2_000
"""Who have rings; the one that reported longest ago makes room. Then each may have ten, or one of the largest."""
KEPT_S = 86_400.0
RATE_PER_S = 200.0
BURST = 2_000
"""Of one workload, all its sidecars together; one of them reports at most 100 a second."""

BATCH_MAX = 100
OCTETS_MAX = 24_576
"""Of one decision."""
TEXT_CHARACTERS_MAX = 512
PATH_CHARACTERS_MAX = 2_048
HEADERS_MAX = 32
HEADER_NAME_CHARACTERS_MAX = 128
CLAIMS_CHARACTERS_MAX = 4_096
CLOCK_S_MAX = 86_400.0
"""How far a sidecar's clock may be ahead."""

ID = re.compile(r"[0-9a-f]{16}")
# What no sidecar lets through: C0 controls but HTAB, and DEL (RFC 9110 section 5.5).
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, with who reported it."""

    workload: Workload
    """The called, from the certificate it reported with."""
    octets: bytes
    """The report, in its wire form: a quarter of what it takes as an object."""
    reported_at: float

    @property
    def message(self) -> pb.Decision:
        return pb.Decision.FromString(self.octets)


class _Ring:
    """Of one workload, oldest first."""

    __slots__ = ("decisions", "octets")

    def __init__(self) -> None:
        self.decisions: deque[tuple[str, Decided]] = deque()
        self.octets = 0

    def is_above(self, share: tuple[int, int]) -> bool:
        """`share`: (decisions, octets)."""
        return len(self.decisions) > share[0] or self.octets > share[1]


class DecisionLog:
    """See the module's docstring. `now` is Unix seconds."""

    def __init__(self) -> None:
        self._rings: OrderedDict[int, _Ring] = OrderedDict()
        """By workload id, the one that reported last at the end."""
        self._by_id: dict[str, list[Decided]] = {}
        self._limit = RateLimit(rate_per_s=RATE_PER_S, burst=BURST)
        self.refused = 0
        """Decisions that were not as a sidecar makes them."""
        self.dropped = 0
        """Decisions beyond the rate, here or at the sidecar."""

    def __repr__(self) -> str:
        lost = f"{self.refused} refused, {self.dropped} dropped"
        return f"<DecisionLog {len(self)} of {len(self._rings)} workloads, {lost}>"

    def __len__(self) -> int:
        return sum(len(ring.decisions) for ring in self._rings.values())

    def report(self, workload: Workload, report: pb.Decisions, now: float) -> str:
        """Keep what is fit to be kept. Returns what was wrong with the first that was not; "": nothing."""
        self.dropped += min(report.dropped_count, 1_000_000)
        if len(report.decisions) > BATCH_MAX:
            self.refused += len(report.decisions)
            return f"more than {BATCH_MAX} decisions in one message"
        problem = ""
        for decision in report.decisions:
            if self._limit.take(str(workload.workload_id), now) > 0.0:
                self.dropped += 1
                continue
            wrong = problem_with(decision, now)
            if wrong:
                self.refused += 1
                problem = problem or wrong
                continue
            self._keep(workload, decision, now)
        return problem

    def find(self, decision_id: str, now: float) -> Sequence[Decided]:
        """Usually one. More: several workloads reported that id, and at most one of them tells the truth."""
        return [one for one in self._by_id.get(decision_id.lower(), ()) if now - one.reported_at <= KEPT_S]

    def _keep(self, workload: Workload, decision: pb.Decision, now: float) -> None:
        same = self._by_id.setdefault(decision.id, [])
        if any(one.workload.workload_id == workload.workload_id for one in same):
            return  # said again, on another stream: what was said first stays
        decision.DiscardUnknownFields()
        decided = Decided(workload, decision.SerializeToString(), now)
        same.append(decided)
        ring = self._ring(workload.workload_id)
        ring.decisions.append((decision.id, decided))
        ring.octets += len(decided.octets)
        share = self._share()
        while ring.is_above(share) or now - ring.decisions[0][1].reported_at > KEPT_S:
            self._forget_oldest(ring)

    def _share(self) -> tuple[int, int]:
        """Of each ring: (decisions, octets)."""
        count = len(self._rings)
        return min(PER_WORKLOAD_MAX, ALL_MAX // count), min(PER_WORKLOAD_OCTETS_MAX, ALL_OCTETS_MAX // count)

    def _ring(self, workload_id: int) -> _Ring:
        ring = self._rings.get(workload_id)
        if ring is not None:
            self._rings.move_to_end(workload_id)
            return ring
        ring = self._rings[workload_id] = _Ring()
        if len(self._rings) > WORKLOADS_MAX:
            _, gone = self._rings.popitem(last=False)
            while gone.decisions:
                self._forget_oldest(gone)
        share = self._share()
        if share < (PER_WORKLOAD_MAX, PER_WORKLOAD_OCTETS_MAX):  # one more has its share: that of the others is smaller
            for other in self._rings.values():
                while other.is_above(share):
                    self._forget_oldest(other)
        return ring

    def _forget_oldest(self, ring: _Ring) -> None:
        decision_id, decided = ring.decisions.popleft()
        ring.octets -= len(decided.octets)
        same = self._by_id[decision_id]
        same.remove(decided)
        if not same:
            del self._by_id[decision_id]


def problem_with(decision: pb.Decision, now: float) -> str:
    """Why a decision is not as a sidecar makes it; "": it is."""
    asked = decision.asked
    if decision.ByteSize() > OCTETS_MAX:
        return "a decision is too large"
    if not ID.fullmatch(decision.id):
        return "an id is not 16 hexadecimal digits in lower case"
    if not (math.isfinite(decision.at) and 0.0 < decision.at <= now + CLOCK_S_MAX):
        return "a time is out of bounds"
    if not decision.version or not decision.rule:
        return "a decision names no version or no rule"
    if decision.shadow and not decision.allowed:
        return "a denial is told as one of policies in shadow"
    if asked.port > 65_535:
        return "a port is out of bounds"
    if len(asked.headers) > HEADERS_MAX:
        return f"more than {HEADERS_MAX} headers in one decision"
    texts = (
        decision.rule, decision.reason, asked.principal, asked.source_ip, asked.remote_ip, asked.destination_ip,
        asked.sni, asked.host, asked.method, *(one.value for one in asked.headers),
    )  # fmt: skip
    if any(len(text) > TEXT_CHARACTERS_MAX for text in texts) or len(asked.path) > PATH_CHARACTERS_MAX:
        return "a text is too long"
    if len(asked.claims_json) > CLAIMS_CHARACTERS_MAX:
        return "claims are too long"
    if any(len(one.name) > HEADER_NAME_CHARACTERS_MAX or one.name != one.name.lower() for one in asked.headers):
        return "a header's name is too long or not in lower case"
    if any(map(_CONTROLS.search, (*texts, asked.path, asked.claims_json, *(one.name for one in asked.headers)))):
        return "a text holds control characters"
    if any(one.value and (one.hidden or is_secret(one.name)) for one in asked.headers):
        return "the value of a header that carries a secret is told"
    return ""
