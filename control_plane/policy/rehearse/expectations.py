"""The kind PolicyTest, `hauberk.dev/v1`: a mesh on paper and what is expected of it. Read as strictly as policies are.

    kind: PolicyTest
    metadata: {name: shop}
    spec:
      trustDomain: mesh.local            # this is the default; a MeshConfig among the policies comes first
      defaultAction: DENY                # likewise
      now: 2026-12-01T00:00:00Z          # for plaintext that has an end; default: now
      policies: [policies/, more.yaml]   # relative to this file
      workloads:
        - {service: orders, namespace: shop, serviceAccount: orders, labels: {app: orders}, ports: [8080]}
      expectations:
        - name: web reads
          from: shop/web                 # spiffe://..., anybody, plaintext; a list makes a matrix, as in `request`
          to: orders.shop:8080
          request: GET /orders/7
          expect: allow
          rule: shop/orders-from-web#0   # what must decide; without #0: any rule of that policy

Besides: `host`, `headers`, `claims`, `sourceIp`, `remoteIp`, `destinationIp`, `sni`, `shadow`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from certs.errors import CertsError
from certs.spiffe_id import SCHEME, SpiffeId, TrustDomain
from control_plane.model import WorkloadSpec
from control_plane.policy import documents, values
from control_plane.policy.documents import Document, Node, Scalar, describe
from control_plane.policy.model import NOTHING
from control_plane.policy.reader import Fields, Problems, checked, did_you_mean, list_items, string_map
from control_plane.policy.rehearse import words
from control_plane.policy.rehearse.mesh import Call, Inhabitant
from control_plane.policy.rehearse.sources import TEST_KIND
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Json
from sidecar.rules.routing import pick_port, resolve
from sidecar.rules.snapshot import Action, Protocol

ReadT = TypeVar("ReadT")

API_VERSION = "hauberk.dev/v1"
TRUST_DOMAIN = "mesh.local"
ANYBODY, PLAINTEXT = "anybody", "plaintext"
DEFAULT_NAMESPACE = "default"
DEFAULT_PORT = 80
CASES_MAX = 10_000
"""Of one expectation."""

SPEC_FIELDS = ("trustDomain", "defaultAction", "now", "policies", "workloads", "expectations")
WORKLOAD_FIELDS = ("service", "namespace", "serviceAccount", "labels", "ports")
PORT_FIELDS = ("port", "protocol")
EXPECTATION_FIELDS = (
    "name", "from", "to", "request", "host", "headers", "claims", "sourceIp", "remoteIp", "destinationIp", "sni",
    "expect", "rule", "shadow",
)  # fmt: skip

_STRANGER = ("nobody-of-this-mesh-knows", "stranger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call of an expectation."""

    title: str
    """"shop/web -> orders.shop:8080 GET /orders/7"."""
    to: Inhabitant
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    name: str
    """Empty: it has none."""
    source: str
    """"file:line"."""
    cases: tuple[Case, ...]
    allowed: bool | None
    """None: not said."""
    rule: str
    """Empty: whatever rule."""
    shadow_allowed: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    name: str
    source: str
    """"file:line"."""
    trust_domain: TrustDomain
    says_trust_domain: bool
    default_action: Action | None
    """None: not said."""
    now: float | None
    policies: tuple[str, ...]
    """Paths as written."""
    inhabitants: tuple[Inhabitant, ...]
    expectations: tuple[Expectation, ...]


@dataclass(slots=True)
class _Mesh:
    """What of a test its expectations refer to."""

    trust_domain: TrustDomain
    inhabitants: dict[str, Inhabitant] = field(default_factory=dict)


