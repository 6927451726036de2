"""Policies in the wire form -> values. Used by `decode`, which has looked for unknown fields before.

Nothing is repaired, skipped or guessed; `DecodeError` names the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from types import MappingProxyType

from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.decode_values import (
    block,
    claim_pattern,
    dns_label,
    known,
    path_pattern,
    pattern,
    port_value,
    source_place,
    text,
    values,
)
from sidecar.rules.errors import DecodeError
from sidecar.rules.header_names import HEADER_NAME, may_be_set, may_carry_token
from sidecar.rules.keys import Attribute, parse_key
from sidecar.rules.routing import PORT_MAX
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    JwtRule,
    Operation,
    PeerAuthentication,
    PortTls,
    RequestAuthentication,
    Rule,
    Source,
    TlsMode,
    When,
)

SLICE = 64
"""Rules decoded between two yields."""
JWT_RULES_MAX = 100
JWKS_CHARS_MAX = 65_536
TIMEOUT_S_MAX = 60.0

_ACTIONS: Mapping[int, Action] = {
    pb.ACTION_ALLOW: Action.ALLOW,
    pb.ACTION_DENY: Action.DENY,
    pb.ACTION_AUDIT: Action.AUDIT,
}
_TLS_MODES: Mapping[int, TlsMode] = {
    pb.TLS_MODE_STRICT: TlsMode.STRICT,
    pb.TLS_MODE_PERMISSIVE: TlsMode.PERMISSIVE,
    pb.TLS_MODE_DISABLE: TlsMode.DISABLE,
}


def policies(
    messages: Iterable[pb.AuthorizationPolicy],
) -> Generator[None, None, tuple[AuthorizationPolicy, ...]]:
    """In slices of about a millisecond."""
    found: dict[str, AuthorizationPolicy] = {}
    for i, message in enumerate(messages):
        policy = yield from _policy(message, f"policies[{i}]")
        if policy.full_name in found:
            raise DecodeError(f"policies[{i}].name", f"{policy.full_name} is there twice")
        found[policy.full_name] = policy
    return tuple(found.values())


def policy_from_proto(message: pb.AuthorizationPolicy, field: str = "policy") -> AuthorizationPolicy:
    """Raises DecodeError. Does not look for unknown fields: `decode` does that for the whole tree."""
    return at_once(_policy(message, field))


def _policy(message: pb.AuthorizationPolicy, field: str) -> Generator[None, None, AuthorizationPolicy]:
    rules: list[Rule] = []
    for i, rule in enumerate(message.rules):
        rules.append(_rule(rule, f"{field}.rules[{i}]"))
        if i % SLICE == 0:
            yield
    return AuthorizationPolicy(
        namespace=dns_label(message.namespace, f"{field}.namespace"),
        name=text(message.name, f"{field}.name"),
        action=known(_ACTIONS, message.action, f"{field}.action"),
        rules=tuple(rules),
        source=source_place(message.source, f"{field}.source"),
        shadow=message.shadow,
    )


def _rule(message: pb.Rule, field: str) -> Rule:
    return Rule(
        sources=tuple([_source(source, f"{field}.sources[{i}]") for i, source in enumerate(message.sources)]),
        operations=tuple(
            [_operation(operation, f"{field}.operations[{i}]") for i, operation in enumerate(message.operations)]
        ),
        when=tuple([_when(when, f"{field}.when[{i}]") for i, when in enumerate(message.when)]),
        line=message.line,
    )


def _source(message: pb.Source, field: str) -> Source:
    # A source without a field would match anybody; a control plane that means that sends no source.
    found = _lists(message, field, _SOURCE_CHECKS)
    return Source(**found)


def _operation(message: pb.Operation, field: str) -> Operation:
    return Operation(**_lists(message, field, _OPERATION_CHECKS))


def _lists(
    message: pb.Source | pb.Operation, field: str, checks: Mapping[str, Callable[[str, str], str]]
) -> dict[str, tuple[str, ...]]:
    """Every list that is not empty, by its name; there is at least one."""
    found = {
        descriptor.name: values(texts, f"{field}.{descriptor.name}", checks[descriptor.name])
        for descriptor, texts in message.ListFields()
    }
    if not found:
        raise DecodeError(field, "has no condition")
    return found


def _both(check: Callable[[str, str], str], *names: str) -> dict[str, Callable[[str, str], str]]:
    return {f"{prefix}{name}": check for name in names for prefix in ("", "not_")}


_SOURCE_CHECKS = _both(pattern, "principals", "namespaces") | _both(block, "ip_blocks", "remote_ip_blocks")
_SOURCE_CHECKS |= _both(claim_pattern, "request_principals")
_OPERATION_CHECKS = _both(pattern, "hosts", "methods") | _both(port_value, "ports") | _both(path_pattern, "paths")
_OF_ISSUERS = (Attribute.CLAIM, Attribute.AUDIENCES, Attribute.PRESENTER, Attribute.REQUEST_PRINCIPAL)


def _when(message: pb.When, field: str) -> When:
    try:
        attribute = parse_key(message.key).attribute
    except ValueError as error:
        raise DecodeError(f"{field}.key", f"{message.key[:80]!a}: {error}") from None
    if not message.values and not message.not_values:
        raise DecodeError(field, "has no condition")
    check: Callable[[str, str], str] = pattern
    if attribute.is_address:
        check = block
    elif attribute is Attribute.DESTINATION_PORT:
        check = port_value
    elif attribute in _OF_ISSUERS:
        check = claim_pattern
    return When(
        key=message.key,
        values=values(message.values, f"{field}.values", check),
        not_values=values(message.not_values, f"{field}.not_values", check),
    )


# PeerAuthentication


def peer_authentication(message: pb.PeerAuthentication, field: str) -> PeerAuthentication:
    """Nothing said means STRICT. Raises DecodeError."""
    ports: dict[int, PortTls] = {}
    for port, of_port in message.ports.items():
        if not 1 <= port <= PORT_MAX:
            raise DecodeError(f"{field}.ports", f"{port} is not a port")
        ports[port] = _port_tls(of_port, f"{field}.ports[{port}]")
    rest = _port_tls(message.rest, f"{field}.rest") if message.HasField("rest") else PortTls()
    return PeerAuthentication(rest=rest, ports=MappingProxyType(ports))


def _port_tls(message: pb.PortTls, field: str) -> PortTls:
    if not (math.isfinite(message.until) and message.until >= 0):
        raise DecodeError(f"{field}.until", "is not a time")
    return PortTls(
        mode=known(_TLS_MODES, message.mode, f"{field}.mode"),
        until=message.until,
        peers=values(message.peers, f"{field}.peers", block),
        source=source_place(message.source, f"{field}.source"),
    )


# RequestAuthentication


def request_authentications(messages: Iterable[pb.RequestAuthentication]) -> tuple[RequestAuthentication, ...]:
    """Raises DecodeError."""
    found: dict[tuple[str, str], RequestAuthentication] = {}
    for i, message in enumerate(messages):
        field = f"request_authentications[{i}]"
        one = RequestAuthentication(
            namespace=dns_label(message.namespace, f"{field}.namespace"),
            name=text(message.name, f"{field}.name"),
            jwt_rules=tuple([_jwt_rule(rule, f"{field}.jwt_rules[{n}]") for n, rule in enumerate(message.jwt_rules)]),
            source=source_place(message.source, f"{field}.source"),
        )
        if (one.namespace, one.name) in found:
            raise DecodeError(f"{field}.name", f"{one.namespace}/{one.name} is there twice")
        found[one.namespace, one.name] = one
    if sum(len(one.jwt_rules) for one in found.values()) > JWT_RULES_MAX:
        raise DecodeError("request_authentications", f"more than {JWT_RULES_MAX} rules")
    return tuple(found.values())


def _jwt_rule(message: pb.JwtRule, field: str) -> JwtRule:
    if sum((bool(message.jwks), bool(message.jwks_uri), message.discover)) != 1:
        raise DecodeError(field, "one of jwks, jwks_uri and discover says where keys come from")
    if len(message.jwks) > JWKS_CHARS_MAX:
        raise DecodeError(f"{field}.jwks", f"is longer than {JWKS_CHARS_MAX} characters")
    if not 0 <= message.timeout_s <= TIMEOUT_S_MAX:
        raise DecodeError(f"{field}.timeout_s", "is out of bounds")
    texts = partial(_texts, message, field)
    payload_to, claims_to = _outputs(message, field)
    return JwtRule(
        issuer=text(message.issuer, f"{field}.issuer"),
        audiences=texts("audiences"),
        jwks=message.jwks,
        jwks_uri=text(message.jwks_uri, f"{field}.jwks_uri") if message.jwks_uri else "",
        discover=message.discover,
        from_headers=_from_headers(message, f"{field}.from_headers"),
        from_params=texts("from_params"),
        from_cookies=texts("from_cookies"),
        output_payload_to_header=payload_to,
        output_claim_to_headers=claims_to,
        forward_original_token=message.forward_original_token,
        timeout_s=message.timeout_s,
        token_types=texts("token_types"),
        space_delimited_claims=texts("space_delimited_claims"),
    )


def _from_headers(message: pb.JwtRule, field: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_header(one.name, f"{field}[{i}].name", may_carry_token), source_place(one.prefix, f"{field}[{i}].prefix"))
        for i, one in enumerate(message.from_headers)
    )


def _outputs(message: pb.JwtRule, field: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The header for the payload ("": none), and those for claims. Each is set once."""
    where = f"{field}.output_claim_to_headers"
    payload_to = message.output_payload_to_header
    if payload_to:
        _header(payload_to, f"{field}.output_payload_to_header", may_be_set)
    found: dict[str, str] = {}
    for i, one in enumerate(message.output_claim_to_headers):
        name = _header(one.header, f"{where}[{i}].header", may_be_set)
        if name in found or name == payload_to:
            raise DecodeError(f"{where}[{i}].header", f"{name} is set twice")
        found[name] = text(one.claim, f"{where}[{i}].claim")
    return payload_to, tuple(found.items())


def _header(name: str, field: str, may_be_used: Callable[[str], bool]) -> str:
    """What a header is called that is written as it stands here, past every other check of names."""
    if not HEADER_NAME.fullmatch(name) or name != name.lower():
        raise DecodeError(field, f"{name[:80]!a} is not the name of a header in lower case")
    if not may_be_used(name):
        raise DecodeError(field, f"{name} is not a header that a rule may name here")
    return name


def _texts(message: pb.JwtRule, field: str, name: str) -> tuple[str, ...]:
    return values(getattr(message, name), f"{field}.{name}", text)
