"""What can go wrong with a request, and what each side is told: one tree, each class carrying its wire codes.

An error is raised where the fault is found and turned into an answer in one place (`sidecar.exchange`). The text of an
error goes to the log; a caller is told only `title`, never what it sent (no reflection) and never an internal name.
"""

from __future__ import annotations

from sidecar.http.session import ErrorCode

# gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)
GRPC_CANCELLED = 1
GRPC_UNKNOWN = 2
GRPC_INVALID_ARGUMENT = 3
GRPC_DEADLINE_EXCEEDED = 4
GRPC_NOT_FOUND = 5
GRPC_PERMISSION_DENIED = 7
GRPC_RESOURCE_EXHAUSTED = 8
GRPC_UNIMPLEMENTED = 12
GRPC_INTERNAL = 13
GRPC_UNAVAILABLE = 14
GRPC_UNAUTHENTICATED = 16


class SidecarError(Exception):
    """Anything the sidecar raises on purpose."""


class ConfigError(SidecarError):
    """The configuration cannot be used. The message names the file, the field and the way out."""


class RequestError(SidecarError):
    """A request that will not be relayed, or whose relay failed."""

    http_status = 500
    grpc_status = GRPC_INTERNAL
    h2_code = ErrorCode.INTERNAL_ERROR
    reason = "internal"
    """Constant word for metrics and logs."""
    title = "The request could not be handled."

    def __init__(self, detail: str = "", *, row: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.row = row
        """Row of the catalogue of bad inputs, when one applies ("B02")."""


class BadRequest(RequestError):
    http_status, grpc_status, h2_code = 400, GRPC_INTERNAL, ErrorCode.PROTOCOL_ERROR
    reason, title = "bad_request", "The request is not valid HTTP."


class HeadersTooLarge(RequestError):
    http_status, grpc_status, h2_code = 431, GRPC_RESOURCE_EXHAUSTED, ErrorCode.ENHANCE_YOUR_CALM
    reason, title = "headers_too_large", "The request's header fields are too many or too large."


class PeerFlood(RequestError):
    """A connection spent one of its budgets (`sidecar.http.budgets`): no request's fault, so nobody is answered."""

    http_status, grpc_status, h2_code = 429, GRPC_RESOURCE_EXHAUSTED, ErrorCode.ENHANCE_YOUR_CALM
    reason, title = "flood", "The connection asks for more than it may."


class MethodNotAllowed(RequestError):
    http_status, grpc_status, h2_code = 405, GRPC_UNIMPLEMENTED, ErrorCode.PROTOCOL_ERROR
    reason, title = "method_not_allowed", "This method is not available here."


class NotFound(RequestError):
    http_status, grpc_status, h2_code = 404, GRPC_UNIMPLEMENTED, ErrorCode.REFUSED_STREAM
    reason, title = "no_route", "There is no such service or port in the mesh."


class Unauthorized(RequestError):
    """A token that is not taken. The caller hears no more than that (RFC 6750 section 3.1)."""

    http_status, grpc_status, h2_code = 401, GRPC_UNAUTHENTICATED, ErrorCode.REFUSED_STREAM
    reason, title = "unauthenticated", "The request's token is not accepted."


class KeysUnavailable(RequestError):
    """Whether a token holds cannot be told (row E19)."""

    http_status, grpc_status, h2_code = 503, GRPC_UNAVAILABLE, ErrorCode.REFUSED_STREAM
    reason, title = "keys_unavailable", "The keys of the token's issuer are not available."


class Misdirected(RequestError):
    """The host is another service than the one the connection was made to (RFC 9110 section 15.5.20)."""

    http_status, grpc_status, h2_code = 421, GRPC_UNIMPLEMENTED, ErrorCode.REFUSED_STREAM
    reason, title = "misdirected", "This connection does not lead to that service."


class Forbidden(RequestError):
    http_status, grpc_status, h2_code = 403, GRPC_PERMISSION_DENIED, ErrorCode.REFUSED_STREAM
    reason, title = "denied", "Access denied by policy."


class TooManyRequests(RequestError):
    http_status, grpc_status, h2_code = 429, GRPC_RESOURCE_EXHAUSTED, ErrorCode.ENHANCE_YOUR_CALM
    reason, title = "too_many", "Too many requests wait for this service."


class RequestTimeout(RequestError):
    http_status, grpc_status, h2_code = 408, GRPC_DEADLINE_EXCEEDED, ErrorCode.CANCEL
    reason, title = "request_timeout", "The request did not arrive in time."


class NotReady(RequestError):
    http_status, grpc_status, h2_code = 503, GRPC_UNAVAILABLE, ErrorCode.REFUSED_STREAM
    reason, title = "not_ready", "The sidecar has no certificate or no policy yet."


class NoEndpoint(RequestError):
    http_status, grpc_status, h2_code = 503, GRPC_UNAVAILABLE, ErrorCode.REFUSED_STREAM
    reason, title = "no_endpoint", "Nobody serves this at the moment."


class ConnectFailed(RequestError):
    """No connection to the upstream could be made. Nothing was sent, so another endpoint may be tried."""

    http_status, grpc_status, h2_code = 503, GRPC_UNAVAILABLE, ErrorCode.REFUSED_STREAM
    reason, title = "connect_failed", "The service could not be reached."


class TrustLost(RequestError):
    """The other end of the mesh connection was trusted when the request began, and is not any more (row F15).

    Never a code that invites to try again: it may have been acted on."""

    http_status, grpc_status, h2_code = 503, GRPC_UNAVAILABLE, ErrorCode.CANCEL
    reason, title = "trust_lost", "The other end of the connection is not trusted any more."


class UpstreamFailed(RequestError):
    """The upstream broke off or answered with something that is not HTTP."""

    http_status, grpc_status, h2_code = 502, GRPC_UNAVAILABLE, ErrorCode.INTERNAL_ERROR
    reason, title = "upstream_failed", "The service broke off or gave an invalid answer."


class UpstreamTimeout(RequestError):
    http_status, grpc_status, h2_code = 504, GRPC_DEADLINE_EXCEEDED, ErrorCode.CANCEL
    reason, title = "upstream_timeout", "The service did not answer in time."
