"""The way in: YAML text -> resources, or PolicyErrors with everything that is wrong. Nothing is ever half-read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control_plane.policy import (
    authorization,
    check,
    documents,
    meshconfig,
    peer_authentication,
    request_authentication,
    values,
)
from control_plane.policy.documents import Document, Node
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicyErrors,
    PolicyProblem,
    PolicySpec,
    RequestAuthenticationSpec,
    Spec,
)
from control_plane.policy.own_annotations import read_annotations
from control_plane.policy.reader import Fields, Problems, did_you_mean
from sidecar.rules.decode import RULES_MAX

DEFAULT_NAMESPACE = "default"
FILENAME_CHARS_MAX = 256

POLICY_KIND = "AuthorizationPolicy"
PEER_KIND = "PeerAuthentication"
REQUEST_KIND = "RequestAuthentication"
MESH_KIND = "MeshConfig"
_ISTIO_VERSIONS = ("security.istio.io/v1", "security.istio.io/v1beta1")
_API_VERSIONS = {
    POLICY_KIND: _ISTIO_VERSIONS,
    PEER_KIND: _ISTIO_VERSIONS,
    REQUEST_KIND: _ISTIO_VERSIONS,
    MESH_KIND: ("hauberk.dev/v1",),
}
KINDS = tuple(_API_VERSIONS)
_KINDS_NOT_YET = {
    "DestinationRule", "EnvoyFilter", "GRPCRoute", "Gateway", "GatewayClass", "HTTPRoute", "ServiceEntry", "Sidecar",
    "TCPRoute", "TLSRoute", "Telemetry", "VirtualService",
}  # fmt: skip
_KINDS_ELSEWHERE = {
    "List": "write each of its items as a document of its own, with --- between them",
    "PolicyTest": "it is for `hauberk policy test`; keep it in another directory than the policies",
}
_BY_KUBERNETES = "Kubernetes sets it; remove it"
_METADATA_NOT_YET = dict.fromkeys(
    ("creationTimestamp", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"),
    _BY_KUBERNETES,
)
_READERS: Mapping[str, Callable[..., Spec]] = {
    POLICY_KIND: authorization.read_spec,
    PEER_KIND: peer_authentication.read_spec,
    REQUEST_KIND: request_authentication.read_spec,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    namespace: str
    name: str
    ours: Fields
    """The annotations that say something to us."""


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
    if kind == MESH_KIND:
        spec = meshconfig.read_spec(spec_node, problems)
    else:
        spec = _READERS[kind](
            spec_node, namespace=metadata.namespace, name=metadata.name, source=source, ours=metadata.ours
        )
    return ParsedResource(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        spec=spec,
        yaml=document.text,
        source=source,
        warnings=_warnings(spec),
        notes=check.stricter_than_istio(spec) if isinstance(spec, RequestAuthenticationSpec) else (),
    )


def _warnings(spec: Spec) -> tuple[str, ...]:
    match spec:
        case PolicySpec(policy=policy):
            return check.policy_warnings(policy)
        case PeerAuthenticationSpec():
            return check.peer_warnings(spec)
        case RequestAuthenticationSpec():
            return check.request_warnings(spec)
        case MeshConfigSpec():
            return check.mesh_warnings(spec)


def _kind(text: str) -> str:
    if text in _API_VERSIONS:
        return text
    if text in _KINDS_NOT_YET:
        raise values.BadValue(f"{text} is not yet supported")
    if text in _KINDS_ELSEWHERE:
        raise values.BadValue(f"{text} is nothing that a mesh can hold", _KINDS_ELSEWHERE[text])
    hint = did_you_mean(text, _API_VERSIONS) or "known are " + ", ".join(_API_VERSIONS)
    raise values.BadValue(f"{values.shown(text)} is not a kind known to this version", hint)


def _api_version(kind: str) -> Callable[[str], str]:
    def check_version(text: str) -> str:
        if text not in _API_VERSIONS[kind]:
            raise values.BadValue(f"{values.shown(text)} has no {kind}", f"write {_API_VERSIONS[kind][0]}")
        return text

    return check_version


def _metadata(root: Fields, kind: str) -> _Metadata:
    """With empty names if it is wrong, so that the spec's problems are found in the same run."""
    known = ["name", "labels", "annotations"] + ([] if kind == MESH_KIND else ["namespace"])
    node = root.node_of("metadata", required=True)
    if node is None:
        nothing = documents.Mapping(place=root.node.place, entries={})
        return _Metadata(namespace="", name="", ours=Fields(nothing, "metadata.annotations", root.problems, known=()))
    metadata = Fields(node, "metadata", root.problems, known=known)
    cluster_wide = {"namespace": f"a {MESH_KIND} holds for the whole mesh; remove it"} if kind == MESH_KIND else {}
    metadata.refuse_others(_METADATA_NOT_YET | cluster_wide)
    check_name = meshconfig.read_name if kind == MESH_KIND else values.dns_subdomain
    name = metadata.value("name", check_name, required=True)
    namespace = "" if kind == MESH_KIND else _namespace(metadata)
    ours = read_annotations(metadata, kind)
    is_whole = name is not None and namespace is not None
    return _Metadata(namespace=(namespace or "") if is_whole else "", name=(name or "") if is_whole else "", ours=ours)


def _namespace(metadata: Fields) -> str | None:
    if "namespace" not in metadata.entries:
        return DEFAULT_NAMESPACE
    return metadata.value("namespace", values.dns_label)


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
