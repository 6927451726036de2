"""How what one workload needs travels. `sidecar.rules.decode` reads it, and what it reads equals what was written."""

from __future__ import annotations

from collections.abc import Mapping

from protos.hauberk.v1 import discovery_pb2 as pb
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

_ACTIONS: Mapping[Action, pb.Action] = {
    Action.ALLOW: pb.ACTION_ALLOW,
    Action.DENY: pb.ACTION_DENY,
    Action.AUDIT: pb.ACTION_AUDIT,
}
_TLS_MODES: Mapping[TlsMode, pb.TlsMode] = {
    TlsMode.STRICT: pb.TLS_MODE_STRICT,
    TlsMode.PERMISSIVE: pb.TLS_MODE_PERMISSIVE,
    TlsMode.DISABLE: pb.TLS_MODE_DISABLE,
}


def policy_to_proto(policy: AuthorizationPolicy) -> pb.AuthorizationPolicy:
    return pb.AuthorizationPolicy(
        name=policy.name,
        namespace=policy.namespace,
        action=_ACTIONS[policy.action],
        rules=[_rule(rule) for rule in policy.rules],
        source=policy.source,
        shadow=policy.shadow,
    )


def _rule(rule: Rule) -> pb.Rule:
    return pb.Rule(
        sources=[_source(source) for source in rule.sources],
        operations=[_operation(operation) for operation in rule.operations],
        when=[_when(when) for when in rule.when],
        line=rule.line,
    )


def _source(source: Source) -> pb.Source:
    return pb.Source(
        principals=source.principals,
        not_principals=source.not_principals,
        namespaces=source.namespaces,
        not_namespaces=source.not_namespaces,
        request_principals=source.request_principals,
        not_request_principals=source.not_request_principals,
        ip_blocks=source.ip_blocks,
        not_ip_blocks=source.not_ip_blocks,
        remote_ip_blocks=source.remote_ip_blocks,
        not_remote_ip_blocks=source.not_remote_ip_blocks,
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


def _when(when: When) -> pb.When:
    return pb.When(key=when.key, values=when.values, not_values=when.not_values)


def peer_authentication_to_proto(value: PeerAuthentication) -> pb.PeerAuthentication:
    return pb.PeerAuthentication(
        rest=_port_tls(value.rest), ports={port: _port_tls(tls) for port, tls in value.ports.items()}
    )


def _port_tls(tls: PortTls) -> pb.PortTls:
    return pb.PortTls(mode=_TLS_MODES[tls.mode], until=tls.until, peers=tls.peers, source=tls.source)


def request_authentication_to_proto(value: RequestAuthentication) -> pb.RequestAuthentication:
    return pb.RequestAuthentication(
        name=value.name,
        namespace=value.namespace,
        jwt_rules=[_jwt_rule(rule) for rule in value.jwt_rules],
        source=value.source,
    )


def _jwt_rule(rule: JwtRule) -> pb.JwtRule:
    return pb.JwtRule(
        issuer=rule.issuer,
        audiences=rule.audiences,
        jwks=rule.jwks,
        jwks_uri=rule.jwks_uri,
        discover=rule.discover,
        from_headers=[pb.JwtHeader(name=name, prefix=prefix) for name, prefix in rule.from_headers],
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        output_payload_to_header=rule.output_payload_to_header,
        output_claim_to_headers=[
            pb.ClaimToHeader(header=header, claim=claim) for header, claim in rule.output_claim_to_headers
        ],
        forward_original_token=rule.forward_original_token,
        timeout_s=rule.timeout_s,
        token_types=rule.token_types,
        space_delimited_claims=rule.space_delimited_claims,
    )
