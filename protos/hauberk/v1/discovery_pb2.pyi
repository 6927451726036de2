from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROTOCOL_UNSPECIFIED: _ClassVar[Protocol]
    PROTOCOL_HTTP1: _ClassVar[Protocol]
    PROTOCOL_HTTP2: _ClassVar[Protocol]
    PROTOCOL_TCP: _ClassVar[Protocol]

class DefaultAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEFAULT_ACTION_UNSPECIFIED: _ClassVar[DefaultAction]
    DEFAULT_ACTION_DENY: _ClassVar[DefaultAction]
    DEFAULT_ACTION_ALLOW: _ClassVar[DefaultAction]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_DENY: _ClassVar[Action]
    ACTION_AUDIT: _ClassVar[Action]

class TlsMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TLS_MODE_UNSPECIFIED: _ClassVar[TlsMode]
    TLS_MODE_STRICT: _ClassVar[TlsMode]
    TLS_MODE_PERMISSIVE: _ClassVar[TlsMode]
    TLS_MODE_DISABLE: _ClassVar[TlsMode]
PROTOCOL_UNSPECIFIED: Protocol
PROTOCOL_HTTP1: Protocol
PROTOCOL_HTTP2: Protocol
PROTOCOL_TCP: Protocol
DEFAULT_ACTION_UNSPECIFIED: DefaultAction
DEFAULT_ACTION_DENY: DefaultAction
DEFAULT_ACTION_ALLOW: DefaultAction
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_DENY: Action
ACTION_AUDIT: Action
TLS_MODE_UNSPECIFIED: TlsMode
TLS_MODE_STRICT: TlsMode
TLS_MODE_PERMISSIVE: TlsMode
TLS_MODE_DISABLE: TlsMode