def read_test(document: Document, file: str, problems: Problems, trust_domain: TrustDomain | None) -> PolicyTest:
    """As far as it could be read; what could not is in `problems`. `trust_domain`: what a MeshConfig says it is."""
    root = Fields(document.root, "", problems, known=("apiVersion", "kind", "metadata", "spec"))
    root.refuse_others()
    root.value("apiVersion", words.one_of(API_VERSION, what="API version"), required=True, hint=f"write {API_VERSION}")
    root.value("kind", words.one_of(TEST_KIND, what="kind"), required=True)
    metadata = root.fields_of("metadata", known=("name",))
    name = metadata.value("name", values.dns_subdomain) if metadata is not None else None
    spec_node = root.node_of("spec", required=True)
    spec = Fields(
        spec_node or documents.Mapping(place=document.root.place, entries={}), "spec", problems, known=SPEC_FIELDS
    )
    spec.refuse_others()
    named = spec.value("trustDomain", values.trust_domain)
    own = TrustDomain.parse(named) if named is not None else None
    mesh = _Mesh(own or trust_domain or TrustDomain.parse(TRUST_DOMAIN))
    for path, node in spec.items("workloads"):
        _workload(Fields(node, path, problems, known=WORKLOAD_FIELDS), mesh)
    expectations = [
        _expectation(Fields(node, path, problems, known=EXPECTATION_FIELDS), mesh, file)
        for path, node in spec.items("expectations")
    ]
    return PolicyTest(
        name=name or "policy-test",
        source=f"{file}:{document.root.place.line}",
        trust_domain=mesh.trust_domain,
        says_trust_domain=own is not None,
        default_action=spec.value("defaultAction", words.action),
        now=spec.value("now", values.point_in_time, plain="timestamp"),
        policies=spec.strings("policies", values.printable),
        inhabitants=tuple(mesh.inhabitants.values()),
        expectations=tuple(expectations),
    )


# Workloads


def _workload(fields: Fields, mesh: _Mesh) -> None:
    fields.refuse_others()
    service = fields.value("service", values.dns_label, required=True)
    namespace = fields.value("namespace", values.dns_label)
    account = fields.value("serviceAccount", values.dns_label)
    labels_node = fields.node_of("labels")
    labels = NOTHING
    if labels_node is not None:
        path = fields.path_of("labels")
        labels = string_map(labels_node, path, fields.problems, values.label_key, values.label_value)
    ports = dict(filter(None, (_port(node, path, fields.problems) for path, node in fields.items("ports"))))
    if service is None or (namespace is None and "namespace" in fields.entries):
        return
    namespace = namespace or DEFAULT_NAMESPACE
    account = account or service
    inhabitant = Inhabitant(
        spec=WorkloadSpec(
            spiffe_id=SpiffeId.for_workload(mesh.trust_domain, namespace, account),
            service=service,
            namespace=namespace,
            service_account=account,
            labels={"app": service, **labels},  # as a join token has them
        ),
        ports=ports or {DEFAULT_PORT: Protocol.HTTP1},
    )
    if inhabitant.service_name in mesh.inhabitants:
        fields.problems.add(fields.node, fields.path, f"{inhabitant.service_name} is there twice", "keep one")
    mesh.inhabitants[inhabitant.service_name] = inhabitant


def _port(node: Node, path: str, problems: Problems) -> tuple[int, Protocol] | None:
    """`8080`, or `{port: 8080, protocol: tcp}`."""
    if isinstance(node, Scalar):
        port = checked(node, path, problems, values.port, plain="int")
        return None if port is None else (int(port), Protocol.HTTP1)
    fields = Fields(node, path, problems, known=PORT_FIELDS)
    fields.refuse_others()
    port = fields.value("port", values.port, required=True, plain="int")
    protocol = fields.value("protocol", words.one_of(*(one.value for one in Protocol), what="protocol"))
    return None if port is None else (int(port), Protocol(protocol or "http1"))


# Expectations


def _expectation(fields: Fields, mesh: _Mesh, file: str) -> Expectation:
    fields.refuse_others()
    verdict = fields.value("expect", words.verdict)
    shadow = fields.value("shadow", words.verdict)
    rule = fields.value("rule", words.rule)
    if not {"expect", "shadow", "rule"} & fields.entries.keys():
        fields.problems.add(fields.node, fields.path_of("expect"), "is missing", "write expect: allow, or deny")
    cases = tuple(_cases(fields, mesh))
    name = fields.value("name", values.printable)
    return Expectation(
        name=name or "",
        source=f"{file}:{fields.node.place.line}",
        cases=cases,
        allowed=verdict,
        rule=rule or "",
        shadow_allowed=shadow,
    )


def _cases(fields: Fields, mesh: _Mesh) -> list[Case]:
    """From x to x request."""
    callers = _one_or_many(fields, "from", lambda text: (text, _caller(text, mesh)))
    targets = _one_or_many(fields, "to", lambda text: _target(text, mesh))
    has_http = any(one.ports.get(port) is not Protocol.TCP for one, port in targets)
    if "request" not in fields.entries and not has_http and targets:
        requests = [("GET", "/")]  # nobody looks at it
    else:
        requests = _one_or_many(fields, "request", words.request)
    if len(callers) * len(targets) * len(requests) > CASES_MAX:
        fields.problems.add(fields.node, fields.path, f"makes more than {CASES_MAX} calls", "split it")
        return []
    template = _template(fields)
    found = []
    for text, principal in callers:
        for to, port in targets:
            for method, path in requests:
                what = "" if to.ports.get(port) is Protocol.TCP else f" {method} {path}"
                call = replace(template, principal=principal, port=port, method=method, path=path)
                found.append(Case(title=f"{text} -> {to.service_name}:{port}{what}", to=to, call=call))
    return found


