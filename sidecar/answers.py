"""The one place where an error becomes an answer: fixed texts, nothing of the request is reflected (row I16)."""

from __future__ import annotations

import json

from sidecar.errors import RequestError
from sidecar.http.session import Fields


def error_answer(error: RequestError, decision_id: str, *, is_grpc: bool) -> tuple[Fields, bytes]:
    """The one place where an error becomes an answer: gRPC trailers-only, or problem+json (RFC 9457).

    The texts are fixed: nothing of the request is reflected (row I16), no rule is named."""
    if is_grpc:
        head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
        return head + grpc_status_fields(error, decision_id), b""
    problem: dict[str, object] = {"type": "about:blank", "title": error.title, "status": error.http_status}
    if decision_id:
        problem["decision_id"] = decision_id
    body = json.dumps(problem).encode() + b"\n"
    return [
        (b":status", b"%d" % error.http_status),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ], body


def grpc_status_fields(error: RequestError, decision_id: str) -> Fields:
    message = f"{error.title} (decision {decision_id})" if decision_id else error.title
    return [(b"grpc-status", b"%d" % error.grpc_status), (b"grpc-message", message.encode())]


def grpc_status_of(fields: Fields) -> int | None:
    """From trailers, or from a trailers-only head; None if there is none."""
    for name, value in fields:
        if name == b"grpc-status" and value[:3].isdigit():
            return int(value[:3])
    return None
