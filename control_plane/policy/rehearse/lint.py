"""All checks of several documents together. What workloads there are is given, or not known: then what asks for them
is left out. Findings are for people; nothing is changed and nothing refused by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from certs.spiffe_id import TrustDomain
from control_plane.policy import compile as compiler
from control_plane.policy.across import Served, Together
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
)
from control_plane.policy.rehearse import lint_rules, lint_workloads
from control_plane.policy.rehearse.findings import APPLY_WARNS, CODES, PLAINTEXT, Finding
from control_plane.policy.rehearse.lint_rules import RuleAt
from control_plane.policy.rehearse.mesh import Inhabitant
from control_plane.policy.rehearse.possible import view_of
from sidecar.rules.conditions import Compiler
from sidecar.rules.snapshot import Action

_ORDER = {code.id: number for number, code in enumerate(CODES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is looked at."""

    resources: tuple[ParsedResource, ...]
    inhabitants: tuple[Inhabitant, ...]
    """None: not known."""
    trust_domain: TrustDomain
    now: float

    @property
    def mesh(self) -> MeshConfigSpec:
        return next((one.spec for one in self.resources if isinstance(one.spec, MeshConfigSpec)), MeshConfigSpec())


def lint(world: World) -> list[Finding]:
    """In the order of files, lines and codes."""
    policies = [one.spec for one in world.resources if isinstance(one.spec, PolicySpec)]
    requests = [one.spec for one in world.resources if isinstance(one.spec, RequestAuthenticationSpec)]
    rules = list(_rules(policies, world))
    found = [
        *lint_rules.found(rules, world.mesh),
        *lint_workloads.found(policies, requests, rules, world.mesh, world.inhabitants),
        *lint_workloads.selects_nothing(world.resources, world.mesh, world.inhabitants),
        *_plaintext(world.resources),
    ]
    found += _apply_warnings(world, found)
    return sorted(found, key=_place)


def _place(finding: Finding) -> tuple[str, int, int, str]:
    file, _, line = finding.place.rpartition(":")
    return file, int(line) if line.isdigit() else 0, _ORDER[finding.code.id], finding.message


def _rules(policies: Iterable[PolicySpec], world: World) -> Iterator[RuleAt]:
    """Those enforced."""
    proxies = world.mesh.trusted_proxies_count
    compilers = {action: Compiler(allow=action is Action.ALLOW, trusted_proxies_count=proxies) for action in Action}
    for spec in sorted(policies, key=lambda one: (one.policy.namespace, one.policy.name)):
        policy = compiler.resolved(spec.policy, world.trust_domain)
        file, colon, _ = policy.source.rpartition(":")
        for number, rule in enumerate(policy.rules):
            place = f"{file}:{rule.line}" if rule.line and colon else policy.source
            view = view_of(policy, number, compilers[policy.action])
            yield RuleAt(spec=spec, policy=policy, number=number, place=place, view=view)


def _plaintext(resources: Iterable[ParsedResource]) -> Iterator[Finding]:
    for one in resources:
        spec = one.spec
        if isinstance(spec, PeerAuthenticationSpec) and spec.takes_plaintext and not spec.until:
            yield Finding(
                code=PLAINTEXT,
                place=spec.source,
                subject=f"PeerAuthentication {spec.full_name}",
                field="spec",
                message="takes plaintext without an end",
                hint="say when it ends: hauberk.dev/plaintext-until: 2026-12-31T00:00:00Z",
            )


def _apply_warnings(world: World, found: Sequence[Finding]) -> Iterator[Finding]:
    """What `apply` says too, unless a finding of the same place says it already."""
    said = {(one.place.rpartition(":")[0], one.subject.partition("#")[0], one.field) for one in found}
    for resource in world.resources:
        name = "/".join(filter(None, (resource.namespace, resource.name)))
        subject, file = f"{resource.kind} {name}", resource.source.rpartition(":")[0]
        for warning in resource.warnings:
            field, _, text = warning.partition(": ")
            if (file, subject, field) not in said:
                yield _warned(resource.source, subject, field, text)
    served = [Served(member=one.spec, ports=one.ports) for one in world.inhabitants]
    together = Together(world.resources, (), default=world.mesh, served=served)
    subjects = {one.source: f"{one.kind} {one.namespace}/{one.name}" for one in world.resources}
    for text in (*together.faults(), *together.warnings(world.now)):
        place, _, rest = text.partition(": ")
        field, _, message = rest.partition(": ")
        if "which is TCP" not in message:  # HB040 says it
            yield _warned(place, subjects.get(place, "the mesh"), field, message or rest)


def _warned(place: str, subject: str, field: str, text: str) -> Finding:
    message, _, hint = text.partition("; ")
    return Finding(
        code=APPLY_WARNS,
        place=place,
        subject=subject,
        field=field,
        message=f"{field}: {message}",
        hint=hint or "see docs/policy-reference.md",
    )
