"""What no document shows alone: faults and slips of resources together, after an `apply` and before it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import chain, islice
from typing import TypeVar

from control_plane.policy.check import WARNINGS_MAX
from control_plane.policy.compile import (
    Member,
    Selectable,
    peer_authentication_for,
    request_authentication_to_proto,
    selects,
)
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
    Spec,
)
from control_plane.policy.mtls import lacks, level_of
from control_plane.policy.own_annotations import PLAINTEXT_FROM, PLAINTEXT_UNTIL
from sidecar.rules.decode import RULES_MAX, SNAPSHOT_OCTETS_MAX, VALUES_MAX
from sidecar.rules.decode_policies import JWT_RULES_MAX
from sidecar.rules.keys import Attribute, parse_key
from sidecar.rules.snapshot import Action, Operation, PortTls, Protocol, Rule, Source, TlsMode

FAULTS_MAX = 100
POLICIES_OCTETS_MAX = SNAPSHOT_OCTETS_MAX * 3 // 4
"""Of what selects one workload; the rest of a snapshot is for endpoints, anchors and revocations."""
# Protocol Buffers write a length of up to three octets and a tag before each text; some more is left for messages,
# which have numbers as well, and for a policy's name and namespace.
TEXT_OCTETS, FRAME_OCTETS, NAMES_OCTETS = 4, 24, 512
S = TypeVar("S")
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A workload, and what its sidecars say of its ports."""

    member: Member
    ports: Mapping[int, Protocol] = field(default_factory=dict)


def key_of(spec: Spec) -> Key:
    """As `ParsedResource.key`; there is one MeshConfig."""
    match spec:
        case PolicySpec(policy=one):
            return "AuthorizationPolicy", one.namespace, one.name
        case PeerAuthenticationSpec():
            return "PeerAuthentication", spec.namespace, spec.name
        case RequestAuthenticationSpec(authentication=one):
            return "RequestAuthentication", one.namespace, one.name
        case MeshConfigSpec():
            return "MeshConfig", "", "default"


