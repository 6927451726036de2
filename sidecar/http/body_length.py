"""Whether a body is as long as its head said, whatever protocol it came by (row B16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import BadRequest, UpstreamFailed
from sidecar.http.fields import Fault

if TYPE_CHECKING:
    from sidecar.http.headers import RequestHead, ResponseHead


class BodyLength:
    """Counts the body of one message against its content-length (row B16, RFC 9113 section 8.1.1)."""

    __slots__ = ("_fault", "_left")

    def __init__(self, expected: int | None, fault: Fault) -> None:
        self._left = expected
        self._fault = fault

    @classmethod
    def of_request(cls, head: RequestHead) -> BodyLength:
        return cls(head.content_length, BadRequest)

    @classmethod
    def of_response(cls, head: ResponseHead, method: bytes) -> BodyLength:
        """HEAD, 204 and 304 have no body, whatever their content-length (RFC 9110 section 6.4.1)."""
        no_body = method == b"HEAD" or head.status in (204, 304)
        return cls(0 if no_body else head.content_length, UpstreamFailed)

    def __repr__(self) -> str:
        return f"<BodyLength, {'unknown' if self._left is None else self._left} octets left>"

    @property
    def is_complete(self) -> bool:
        """All octets that were announced have come. False where none were."""
        return self._left == 0

    def take(self, octets: int) -> None:
        """Body octets arrived. Raises BadRequest or UpstreamFailed if they are more than announced."""
        if self._left is not None:
            self._left -= octets
            if self._left < 0:
                raise self._fault("body is longer than content-length", row="B16")

    def finish(self) -> None:
        """The body is over. Raises BadRequest or UpstreamFailed if it is shorter than announced."""
        if self._left:
            raise self._fault("body is shorter than content-length", row="B16")
