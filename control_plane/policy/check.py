"""Lint: what is legal, but probably not what was meant. Warnings are for people; nothing depends on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from control_plane.policy.model import MeshConfigSpec
from sidecar.rules.match import Shape, shape_of
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule

WARNINGS_MAX = 50
ISTIO_ROOT_NAMESPACE = "istio-system"
ISTIO_LOCAL_TRUST_DOMAIN = "cluster.local/"


def mesh_warnings(spec: MeshConfigSpec) -> tuple[str, ...]:
    if spec.default_action is Action.ALLOW:
        return ("spec.defaultAction: ALLOW lets every workload call every other that no ALLOW policy selects",)
    return ()


def policy_warnings(policy: AuthorizationPolicy) -> tuple[str, ...]:
    """At most WARNINGS_MAX sentences, each beginning with the field."""
    return tuple(itertools.islice(_policy_warnings(policy), WARNINGS_MAX))


def _policy_warnings(policy: AuthorizationPolicy) -> Iterator[str]:
    if policy.namespace == ISTIO_ROOT_NAMESPACE:
        yield f"metadata.namespace: here {ISTIO_ROOT_NAMESPACE} is a namespace like any other, not the whole mesh"
    if not policy.rules:
        yield (
            "spec.rules: an ALLOW policy without rules allows nobody"
            if policy.action is Action.ALLOW
            else "spec.rules: a DENY policy without rules has no effect"
        )
    for number, rule in enumerate(policy.rules):
        path = f"spec.rules[{number}]"
        if not rule.sources and not rule.operations:
            verb = "allows" if policy.action is Action.ALLOW else "denies"
            yield f"{path}: a rule without from and to {verb} everything to everybody"
        yield from _source_warnings(rule, path, policy.action)
        if policy.action is Action.DENY:
            yield from _deny_path_warnings(rule, path)


def _source_warnings(rule: Rule, path: str, action: Action) -> Iterator[str]:
    for number, source in enumerate(rule.sources):
        field = f"{path}.from[{number}].source"
        if action is Action.ALLOW and (source.not_principals or source.not_namespaces):
            yield f"{field}: ALLOW by `not` lets in everybody else, also those who join later; name who may"
        principals = source.principals + source.not_principals
        if any(value.startswith(ISTIO_LOCAL_TRUST_DOMAIN) for value in principals):
            yield f"{field}: Istio reads cluster.local as `this mesh`; here it is the trust domain of that name"


def _deny_path_warnings(rule: Rule, path: str) -> Iterator[str]:
    """`/admin` and `/admin/x` are two paths (security.md C14): a DENY usually means both."""
    for number, operation in enumerate(rule.operations):
        field = f"{path}.to[{number}].operation.paths"
        denied = _Paths(operation.paths)
        for shape, text in denied.shapes:
            if shape is Shape.EXACT and text != "/" and not denied.all_below(text.rstrip("/") + "/"):
                yield f"{field}: {text} leaves what is below it; add {text.rstrip('/')}/*"
            if shape is Shape.PREFIX and text.endswith("/") and text != "/" and not denied.holds(text[:-1]):
                yield f"{field}: {text}* leaves {text[:-1]} itself; add it"


class _Paths:
    """The paths of one operation. Each question takes as long as the path, not as the list."""

    def __init__(self, values: tuple[str, ...]) -> None:
        self.shapes = [shape_of(value) for value in values]
        self._everything = any(shape is Shape.PRESENCE for shape, _ in self.shapes)
        self._exact = {text for shape, text in self.shapes if shape is Shape.EXACT}
        self._prefixes = {text for shape, text in self.shapes if shape is Shape.PREFIX}

    def holds(self, path: str) -> bool:
        return path in self._exact or self.all_below(path)

    def all_below(self, path: str) -> bool:
        """Whether every path that starts with `path` is there."""
        return self._everything or any(path[:length] in self._prefixes for length in range(1, len(path) + 1))