class Together:
    """All resources as they would be after an `apply`."""

    def __init__(
        self,
        applied: Sequence[ParsedResource],
        stored: Iterable[Spec],
        *,
        default: MeshConfigSpec,
        served: Sequence[Served] = (),
    ) -> None:
        """`default` holds while there is no MeshConfig."""
        self._applied = {one.key for one in applied}
        specs = {key_of(one): one for one in stored} | {one.key: one.spec for one in applied}
        self.specs = tuple(specs.values())
        mesh = specs.get(key_of(default), default)
        assert isinstance(mesh, MeshConfigSpec)
        self.mesh = mesh
        self._served = served

    def faults(self) -> list[str]:
        """Why nothing of it may be stored."""
        return list(islice(self._faults(), FAULTS_MAX))

    def _faults(self) -> Iterator[str]:
        mesh_is_new = key_of(self.mesh) in self._applied
        for spec in self._of_kind(PeerAuthenticationSpec):
            missing = lacks(spec, self.mesh)
            if missing and (mesh_is_new or key_of(spec) in self._applied):
                yield (
                    f"{spec.source}: metadata.annotations: PeerAuthentication {spec.full_name} takes plaintext without"
                    f" {missing}, which MeshConfig demands; set {PLAINTEXT_UNTIL} and {PLAINTEXT_FROM}"
                )
        yield from self._too_many()

    def _too_many(self) -> Iterator[str]:
        """More than one sidecar takes (security.md H09); asked workload by workload only if there is so much at all."""
        if not any(_excess(self.specs)):
            return
        for served in self._served:
            selected = (one for one in self.specs if not isinstance(one, MeshConfigSpec) and self._selects(one, served))
            for excess in filter(None, _excess(selected)):
                yield f"{served.member.service}.{served.member.namespace} would have {excess}; nothing was stored"
                return

    def warnings(self, now: float) -> list[str]:
        """Of what is applied: legal, and probably not meant. Each with its place."""
        return list(islice(self._warnings(now), WARNINGS_MAX))

    def _warnings(self, now: float) -> Iterator[str]:
        for peer in self._of_kind(PeerAuthenticationSpec):
            if key_of(peer) in self._applied:
                yield from self._peer_warnings(peer, now)
        yield from self._token_warnings(now)
        for policy in self._of_kind(PolicySpec):
            if key_of(policy) in self._applied:
                yield from self._policy_warnings(policy)

    def _peer_warnings(self, spec: PeerAuthenticationSpec, now: float) -> Iterator[str]:
        if spec.takes_plaintext and 0 < spec.until <= now:
            yield f"{spec.source}: metadata.annotations: {PLAINTEXT_UNTIL} has passed: its ports are STRICT"
        others = sorted(
            other.full_name
            for other in self._of_kind(PeerAuthenticationSpec)
            if other.full_name != spec.full_name and self._compete(spec, other)
        )
        if others:
            yield (
                f"{spec.source}: metadata.name: {', '.join(others[:3])} is for the same workloads: the strictest holds"
                " (in Istio the oldest); make one of them"
            )

    def _compete(self, one: PeerAuthenticationSpec, other: PeerAuthenticationSpec) -> bool:
        level = level_of(one, self.mesh)
        if level != level_of(other, self.mesh):
            return False
        if level < 2:
            return one.namespace == other.namespace
        if one.namespace == other.namespace and one.selection == other.selection:
            return True
        return any(self._selects(one, served) and self._selects(other, served) for served in self._served)

    def _token_warnings(self, now: float) -> Iterator[str]:
        """Whose workloads take plaintext, in which nobody but the machine itself may show a token (row E26)."""
        peers = self._of_kind(PeerAuthenticationSpec)
        if not any(spec.takes_plaintext for spec in peers):
            return
        applied = {spec.source for spec in peers if key_of(spec) in self._applied}
        exposed = _Exposed(peers, self.mesh, now)
        for spec in self._of_kind(RequestAuthenticationSpec):
            is_applied = key_of(spec) in self._applied
            for name, member in self._those_of(spec):
                sources = exposed.sources(member)
                by = next((one for one in sources if is_applied or one in applied), "")
                if by:
                    place = spec.authentication.source if is_applied else by
                    users = f"{spec.namespace}/{spec.authentication.name}"
                    yield (
                        f"{place}: spec: {name} takes plaintext ({by}) and tokens (RequestAuthentication {users}): a"
                        " token in plaintext from another machine is refused; let callers with tokens use mTLS"
                    )
                    break

    def _those_of(self, spec: RequestAuthenticationSpec) -> Iterator[tuple[str, Member]]:
        """The workloads a resource selects, by name; and one such as it asks for, which need not be there yet."""
        for served in self._served:
            if self._selects(spec, served):
                yield f"{served.member.service}.{served.member.namespace}", served.member
        service = min(spec.selection.services, default="")
        labels = spec.selection.labels
        yield "what it selects", Selectable(namespace=spec.namespace, labels=labels, service=service)

    def _policy_warnings(self, spec: PolicySpec) -> Iterator[str]:
        policy = spec.policy
        if not self.mesh.trusted_proxies_count and any(map(_asks_remote, policy.rules)):
            yield (
                f"{policy.source}: spec.rules: while MeshConfig has no trustedProxiesCount the remote address is the"
                " source's"
            )
        if policy.action is Action.ALLOW:
            yield from self._http_on_tcp(spec)

    def _http_on_tcp(self, spec: PolicySpec) -> Iterator[str]:
        """An ALLOW rule that asks for what opaque TCP does not have never matches there (security.md C23)."""
        asking = [(number, rule) for number, rule in enumerate(spec.policy.rules) if _asks_http(rule)]
        if not asking:
            return
        for served in self._served:
            if not served.ports or not self._selects(spec, served):
                continue
            tcp = {str(port) for port, protocol in served.ports.items() if protocol is Protocol.TCP}
            for number, rule in asking:
                named = {port for operation in rule.operations for port in operation.ports}
                lost = tcp & named if named else tcp if len(tcp) == len(served.ports) else set()
                if lost:
                    yield (
                        f"{spec.policy.source}: spec.rules[{number}]: never matches at {served.member.service}."
                        f"{served.member.namespace}:{min(lost, key=int)}, which is TCP and has neither method nor path,"
                        " host, header or token"
                    )
                    return

    def _selects(self, spec: PolicySpec | PeerAuthenticationSpec | RequestAuthenticationSpec, served: Served) -> bool:
        return selects(spec, served.member, self.mesh)

    def _of_kind(self, kind: type[S]) -> list[S]:
        return [one for one in self.specs if isinstance(one, kind)]


