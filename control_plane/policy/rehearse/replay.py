"""Recorded calls judged by two sets of policies: which verdicts change.

A call is judged by the evaluator if what the record lacks (headers, tokens, some addresses) makes no difference to the
verdict; if it does, but the very same rules are in question on both sides, nothing changes either. The rest is told as
what it is: cannot be told, and by which attribute. Memory is bounded: by the number of different calls remembered and
of groups told of, not by the length of the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId
from control_plane.model import WorkloadSpec
from control_plane.policy.explain import refused_at_the_door
from control_plane.policy.model import MeshConfigSpec
from control_plane.policy.rehearse.mesh import NO_MUTUAL_TLS, Inhabitant, PaperMesh
from control_plane.policy.rehearse.possible import Known, Views
from control_plane.policy.rehearse.records import Asked, Record
from sidecar.rules.authz import Facts, Permit
from sidecar.rules.errors import RoutingError
from sidecar.rules.match import host_of
from sidecar.rules.request_facts import operation_attributes, peer_attributes
from sidecar.rules.routing import resolve
from sidecar.rules.snapshot import Snapshot, TlsMode

REMEMBERED_MAX = 100_000
GROUPS_MAX = 10_000
SAMPLES_MAX = 3

_NUMBER = re.compile(r"[0-9]+")
_HEX = re.compile(r"(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F-]{8,}")
_LONG = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9_~=-]{20,}")
_PLAINTEXT = "plaintext"


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    rule: str


@dataclass(frozen=True, slots=True)
class Told:
    """What two sets of policies make of a call."""

    before: Verdict | None
    after: Verdict | None
    """Both None: nothing changes, or it cannot be told."""
    missing: tuple[str, ...] = ()
    """What would have to be known; none: it is told."""
    recorded_otherwise: bool | None = None
    """The verdict of before, if it is known: for comparing with the record."""


@dataclass(slots=True)
class Group:
    """Calls that change in the same way."""

    caller: str
    service: str
    method: str
    path: str
    """With `{*}` for what looks like an id."""
    before: Verdict | None
    after: Verdict | None
    missing: tuple[str, ...]
    count: int = 0
    first_seen: str = ""
    last_seen: str = ""
    lines: list[int] = field(default_factory=list)
    """Of the first of them."""


@dataclass(slots=True)
class Replay:
    """Counts what becomes of the calls of a log."""

    before: PaperMesh
    after: PaperMesh
    """Both with the same workloads; none of them known: they are made out from the log."""
    changed: dict[object, Group] = field(default_factory=dict)
    untold: dict[object, Group] = field(default_factory=dict)
    calls: int = 0
    changed_count: int = 0
    untold_count: int = 0
    left_off: int = 0
    """Calls in groups beyond GROUPS_MAX."""
    recorded_otherwise: int = 0
    """Calls that `before` decides otherwise than the record says."""
    guessed: set[str] = field(default_factory=set)
    """Services of which only the name was known."""
    _remembered: dict[Asked, Told] = field(default_factory=dict)
    _judge: _Judge = field(init=False)

    def __post_init__(self) -> None:
        self._judge = _Judge(self.before, self.after, self.guessed)

    def add(self, record: Record) -> None:
        asked = record.asked
        told = self._remembered.get(asked)
        if told is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            told = self._remembered[asked] = self._judge.tell(asked)
        self.calls += 1
        if told.recorded_otherwise is not None and told.recorded_otherwise != record.allowed:
            self.recorded_otherwise += 1
        if told.missing:
            self.untold_count += 1
            self._count(self.untold, record, told)
        elif told.before is not None:
            self.changed_count += 1
            self._count(self.changed, record, told)

    def _count(self, groups: dict[object, Group], record: Record, told: Told) -> None:
        asked = record.asked
        service, path = self._judge.service_of(asked), path_pattern(asked.path)
        key = (asked.source, service, asked.method, path, told.before, told.after, told.missing)
        group = groups.get(key)
        if group is None:
            if len(groups) >= GROUPS_MAX:
                self.left_off += 1
                return
            group = groups[key] = Group(
                caller=asked.source or _PLAINTEXT,
                service=service,
                method=asked.method,
                path=path,
                before=told.before,
                after=told.after,
                missing=told.missing,
                first_seen=record.time,
                last_seen=record.time,
            )
        group.count += 1
        group.first_seen = min(group.first_seen, record.time)
        group.last_seen = max(group.last_seen, record.time)
        if len(group.lines) < SAMPLES_MAX:
            group.lines.append(record.line)


def path_pattern(path: str) -> str:
    """`/orders/{*}/items` for `/orders/7/items`."""
    return "/".join("{*}" if _is_id(segment) else segment for segment in path.split("/"))


def _is_id(segment: str) -> bool:
    return bool(_NUMBER.fullmatch(segment) or _HEX.fullmatch(segment) or _LONG.fullmatch(segment))


class _Judge:
    """Tells what becomes of one call on both sides."""

    def __init__(self, before: PaperMesh, after: PaperMesh, guessed: set[str]) -> None:
        self._sides = (before, after)
        self._views: dict[str, tuple[Views, Views]] = {}
        self._guessed = guessed
        self._by_identity: dict[str, list[Inhabitant]] = {}
        for one in before.inhabitants:
            self._by_identity.setdefault(str(one.spec.spiffe_id), []).append(one)

    def service_of(self, asked: Asked) -> str:
        inhabitant = self._called(asked)
        return inhabitant.service_name if inhabitant is not None else asked.authority or asked.destination

    def tell(self, asked: Asked) -> Told:
        if asked.is_cut:
            return _untold("the whole of what the log has shortened")
        inhabitant = self._called(asked)
        if inhabitant is None:
            return _untold("which workload was called")
        if inhabitant.service_name in self._guessed and (labels := self._labels_named(inhabitant)):
            return _untold(*(f"label {name} of {inhabitant.service_name}" for name in labels))
        try:
            principal = SpiffeId.parse(asked.source) if asked.source else None
        except CertsError:
            return _untold("who called")
        views = self._views_of(inhabitant)
        if asked.at_the_door:
            same = views[0].meaning == views[1].meaning
            return Told(None, None) if same else _untold("the token that was refused")
        found = [
            self._side(mesh, view, inhabitant, asked, principal) for mesh, view in zip(self._sides, views, strict=True)
        ]
        (form, before, missing), (form_after, after, missing_after) = found
        if before is not None and after is not None:
            changes = before.allowed != after.allowed
            return Told(before if changes else None, after if changes else None, recorded_otherwise=before.allowed)
        known = None if before is None else before.allowed
        if form == form_after:
            return Told(None, None, recorded_otherwise=known)
        return Told(None, None, tuple(sorted(missing | missing_after)), recorded_otherwise=known)

    def _labels_named(self, inhabitant: Inhabitant) -> set[str]:
        """Of a workload that is only known by its name, the labels are those of every token. Which others are asked?"""
        return {
            name
            for mesh in self._sides
            for one in mesh.resources
            if not isinstance(one.spec, MeshConfigSpec)
            and one.namespace in (inhabitant.spec.namespace, mesh.mesh.root_namespace)
            for name in one.spec.selection.labels
            if name != "app"
        }

    def _side(
        self, mesh: PaperMesh, views: Views, inhabitant: Inhabitant, asked: Asked, principal: SpiffeId | None
    ) -> tuple[object, Verdict | None, frozenset[str]]:
        """(form, verdict if it can be told, what is missing for it)."""
        snapshot = mesh.snapshot(inhabitant)
        port = _port(asked, inhabitant)
        if port is None and snapshot.peer_authentication.ports:
            return object(), None, frozenset({"port"})
        tls = snapshot.peer_authentication.port(port or 0)
        if principal is None:
            if tls.peers and tls.mode is not TlsMode.STRICT and not asked.source_ip:
                return object(), None, frozenset({"source.ip"})
            if refused_at_the_door(tls, asked.source_ip, mesh.now):
                return False, Verdict(False, NO_MUTUAL_TLS), frozenset()
        if mesh.tls(inhabitant, port or 0).mode is TlsMode.DISABLE:
            principal = None
        facts = Facts(
            principal=principal,
            host=host_of(asked.authority),
            port=port or 0,
            method=asked.method,
            path=asked.path,
            source_ip=asked.source_ip,
        )
        possible = views.possible(_known(snapshot, facts, port is not None, has_no_token=not views.has_users))
        if possible.allowed is None:
            return possible.form, None, possible.missing
        judge = mesh.authorizer(inhabitant).for_peer(facts.peer)
        verdict = judge.authorize(facts.host, facts.port, facts.method, facts.path)
        # What is not known makes no difference, so the evaluator says the same without it; the rule it names is one
        # that decides whatever is not known, or the default.
        return possible.form, Verdict(isinstance(verdict, Permit), verdict.rule), frozenset()

    def _views_of(self, inhabitant: Inhabitant) -> tuple[Views, Views]:
        held = self._views.get(inhabitant.service_name)
        if held is None:
            before, after = (Views(mesh.snapshot(inhabitant)) for mesh in self._sides)
            held = self._views[inhabitant.service_name] = (before, after)
        return held

    def _called(self, asked: Asked) -> Inhabitant | None:
        candidates = self._by_identity.get(asked.destination)
        if candidates is None:
            guess = _guess(asked)
            if guess is None or guess.spec.spiffe_id.trust_domain != self._sides[0].trust_domain:
                return None
            self._by_identity[asked.destination] = candidates = [guess]
            self._guessed.add(guess.service_name)
        if len(candidates) == 1:
            return candidates[0]
        name = _service_named(asked, candidates[0].spec.namespace)
        return next((one for one in candidates if one.service_name == name), None)


def _guess(asked: Asked) -> Inhabitant | None:
    """A workload of which only a call is known: its identity, and the name it was called by."""
    try:
        identity = SpiffeId.parse(asked.destination)
    except CertsError:
        return None
    namespace, account = identity.namespace, identity.service_account
    if namespace is None or account is None:
        return None
    name = _service_named(asked, namespace)
    service = name.partition(".")[0] if name is not None and name.endswith(f".{namespace}") else account
    spec = WorkloadSpec(
        spiffe_id=identity, service=service, namespace=namespace, service_account=account, labels={"app": service}
    )
    return Inhabitant(spec=spec)


def _service_named(asked: Asked, namespace: str) -> str | None:
    try:
        return str(resolve(host_of(asked.authority), None, namespace))
    except RoutingError:
        return None


def _port(asked: Asked, inhabitant: Inhabitant) -> int | None:
    """As recorded; else as the authority has it; else the only one there is. None: not known."""
    if asked.port:
        return asked.port
    port = asked.authority.rpartition(":")[2]
    if ":" in asked.authority and port.isascii() and port.isdigit():
        return int(port)
    return next(iter(inhabitant.ports)) if len(inhabitant.ports) == 1 else None


def _known(snapshot: Snapshot, facts: Facts, has_port: bool, *, has_no_token: bool) -> Known:
    peer: list[str | None] = list(peer_attributes(facts.peer))
    principal, namespace, account, source_ip, _, _, remote_ip = peer
    address = source_ip or None
    host, port, method, path = operation_attributes(facts.host, facts.port, facts.method, facts.path)
    is_tcp = not facts.method
    operation = (host or (None if not is_tcp else ""), port if has_port else None, method, path)
    remote = (remote_ip or None) if snapshot.trusted_proxies_count == 0 else None
    return Known(
        peer=(principal, namespace, account, address, None, None, remote),
        operation=operation,
        has_no_token=has_no_token,
        is_tcp=is_tcp,
    )


def _untold(*missing: str) -> Told:
    return Told(None, None, tuple(sorted(missing)))


def ordered(groups: Iterable[Group]) -> Sequence[Group]:
    """What is lost first, then by how often."""
    return sorted(
        groups, key=lambda one: (one.after is not None and one.after.allowed, -one.count, one.caller, one.service)
    )
