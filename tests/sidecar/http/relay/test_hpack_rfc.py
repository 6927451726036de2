"""The examples of RFC 7541 Appendix C, all of them."""

from __future__ import annotations

import pytest

from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import _integer
from sidecar.http.relay.hpack_table import NeverIndexed
from sidecar.http.session import Fields

REQUESTS: list[Fields] = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
RESPONSES: list[Fields] = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]


def decoder(table_octets: int = 4_096) -> Decoder:
    return Decoder(table_octets_max=table_octets, list_octets_max=65_536)


def table(entries: int, octets: int, capacity: int) -> str:
    return f"<hpack decoder, <hpack table, {entries} entries, {octets} of {capacity} octets>>"


def test_c1_integers() -> None:
    """Appendix C.1: 10 and 1337 with a five-bit prefix, 42 at an octet's beginning; and read back as table sizes."""
    assert _integer(10, 0, 0x1F) == bytes((0b01010,))
    assert _integer(1_337, 0, 0x1F) == bytes((0b11111, 0b10011010, 0b00001010))
    assert _integer(42, 0, 0xFF) == bytes((42,))
    for size in (10, 1_337):
        reader = decoder()
        assert reader.decode(_integer(size, 0x20, 0x1F)) == []
        assert repr(reader) == table(0, 0, size)


@pytest.mark.parametrize(
    ("block", "fields", "entries", "octets"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [(b"custom-key", b"custom-header")], 1, 55),
        ("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")], 0, 0),
        ("100870617373776f726406736563726574", [NeverIndexed((b"password", b"secret"))], 0, 0),
        ("82", [(b":method", b"GET")], 0, 0),
    ],
)
def test_c2_field_representations(block: str, fields: Fields, entries: int, octets: int) -> None:
    """Appendix C.2: the four representations, and what each leaves in the table."""
    reader = decoder()
    decoded = reader.decode(bytes.fromhex(block))
    assert decoded == fields
    assert [type(field) for field in decoded] == [type(field) for field in fields]
    assert repr(reader) == table(entries, octets, 4_096)


@pytest.mark.parametrize(
    "blocks",
    [
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
    ids=["c3", "c4_huffman"],
)
def test_c3_c4_requests(blocks: tuple[str, ...]) -> None:
    """Appendices C.3 and C.4: three requests on one connection."""
    reader = decoder()
    states = (table(1, 57, 4_096), table(2, 110, 4_096), table(3, 164, 4_096))
    for block, fields, state in zip(blocks, REQUESTS, states, strict=True):
        assert reader.decode(bytes.fromhex(block)) == fields
        assert repr(reader) == state


@pytest.mark.parametrize(
    "blocks",
    [
        (
            (
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a"
                "2f2f7777772e6578616d706c652e636f6d"
            ),
            "4803333037c1c0bf",
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
                "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
            ),
        ),
        (
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43"
                "d3"
            ),
            "4883640effc1c0bf",
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27"
                "087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
            ),
        ),
    ],
    ids=["c5", "c6_huffman"],
)
def test_c5_c6_responses_that_evict(blocks: tuple[str, ...]) -> None:
    """Appendices C.5 and C.6: a table of 256 octets, out of which entries fall."""
    reader = decoder(256)
    states = (table(4, 222, 256), table(4, 222, 256), table(3, 215, 256))
    for block, fields, state in zip(blocks, RESPONSES, states, strict=True):
        assert reader.decode(bytes.fromhex(block)) == fields
        assert repr(reader) == state
