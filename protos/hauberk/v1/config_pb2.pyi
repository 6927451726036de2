from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SourceFile(_message.Message):
    __slots__ = ("name", "text")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("files", "dry_run", "wait_timeout_s", "wait", "base_version", "skip_impact")
    FILES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SKIP_IMPACT_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[SourceFile]
    dry_run: bool
    wait_timeout_s: float
    wait: bool
    base_version: int
    skip_impact: bool
    def __init__(self, files: _Optional[_Iterable[_Union[SourceFile, _Mapping]]] = ..., dry_run: _Optional[bool] = ..., wait_timeout_s: _Optional[float] = ..., wait: _Optional[bool] = ..., base_version: _Optional[int] = ..., skip_impact: _Optional[bool] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("version", "changes", "propagation", "warnings", "impact")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    version: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    propagation: Propagation
    warnings: _containers.RepeatedScalarFieldContainer[str]
    impact: Impact
    def __init__(self, version: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., propagation: _Optional[_Union[Propagation, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ...) -> None: ...

class Impact(_message.Message):
    __slots__ = ("lines", "left_off_count")
    LINES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OFF_COUNT_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[ImpactLine]
    left_off_count: int
    def __init__(self, lines: _Optional[_Iterable[_Union[ImpactLine, _Mapping]]] = ..., left_off_count: _Optional[int] = ...) -> None: ...

class ImpactLine(_message.Message):
    __slots__ = ("gains", "from_identity", "to_service", "what", "before", "after", "shadow")
    GAINS_FIELD_NUMBER: _ClassVar[int]
    FROM_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TO_SERVICE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    gains: bool
    from_identity: str
    to_service: str
    what: str
    before: str
    after: str
    shadow: bool
    def __init__(self, gains: _Optional[bool] = ..., from_identity: _Optional[str] = ..., to_service: _Optional[str] = ..., what: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("count_max", "version", "before")
    COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    count_max: int
    version: int
    before: int
    def __init__(self, count_max: _Optional[int] = ..., version: _Optional[int] = ..., before: _Optional[int] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("version", "at", "by", "what", "changes", "resources")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    version: int
    at: float
    by: str
    what: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    def __init__(self, version: _Optional[int] = ..., at: _Optional[float] = ..., by: _Optional[str] = ..., what: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("to_version", "dry_run", "wait", "wait_timeout_s", "base_version", "skip_impact")
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SKIP_IMPACT_FIELD_NUMBER: _ClassVar[int]
    to_version: int
    dry_run: bool
    wait: bool
    wait_timeout_s: float
    base_version: int
    skip_impact: bool
    def __init__(self, to_version: _Optional[int] = ..., dry_run: _Optional[bool] = ..., wait: _Optional[bool] = ..., wait_timeout_s: _Optional[float] = ..., base_version: _Optional[int] = ..., skip_impact: _Optional[bool] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("version", "changes", "impact", "propagation", "warnings")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    version: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    impact: Impact
    propagation: Propagation
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ..., propagation: _Optional[_Union[Propagation, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class InventoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InventoryResponse(_message.Message):
    __slots__ = ("members", "resources", "version", "trust_domain")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    version: int
    trust_domain: str
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., version: _Optional[int] = ..., trust_domain: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("spiffe_id", "service", "namespace", "labels", "ports")
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
    PORTS_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    service: str
    namespace: str
    labels: _containers.ScalarMap[str, str]
    ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, spiffe_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., ports: _Optional[_Iterable[int]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("kind", "namespace", "name", "what")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    what: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...

class Propagation(_message.Message):
    __slots__ = ("acknowledged", "pending", "rejected")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: _containers.RepeatedScalarFieldContainer[str]
    pending: _containers.RepeatedScalarFieldContainer[str]
    rejected: _containers.RepeatedCompositeFieldContainer[Rejection]
    def __init__(self, acknowledged: _Optional[_Iterable[str]] = ..., pending: _Optional[_Iterable[str]] = ..., rejected: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("workload", "reason")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    workload: str
    reason: str
    def __init__(self, workload: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("resource",)
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    resource: Resource
    def __init__(self, resource: _Optional[_Union[Resource, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("kind", "namespace")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    def __init__(self, resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "wait", "wait_timeout_s", "dry_run", "base_version", "skip_impact")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SKIP_IMPACT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    wait: bool
    wait_timeout_s: float
    dry_run: bool
    base_version: int
    skip_impact: bool
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., wait: _Optional[bool] = ..., wait_timeout_s: _Optional[float] = ..., dry_run: _Optional[bool] = ..., base_version: _Optional[int] = ..., skip_impact: _Optional[bool] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("version", "propagation", "impact")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    IMPACT_FIELD_NUMBER: _ClassVar[int]
    version: int
    propagation: Propagation
    impact: Impact
    def __init__(self, version: _Optional[int] = ..., propagation: _Optional[_Union[Propagation, _Mapping]] = ..., impact: _Optional[_Union[Impact, _Mapping]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("kind", "namespace", "name", "yaml", "source", "version", "applied_at", "applied_by")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_BY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    yaml: str
    source: str
    version: int
    applied_at: float
    applied_by: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., yaml: _Optional[str] = ..., source: _Optional[str] = ..., version: _Optional[int] = ..., applied_at: _Optional[float] = ..., applied_by: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("from_identity", "to_service", "port", "method", "path", "host", "decision_id", "headers", "claims_json", "source_ip", "remote_ip", "sni", "destination_ip")
    FROM_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TO_SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_JSON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    REMOTE_IP_FIELD_NUMBER: _ClassVar[int]
    SNI_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    from_identity: str
    to_service: str
    port: int
    method: str
    path: str
    host: str
    decision_id: str
    headers: _containers.RepeatedCompositeFieldContainer[RequestHeader]
    claims_json: str
    source_ip: str
    remote_ip: str
    sni: str
    destination_ip: str
    def __init__(self, from_identity: _Optional[str] = ..., to_service: _Optional[str] = ..., port: _Optional[int] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., host: _Optional[str] = ..., decision_id: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[RequestHeader, _Mapping]]] = ..., claims_json: _Optional[str] = ..., source_ip: _Optional[str] = ..., remote_ip: _Optional[str] = ..., sni: _Optional[str] = ..., destination_ip: _Optional[str] = ...) -> None: ...

class RequestHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("allowed", "rule", "reason", "source", "version", "from_identity", "to_identity", "near_misses", "conditions", "shadow_rule", "shadow_allowed", "audit_rules", "decision_id", "decided_at", "request", "note")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FROM_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TO_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    NEAR_MISSES_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_RULE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    AUDIT_RULES_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    rule: str
    reason: str
    source: str
    version: int
    from_identity: str
    to_identity: str
    near_misses: _containers.RepeatedCompositeFieldContainer[NearMiss]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    shadow_rule: str
    shadow_allowed: bool
    audit_rules: _containers.RepeatedScalarFieldContainer[str]
    decision_id: str
    decided_at: float
    request: str
    note: str
    def __init__(self, allowed: _Optional[bool] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., version: _Optional[int] = ..., from_identity: _Optional[str] = ..., to_identity: _Optional[str] = ..., near_misses: _Optional[_Iterable[_Union[NearMiss, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ..., shadow_rule: _Optional[str] = ..., shadow_allowed: _Optional[bool] = ..., audit_rules: _Optional[_Iterable[str]] = ..., decision_id: _Optional[str] = ..., decided_at: _Optional[float] = ..., request: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class NearMiss(_message.Message):
    __slots__ = ("rule", "source", "conditions")
    RULE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    rule: str
    source: str
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, rule: _Optional[str] = ..., source: _Optional[str] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("field", "wanted", "got", "matched", "hidden")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    GOT_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    field: str
    wanted: _containers.RepeatedScalarFieldContainer[str]
    got: str
    matched: bool
    hidden: bool
    def __init__(self, field: _Optional[str] = ..., wanted: _Optional[_Iterable[str]] = ..., got: _Optional[str] = ..., matched: _Optional[bool] = ..., hidden: _Optional[bool] = ...) -> None: ...
