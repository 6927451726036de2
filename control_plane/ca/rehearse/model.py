"""What a rehearsal is given, and what it gives back. All times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.ca.slots import CaPolicy
from control_plane.model import Authority, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """One holder of a certificate, as it is when the rehearsal begins."""

    name: str
    """For people."""
    issuer_id: str
    root_id: str
    """Whom its newest certificate stands under."""
    issued_at: float
    not_after: float
    knows: frozenset[str]
    """The roots it has acknowledged."""
    away_since: float | None = None
    """None: it is connected."""
    returns_at: float | None = None
    """Of one that is away. None: when the rotation is through, which is the worst it can do."""
    rejoins_until: float = 0.0
    """Until when its node key brings it back without a certificate; 0: it has none."""
    clock_skew_s: float = 0.0
    """Its clock minus the control plane's."""
    takes_snapshots: bool = True
    """False: it is connected, but has refused what it was sent last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The mesh when the rehearsal begins."""

    authorities: Sequence[Authority]
    sidecars: Sequence[Sidecar]
    policy: CaPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be played."""

    level: Level
    """ROOT or INTERMEDIATE: prepared and activated at once, instead of when it is due."""
    force: bool = False
    """Activated without waiting for anybody."""
    horizon_s: float = 0.0
    """How long to go on; 0: until the rotation is through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedStep:
    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedFailure:
    who: str
    start: float
    until: float
    """0: until somebody does something."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    steps: tuple[RehearsedStep, ...]
    failures: tuple[RehearsedFailure, ...]
    """Ordered by when they begin."""
    is_through: bool
    """Whether the authority that was replaced is gone."""
