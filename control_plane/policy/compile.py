"""Which policies one workload needs, and how they travel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from control_plane.policy.model import MeshConfigSpec, PolicySpec
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source

_ACTIONS = {Action.ALLOW: pb.ACTION_ALLOW, Action.DENY: pb.ACTION_DENY}


class HasSpec(Protocol):
    """A `ParsedResource`, or whatever the store makes of one."""

    @property
    def spec(self) -> PolicySpec | MeshConfigSpec: ...


def policies_for(
    resources: Iterable[PolicySpec | HasSpec], namespace: str, labels: Mapping[str, str]
) -> tuple[AuthorizationPolicy, ...]:
    """The policies that select a workload, sorted by name: equal input makes equal snapshots.

    `namespace` and `labels` are those its join token bound, never what a sidecar says of itself."""
    specs = (one if isinstance(one, PolicySpec) else one.spec for one in resources)
    selected = [spec.policy for spec in specs if isinstance(spec, PolicySpec) and selects(spec, namespace, labels)]
    return tuple(sorted(selected, key=lambda policy: (policy.namespace, policy.name)))


def selects(spec: PolicySpec, namespace: str, labels: Mapping[str, str]) -> bool:
    """Same namespace, and all labels of the selector; no selector selects the whole namespace."""
    return spec.policy.namespace == namespace and all(
        labels.get(name) == value for name, value in spec.selector.items()
    )


def policy_to_proto(policy: AuthorizationPolicy) -> pb.AuthorizationPolicy:
    return pb.AuthorizationPolicy(
        name=policy.name,
        namespace=policy.namespace,
        action=_ACTIONS[policy.action],
        rules=[_rule(rule) for rule in policy.rules],
        source=policy.source,
    )


def _rule(rule: Rule) -> pb.Rule:
    return pb.Rule(
        sources=[_source(source) for source in rule.sources],
        operations=[_operation(operation) for operation in rule.operations],
    )


def _source(source: Source) -> pb.Source:
    return pb.Source(
        principals=source.principals,
        not_principals=source.not_principals,
        namespaces=source.namespaces,
        not_namespaces=source.not_namespaces,
    )


def _operation(operation: Operation) -> pb.Operation:
    return pb.Operation(
        hosts=operation.hosts,
        not_hosts=operation.not_hosts,
        ports=operation.ports,
        not_ports=operation.not_ports,
        methods=operation.methods,
        not_methods=operation.not_methods,
        paths=operation.paths,
        not_paths=operation.not_paths,
    )
