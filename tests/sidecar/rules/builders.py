"""Snapshots and policies for tests, in one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.rules.authz import Facts
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Snapshot

TD = TrustDomain.parse("mesh.local")
ME = SpiffeId.for_workload(TD, "shop", "billing")


def workload(name: str) -> SpiffeId | None:
    """ "web" is of namespace shop, "other/web" of namespace other, "-" nobody, "@ada" an operator."""
    if name == "-":
        return None
    if name.startswith("@"):
        return SpiffeId.for_operator(TD, name[1:])
    namespace, _, account = name.rpartition("/")
    return SpiffeId.for_workload(TD, namespace or "shop", account)


def policy(action: Action, *rules: Rule, name: str = "p", namespace: str = "shop") -> AuthorizationPolicy:
    return AuthorizationPolicy(namespace=namespace, name=name, action=action, rules=rules, source=f"{name}.yaml:1")


def allow(*rules: Rule, name: str = "a") -> AuthorizationPolicy:
    return policy(Action.ALLOW, *rules, name=name)


def deny(*rules: Rule, name: str = "d") -> AuthorizationPolicy:
    return policy(Action.DENY, *rules, name=name)


def snapshot(
    policies: Iterable[AuthorizationPolicy] = (),
    *,
    default: Action = Action.DENY,
    version: int = 7,
    labels: Mapping[str, str] | None = None,
) -> Snapshot:
    return Snapshot(
        epoch=1,
        version=version,
        trust_domain=TD,
        identity=ME,
        service="billing",
        namespace="shop",
        labels=labels or {},
        default_action=default,
        policies=tuple(policies),
        services={},
        trust_anchors_der=(),
        certificate_lifetime_s=3600,
    )


def facts(
    caller: str = "web", method: str = "GET", path: str = "/", *, host: str = "billing.shop", port: int = 8080
) -> Facts:
    return Facts(principal=workload(caller), host=host, port=port, method=method, path=path)


def tcp_facts(caller: str = "web", *, port: int = 5432) -> Facts:
    return Facts(principal=workload(caller), port=port)
