"""CONNECT on the outbound listener: how gRPC clients use HTTP_PROXY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import BadRequest, HeadersTooLarge
from sidecar.http.tunnel import HEAD_OCTETS_MAX, Tunnel, read_connect

HEAD = b"CONNECT orders.shop:8080 HTTP/1.1\r\nHost: orders.shop:8080\r\nuser-agent: grpc-c/1\r\n\r\n"


def test_a_tunnel_names_a_host_and_a_port_and_keeps_what_followed() -> None:
    """The octets after the head belong to whatever is spoken inside."""
    assert read_connect(HEAD + b"PRI") == Tunnel("orders.shop", 8080, b"PRI")


@given(st.integers(0, len(HEAD) - 1))
def test_an_incomplete_head_is_waited_for(cut: int) -> None:
    """However it arrives."""
    assert read_connect(HEAD[:cut]) is None


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT orders.shop HTTP/1.1\r\n\r\n",
        b"CONNECT user@orders.shop:80 HTTP/1.1\r\n\r\n",
        b"CONNECT http://orders.shop:80/ HTTP/1.1\r\n\r\n",
        b"CONNECT orders.shop:80 HTTP/2.0\r\n\r\n",
        b"CONNECT orders.shop:80 HTTP/1.1\nHost: a\r\n\r\n",
        b"CONNECT orders.shop:80 HTTP/1.1\r\nHost : a\r\n\r\n",
        b"CONNECT orders.shop:80 HTTP/1.1\r\n folded: a\r\n\r\n",
        b"CONNECT orders.shop:80 HTTP/1.1\r\nx: \x00\r\n\r\n",
        b"CONNECT orders.shop:99999 HTTP/1.1\r\n\r\n",
    ],
)
def test_b33_a_malformed_connect_is_refused(head: bytes) -> None:
    """Nothing is opened for it."""
    with pytest.raises(BadRequest):
        read_connect(head)


def test_b39_an_endless_head_is_refused() -> None:
    """Memory is bounded while the head is awaited."""
    with pytest.raises(HeadersTooLarge):
        read_connect(b"CONNECT a:1 HTTP/1.1\r\n" + b"x: y\r\n" * HEAD_OCTETS_MAX)


@given(st.binary(max_size=200))
def test_mutated_heads_are_refused_or_waited_for(tail: bytes) -> None:
    """Never anything but a RequestError."""
    try:
        read_connect(b"CONNECT " + tail)
    except (BadRequest, HeadersTooLarge):
        pass
