"""Who gains and who loses what: all pairs of callers and called workloads, before and after.

Theory of operation. For a pair, requests are points in a space with one axis for each attribute that some rule of
either version looks at. `axes` cuts each axis into classes no rule tells apart, so one witness for each cell of the
grid says what happens to every request in it. Only cells that a changed rule covers can differ (or all, if what happens
to the rest changed), and of callers only those that some rule tells apart are asked about. What remains is judged by
both evaluators; cells that differ in the same way are put together and told in the words of the patterns.

Work is bounded in cells, lines and time; what was left off is counted, and losses go before gains.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.policy.impact import witnesses
from control_plane.policy.impact.axes import Axis, build_axes
from control_plane.policy.impact.side import (
    ACCOUNT_AXIS,
    CALLER_AXES,
    NAMESPACE_AXIS,
    NONE,
    PRINCIPAL_AXIS,
    Bound,
    Request,
    RuleView,
    Side,
    Value,
    Verdict,
)
from control_plane.policy.impact.words import Box, Cell, boxes, describe
from sidecar.rules.match import Shape, shape_of
from sidecar.rules.snapshot import Protocol, Snapshot, TlsMode

ANYBODY_ELSE = "anybody else in the mesh"
PLAINTEXT = "plaintext"
LINES_MAX = 200
CELLS_MAX = 5_000
"""Of one pair."""
CALLER_PATTERNS_MAX = 200
_EXPIRED_EVERY = 64
"""Cells between two looks at the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A called workload whose snapshot changes."""

    service: str
    """ "service.namespace" """
    ports: Mapping[int, Protocol]
    """Those its sidecars told; none: not known."""
    key: Hashable
    """Equal for targets with the same policies before and the same after."""
    snapshots: Callable[[], tuple[Snapshot, Snapshot]]
    """(before, after)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    gains: bool
    caller: str
    """SPIFFE ID, ANYBODY_ELSE or a narrower "anybody else ...", or PLAINTEXT."""
    service: str
    what: str
    before: str
    """Deciding rule, "default", or why no rule was asked."""
    after: str
    shadow: bool = False
    """Only counted and logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    lines: tuple[Line, ...]
    """Losses first; what is enforced before what is in shadow."""
    left_off_count: int
    """Lines that were too many, and pairs that were not looked at whole."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Requests of one caller that are decided otherwise, in the same way."""

    gains: bool
    before: str
    after: str
    shadow: bool
    kind: str
    """"TCP", "HTTP" where there is TCP too; empty: there is but HTTP."""
    box: Box
    axes: tuple[Axis, ...]
    requests: tuple[Request, ...] = field(repr=False)
    """One of each cell."""

    def __str__(self) -> str:
        return describe(self.box, self.axes, self.kind)


@dataclass(slots=True)
class Group:
    """Callers that no rule tells apart."""

    principal: SpiffeId | None
    names: list[str]


def compute(
    callers: Sequence[SpiffeId],
    trust_domain: TrustDomain,
    targets: Iterable[Target],
    *,
    now: float,
    is_expired: Callable[[], bool],
) -> Impact:
    """`callers`: the known ones. `targets` may be made while they are read: that takes part of the time."""
    lines: dict[Line, None] = {}
    left_off = 0
    by_host: dict[Hashable, bool] = {}
    held: dict[Hashable, tuple[list[tuple[Group, list[Difference]]], int]] = {}
    for target in targets:
        if is_expired():
            left_off += 1
            continue
        alike = (target.key, tuple(target.ports.items()))
        key = (*alike, target.service if by_host.get(alike) else "")
        if key not in held:
            pair = Pair(target, now, is_expired)
            by_host[alike] = pair.looks_at_hosts
            key = (*alike, target.service if by_host[alike] else "")
            held[key] = pair.differences(callers, trust_domain)
        found, missed = held[key]
        left_off += missed
        for group, differences in found:
            for one in differences:
                what = str(one)
                for name in group.names:
                    line = Line(
                        gains=one.gains,
                        caller=name,
                        service=target.service,
                        what=what,
                        before=one.before,
                        after=one.after,
                        shadow=one.shadow,
                    )
                    lines[line] = None
    ordered = sorted(lines, key=lambda one: (one.gains, one.shadow, one.service, one.what))
    return Impact(lines=tuple(ordered[:LINES_MAX]), left_off_count=left_off + max(len(ordered) - LINES_MAX, 0))


