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
    __slots__ = ("spiffe_id", "service", "namespace", "instance", "connected", "address", "ports", "acknowledged_version", "pushed_version", "rejected_reason", "certificate_not_after", "clock_skew_s", "connected_since", "sidecar_version", "last_seen", "labels")
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
    def __init__(self, spiffe_id: _Optional[str] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., instance: _Optional[str] = ..., connected: _Optional[bool] = ..., address: _Optional[str] = ..., ports: _Optional[str] = ..., acknowledged_version: _Optional[int] = ..., pushed_version: _Optional[int] = ..., rejected_reason: _Optional[str] = ..., certificate_not_after: _Optional[float] = ..., clock_skew_s: _Optional[float] = ..., connected_since: _Optional[float] = ..., sidecar_version: _Optional[str] = ..., last_seen: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...
