"""gRPC over HTTP/2 in bytes, sans-IO: message framing, request heads, statuses. For both of the sidecar's gRPCs: the
client of the control plane (`sidecar.control`) and the server of workloads (`sidecar.identity.workload_api`).

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, and http-grpc-status-mapping.md beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sidecar.control.errors import RpcError
from sidecar.errors import (
    GRPC_CANCELLED,
    GRPC_INTERNAL,
    GRPC_PERMISSION_DENIED,
    GRPC_RESOURCE_EXHAUSTED,
    GRPC_UNAUTHENTICATED,
    GRPC_UNAVAILABLE,
    GRPC_UNIMPLEMENTED,
    GRPC_UNKNOWN,
)
from sidecar.http.session import ErrorCode, Fields
from sidecar.version import VERSION

PREFIX_OCTETS = 5
MESSAGE_TEXT_MAX = 1_024
USER_AGENT = f"hauberk-sidecar/{VERSION}".encode()

_STATUS_OF_HTTP = {
    400: GRPC_INTERNAL,
    401: GRPC_UNAUTHENTICATED,
    403: GRPC_PERMISSION_DENIED,
    404: GRPC_UNIMPLEMENTED,
    429: GRPC_UNAVAILABLE,
    502: GRPC_UNAVAILABLE,
    503: GRPC_UNAVAILABLE,
    504: GRPC_UNAVAILABLE,
}
_STATUS_OF_RESET = {
    ErrorCode.REFUSED_STREAM: GRPC_UNAVAILABLE,
    ErrorCode.CANCEL: GRPC_CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: GRPC_RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: GRPC_PERMISSION_DENIED,
}


def request_head(path: str, authority: str, timeout_s: float | None) -> Fields:
    """The HEADERS of a call. No grpc-accept-encoding: messages come uncompressed."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path.encode("ascii")),
        (b":authority", authority.encode("ascii")),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc+proto"),
        (b"user-agent", USER_AGENT),
    ]
    if timeout_s is not None:
        # TimeoutValue is at most eight digits; milliseconds reach past a day.
        milliseconds = min(max(1, round(timeout_s * 1000)), 99_999_999)
        fields.append((b"grpc-timeout", b"%dm" % milliseconds))
    return fields


def frame_message(payload: bytes) -> bytes:
    """Length-Prefixed-Message, not compressed."""
    return b"\0" + len(payload).to_bytes(4) + payload


class MessageAssembler:
    """Cuts a stream's DATA into messages."""

    def __init__(self, octets_max: int) -> None:
        self._octets_max = octets_max
        self._buffer = bytearray()

    @property
    def is_between_messages(self) -> bool:
        return not self._buffer

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are complete now.

        Raises RpcError: a compressed one (INTERNAL), one too large (RESOURCE_EXHAUSTED)."""
        self._buffer += data
        messages: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= PREFIX_OCTETS:
            if self._buffer[at] != 0:
                raise RpcError(GRPC_INTERNAL, "a message came compressed, which was not offered")
            length = int.from_bytes(self._buffer[at + 1 : at + PREFIX_OCTETS])
            if length > self._octets_max:
                raise RpcError(
                    GRPC_RESOURCE_EXHAUSTED, f"a message of {length} octets came, more than {self._octets_max}"
                )
            end = at + PREFIX_OCTETS + length
            if end > len(self._buffer):
                break
            messages.append(bytes(self._buffer[at + PREFIX_OCTETS : end]))
            at = end
        del self._buffer[:at]
        return messages


def head_error(fields: Sequence[tuple[bytes, bytes]]) -> RpcError | None:
    """What is wrong with a response's head, if it is no gRPC response. Trailers-only heads are judged by `status`."""
    values = dict(fields)
    http_status = _integer(values.get(b":status", b""))
    if http_status != 200:
        return RpcError(_STATUS_OF_HTTP.get(http_status or 0, GRPC_UNKNOWN), f"HTTP status {http_status}, not 200")
    if not values.get(b"content-type", b"").startswith(b"application/grpc"):
        return RpcError(GRPC_UNKNOWN, "the answer is not gRPC")
    return None


def trailers_error(fields: Sequence[tuple[bytes, bytes]]) -> RpcError | None:
    """None if the trailers (or the trailers-only head) say OK."""
    values = dict(fields)
    status = _integer(values.get(b"grpc-status", b""))
    if status is None:
        return RpcError(GRPC_UNKNOWN, "the answer ended without a status")
    if status == 0:
        return None
    return RpcError(status if status <= 16 else GRPC_UNKNOWN, decode_text(values.get(b"grpc-message", b"")))


def reset_error(code: int) -> RpcError:
    """RST_STREAM from the server."""
    return RpcError(_STATUS_OF_RESET.get(code, GRPC_INTERNAL), f"the server reset the call (HTTP/2 error {code})")


def decode_text(value: bytes) -> str:
    """grpc-message: percent-encoded UTF-8, for people only; made printable and bounded before it may reach a log."""
    text = unquote_to_bytes(value[: 4 * MESSAGE_TEXT_MAX]).decode("utf-8", "replace")[:MESSAGE_TEXT_MAX]
    return "".join(c if c.isprintable() else " " for c in text)


def encode_text(text: str) -> bytes:
    """The reverse: printable ASCII but "%" as it is, everything else percent-encoded."""
    safe = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
    return quote_from_bytes(text[:MESSAGE_TEXT_MAX].encode("utf-8", "replace"), safe=safe).encode("ascii")


_UNIT_S = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def decode_timeout(value: bytes) -> float:
    """grpc-timeout in seconds: at most eight digits and a unit. Raises ValueError."""
    digits, unit = value[:-1], value[-1:]
    if not (digits.isdigit() and len(digits) <= 8 and unit in _UNIT_S):
        raise ValueError("grpc-timeout is not digits and a unit")
    return int(digits) * _UNIT_S[unit]


def _integer(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= 3 else None
