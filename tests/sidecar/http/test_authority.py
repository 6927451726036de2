"""`host[:port]`, read once: rows B06 and C15 to C17."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import BadRequest
from sidecar.http.authority import Authority, parse_authority


def refused(raw: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        parse_authority(raw)
    return caught.value.row


def test_c15_the_host_is_lower_cased() -> None:
    """It is matched, routed and forwarded so."""
    assert parse_authority(b"Secret.COM") == Authority(b"secret.com", "secret.com", None)


@pytest.mark.parametrize(
    ("raw", "host", "port"), [(b"secret.com:443", "secret.com", 443), (b"secret.com:1", "secret.com", 1)]
)
def test_c16_the_port_is_matched_apart_from_the_host(raw: bytes, host: str, port: int) -> None:
    """A port is no way around a host rule."""
    assert parse_authority(raw) == Authority(raw, host, port)


@pytest.mark.parametrize(
    ("raw", "text", "host"),
    [
        (b"secret.com.", b"secret.com", "secret.com"),
        (b"secret.com.:80", b"secret.com:80", "secret.com"),
        (b"[0:0:0:0:0:0:0:1]:80", b"[::1]:80", "[::1]"),
        (b"[::FFFF:a00:1]", b"[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"),
    ],
)
def test_c17_every_host_has_one_spelling(raw: bytes, text: bytes, host: str) -> None:
    """The trailing dot goes, IPv6 is compressed."""
    assert parse_authority(raw)[:2] == (text, host)


@pytest.mark.parametrize(
    "raw", [b"secret.com..", b".", b"[::1%25eth0]", b"[::1%eth0]", b"[::1", b"[]", b"[:::]", b"[1.2.3.4]"]
)
def test_c17_what_is_no_address_is_refused(raw: bytes) -> None:
    """Scoped and broken IPv6, empty labels."""
    assert refused(raw) == "C17"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"user@host",
        b"user:pw@host",
        b"host/path",
        b"ho st",
        b" host",
        b"host?x",
        b"host#x",
        b"a,b",
        b"host:",
        b"host:0",
        b"host:65536",
        b"host:080000",
        b"host:8080:1",
        b"host:+80",
        b"a..b",
        b".a",
        b"%61dmin",
        b"h\xc3\xb6st",
        b"host\0",
        b"host\r\n",
        b"a\\b",
        b"a" * 263,
    ],
)
def test_b06_what_is_not_host_and_port_is_refused(raw: bytes) -> None:
    """RFC 9113 section 8.3.1, without percent-encoding and userinfo."""
    assert refused(raw) == "B06"


@given(st.binary(max_size=30))
def test_reading_what_was_read_changes_nothing(raw: bytes) -> None:
    """One spelling, whatever comes in; nothing but BadRequest is raised."""
    try:
        first = parse_authority(raw)
    except BadRequest:
        return
    assert parse_authority(first.text) == first
    assert first.text.startswith(first.host.encode())
