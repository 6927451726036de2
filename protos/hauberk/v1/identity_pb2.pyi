from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token_id", "token_secret", "csr_der", "service", "namespace")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    token_secret: bytes
    csr_der: bytes
    service: str
    namespace: str
    def __init__(self, token_id: _Optional[str] = ..., token_secret: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der",)
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    def __init__(self, csr_der: _Optional[bytes] = ...) -> None: ...

class SvidResponse(_message.Message):
    __slots__ = ("spiffe_id", "certificate_chain_der", "trust_anchors_der", "service", "namespace", "labels", "server_time")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_CHAIN_DER_FIELD_NUMBER: _ClassVar[int]
    TRUST_ANCHORS_DER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    certificate_chain_der: _containers.RepeatedScalarFieldContainer[bytes]
    trust_anchors_der: _containers.RepeatedScalarFieldContainer[bytes]
    service: str
    namespace: str
    labels: _containers.ScalarMap[str, str]
    server_time: float
    def __init__(self, spiffe_id: _Optional[str] = ..., certificate_chain_der: _Optional[_Iterable[bytes]] = ..., trust_anchors_der: _Optional[_Iterable[bytes]] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., server_time: _Optional[float] = ...) -> None: ...
