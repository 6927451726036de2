"""The wire form of a snapshot -> `Snapshot`, whole or not at all.

protobuf drops what it does not know without a word, so a newer control plane's new condition would silently widen a
rule (security.md H02). Therefore every message is asked for its unknown fields first, and one is enough to refuse the
snapshot. Nothing is repaired, skipped or guessed; `DecodeError` names the field, and the last good snapshot stays.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.errors import DecodeError
from sidecar.rules.match import shape_of
from sidecar.rules.routing import DNS_LABEL, PORT_MAX
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    Endpoint,
    Operation,
    Protocol,
    Rule,
    Service,
    Snapshot,
    Source,
)

V = TypeVar("V")
R = TypeVar("R")

RULES_MAX = 10_000
"""Of all policies together (security.md H09)."""
VALUES_MAX = 100_000
"""Strings in all rules together."""
VALUE_CHARS_MAX = 2_048
ENDPOINTS_MAX = 10_000
"""Of all services together."""
LIFETIME_S_MIN, LIFETIME_S_MAX = 2, 86_400

_DEFAULT_ACTIONS: Mapping[int, Action] = {pb.DEFAULT_ACTION_DENY: Action.DENY, pb.DEFAULT_ACTION_ALLOW: Action.ALLOW}
_ACTIONS: Mapping[int, Action] = {pb.ACTION_ALLOW: Action.ALLOW, pb.ACTION_DENY: Action.DENY}
_PROTOCOLS: Mapping[int, Protocol] = {
    pb.PROTOCOL_HTTP1: Protocol.HTTP1,
    pb.PROTOCOL_HTTP2: Protocol.HTTP2,
    pb.PROTOCOL_TCP: Protocol.TCP,
}


def snapshot_from_proto(message: pb.Snapshot) -> Snapshot:
    """Raises DecodeError."""
    _refuse_unknown_fields(message, "")
    _check_size(message)
    trust_domain = _parsed(TrustDomain.parse, message.trust_domain, "trust_domain")
    identity = _workload_identity(message.workload.spiffe_id, trust_domain, "workload.spiffe_id")
    namespace = _dns_label(message.workload.namespace, "workload.namespace")
    if identity.namespace != namespace:
        raise DecodeError("workload.namespace", f"is {namespace}, but {identity} lives elsewhere")
    if message.version == 0:
        raise DecodeError("version", "missing")
    if not LIFETIME_S_MIN <= message.certificate_lifetime_s <= LIFETIME_S_MAX:
        raise DecodeError("certificate_lifetime_s", f"{message.certificate_lifetime_s} is out of bounds")
    return Snapshot(
        epoch=message.epoch,
        version=message.version,
        trust_domain=trust_domain,
        identity=identity,
        service=_dns_label(message.workload.service, "workload.service"),
        namespace=namespace,
        labels=MappingProxyType(dict(message.workload.labels)),
        default_action=_known(_DEFAULT_ACTIONS, message.default_action, "default_action"),
        policies=_policies(message.policies),
        services=_services(message.services, trust_domain),
        trust_anchors_der=_anchors(message.trust_anchors_der, trust_domain),
        certificate_lifetime_s=message.certificate_lifetime_s,
    )


def policy_from_proto(message: pb.AuthorizationPolicy, field: str = "policy") -> AuthorizationPolicy:
    """Raises DecodeError. Does not look for unknown fields: `snapshot_from_proto` does that for the whole tree."""
    return AuthorizationPolicy(
        namespace=_dns_label(message.namespace, f"{field}.namespace"),
        name=_text(message.name, f"{field}.name"),
        action=_known(_ACTIONS, message.action, f"{field}.action"),
        rules=tuple(_rule(rule, f"{field}.rules[{i}]") for i, rule in enumerate(message.rules)),
        source=_source_place(message.source, f"{field}.source"),
    )


# Policies


def _policies(messages: Iterable[pb.AuthorizationPolicy]) -> tuple[AuthorizationPolicy, ...]:
    policies: dict[str, AuthorizationPolicy] = {}
    for i, message in enumerate(messages):
        policy = policy_from_proto(message, f"policies[{i}]")
        if policy.full_name in policies:
            raise DecodeError(f"policies[{i}].name", f"{policy.full_name} is there twice")
        policies[policy.full_name] = policy
    return tuple(policies.values())


def _rule(message: pb.Rule, field: str) -> Rule:
    return Rule(
        sources=tuple(_source(source, f"{field}.sources[{i}]") for i, source in enumerate(message.sources)),
        operations=tuple(
            _operation(operation, f"{field}.operations[{i}]") for i, operation in enumerate(message.operations)
        ),
    )


def _source(message: pb.Source, field: str) -> Source:
    # A source without a field would match anybody; a control plane that means that sends no source.
    if not message.ListFields():
        raise DecodeError(field, "has no condition")
    return Source(
        principals=_values(message.principals, f"{field}.principals"),
        not_principals=_values(message.not_principals, f"{field}.not_principals"),
        namespaces=_values(message.namespaces, f"{field}.namespaces"),
        not_namespaces=_values(message.not_namespaces, f"{field}.not_namespaces"),
    )


def _operation(message: pb.Operation, field: str) -> Operation:
    if not message.ListFields():
        raise DecodeError(field, "has no condition")
    return Operation(
        hosts=_values(message.hosts, f"{field}.hosts"),
        not_hosts=_values(message.not_hosts, f"{field}.not_hosts"),
        ports=_port_values(message.ports, f"{field}.ports"),
        not_ports=_port_values(message.not_ports, f"{field}.not_ports"),
        methods=_values(message.methods, f"{field}.methods"),
        not_methods=_values(message.not_methods, f"{field}.not_methods"),
        paths=_values(message.paths, f"{field}.paths"),
        not_paths=_values(message.not_paths, f"{field}.not_paths"),
    )


def _values(values: Iterable[str], field: str) -> tuple[str, ...]:
    return tuple(_value(value, f"{field}[{i}]") for i, value in enumerate(values))


def _value(value: str, field: str) -> str:
    _text(value, field)
    try:
        shape_of(value)
    except ValueError as error:
        raise DecodeError(field, str(error)) from None
    return value


def _port_values(values: Iterable[str], field: str) -> tuple[str, ...]:
    return tuple(_port_value(value, f"{field}[{i}]") for i, value in enumerate(values))


def _port_value(value: str, field: str) -> str:
    # Compared as strings, so only the canonical spelling of a port can ever match one.
    if not (value.isascii() and value.isdigit() and value[0] != "0" and int(value[:6]) <= PORT_MAX):
        raise DecodeError(field, f"{value[:20]!a} is not a port")
    return value


# Services


def _services(messages: Iterable[pb.Service], trust_domain: TrustDomain) -> Mapping[str, Service]:
    services: dict[str, Service] = {}
    for i, message in enumerate(messages):
        field = f"services[{i}]"
        service = _service(message, trust_domain, field)
        full_name = f"{service.name}.{service.namespace}"
        if full_name in services:
            raise DecodeError(f"{field}.name", f"{full_name} is there twice")
        services[full_name] = service
    return MappingProxyType(services)


def _service(message: pb.Service, trust_domain: TrustDomain, field: str) -> Service:
    if message.endpoints and not message.known:
        raise DecodeError(f"{field}.known", "is false, but there are endpoints")
    endpoints = tuple(
        _endpoint(endpoint, trust_domain, f"{field}.endpoints[{i}]") for i, endpoint in enumerate(message.endpoints)
    )
    if len({endpoint.instance for endpoint in endpoints}) != len(endpoints):
        raise DecodeError(f"{field}.endpoints", "one instance is there twice")
    return Service(
        name=_dns_label(message.name, f"{field}.name"),
        namespace=_dns_label(message.namespace, f"{field}.namespace"),
        known=message.known,
        endpoints=endpoints,
    )


def _endpoint(message: pb.Endpoint, trust_domain: TrustDomain, field: str) -> Endpoint:
    return Endpoint(
        address=_address(message.address, f"{field}.address"),
        identity=_workload_identity(message.spiffe_id, trust_domain, f"{field}.spiffe_id"),
        instance=_text(message.instance, f"{field}.instance"),
        ports=_inbound_ports(message.ports, f"{field}.ports"),
    )


def _inbound_ports(messages: Iterable[pb.InboundPort], field: str) -> Mapping[int, Protocol]:
    ports: dict[int, Protocol] = {}
    for i, message in enumerate(messages):
        if not 1 <= message.port <= PORT_MAX:
            raise DecodeError(f"{field}[{i}].port", f"{message.port} is not a port")
        if message.port in ports:
            raise DecodeError(f"{field}[{i}].port", f"{message.port} is there twice")
        ports[message.port] = _known(_PROTOCOLS, message.protocol, f"{field}[{i}].protocol")
    return MappingProxyType(ports)


def _address(value: str, field: str) -> str:
    """ "ip:port" or "[ip6]:port", in canonical spelling."""
    host, _, port = value.rpartition(":")
    try:
        bracketed = host.startswith("[") and host.endswith("]")
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
        canonical = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    except ValueError:
        raise DecodeError(field, f"{value[:80]!a} is not ip:port") from None
    if canonical != value or "%" in value or ip.is_unspecified or ip.is_multicast:
        raise DecodeError(field, f"{value[:80]!a} is not an address that can be reached")
    _port_value(port, field)
    return value


# Leaves


def _anchors(values: Iterable[bytes], trust_domain: TrustDomain) -> tuple[bytes, ...]:
    anchors = tuple(values)
    if not anchors:
        raise DecodeError("trust_anchors_der", "there is none, nobody could be trusted")
    _parsed(lambda ders: TrustBundle.of(trust_domain, ders), anchors, "trust_anchors_der")
    return anchors


def _workload_identity(value: str, trust_domain: TrustDomain, field: str) -> SpiffeId:
    identity = _parsed(SpiffeId.parse, value, field)
    if identity.trust_domain != trust_domain:
        raise DecodeError(field, f"{identity} is not of the trust domain {trust_domain.name}")
    if not identity.is_workload:
        raise DecodeError(field, f"{identity} is not a workload")
    return identity


def _parsed(parse: Callable[[V], R], value: V, field: str) -> R:
    try:
        return parse(value)
    except CertsError as error:
        raise DecodeError(field, str(error)) from None


def _known(table: Mapping[int, V], number: int, field: str) -> V:
    """Neither unspecified nor a value that only a newer control plane knows."""
    if number not in table:
        raise DecodeError(field, f"{number} is not a value known to this version")
    return table[number]


def _dns_label(value: str, field: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise DecodeError(field, f"{value[:80]!a} is not a DNS label")
    return value


def _source_place(value: str, field: str) -> str:
    """ "file:line", for people; a file may be called anything that fits one line of a log."""
    if len(value) > VALUE_CHARS_MAX or not value.isprintable():
        raise DecodeError(field, "is too long or not printable")
    return value


def _text(value: str, field: str) -> str:
    """Printable ASCII, of bounded length (security.md H12)."""
    if not (0 < len(value) <= VALUE_CHARS_MAX and value.isascii() and value.isprintable()):
        raise DecodeError(field, f"{value[:80]!a} is empty, too long or not printable ASCII")
    return value


# The whole message


def _check_size(message: pb.Snapshot) -> None:
    rules = [rule for policy in message.policies for rule in policy.rules]
    if len(rules) > RULES_MAX:
        raise DecodeError("policies", f"{len(rules)} rules are more than {RULES_MAX}")
    alternatives = [part for rule in rules for part in (*rule.sources, *rule.operations)]
    values_count = sum(len(values) for part in alternatives for _, values in part.ListFields())
    if max(values_count, len(alternatives)) > VALUES_MAX:
        raise DecodeError("policies", f"more than {VALUES_MAX} values")
    if sum(len(service.endpoints) for service in message.services) > ENDPOINTS_MAX:
        raise DecodeError("services", f"more than {ENDPOINTS_MAX} endpoints")


def _refuse_unknown_fields(message: Message, field: str) -> None:
    """Walks the whole tree. Its depth is the schema's (5), not the sender's."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        where = field or "snapshot"
        raise DecodeError(where, f"field number {unknown[0].field_number} is not known to this version")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue  # scalars, and maps of strings to strings, hold no messages
        path = f"{field}.{descriptor.name}" if field else descriptor.name
        if descriptor.is_repeated:
            for i, item in enumerate(value):
                _refuse_unknown_fields(item, f"{path}[{i}]")
        else:
            _refuse_unknown_fields(value, path)
