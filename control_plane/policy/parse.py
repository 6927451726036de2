"""The way in: YAML text -> resources, or PolicyErrors with everything that is wrong. Nothing is ever half-read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from control_plane.policy import authorization, check, documents, meshconfig, values
from control_plane.policy.documents import Document, Node
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PolicyErrors,
    PolicyProblem,
    PolicySpec,
    Spec,
)
from control_plane.policy.reader import Fields, Problems, checked, did_you_mean, string_map
from sidecar.rules.decode import RULES_MAX

DEFAULT_NAMESPACE = "default"
FILENAME_CHARS_MAX = 256

POLICY_KIND = "AuthorizationPolicy"
MESH_KIND = "MeshConfig"
_API_VERSIONS = {
    POLICY_KIND: ("security.istio.io/v1", "security.istio.io/v1beta1"),
    MESH_KIND: ("hauberk.dev/v1",),
}
_KINDS_NOT_YET = {
    "DestinationRule", "EnvoyFilter", "GRPCRoute", "Gateway", "GatewayClass", "HTTPRoute", "PeerAuthentication",
    "RequestAuthentication", "ServiceEntry", "Sidecar", "TCPRoute", "TLSRoute", "Telemetry", "VirtualService",
}  # fmt: skip
_BY_KUBERNETES = "Kubernetes sets it; remove it"
_METADATA_NOT_YET = dict.fromkeys(
    ("creationTimestamp", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"),
    _BY_KUBERNETES,
)
_DRY_RUN = "istio.io/dry-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    namespace: str
    name: str


_UNREADABLE = _Metadata(namespace="", name="")
"""Stands in for metadata that is wrong, so that the spec's problems are found in the same run."""


def parse_documents(text: str, filename: str) -> list[ParsedResource]:
    """The resources of one file, in its order. Raises PolicyErrors, and nothing else, whatever the text.

    Takes up to some seconds of processor time for the largest file accepted (1 MiB): not on an event loop."""
    file = _printable(filename)
    problems = Problems(file)
    resources: list[ParsedResource] = []
    for document in documents.read_documents(text, file):
        resource = _read(document, file, problems)
        if resource is not None and resource.name:
            _refuse_twice(resource, resources, document.root, problems)
            resources.append(resource)
    problems.raise_if_any()
    _refuse_too_many_rules(resources, file)
    return resources


def _read(document: Document, file: str, problems: Problems) -> ParsedResource | None:
    """One document. None, or something with holes in it, if there are problems."""
    root = Fields(document.root, "", problems, known=("apiVersion", "kind", "metadata", "spec"))
    root.refuse_others({"status": _BY_KUBERNETES})
    kind = root.value("kind", _kind, required=True)
    if kind is None:
        return None
    root.value("apiVersion", _api_version(kind), required=True, hint=f"write {_API_VERSIONS[kind][0]}")
    metadata = _metadata(root, kind)
    spec_node = root.node_of("spec", required=True, hint="write `spec: {}` if none of its fields is meant to be set")
    if spec_node is None:
        return None
    source = f"{file}:{document.root.place.line}"
    spec: Spec
    if kind == POLICY_KIND:
        spec = authorization.read_spec(
            spec_node, namespace=metadata.namespace, name=metadata.name, source=source, problems=problems
        )
    else:
        spec = meshconfig.read_spec(spec_node, problems)
    return ParsedResource(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        spec=spec,
        yaml=document.text,
        source=source,
        warnings=_warnings(spec),
    )


def _warnings(spec: Spec) -> tuple[str, ...]:
    match spec:
        case PolicySpec(policy=policy):
            return check.policy_warnings(policy)
        case MeshConfigSpec():
            return check.mesh_warnings(spec)


def _kind(text: str) -> str:
    if text in _API_VERSIONS:
        return text
    if text in _KINDS_NOT_YET:
        raise values.BadValue(f"{text} is not yet supported")
    hint = did_you_mean(text, _API_VERSIONS) or "known are " + ", ".join(_API_VERSIONS)
    raise values.BadValue(f"{values.shown(text)} is not a kind known to this version", hint)


def _api_version(kind: str) -> Callable[[str], str]:
    def check_version(text: str) -> str:
        if text not in _API_VERSIONS[kind]:
            raise values.BadValue(f"{values.shown(text)} has no {kind}", f"write {_API_VERSIONS[kind][0]}")
        return text

    return check_version


def _metadata(root: Fields, kind: str) -> _Metadata:
    node = root.node_of("metadata", required=True)
    if node is None:
        return _UNREADABLE
    known = ["name", "labels", "annotations"] + ([] if kind == MESH_KIND else ["namespace"])
    metadata = Fields(node, "metadata", root.problems, known=known)
    cluster_wide = {"namespace": f"a {MESH_KIND} holds for the whole mesh; remove it"} if kind == MESH_KIND else {}
    metadata.refuse_others(_METADATA_NOT_YET | cluster_wide)
    check_name = meshconfig.read_name if kind == MESH_KIND else values.dns_subdomain
    name = metadata.value("name", check_name, required=True)
    namespace = "" if kind == MESH_KIND else _namespace(metadata)
    _labels_and_annotations(metadata)
    if name is None or namespace is None:
        return _UNREADABLE
    return _Metadata(namespace=namespace, name=name)


def _namespace(metadata: Fields) -> str | None:
    if "namespace" not in metadata.entries:
        return DEFAULT_NAMESPACE
    return metadata.value("namespace", values.dns_label)


def _labels_and_annotations(metadata: Fields) -> None:
    """They are people's own, and ignored; except for the one that Istio does not ignore."""
    for name in ("labels", "annotations"):
        node = metadata.node_of(name)
        if node is None:
            continue
        path = metadata.path_of(name)
        string_map(node, path, metadata.problems, values.label_key, str)
        if isinstance(node, documents.Mapping) and _DRY_RUN in node.entries:
            _refuse_dry_run(node.entries[_DRY_RUN][1], f"{path}.{_DRY_RUN}", metadata.problems)


def _refuse_dry_run(node: Node, path: str, problems: Problems) -> None:
    # Enforcing an ALLOW policy that was only to be tried out would let somebody in.
    if checked(node, path, problems, str) not in (None, "false"):
        problems.add(node, path, "not yet supported", "policies here are always enforced; remove it")


def _refuse_twice(resource: ParsedResource, before: list[ParsedResource], node: Node, problems: Problems) -> None:
    for other in before:
        if other.key == resource.key:
            name = "/".join(filter(None, (resource.namespace, resource.name)))
            problems.add(node, "metadata.name", f"{resource.kind} {name} is there twice, first at {other.source}")
            return


def _refuse_too_many_rules(resources: list[ParsedResource], file: str) -> None:
    count = sum(len(resource.spec.policy.rules) for resource in resources if isinstance(resource.spec, PolicySpec))
    if count > RULES_MAX:
        message = f"{count} rules are more than {RULES_MAX}"
        raise PolicyErrors((PolicyProblem(file=file, line=0, column=0, field="", message=message),))


def _printable(filename: str) -> str:
    """What an operator typed, fit for one line of a log."""
    return "".join(c if c.isprintable() else "?" for c in filename[-FILENAME_CHARS_MAX:])
