"""What policies say, once for all workloads that they say the same to.

A mesh of a thousand workloads and ten thousand rules changes with every sidecar that comes or goes, and all snapshots
are made anew then. So a policy is encoded once, the workloads that the same resources select share one part of a
snapshot with its digest, and both outlive the world they were made in, as long as the resources do.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from certs.spiffe_id import TrustDomain
from control_plane.policy import compile as compiler
from control_plane.policy import mtls
from control_plane.policy.compile import Member
from control_plane.policy.model import (
    MeshConfigSpec,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
    Spec,
)
from protos.hauberk.v1 import discovery_pb2 as pb

Selecting = PolicySpec | PeerAuthenticationSpec | RequestAuthenticationSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Of a snapshot: its policies, PeerAuthentication and RequestAuthentications. Never changed."""

    message: pb.Snapshot = field(repr=False)
    digest: bytes
    """Equal for equal messages."""


class Selected:
    """Of the resources at one revision."""

    def __init__(
        self, specs: Sequence[Spec], mesh: MeshConfigSpec, trust_domain: TrustDomain, before: Selected | None = None
    ) -> None:
        """`before`: of an earlier revision, whose work is used again where the resources are the same objects."""
        self._specs: list[Selecting] = [
            *compiler.specs_of(specs, PolicySpec),
            *compiler.specs_of(specs, PeerAuthenticationSpec),
            *compiler.specs_of(specs, RequestAuthenticationSpec),
        ]
        self._mesh = mesh
        self._trust_domain = trust_domain
        self._by_place: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for number, spec in enumerate(self._specs):
            for place in _places(spec):
                self._by_place[place].append(number)
        self._encoded: dict[int, tuple[Selecting, pb.AuthorizationPolicy]] = {}
        self._parts: dict[tuple[int, ...], Part] = {}
        if before is not None and before._trust_domain == trust_domain:
            self._take_over(before)

    def _take_over(self, before: Selected) -> None:
        same = len(self._specs) == len(before._specs) and all(map(_is, self._specs, before._specs))
        if same and self._mesh == before._mesh:
            self._parts = before._parts
        kept = {id(spec) for spec in self._specs}
        # An entry holds its spec, so an id cannot come to mean another while it is there.
        self._encoded = {key: entry for key, entry in before._encoded.items() if key in kept}

    def part_for(self, workload: Member) -> Part:
        numbers = tuple(sorted(set(self._selecting(workload))))
        part = self._parts.get(numbers)
        if part is None:
            part = self._parts[numbers] = self._part([self._specs[number] for number in numbers])
        return part

    def _selecting(self, workload: Member) -> Iterator[int]:
        marks = [("", ""), ("", workload.service), *workload.labels.items()]
        for namespace in {workload.namespace, self._mesh.root_namespace}:
            for name, value in marks:
                for number in self._by_place.get((namespace, name, value), ()):
                    if compiler.selects(self._specs[number], workload, self._mesh):
                        yield number

    def _part(self, specs: Iterable[Selecting]) -> Part:
        policies, peers, requests = [], [], []
        for spec in specs:
            match spec:
                case PolicySpec():
                    policies.append(self._policy(spec))
                case PeerAuthenticationSpec():
                    peers.append(spec)
                case RequestAuthenticationSpec():
                    requests.append(compiler.request_authentication_to_proto(spec.authentication))
        peer = mtls.resolve(peers, self._mesh)
        message = pb.Snapshot(
            policies=policies,
            peer_authentication=compiler.peer_authentication_to_proto(peer),
            request_authentications=requests,
            trusted_proxies_count=self._mesh.trusted_proxies_count,
        )
        return Part(message=message, digest=hashlib.sha256(message.SerializeToString(deterministic=True)).digest())

    def _policy(self, spec: PolicySpec) -> pb.AuthorizationPolicy:
        held = self._encoded.get(id(spec))
        if held is None:
            policy = compiler.resolved(spec.policy, self._trust_domain)
            held = self._encoded[id(spec)] = (spec, compiler.policy_to_proto(policy))
        return held[1]


def _is(one: object, other: object) -> bool:
    return one is other


def _places(spec: Selecting) -> list[tuple[str, str, str]]:
    """Where a workload finds it that it may select: under one of its labels, its service or, without a mark, at all.

    No label is called "", so a service is told from one by its name."""
    if spec.selection.services:
        return [(spec.namespace, "", service) for service in spec.selection.services]
    name, value = min(spec.selection.labels.items(), default=("", ""))
    return [(spec.namespace, name, value)]