def _excess(specs: Iterable[Spec]) -> list[str]:
    """What is more than a sidecar takes."""
    rules_count = values_count = jwt_count = octets_count = 0
    for spec in specs:
        octets_count += octets_of(spec)
        if isinstance(spec, RequestAuthenticationSpec):
            jwt_count += len(spec.authentication.jwt_rules)
        if isinstance(spec, PolicySpec):
            rules_count += len(spec.policy.rules)
            values_count += sum(map(values_in, spec.policy.rules))
    counts = (
        (rules_count, RULES_MAX, "rules"),
        (values_count, VALUES_MAX, "values in rules"),
        (jwt_count, JWT_RULES_MAX, "jwtRules"),
        (octets_count, POLICIES_OCTETS_MAX, "octets of policies"),
    )
    return [f"{count} {what}, more than {most}" for count, most, what in counts if count > most]


class _Exposed:
    """Which workloads take plaintext from other machines, each asked once."""

    def __init__(self, specs: Iterable[PeerAuthenticationSpec], mesh: MeshConfigSpec, now: float) -> None:
        self._mesh, self._now = mesh, now
        self._by_namespace: dict[str, list[PeerAuthenticationSpec]] = {}
        for spec in specs:
            self._by_namespace.setdefault(spec.namespace, []).append(spec)
        self._known: dict[int, tuple[Member, list[str]]] = {}

    def sources(self, member: Member) -> list[str]:
        """Of the PeerAuthentications that make it so."""
        if id(member) not in self._known:  # with the member, so that nothing else gets its id
            self._known[id(member)] = member, self._ask(member)
        return self._known[id(member)][1]

    def _ask(self, member: Member) -> list[str]:
        namespaces = dict.fromkeys((member.namespace, self._mesh.root_namespace))
        specs = [spec for name in namespaces for spec in self._by_namespace.get(name, ())]
        found = peer_authentication_for(specs, member, self._mesh)
        return [tls.source for tls in (found.rest, *found.ports.values()) if self._is_exposed(tls)]

    def _is_exposed(self, tls: PortTls) -> bool:
        if tls.mode is TlsMode.STRICT or 0 < tls.until <= self._now:
            return False
        return not tls.peers or not all(ip_network(peer).is_loopback for peer in tls.peers)


def values_in(rule: Rule) -> int:
    """As `sidecar.rules.decode` counts them, or a few more."""
    return len(rule.sources) + len(rule.operations) + len(rule.when) + sum(map(len, _lists_in(rule)))


def _lists_in(rule: Rule) -> Iterator[Sequence[str]]:
    parts: tuple[Source | Operation, ...] = (*rule.sources, *rule.operations)
    yield from (getattr(part, name) for part in parts for name in part.__slots__)
    yield from (values for when in rule.when for values in (when.values, when.not_values))


def octets_of(spec: Spec) -> int:
    """What it takes in a snapshot, or somewhat more."""
    match spec:
        case PolicySpec(policy=policy):
            rules = policy.rules
            texts = chain((policy.source,), *chain.from_iterable(map(_lists_in, rules)))
            keys = (when.key for rule in rules for when in rule.when)
            parts_count = sum(len(rule.sources) + len(rule.operations) + len(rule.when) for rule in rules)
            return _octets(texts) + _octets(keys) + FRAME_OCTETS * (parts_count + len(rules) + 1) + NAMES_OCTETS
        case RequestAuthenticationSpec(authentication=authentication):
            return request_authentication_to_proto(authentication).ByteSize()
        case PeerAuthenticationSpec():
            return (_octets((spec.source, *spec.peers)) + FRAME_OCTETS) * (len(spec.ports) + 1)
        case MeshConfigSpec():
            return 0


def _octets(texts: Iterable[str]) -> int:
    return sum(TEXT_OCTETS + (len(text) if text.isascii() else len(text.encode())) for text in texts)


def _asks_remote(rule: Rule) -> bool:
    return any(one.remote_ip_blocks or one.not_remote_ip_blocks for one in rule.sources) or any(
        when.key == Attribute.REMOTE_IP.value for when in rule.when
    )


_OF_REQUESTS = (
    Attribute.HEADER, Attribute.REQUEST_PRINCIPAL, Attribute.AUDIENCES, Attribute.PRESENTER, Attribute.CLAIM,
)  # fmt: skip


def _asks_http(rule: Rule) -> bool:
    """In each of its alternatives, so that none of them can match opaque TCP."""
    if any(parse_key(when.key).attribute in _OF_REQUESTS for when in rule.when):
        return True
    in_from = rule.sources and all(one.request_principals or one.not_request_principals for one in rule.sources)
    in_to = rule.operations and all(
        one.hosts or one.not_hosts or one.methods or one.not_methods or one.paths or one.not_paths
        for one in rule.operations
    )
    return bool(in_from or in_to)
