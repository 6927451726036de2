"""The wire form of a snapshot -> `Snapshot`, whole or not at all.

protobuf drops what it does not know without a word, so a newer control plane's new condition would silently widen a
rule (security.md H02). Therefore every message is asked for its unknown fields first, and one is enough to refuse the
snapshot. Nothing is repaired, skipped or guessed; `DecodeError` names the field, and the last good snapshot stays.

A large snapshot takes a while, and requests must not wait for it: `decoding` does the same in slices.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from types import MappingProxyType

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from certs.bundle import TrustBundle
from certs.spiffe_id import TrustDomain
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules import decode_policies, decode_trust
from sidecar.rules.decode_policies import policy_from_proto
from sidecar.rules.decode_values import (
    VALUE_CHARS_MAX,
    address,
    dns_label,
    known,
    parsed,
    text,
    workload_identity,
)
from sidecar.rules.errors import DecodeError
from sidecar.rules.routing import PORT_MAX
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import Action, Endpoint, Protocol, Service, Snapshot

__all__ = [
    "RULES_MAX",
    "SNAPSHOT_OCTETS_MAX",
    "VALUE_CHARS_MAX",
    "decoding",
    "policy_from_proto",
    "snapshot_from_proto",
]

SNAPSHOT_OCTETS_MAX = 16_777_216
"""Of the message."""
RULES_MAX = 10_000
"""Of all policies together (security.md H09)."""
VALUES_MAX = 100_000
"""Strings in all rules together."""
ENDPOINTS_MAX = 10_000
"""Of all services together."""
LIFETIME_S_MIN, LIFETIME_S_MAX = 2, 86_400
TRUSTED_PROXIES_MAX = 16
SLICE = 256
"""Messages looked at between two yields."""

_DEFAULT_ACTIONS: Mapping[int, Action] = {pb.DEFAULT_ACTION_DENY: Action.DENY, pb.DEFAULT_ACTION_ALLOW: Action.ALLOW}
_PROTOCOLS: Mapping[int, Protocol] = {
    pb.PROTOCOL_HTTP1: Protocol.HTTP1,
    pb.PROTOCOL_HTTP2: Protocol.HTTP2,
    pb.PROTOCOL_TCP: Protocol.TCP,
}


def snapshot_from_proto(message: pb.Snapshot) -> Snapshot:
    """Raises DecodeError."""
    return at_once(decoding(message))


def decoding(message: pb.Snapshot) -> Generator[None, None, Snapshot]:
    """The same in slices of about a millisecond. Raises DecodeError."""
    yield from _check_size(message)
    yield from _refuse_unknown_fields(message)
    trust_domain = parsed(TrustDomain.parse, message.trust_domain, "trust_domain")
    identity = workload_identity(message.workload.spiffe_id, trust_domain, "workload.spiffe_id")
    namespace = dns_label(message.workload.namespace, "workload.namespace")
    if identity.namespace != namespace:
        raise DecodeError("workload.namespace", f"is {namespace}, but {identity} lives elsewhere")
    if message.version == 0:
        raise DecodeError("version", "missing")
    if not LIFETIME_S_MIN <= message.certificate_lifetime_s <= LIFETIME_S_MAX:
        raise DecodeError("certificate_lifetime_s", f"{message.certificate_lifetime_s} is out of bounds")
    if message.trusted_proxies_count > TRUSTED_PROXIES_MAX:
        raise DecodeError("trusted_proxies_count", f"{message.trusted_proxies_count} is out of bounds")
    return Snapshot(
        epoch=message.epoch,
        version=message.version,
        trust_domain=trust_domain,
        identity=identity,
        service=dns_label(message.workload.service, "workload.service"),
        namespace=namespace,
        labels=MappingProxyType(dict(message.workload.labels)),
        default_action=known(_DEFAULT_ACTIONS, message.default_action, "default_action"),
        policies=(yield from decode_policies.policies(message.policies)),
        services=(yield from _services(message.services, trust_domain)),
        trust_anchors_der=_anchors(message.trust_anchors_der, trust_domain),
        certificate_lifetime_s=message.certificate_lifetime_s,
        peer_authentication=decode_policies.peer_authentication(message.peer_authentication, "peer_authentication"),
        request_authentications=decode_policies.request_authentications(message.request_authentications),
        trusted_proxies_count=message.trusted_proxies_count,
        revocations=decode_trust.revocations(message.revocations, trust_domain),
        jwt_keys=decode_trust.jwt_keys(message.jwt_keys),
    )


# Services


def _services(
    messages: Iterable[pb.Service], trust_domain: TrustDomain
) -> Generator[None, None, Mapping[str, Service]]:
    services: dict[str, Service] = {}
    for i, message in enumerate(messages):
        yield
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
        name=dns_label(message.name, f"{field}.name"),
        namespace=dns_label(message.namespace, f"{field}.namespace"),
        known=message.known,
        endpoints=endpoints,
    )


def _endpoint(message: pb.Endpoint, trust_domain: TrustDomain, field: str) -> Endpoint:
    return Endpoint(
        address=address(message.address, f"{field}.address"),
        identity=workload_identity(message.spiffe_id, trust_domain, f"{field}.spiffe_id"),
        instance=text(message.instance, f"{field}.instance"),
        ports=_inbound_ports(message.ports, f"{field}.ports"),
    )


def _inbound_ports(messages: Iterable[pb.InboundPort], field: str) -> Mapping[int, Protocol]:
    ports: dict[int, Protocol] = {}
    for i, message in enumerate(messages):
        if not 1 <= message.port <= PORT_MAX:
            raise DecodeError(f"{field}[{i}].port", f"{message.port} is not a port")
        if message.port in ports:
            raise DecodeError(f"{field}[{i}].port", f"{message.port} is there twice")
        ports[message.port] = known(_PROTOCOLS, message.protocol, f"{field}[{i}].protocol")
    return MappingProxyType(ports)


def _anchors(values: Iterable[bytes], trust_domain: TrustDomain) -> tuple[bytes, ...]:
    anchors = tuple(values)
    if not anchors:
        raise DecodeError("trust_anchors_der", "there is none, nobody could be trusted")
    parsed(lambda ders: TrustBundle.of(trust_domain, ders), anchors, "trust_anchors_der")
    return anchors


# The whole message


def _check_size(message: pb.Snapshot) -> Generator[None, None, None]:
    rules_count = sum(len(policy.rules) for policy in message.policies)
    if rules_count > RULES_MAX:
        raise DecodeError("policies", f"{rules_count} rules are more than {RULES_MAX}")
    parts_count = values_count = 0
    for policy in message.policies:
        for number, rule in enumerate(policy.rules):
            for part in (*rule.sources, *rule.operations, *rule.when):
                parts_count += 1
                values_count += sum(len(listed) for _, listed in part.ListFields() if not isinstance(listed, str))
            if number % SLICE == 0:
                if max(values_count, parts_count) > VALUES_MAX:
                    break
                yield
    if max(values_count, parts_count) > VALUES_MAX:
        raise DecodeError("policies", f"more than {VALUES_MAX} values")
    if sum(len(service.endpoints) for service in message.services) > ENDPOINTS_MAX:
        raise DecodeError("services", f"more than {ENDPOINTS_MAX} endpoints")


def _refuse_unknown_fields(message: pb.Snapshot) -> Generator[None, None, None]:
    """Walks the whole tree, its depth is the schema's, not the sender's."""
    waiting: list[tuple[Message, str]] = [(message, "")]
    count = 0
    while waiting:
        one, field = waiting.pop()
        unknown = UnknownFieldSet(one)
        if len(unknown):
            raise DecodeError(
                field or "snapshot", f"field number {unknown[0].field_number} is not known to this version"
            )
        for descriptor, value in one.ListFields():
            kind = descriptor.message_type
            if kind is None:
                continue  # scalars
            path = f"{field}.{descriptor.name}" if field else descriptor.name
            if kind.GetOptions().map_entry:
                if kind.fields_by_name["value"].message_type is not None:
                    waiting += [(item, f"{path}[{key}]") for key, item in value.items()]
            elif descriptor.is_repeated:
                waiting += [(item, f"{path}[{i}]") for i, item in enumerate(value)]
            else:
                waiting.append((value, path))
        count += 1
        if count % SLICE == 0:
            yield
