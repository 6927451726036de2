from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateTokenRequest(_message.Message):
    __slots__ = ("service", "namespace", "service_account", "labels", "ttl_s")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    service: str
    namespace: str
    service_account: str
    labels: _containers.ScalarMap[str, str]
    ttl_s: float
    def __init__(self, service: _Optional[str] = ..., namespace: _Optional[str] = ..., service_account: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token", "token_id", "spiffe_id", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    token_id: str
    spiffe_id: str
    expires_at: float
    def __init__(self, token: _Optional[str] = ..., token_id: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., expires_at: _Optional[float] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens", "left_off", "server_time")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OFF_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[JoinToken]
    left_off: int
    server_time: float
    def __init__(self, tokens: _Optional[_Iterable[_Union[JoinToken, _Mapping]]] = ..., left_off: _Optional[int] = ..., server_time: _Optional[float] = ...) -> None: ...

class JoinToken(_message.Message):
    __slots__ = ("token_id", "spiffe_id", "service", "namespace", "service_account", "labels", "created_at", "created_by", "expires_at", "used_at", "node_ids", "revoked")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    USED_AT_FIELD_NUMBER: _ClassVar[int]
    NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    spiffe_id: str
    service: str
    namespace: str
    service_account: str
    labels: _containers.ScalarMap[str, str]
    created_at: float
    created_by: str
    expires_at: float
    used_at: float
    node_ids: _containers.RepeatedScalarFieldContainer[str]
    revoked: bool
    def __init__(self, token_id: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., service_account: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., created_at: _Optional[float] = ..., created_by: _Optional[str] = ..., expires_at: _Optional[float] = ..., used_at: _Optional[float] = ..., node_ids: _Optional[_Iterable[str]] = ..., revoked: _Optional[bool] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("trust_domain", "epoch", "version", "default_action", "server_time", "anchor_sha256", "anchor_not_after", "workloads", "control_plane_version")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ACTION_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_SHA256_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_PLANE_VERSION_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    epoch: int
    version: int
    default_action: str
    server_time: float
    anchor_sha256: str
    anchor_not_after: float
    workloads: _containers.RepeatedCompositeFieldContainer[WorkloadStatus]
    control_plane_version: str
    def __init__(self, trust_domain: _Optional[str] = ..., epoch: _Optional[int] = ..., version: _Optional[int] = ..., default_action: _Optional[str] = ..., server_time: _Optional[float] = ..., anchor_sha256: _Optional[str] = ..., anchor_not_after: _Optional[float] = ..., workloads: _Optional[_Iterable[_Union[WorkloadStatus, _Mapping]]] = ..., control_plane_version: _Optional[str] = ...) -> None: ...

class WorkloadStatus(_message.Message):
    __slots__ = ("spiffe_id", "service", "namespace", "instance", "connected", "address", "ports", "acknowledged_version", "pushed_version", "rejected_reason", "certificate_not_after", "clock_skew_s", "connected_since", "sidecar_version", "last_seen", "labels", "node_id", "alarm", "certificate_not_before", "certificate_serial")
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
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_VERSION_FIELD_NUMBER: _ClassVar[int]
    PUSHED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REJECTED_REASON_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_S_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_SINCE_FIELD_NUMBER: _ClassVar[int]
    SIDECAR_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    service: str
    namespace: str
    instance: str
    connected: bool
    address: str
    ports: str
    acknowledged_version: int
    pushed_version: int
    rejected_reason: str
    certificate_not_after: float
    clock_skew_s: float
    connected_since: float
    sidecar_version: str
    last_seen: float
    labels: _containers.ScalarMap[str, str]
    node_id: str
    alarm: str
    certificate_not_before: float
    certificate_serial: str
    def __init__(self, spiffe_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., instance: _Optional[str] = ..., connected: _Optional[bool] = ..., address: _Optional[str] = ..., ports: _Optional[str] = ..., acknowledged_version: _Optional[int] = ..., pushed_version: _Optional[int] = ..., rejected_reason: _Optional[str] = ..., certificate_not_after: _Optional[float] = ..., clock_skew_s: _Optional[float] = ..., connected_since: _Optional[float] = ..., sidecar_version: _Optional[str] = ..., last_seen: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., node_id: _Optional[str] = ..., alarm: _Optional[str] = ..., certificate_not_before: _Optional[float] = ..., certificate_serial: _Optional[str] = ...) -> None: ...

class Authority(_message.Message):
    __slots__ = ("authority_id", "level", "phase", "parent_id", "not_before", "not_after", "prepared_at", "activated_at", "tainted_at", "revoked_at", "has_key", "live_certificates", "last_certificate_not_after", "certificate_sha256", "certificate_pem")
    AUTHORITY_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    PREPARED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_AT_FIELD_NUMBER: _ClassVar[int]
    TAINTED_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    HAS_KEY_FIELD_NUMBER: _ClassVar[int]
    LIVE_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    LAST_CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    authority_id: str
    level: str
    phase: str
    parent_id: str
    not_before: float
    not_after: float
    prepared_at: float
    activated_at: float
    tainted_at: float
    revoked_at: float
    has_key: bool
    live_certificates: int
    last_certificate_not_after: float
    certificate_sha256: str
    certificate_pem: str
    def __init__(self, authority_id: _Optional[str] = ..., level: _Optional[str] = ..., phase: _Optional[str] = ..., parent_id: _Optional[str] = ..., not_before: _Optional[float] = ..., not_after: _Optional[float] = ..., prepared_at: _Optional[float] = ..., activated_at: _Optional[float] = ..., tainted_at: _Optional[float] = ..., revoked_at: _Optional[float] = ..., has_key: _Optional[bool] = ..., live_certificates: _Optional[int] = ..., last_certificate_not_after: _Optional[float] = ..., certificate_sha256: _Optional[str] = ..., certificate_pem: _Optional[str] = ...) -> None: ...

class CaStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CaStatusResponse(_message.Message):
    __slots__ = ("authorities", "next_steps", "alarms", "server_time")
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEPS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    authorities: _containers.RepeatedCompositeFieldContainer[Authority]
    next_steps: _containers.RepeatedCompositeFieldContainer[CaNextStep]
    alarms: _containers.RepeatedScalarFieldContainer[str]
    server_time: float
    def __init__(self, authorities: _Optional[_Iterable[_Union[Authority, _Mapping]]] = ..., next_steps: _Optional[_Iterable[_Union[CaNextStep, _Mapping]]] = ..., alarms: _Optional[_Iterable[str]] = ..., server_time: _Optional[float] = ...) -> None: ...

class CaNextStep(_message.Message):
    __slots__ = ("level", "step", "authority_id", "not_before", "waits_for", "waits_until")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_ID_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    WAITS_UNTIL_FIELD_NUMBER: _ClassVar[int]
    level: str
    step: str
    authority_id: str
    not_before: float
    waits_for: _containers.RepeatedScalarFieldContainer[str]
    waits_until: float
    def __init__(self, level: _Optional[str] = ..., step: _Optional[str] = ..., authority_id: _Optional[str] = ..., not_before: _Optional[float] = ..., waits_for: _Optional[_Iterable[str]] = ..., waits_until: _Optional[float] = ...) -> None: ...

class CaStepRequest(_message.Message):
    __slots__ = ("step", "level", "authority_id", "force", "dry_run")
    STEP_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    step: str
    level: str
    authority_id: str
    force: bool
    dry_run: bool
    def __init__(self, step: _Optional[str] = ..., level: _Optional[str] = ..., authority_id: _Optional[str] = ..., force: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CaStepResponse(_message.Message):
    __slots__ = ("authority", "breaks", "csr_pem")
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    BREAKS_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    authority: Authority
    breaks: _containers.RepeatedScalarFieldContainer[str]
    csr_pem: str
    def __init__(self, authority: _Optional[_Union[Authority, _Mapping]] = ..., breaks: _Optional[_Iterable[str]] = ..., csr_pem: _Optional[str] = ...) -> None: ...

class CaInstallRequest(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: str
    def __init__(self, certificate_pem: _Optional[str] = ...) -> None: ...

class CaRehearseRequest(_message.Message):
    __slots__ = ("level", "force", "horizon_s")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    HORIZON_S_FIELD_NUMBER: _ClassVar[int]
    level: str
    force: bool
    horizon_s: float
    def __init__(self, level: _Optional[str] = ..., force: _Optional[bool] = ..., horizon_s: _Optional[float] = ...) -> None: ...

class CaRehearseResponse(_message.Message):
    __slots__ = ("steps", "failures")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[RehearsedStep]
    failures: _containers.RepeatedCompositeFieldContainer[RehearsedFailure]
    def __init__(self, steps: _Optional[_Iterable[_Union[RehearsedStep, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[RehearsedFailure, _Mapping]]] = ...) -> None: ...

class RehearsedStep(_message.Message):
    __slots__ = ("at", "what")
    AT_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    at: float
    what: str
    def __init__(self, at: _Optional[float] = ..., what: _Optional[str] = ...) -> None: ...

class RehearsedFailure(_message.Message):
    __slots__ = ("who", "until", "why")
    WHO_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    who: str
    until: float
    why: str
    def __init__(self, who: _Optional[str] = ..., until: _Optional[float] = ..., why: _Optional[str] = ..., **kwargs) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("kind", "value", "at", "by", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: str
    at: float
    by: str
    reason: str
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[str] = ..., at: _Optional[float] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("kind", "value", "reason", "wait_s")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: str
    reason: str
    wait_s: float
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[str] = ..., reason: _Optional[str] = ..., wait_s: _Optional[float] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("changed", "serials", "acknowledged", "pending")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    serials: _containers.RepeatedScalarFieldContainer[str]
    acknowledged: _containers.RepeatedScalarFieldContainer[str]
    pending: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed: _Optional[bool] = ..., serials: _Optional[_Iterable[str]] = ..., acknowledged: _Optional[_Iterable[str]] = ..., pending: _Optional[_Iterable[str]] = ...) -> None: ...

class ReinstateRequest(_message.Message):
    __slots__ = ("kind", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: str
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ReinstateResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class ListRevocationsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRevocationsResponse(_message.Message):
    __slots__ = ("revocations",)
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    def __init__(self, revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ...) -> None: ...