def _template(fields: Fields) -> Call:
    """What all calls of an expectation have in common."""
    claims_node = fields.node_of("claims")
    claims: Mapping[str, Json] | None = None
    if claims_node is not None:
        read = words.json(claims_node, fields.path_of("claims"), fields.problems)
        if isinstance(read, Mapping):
            claims = read
        else:
            message = f"expected a mapping, found {describe(claims_node)}"
            fields.problems.add(claims_node, fields.path_of("claims"), message)
    return Call(
        principal=None,
        port=DEFAULT_PORT,
        host=fields.value("host", values.host) or "",
        headers=tuple(_headers(fields)),
        claims=claims,
        source_ip=fields.value("sourceIp", words.address) or "",
        remote_ip=fields.value("remoteIp", words.address),
        destination_ip=fields.value("destinationIp", words.address) or "",
        sni=fields.value("sni", values.server_name) or "",
    )


def _one_or_many(fields: Fields, name: str, check: Callable[[str], ReadT]) -> list[ReadT]:
    node = fields.node_of(name, required=True)
    if node is None:
        return []
    path = fields.path_of(name)
    if isinstance(node, documents.Sequence):
        found = [checked(item, where, fields.problems, check, item=True) for where, item in fields.items(name)]
    else:
        found = [checked(node, path, fields.problems, check)]
    return [one for one in found if one is not None]


def _headers(fields: Fields) -> list[tuple[str, str]]:
    node = fields.node_of("headers")
    if node is None:
        return []
    path = fields.path_of("headers")
    if not isinstance(node, documents.Mapping):
        fields.problems.add(node, path, f"expected a mapping, found {describe(node)}", "write x-token: value")
        return []
    found: list[tuple[str, str]] = []
    for name, (key, value) in node.entries.items():
        where = f"{path}.{values.shown(name)[1:-1]}"
        header = checked(key, where, fields.problems, values.header_name)
        several = (
            list_items(value, where, fields.problems) if isinstance(value, documents.Sequence) else [(where, value)]
        )
        for place, item in several:
            text = checked(item, place, fields.problems, words.header_value)
            if header is not None and text is not None:
                found.append((header, text))
    return found


# Single values


def _caller(text: str, mesh: _Mesh) -> SpiffeId | None:
    """None: nobody, in plaintext."""
    if text == PLAINTEXT:
        return None
    if text == ANYBODY:
        return SpiffeId.for_workload(mesh.trust_domain, *_STRANGER)
    if text.startswith(SCHEME):
        try:
            return SpiffeId.parse(text)
        except CertsError as error:
            raise values.BadValue(str(error)) from None
    known = {
        f"{one.spec.namespace}/{one.spec.service_account}": one.spec.spiffe_id for one in mesh.inhabitants.values()
    }
    if text not in known:
        close = did_you_mean(text, known)
        hint = close or f"name it under workloads, or write {SCHEME}..., {ANYBODY} or {PLAINTEXT}"
        raise values.BadValue(f"no workload runs as {values.shown(text)} (NAMESPACE/SERVICE-ACCOUNT)", hint)
    return known[text]


def _target(text: str, mesh: _Mesh) -> tuple[Inhabitant, int]:
    """`orders.shop:8080`; without a port as a caller's sidecar would pick it."""
    host, colon, port_text = text.partition(":")
    try:
        name = str(resolve(host, None, DEFAULT_NAMESPACE))
    except RoutingError as error:
        raise values.BadValue(f"{values.shown(text)}: {error}", "write SERVICE.NAMESPACE, or with :PORT") from None
    inhabitant = mesh.inhabitants.get(name)
    if inhabitant is None:
        hint = did_you_mean(name, mesh.inhabitants) or "name it under workloads"
        raise values.BadValue(f"no workload serves {values.shown(name)}", hint)
    port = int(values.port(port_text)) if colon else None
    try:
        return inhabitant, pick_port(inhabitant.ports, port)
    except RoutingError:
        ports = ", ".join(map(str, sorted(inhabitant.ports)))
        what = f"has no port {port}" if colon else "has several ports"
        raise values.BadValue(f"{name} {what}", f"write one of {ports}") from None