class WatchRequest(_message.Message):
    __slots__ = ("hello", "ack", "nack", "subscribe", "advertise", "withdraw", "heartbeat", "decisions")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    ADVERTISE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ack: Ack
    nack: Nack
    subscribe: Subscribe
    advertise: Advertise
    withdraw: Withdraw
    heartbeat: Heartbeat
    decisions: Decisions
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., advertise: _Optional[_Union[Advertise, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., decisions: _Optional[_Union[Decisions, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("sidecar_version", "instance", "epoch", "version", "services", "clock", "certificate_not_after")
    SIDECAR_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    sidecar_version: str
    instance: str
    epoch: int
    version: int
    services: _containers.RepeatedScalarFieldContainer[str]
    clock: float
    certificate_not_after: float
    def __init__(self, sidecar_version: _Optional[str] = ..., instance: _Optional[str] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., services: _Optional[_Iterable[str]] = ..., clock: _Optional[float] = ..., certificate_not_after: _Optional[float] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("epoch", "version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    version: int
    def __init__(self, epoch: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("epoch", "version", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    version: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, services: _Optional[_Iterable[str]] = ...) -> None: ...

class Advertise(_message.Message):
    __slots__ = ("address", "ports")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    ports: _containers.RepeatedCompositeFieldContainer[InboundPort]
    def __init__(self, address: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[InboundPort, _Mapping]]] = ...) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("clock", "certificate_not_after", "certificate_serial")
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    clock: float
    certificate_not_after: float
    certificate_serial: str
    def __init__(self, clock: _Optional[float] = ..., certificate_not_after: _Optional[float] = ..., certificate_serial: _Optional[str] = ...) -> None: ...

class Decisions(_message.Message):
    __slots__ = ("decisions", "dropped_count")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    dropped_count: int
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("id", "at", "epoch", "version", "allowed", "rule", "reason", "asked", "shadow")
    ID_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    at: float
    epoch: int
    version: int
    allowed: bool
    rule: str
    reason: str
    asked: Asked
    shadow: bool
    def __init__(self, id: _Optional[str] = ..., at: _Optional[float] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., allowed: _Optional[bool] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., asked: _Optional[_Union[Asked, _Mapping]] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Asked(_message.Message):
    __slots__ = ("principal", "source_ip", "remote_ip", "destination_ip", "sni", "host", "port", "method", "path", "headers", "claims_json")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IP_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    SNI_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_JSON_FIELD_NUMBER: _ClassVar[int]
    principal: str
    source_ip: str
    remote_ip: str
    destination_ip: str
    sni: str
    host: str
    port: int
    method: str
    path: str
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    claims_json: str
    def __init__(self, principal: _Optional[str] = ..., source_ip: _Optional[str] = ..., remote_ip: _Optional[str] = ..., destination_ip: _Optional[str] = ..., sni: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., claims_json: _Optional[str] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value", "hidden")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    hidden: bool
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., hidden: _Optional[bool] = ...) -> None: ...

class InboundPort(_message.Message):
    __slots__ = ("port", "protocol")
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    port: int
    protocol: Protocol
    def __init__(self, port: _Optional[int] = ..., protocol: _Optional[_Union[Protocol, str]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("epoch", "version", "trust_domain", "workload", "default_action", "policies", "services", "trust_anchors_der", "certificate_lifetime_s", "peer_authentication", "request_authentications", "trusted_proxies_count", "revocations", "jwt_keys")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ACTION_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TRUST_ANCHORS_DER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    PEER_AUTHENTICATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_AUTHENTICATIONS_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_PROXIES_COUNT_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    JWT_KEYS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    version: int
    trust_domain: str
    workload: Workload
    default_action: DefaultAction
    policies: _containers.RepeatedCompositeFieldContainer[AuthorizationPolicy]
    services: _containers.RepeatedCompositeFieldContainer[Service]
    trust_anchors_der: _containers.RepeatedScalarFieldContainer[bytes]
    certificate_lifetime_s: int
    peer_authentication: PeerAuthentication
    request_authentications: _containers.RepeatedCompositeFieldContainer[RequestAuthentication]
    trusted_proxies_count: int
    revocations: Revocations
    jwt_keys: str
    def __init__(self, epoch: _Optional[int] = ..., version: _Optional[int] = ..., trust_domain: _Optional[str] = ..., workload: _Optional[_Union[Workload, _Mapping]] = ..., default_action: _Optional[_Union[DefaultAction, str]] = ..., policies: _Optional[_Iterable[_Union[AuthorizationPolicy, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., trust_anchors_der: _Optional[_Iterable[bytes]] = ..., certificate_lifetime_s: _Optional[int] = ..., peer_authentication: _Optional[_Union[PeerAuthentication, _Mapping]] = ..., request_authentications: _Optional[_Iterable[_Union[RequestAuthentication, _Mapping]]] = ..., trusted_proxies_count: _Optional[int] = ..., revocations: _Optional[_Union[Revocations, _Mapping]] = ..., jwt_keys: _Optional[str] = ...) -> None: ...

class Revocations(_message.Message):
    __slots__ = ("identities", "serials", "authorities", "tainted_authorities")
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    TAINTED_AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedScalarFieldContainer[str]
    serials: _containers.RepeatedScalarFieldContainer[str]
    authorities: _containers.RepeatedScalarFieldContainer[str]
    tainted_authorities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, identities: _Optional[_Iterable[str]] = ..., serials: _Optional[_Iterable[str]] = ..., authorities: _Optional[_Iterable[str]] = ..., tainted_authorities: _Optional[_Iterable[str]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("spiffe_id", "service", "namespace", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    service: str
    namespace: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, spiffe_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AuthorizationPolicy(_message.Message):
    __slots__ = ("name", "namespace", "action", "rules", "source", "shadow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    action: Action
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    source: str
    shadow: bool
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., source: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("sources", "operations", "when", "line")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    when: _containers.RepeatedCompositeFieldContainer[When]
    line: int
    def __init__(self, sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ..., when: _Optional[_Iterable[_Union[When, _Mapping]]] = ..., line: _Optional[int] = ...) -> None: ...

class When(_message.Message):
    __slots__ = ("key", "values", "not_values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NOT_VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    values: _containers.RepeatedScalarFieldContainer[str]
    not_values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., not_values: _Optional[_Iterable[str]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("principals", "not_principals", "namespaces", "not_namespaces", "request_principals", "not_request_principals", "ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks")
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    NOT_PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NOT_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    NOT_REQUEST_PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    IP_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NOT_IP_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IP_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NOT_REMOTE_IP_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    principals: _containers.RepeatedScalarFieldContainer[str]
    not_principals: _containers.RepeatedScalarFieldContainer[str]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    not_namespaces: _containers.RepeatedScalarFieldContainer[str]
    request_principals: _containers.RepeatedScalarFieldContainer[str]
    not_request_principals: _containers.RepeatedScalarFieldContainer[str]
    ip_blocks: _containers.RepeatedScalarFieldContainer[str]
    not_ip_blocks: _containers.RepeatedScalarFieldContainer[str]
    remote_ip_blocks: _containers.RepeatedScalarFieldContainer[str]
    not_remote_ip_blocks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, principals: _Optional[_Iterable[str]] = ..., not_principals: _Optional[_Iterable[str]] = ..., namespaces: _Optional[_Iterable[str]] = ..., not_namespaces: _Optional[_Iterable[str]] = ..., request_principals: _Optional[_Iterable[str]] = ..., not_request_principals: _Optional[_Iterable[str]] = ..., ip_blocks: _Optional[_Iterable[str]] = ..., not_ip_blocks: _Optional[_Iterable[str]] = ..., remote_ip_blocks: _Optional[_Iterable[str]] = ..., not_remote_ip_blocks: _Optional[_Iterable[str]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("hosts", "not_hosts", "ports", "not_ports", "methods", "not_methods", "paths", "not_paths")
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    NOT_HOSTS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    NOT_PORTS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    NOT_METHODS_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    NOT_PATHS_FIELD_NUMBER: _ClassVar[int]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    not_hosts: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedScalarFieldContainer[str]
    not_ports: _containers.RepeatedScalarFieldContainer[str]
    methods: _containers.RepeatedScalarFieldContainer[str]
    not_methods: _containers.RepeatedScalarFieldContainer[str]
    paths: _containers.RepeatedScalarFieldContainer[str]
    not_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hosts: _Optional[_Iterable[str]] = ..., not_hosts: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[str]] = ..., not_ports: _Optional[_Iterable[str]] = ..., methods: _Optional[_Iterable[str]] = ..., not_methods: _Optional[_Iterable[str]] = ..., paths: _Optional[_Iterable[str]] = ..., not_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class PeerAuthentication(_message.Message):
    __slots__ = ("rest", "ports")
    class PortsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: PortTls
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[PortTls, _Mapping]] = ...) -> None: ...
    REST_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    rest: PortTls
    ports: _containers.MessageMap[int, PortTls]
    def __init__(self, rest: _Optional[_Union[PortTls, _Mapping]] = ..., ports: _Optional[_Mapping[int, PortTls]] = ...) -> None: ...

class PortTls(_message.Message):
    __slots__ = ("mode", "until", "peers", "source")
    MODE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    mode: TlsMode
    until: float
    peers: _containers.RepeatedScalarFieldContainer[str]
    source: str
    def __init__(self, mode: _Optional[_Union[TlsMode, str]] = ..., until: _Optional[float] = ..., peers: _Optional[_Iterable[str]] = ..., source: _Optional[str] = ...) -> None: ...

class RequestAuthentication(_message.Message):
    __slots__ = ("name", "namespace", "jwt_rules", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    JWT_RULES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    jwt_rules: _containers.RepeatedCompositeFieldContainer[JwtRule]
    source: str
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ..., jwt_rules: _Optional[_Iterable[_Union[JwtRule, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class JwtRule(_message.Message):
    __slots__ = ("issuer", "audiences", "jwks", "jwks_uri", "discover", "from_headers", "from_params", "from_cookies", "output_payload_to_header", "output_claim_to_headers", "forward_original_token", "timeout_s", "token_types", "space_delimited_claims")
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    JWKS_FIELD_NUMBER: _ClassVar[int]
    JWKS_URI_FIELD_NUMBER: _ClassVar[int]
    DISCOVER_FIELD_NUMBER: _ClassVar[int]
    FROM_HEADERS_FIELD_NUMBER: _ClassVar[int]
    FROM_PARAMS_FIELD_NUMBER: _ClassVar[int]
    FROM_COOKIES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PAYLOAD_TO_HEADER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_CLAIM_TO_HEADERS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_ORIGINAL_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPES_FIELD_NUMBER: _ClassVar[int]
    SPACE_DELIMITED_CLAIMS_FIELD_NUMBER: _ClassVar[int]
    issuer: str
    audiences: _containers.RepeatedScalarFieldContainer[str]
    jwks: str
    jwks_uri: str
    discover: bool
    from_headers: _containers.RepeatedCompositeFieldContainer[JwtHeader]
    from_params: _containers.RepeatedScalarFieldContainer[str]
    from_cookies: _containers.RepeatedScalarFieldContainer[str]
    output_payload_to_header: str
    output_claim_to_headers: _containers.RepeatedCompositeFieldContainer[ClaimToHeader]
    forward_original_token: bool
    timeout_s: float
    token_types: _containers.RepeatedScalarFieldContainer[str]
    space_delimited_claims: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, issuer: _Optional[str] = ..., audiences: _Optional[_Iterable[str]] = ..., jwks: _Optional[str] = ..., jwks_uri: _Optional[str] = ..., discover: _Optional[bool] = ..., from_headers: _Optional[_Iterable[_Union[JwtHeader, _Mapping]]] = ..., from_params: _Optional[_Iterable[str]] = ..., from_cookies: _Optional[_Iterable[str]] = ..., output_payload_to_header: _Optional[str] = ..., output_claim_to_headers: _Optional[_Iterable[_Union[ClaimToHeader, _Mapping]]] = ..., forward_original_token: _Optional[bool] = ..., timeout_s: _Optional[float] = ..., token_types: _Optional[_Iterable[str]] = ..., space_delimited_claims: _Optional[_Iterable[str]] = ...) -> None: ...

class JwtHeader(_message.Message):
    __slots__ = ("name", "prefix")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    name: str
    prefix: str
    def __init__(self, name: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ClaimToHeader(_message.Message):
    __slots__ = ("header", "claim")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    header: str
    claim: str
    def __init__(self, header: _Optional[str] = ..., claim: _Optional[str] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("name", "namespace", "endpoints", "known")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    known: bool
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., known: _Optional[bool] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("address", "spiffe_id", "instance", "ports")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    spiffe_id: str
    instance: str
    ports: _containers.RepeatedCompositeFieldContainer[InboundPort]
    def __init__(self, address: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., instance: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[InboundPort, _Mapping]]] = ...) -> None: ...