class Pair:
    """One called workload, and everybody who may call it."""

    def __init__(self, target: Target, now: float, is_expired: Callable[[], bool]) -> None:
        self._target = target
        self._is_expired = is_expired
        self.before, self.after = (Side(snapshot, now) for snapshot in target.snapshots())
        name, _, namespace = target.service.partition(".")
        self._hosts = (target.service, name, f"{name}.{namespace}.svc.cluster.local")

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.before, self.after

    @property
    def looks_at_hosts(self) -> bool:
        return any(bound.axis == "host" for bound in self._bounds())

    def _bounds(self) -> Iterator[Bound]:
        for side in self.sides:
            for rule in side.rules:
                for alternative in rule.alternatives:
                    yield from alternative

    def differences(
        self, callers: Sequence[SpiffeId], trust_domain: TrustDomain
    ) -> tuple[list[tuple[Group, list[Difference]]], int]:
        """By group of callers; and how many groups were not looked at whole."""
        if self._is_expired():  # compiling alone took the time there was
            return [], 1
        changed = self._changed()
        everything = self._everything_may_differ()
        about_changed = frozenset(id(bound) for rule in changed for one in rule.alternatives for bound in one)
        found: list[tuple[Group, list[Difference]]] = []
        missed = 0
        groups = self._groups(callers, trust_domain)
        for tcp, ports in self._spaces():
            if self._is_expired():
                return found, missed + len(groups)
            axes, whole = build_axes(self.before, self.after, ports, self._hosts, about_changed, tcp=tcp)
            for group in groups:
                if self._is_expired():
                    missed += 1
                    continue
                cells, all_of_them = self._cells(axes, group, None if everything else changed, tcp)
                differences, in_time = self._judge(cells, axes, group, tcp)
                if differences:
                    found.append((group, differences))
                missed += not (all_of_them and in_time and whole)
        return found, missed

    def _spaces(self) -> Iterator[tuple[bool, list[int]]]:
        """(TCP, ports): HTTP and opaque TCP are asked about apart. While no port is known it is taken for HTTP."""
        kinds = self._target.ports
        opaque = [port for port, kind in kinds.items() if kind is Protocol.TCP]
        if len(opaque) < len(kinds) or not kinds:
            yield False, [port for port in kinds if port not in opaque]
        if opaque:
            yield True, opaque

    def _changed(self) -> list[RuleView]:
        """Rules that are on one side only."""
        names = [frozenset(rule.identity for rule in side.rules) for side in self.sides]
        return [
            rule for side, others in zip(self.sides, reversed(names), strict=True) for rule in side.rules
            if rule.identity not in others
        ]  # fmt: skip

    def _everything_may_differ(self) -> bool:
        """Whether more than rules changed: what happens when none matches, who is let in, whose tokens are taken."""
        one, other = (side.snapshot for side in self.sides)
        return (
            one.peer_authentication != other.peer_authentication
            or one.request_authentications != other.request_authentications
            or one.trusted_proxies_count != other.trusted_proxies_count
            or self._defaults(self.before) != self._defaults(self.after)
        )

    @staticmethod
    def _defaults(side: Side) -> tuple[object, ...]:
        policies = side.snapshot.policies
        allows = [policy.shadow for policy in policies if policy.action.value == "ALLOW"]
        return side.snapshot.default_action, not all(allows), bool(allows)

    def _cells(
        self, axes: Sequence[Axis], group: Group, changed: Sequence[RuleView] | None, tcp: bool
    ) -> tuple[dict[Cell, None], bool]:
        """Those in which the verdicts can differ, CELLS_MAX at most. False: there are more. `changed` None: all can."""
        regions: Iterable[list[tuple[int, ...]]] = [[tuple(range(len(axis.classes))) for axis in axes]]
        if changed is not None:
            regions = (region for rule in changed for region in self._regions(rule, axes, group, tcp))
        cells: dict[Cell, None] = {}
        for count, region in enumerate(regions):
            if count % _EXPIRED_EVERY == 0 and self._is_expired():
                return cells, False
            for cell in itertools.product(*region):
                if len(cells) >= CELLS_MAX:
                    return cells, False
                cells[cell] = None
        return cells, True

    def _regions(
        self, rule: RuleView, axes: Sequence[Axis], group: Group, tcp: bool
    ) -> Iterator[list[tuple[int, ...]]]:
        """The classes on each axis for which the rule can match; one region for each of its alternatives."""
        anonymous = any(side.tls(port).mode is TlsMode.DISABLE for side in self.sides for port in self._ports(side))
        for alternative in rule.alternatives:
            is_for_group = anonymous or all(
                bound.holds(caller_value(bound.axis, group.principal))
                for bound in alternative
                if bound.axis in CALLER_AXES
            )
            region = [self._classes(axis, alternative, tcp) for axis in axes]
            if is_for_group and all(region):
                yield region

    @staticmethod
    def _classes(axis: Axis, alternative: Sequence[Bound], tcp: bool) -> tuple[int, ...]:
        if axis.is_of_token:  # whether a token is taken at all depends on the side, so its conditions tell nothing
            return tuple(range(len(axis.classes)))
        return axis.holding(
            bound for bound in alternative if bound.axis == axis.name and not (tcp and bound.condition.is_http)
        )

    @staticmethod
    def _ports(side: Side) -> list[int]:
        return [0, *side.snapshot.peer_authentication.ports]

    def _judge(
        self, cells: Iterable[Cell], axes: Sequence[Axis], group: Group, tcp: bool
    ) -> tuple[list[Difference], bool]:
        """False: time ran out."""
        keys = {axis.name: axis.key for axis in axes if axis.key is not None}
        by_kind: defaultdict[tuple[bool, str, str, bool], dict[Cell, Request]] = defaultdict(dict)
        in_time = True
        for count, cell in enumerate(cells):
            if count % _EXPIRED_EVERY == 0 and self._is_expired():
                in_time = False
                break
            values = {axis.name: axis.classes[number].value for axis, number in zip(axes, cell, strict=True)}
            request = Request(group.principal, values, keys, self._hosts[0], tcp)
            for kind in changes(self.before.judge(request), self.after.judge(request)):
                by_kind[kind][cell] = request
        found: list[Difference] = []
        for (gains, before, after, shadow), requests in by_kind.items():
            for box in boxes(requests, axes):
                inside = tuple(requests[cell] for cell in itertools.product(*box))
                found.append(Difference(gains, before, after, shadow, self._kind(tcp), box, tuple(axes), inside))
        return found, in_time

    def _kind(self, tcp: bool) -> str:
        if tcp:
            return "TCP"
        return "HTTP" if Protocol.TCP in self._target.ports.values() else ""

    def _groups(self, callers: Sequence[SpiffeId], trust_domain: TrustDomain) -> list[Group]:
        bounds = [bound for bound in self._bounds() if bound.axis in CALLER_AXES]
        distinct = {(one.axis, one.condition.wanted, one.condition.positive, one.allow): one for one in bounds}
        known: dict[Hashable, Group] = {}
        for caller in dict.fromkeys(callers):
            group = known.setdefault(_signature(caller, distinct.values()), Group(caller, []))
            group.names.append(str(caller))
        others: dict[Hashable, Group] = {}
        for name, identity in strangers(distinct.values(), trust_domain):
            if identity not in callers:
                others.setdefault(_signature(identity, distinct.values()), Group(identity, [name]))
        plaintext = [Group(None, [PLAINTEXT])] if any(side.takes_plaintext for side in self.sides) else []
        return [*known.values(), *others.values(), *plaintext]


