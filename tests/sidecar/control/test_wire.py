"""sidecar.control.wire: message framing and statuses of gRPC over HTTP/2."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control.errors import RpcError
from sidecar.control.wire import (
    MessageAssembler,
    decode_text,
    frame_message,
    head_error,
    request_head,
    reset_error,
    trailers_error,
)

OK_HEAD = [(b":status", b"200"), (b"content-type", b"application/grpc")]


@given(messages=st.lists(st.binary(max_size=50), max_size=6), cuts=st.lists(st.integers(0, 400), max_size=10))
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    """Length-Prefixed-Message, any segmentation."""
    wire = b"".join(map(frame_message, messages))
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    assembler = MessageAssembler(50)
    got = [one for start, end in pairwise(edges) for one in assembler.receive(wire[start:end])]
    assert got == messages
    assert assembler.is_between_messages


@pytest.mark.parametrize(
    ("wire", "status"),
    [(b"\x01\0\0\0\x01x", 13), (b"\0\0\0\x00\x0b", 8), (b"\0\xff\xff\xff\xff", 8)],
    ids=["compressed", "one octet too many", "4 GiB"],
)
def test_compressed_and_oversized_messages_are_refused_by_their_prefix(wire: bytes, status: int) -> None:
    """Five octets are enough to refuse; nothing is buffered first."""
    with pytest.raises(RpcError) as caught:
        MessageAssembler(10).receive(wire)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (OK_HEAD, None),
        ([(b":status", b"200"), (b"content-type", b"application/grpc+proto")], None),
        ([(b":status", b"200"), (b"content-type", b"text/html")], 2),
        ([(b":status", b"200")], 2),
        ([(b":status", b"401")], 16),
        ([(b":status", b"403")], 7),
        ([(b":status", b"404")], 12),
        ([(b":status", b"503")], 14),
        ([(b":status", b"302")], 2),
        ([(b":status", b"x")], 2),
        ([], 2),
    ],
)
def test_a_head_that_is_no_grpc_becomes_a_status(fields: list[tuple[bytes, bytes]], status: int | None) -> None:
    """http-grpc-status-mapping.md."""
    error = head_error(fields)
    assert (error.status if error else None) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"grpc-status", b"0")], None),
        ([(b"grpc-status", b"7"), (b"grpc-message", b"no")], 7),
        ([(b"grpc-status", b"99")], 2),
        ([(b"grpc-status", b"-1")], 2),
        ([(b"grpc-status", b"9" * 5000)], 2),
        ([], 2),
    ],
)
def test_trailers_become_a_status(fields: list[tuple[bytes, bytes]], status: int | None) -> None:
    """A missing or impossible grpc-status is UNKNOWN, never OK."""
    error = trailers_error(fields)
    assert (error.status if error else None) == status


@pytest.mark.parametrize(("code", "status"), [(7, 14), (8, 1), (11, 8), (12, 7), (0, 13), (2, 13), (99, 13)])
def test_a_reset_becomes_a_status(code: int, status: int) -> None:
    """PROTOCOL-HTTP2.md, "Errors"."""
    assert reset_error(code).status == status


@given(st.binary(max_size=2000))
def test_status_texts_are_bounded_and_printable(value: bytes) -> None:
    """Whatever a server says can be logged on one line."""
    text = decode_text(value)
    assert len(text) <= 1024
    assert text.isprintable()


@pytest.mark.parametrize(("timeout_s", "value"), [(None, None), (10, b"10000m"), (0.0001, b"1m"), (1e9, b"99999999m")])
def test_deadlines_are_sent_in_at_most_eight_digits(timeout_s: float | None, value: bytes | None) -> None:
    """grpc-timeout: TimeoutValue is a positive integer of at most 8 digits."""
    assert dict(request_head("/a/b", "host", timeout_s)).get(b"grpc-timeout") == value


def test_compression_is_not_advertised() -> None:
    """A server may only compress what the client said it accepts."""
    assert not any(b"encoding" in name for name, _ in request_head("/a/b", "host", None))
