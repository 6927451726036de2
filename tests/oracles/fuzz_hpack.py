"""Any bytes at all as header blocks: the decoder fails in its two ways only, holds its bounds, and agrees with `hpack`.

An input is one octet of choices and then blocks, each after two octets of length. The blocks are those of one
connection: the dynamic table goes from one to the next. What was decoded is encoded again by our encoder and read by
`hpack`.
"""

from __future__ import annotations

from collections.abc import Iterator

import hpack

from sidecar.http.relay.errors import HpackError, ListTooLarge
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import Encoder
from sidecar.http.session import Fields

INPUT_OCTETS_MAX = 16_384
LIST_OCTETS = (65_536, 600, 4_096, 1_000_000)
TABLE_OCTETS = 4_096


def blocks_of(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def one_input(data: bytes) -> None:
    """AssertionError, or whatever our code raised: a bug."""
    if not 1 <= len(data) <= INPUT_OCTETS_MAX:
        return
    list_octets = LIST_OCTETS[data[0] % len(LIST_OCTETS)]
    decoder = Decoder(table_octets_max=TABLE_OCTETS, list_octets_max=list_octets)
    oracle = hpack.Decoder(max_header_list_size=list_octets)
    oracle.max_allowed_table_size = TABLE_OCTETS
    encoder, reader = Encoder(), hpack.Decoder(max_header_list_size=2**24)
    for block in blocks_of(data[1:]):
        ours = _decoded(decoder, block)
        theirs = _theirs(oracle, block)
        if ours is None or theirs is None:
            return  # where one of them refuses, its table is no longer to be relied on
        assert ours == theirs, "the same block, and other fields"
        octets = sum(len(name) + len(value) + 32 for name, value in ours)
        assert octets <= list_octets, "a list beyond its bound"
        _check_encoder(encoder, reader, ours)


def _decoded(decoder: Decoder, block: bytes) -> Fields | None:
    try:
        return list(decoder.decode(block))
    except (HpackError, ListTooLarge):
        return None


def _theirs(oracle: hpack.Decoder, block: bytes) -> Fields | None:
    try:
        return [(bytes(name), bytes(value)) for name, value in oracle.decode(block, raw=True)]
    except (hpack.HPACKError, UnicodeDecodeError):
        return None


def _check_encoder(encoder: Encoder, reader: hpack.Decoder, fields: Fields) -> None:
    is_unfit = any(octet in part for field in fields for part in field for octet in b"\r\n\0")
    try:
        block = encoder.encode(fields)
    except ValueError:
        assert is_unfit, "refuses what it may send"
        return
    assert not is_unfit, "sends CR, LF or NUL"
    assert _theirs(reader, block) == fields, "says something else than it was told"