def changes(before: tuple[Verdict, Verdict], after: tuple[Verdict, Verdict]) -> Iterator[tuple[bool, str, str, bool]]:
    """(gains, rule before, rule after, shadow), of what is enforced and of what the policies in shadow would do."""
    enforced = before[0].allowed != after[0].allowed
    if enforced:
        yield after[0].allowed, before[0].rule, after[0].rule, False
    if before[1].allowed != after[1].allowed and not (enforced and before[1].allowed == before[0].allowed):
        yield after[1].allowed, before[1].rule, after[1].rule, True


def caller_value(axis: str, identity: SpiffeId | None) -> Value:
    if identity is None:
        return NONE
    if axis == PRINCIPAL_AXIS:
        return (identity.principal,)
    if axis == NAMESPACE_AXIS:
        return (identity.namespace or "",)
    assert axis == ACCOUNT_AXIS
    return (f"{identity.namespace}/{identity.service_account}" if identity.service_account else "",)


def _signature(identity: SpiffeId, bounds: Iterable[Bound]) -> tuple[bool, ...]:
    return tuple(bound.holds(caller_value(bound.axis, identity)) for bound in bounds)


def strangers(bounds: Iterable[Bound], trust_domain: TrustDomain) -> Iterator[tuple[str, SpiffeId]]:
    """(name, identity) of callers who are not there, first those whom no rule names."""
    by_axis: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for bound in bounds:
        by_axis[bound.axis] |= dict.fromkeys(bound.condition.wanted[:CALLER_PATTERNS_MAX])
    word = witnesses.unlike(itertools.chain(*by_axis.values()))
    yield ANYBODY_ELSE, SpiffeId.for_workload(trust_domain, word, word)
    for axis, patterns in by_axis.items():
        for pattern in list(patterns)[:CALLER_PATTERNS_MAX]:
            for text in witnesses.texts([pattern])[1:]:
                identity = _stranger(axis, text, word, trust_domain)
                if identity is not None:
                    yield _called(axis, pattern, identity), identity


def _stranger(axis: str, text: str, word: str, trust_domain: TrustDomain) -> SpiffeId | None:
    try:
        if axis == NAMESPACE_AXIS:
            return SpiffeId.for_workload(trust_domain, text, word)
        if axis == ACCOUNT_AXIS:
            namespace, _, account = text.partition("/")
            return SpiffeId.for_workload(trust_domain, namespace, account)
        return SpiffeId.parse(f"spiffe://{text}")
    except CertsError:
        return None  # nobody can be called that


def _called(axis: str, pattern: str, identity: SpiffeId) -> str:
    if axis == NAMESPACE_AXIS:
        return f"anybody else in namespace {identity.namespace}" if "*" not in pattern else (
            f"anybody else in a namespace {pattern}"
        )  # fmt: skip
    if shape_of(pattern)[0] is Shape.EXACT:
        # Beside whom a rule names stands a name that nobody has.
        return str(identity) if identity.principal == pattern else f"anybody else in namespace {identity.namespace}"
    return f"anybody else who is {pattern}"
