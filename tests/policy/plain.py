"""YAML -> values, as plainly as can be: for the naive interpreter, so that the real reader is judged too.

Only for documents known to be good. Nothing here is shared with `control_plane.policy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source, When

TRUST_DOMAIN = "mesh.local"
Json = Any
"""Of `yaml.safe_load`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The workload that is called, as its join token bound it."""

    service: str
    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What holds for one workload."""

    policies: tuple[AuthorizationPolicy, ...]
    default_action: Action
    trusted_proxies: int


def in_force(text: str, called: Called) -> InForce:
    documents = _documents(text)
    mesh: Json = next((one["spec"] for one in documents if one["kind"] == "MeshConfig"), {})
    root = mesh.get("rootNamespace", "istio-system")
    written = [one for one in documents if one["kind"] == "AuthorizationPolicy"]
    return InForce(
        policies=tuple(policy(one) for one in written if selects(one, called, root)),
        default_action=Action[mesh.get("defaultAction", "DENY")],
        trusted_proxies=int(mesh.get("trustedProxiesCount", 0)),
    )


@lru_cache(maxsize=8)  # one case after another asks about the same
def _documents(text: str) -> list[Json]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


def selects(document: Json, called: Called, root: str) -> bool:
    """ "The selector will match with workloads in the same namespace as the authorization policy. If the authorization
    policy is in the root namespace, the selector will additionally match with workloads in all namespaces." A
    `targetRef` names a Service of the policy's own namespace."""
    namespace = namespace_of(document)
    spec = document["spec"] or {}
    references = spec.get("targetRefs") or ([spec["targetRef"]] if "targetRef" in spec else [])
    if references:
        return called.namespace == namespace and any(one["name"] == called.service for one in references)
    labels = spec.get("selector", {}).get("matchLabels", {})
    return called.namespace in (namespace, called.namespace if namespace == root else "") and all(
        called.labels.get(name) == str(value) for name, value in labels.items()
    )


def namespace_of(document: Json) -> str:
    return str(document["metadata"].get("namespace", "default"))


def policy(document: Json) -> AuthorizationPolicy:
    spec, namespace = document["spec"] or {}, namespace_of(document)
    annotations = document["metadata"].get("annotations", {})
    return AuthorizationPolicy(
        namespace=namespace,
        name=document["metadata"]["name"],
        action=Action[spec.get("action", "ALLOW")],
        rules=tuple(rule(one, namespace) for one in spec.get("rules", [])),
        shadow=annotations.get("istio.io/dry-run") == "true" or annotations.get("hauberk.dev/mode") == "shadow",
    )


def rule(document: Json, namespace: str) -> Rule:
    return Rule(
        sources=tuple(source(one["source"], namespace) for one in document.get("from", [])),
        operations=tuple(operation(one["operation"]) for one in document.get("to", [])),
        when=tuple(when(one, namespace) for one in document.get("when", [])),
    )


def source(document: Json, namespace: str) -> Source:
    return Source(
        principals=(*principals(document, "principals"), *accounts(document, "serviceAccounts", namespace)),
        not_principals=(*principals(document, "notPrincipals"), *accounts(document, "notServiceAccounts", namespace)),
        namespaces=texts(document, "namespaces"),
        not_namespaces=texts(document, "notNamespaces"),
        request_principals=texts(document, "requestPrincipals"),
        not_request_principals=texts(document, "notRequestPrincipals"),
        ip_blocks=texts(document, "ipBlocks"),
        not_ip_blocks=texts(document, "notIpBlocks"),
        remote_ip_blocks=texts(document, "remoteIpBlocks"),
        not_remote_ip_blocks=texts(document, "notRemoteIpBlocks"),
    )


def operation(document: Json) -> Operation:
    return Operation(
        hosts=texts(document, "hosts"),
        not_hosts=texts(document, "notHosts"),
        ports=texts(document, "ports"),
        not_ports=texts(document, "notPorts"),
        methods=texts(document, "methods"),
        not_methods=texts(document, "notMethods"),
        paths=texts(document, "paths"),
        not_paths=texts(document, "notPaths"),
    )


def when(document: Json, namespace: str) -> When:
    values, not_values = texts(document, "values"), texts(document, "notValues")
    if document["key"] == "source.principal":
        values, not_values = principals(document, "values"), principals(document, "notValues")
    if document["key"] == "source.serviceAccount":
        values, not_values = qualified(values, namespace), qualified(not_values, namespace)
    return When(key=document["key"], values=values, not_values=not_values)


def texts(document: Json, field: str) -> tuple[str, ...]:
    return tuple(str(one) for one in document.get(field, []))


def principals(document: Json, field: str) -> tuple[str, ...]:
    """ "cluster.local" at the beginning is this mesh's trust domain, whatever it is called."""
    return tuple(
        TRUST_DOMAIN + one.removeprefix("cluster.local") if one.startswith("cluster.local/") else one
        for one in texts(document, field)
    )


def accounts(document: Json, field: str, namespace: str) -> tuple[str, ...]:
    """ "`<serviceaccount>` may also be used to use the same namespace as the `AuthorizationPolicy`." """
    named = qualified(texts(document, field), namespace)
    return tuple("{}/ns/{}/sa/{}".format(TRUST_DOMAIN, *one.split("/")) for one in named)


def qualified(values: Sequence[str], namespace: str) -> tuple[str, ...]:
    return tuple(one if "/" in one else f"{namespace}/{one}" for one in values)
