from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token_id", "token_secret", "csr_der", "service", "namespace", "node_key_der", "node_signature")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_DER_FIELD_NUMBER: _ClassVar[int]
    NODE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    token_secret: bytes
    csr_der: bytes
    service: str
    namespace: str
    node_key_der: bytes
    node_signature: bytes
    def __init__(self, token_id: _Optional[str] = ..., token_secret: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., node_key_der: _Optional[bytes] = ..., node_signature: _Optional[bytes] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChallengeResponse(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    def __init__(self, nonce: _Optional[bytes] = ...) -> None: ...

class RejoinRequest(_message.Message):
    __slots__ = ("node_id", "nonce", "csr_der", "node_signature")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    NODE_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    nonce: bytes
    csr_der: bytes
    node_signature: bytes
    def __init__(self, node_id: _Optional[str] = ..., nonce: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., node_signature: _Optional[bytes] = ...) -> None: ...

class AnchorsRequest(_message.Message):
    __slots__ = ("held_sha256",)
    HELD_SHA256_FIELD_NUMBER: _ClassVar[int]
    held_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, held_sha256: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AnchorsResponse(_message.Message):
    __slots__ = ("successions",)
    SUCCESSIONS_FIELD_NUMBER: _ClassVar[int]
    successions: _containers.RepeatedCompositeFieldContainer[Succession]
    def __init__(self, successions: _Optional[_Iterable[_Union[Succession, _Mapping]]] = ...) -> None: ...

class Succession(_message.Message):
    __slots__ = ("predecessor_sha256", "successor_der", "signature")
    PREDECESSOR_SHA256_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_DER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    predecessor_sha256: bytes
    successor_der: bytes
    signature: bytes
    def __init__(self, predecessor_sha256: _Optional[bytes] = ..., successor_der: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ConfirmRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfirmResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JwtSvidRequest(_message.Message):
    __slots__ = ("audiences",)
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, audiences: _Optional[_Iterable[str]] = ...) -> None: ...

class JwtSvidResponse(_message.Message):
    __slots__ = ("token", "spiffe_id", "issued_at", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    spiffe_id: str
    issued_at: float
    expires_at: float
    def __init__(self, token: _Optional[str] = ..., spiffe_id: _Optional[str] = ..., issued_at: _Optional[float] = ..., expires_at: _Optional[float] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der",)
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    def __init__(self, csr_der: _Optional[bytes] = ...) -> None: ...

class SvidResponse(_message.Message):
    __slots__ = ("spiffe_id", "certificate_chain_der", "trust_anchors_der", "service", "namespace", "labels", "server_time", "node_id", "node_expires_at")
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
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    certificate_chain_der: _containers.RepeatedScalarFieldContainer[bytes]
    trust_anchors_der: _containers.RepeatedScalarFieldContainer[bytes]
    service: str
    namespace: str
    labels: _containers.ScalarMap[str, str]
    server_time: float
    node_id: str
    node_expires_at: float
    def __init__(self, spiffe_id: _Optional[str] = ..., certificate_chain_der: _Optional[_Iterable[bytes]] = ..., trust_anchors_der: _Optional[_Iterable[bytes]] = ..., service: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., server_time: _Optional[float] = ..., node_id: _Optional[str] = ..., node_expires_at: _Optional[float] = ...) -> None: ...
