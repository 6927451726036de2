"""What the decoder refuses, by row of the catalogue of bad inputs; what it remembers, and that this is bounded."""

from __future__ import annotations

import pytest

from sidecar.http.relay import hpack_decode, huffman
from sidecar.http.relay.errors import HpackError, ListTooLarge
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import _integer
from sidecar.http.relay.hpack_table import FIRST_DYNAMIC, STATIC, NeverIndexed


def decoder(*, table_octets: int = 4_096, list_octets: int = 65_536) -> Decoder:
    return Decoder(table_octets_max=table_octets, list_octets_max=list_octets)


def string(text: bytes) -> bytes:
    return _integer(len(text), 0, 0x7F) + text


def huffman_string(text: bytes) -> bytes:
    coded = huffman.encode(text)
    return _integer(len(coded), 0x80, 0x7F) + coded


def literal(name: bytes, value: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + string(name) + string(value)


# Bombs


def test_a21_one_octet_references_are_counted_before_they_are_expanded() -> None:
    """32 octets for every field, however it was written: the list ends where the limit is, not where the block does."""
    assert len(decoder(list_octets=42 * 100).decode(b"\x82" * 100)) == 100
    for references in (b"\x82" * 101, b"\x82" * 60_000, b"\x82" * 60 + b"\x00\x01a\x01b" + b"\x82" * 41):
        with pytest.raises(ListTooLarge):
            decoder(list_octets=42 * 100).decode(references)


def test_a21_an_empty_field_counts_32_octets() -> None:
    """Cookie crumbs with nothing in them are not free."""
    assert len(decoder(list_octets=320).decode(b"\x00\x00\x00" * 10)) == 10
    with pytest.raises(ListTooLarge):
        decoder(list_octets=319).decode(b"\x00\x00\x00" * 10)


@pytest.mark.parametrize("references", [b"\xbe" * 15, b"\xbe\x82" * 30, b"\xbe" * 16_000])
def test_a22_a_large_entry_referred_to_many_times_is_refused(references: bytes) -> None:
    """The classic bomb: 4,000 octets in the table, then an octet for each copy."""
    reader = decoder(list_octets=60_000)
    assert reader.decode(literal(b"a", b"b" * 4_000, 0x40)) == [(b"a", b"b" * 4_000)]
    with pytest.raises(ListTooLarge):
        reader.decode(references)


def test_a22_a_remembered_run_counts_each_time() -> None:
    """What is remembered is counted like what is not."""
    reader = decoder(list_octets=42 * 10)
    for _ in range(3):
        assert len(reader.decode(b"\x82" * 5 + b"\x02\x03PUT")) == 6
    with pytest.raises(ListTooLarge):
        reader.decode((b"\x82" * 5 + b"\x02\x03PUT") * 2)


# Integers


@pytest.mark.parametrize(
    "block",
    [
        b"\xff" + b"\x80" * 5 + b"\x01",
        b"\xff" + b"\x80" * 60_000 + b"\x01",
        b"\xff" + b"\xff" * 9,
        b"\x0f" + b"\xff" * 9 + b"\x01a",
        b"\x7f" + b"\x80" * 4 + b"\x00\x01a",
        b"\x00\x7f" + b"\xff" * 5 + b"\x01a",
        b"\x00\xff" + b"\xff" * 5 + b"\x01a",
        b"\x04\x7f" + b"\x80" * 4 + b"\x00",
        b"\x3f" + b"\x80" * 4 + b"\x00",
    ],
)
def test_a23_integers_that_run_on_are_refused(block: bytes) -> None:
    """Four octets after the prefix are enough for anything (RFC 7541 section 5.1 leaves the limit to us)."""
    with pytest.raises(HpackError):
        decoder().decode(block)


@pytest.mark.parametrize("length", [*range(1, 20)])
def test_a23_a_block_cut_short_anywhere_is_refused(length: int) -> None:
    """All representations, and integers of more than an octet, without their ends."""
    for whole in (
        literal(b"name", b"value" * 40),
        literal(b"name", b"value", 0x40),
        literal(b"name", b"value", 0x10),
        b"\x0f\x20" + string(b"value, of a static name"),
        b"\x44" + huffman_string(b"/a/path/that/is/long"),
    ):
        assert decoder().decode(whole)
        if length < len(whole):
            with pytest.raises(HpackError):
                decoder().decode(whole[:length])


# Indices, sizes, Huffman


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\x82\x80",
        b"\xbe",
        b"\x82\xbe",
        b"\xff\x00",
        b"\xff\x80\x80\x80\x01",
        b"\x7e\x01a",
        b"\x7f\x00\x01a",
        b"\x0f\x2f\x01a",
        b"\x1f\x2f\x01a",
    ],
)
def test_a24_an_index_of_no_entry_is_refused(block: bytes) -> None:
    """RFC 7541 section 2.3.3: index 0 and what is beyond both tables."""
    with pytest.raises(HpackError):
        decoder().decode(block)


@pytest.mark.parametrize(
    "block",
    [
        b"\x3f\xe2\x1f",  # 4,097
        b"\x20\x3f\xe2\x1f",
        b"\x3f\xff\xff\xff\x7f",
        b"\x82\x20",
        b"\x82\x20\x82",
        b"\x20\x20\x20",
        b"\x20\x82\x3f\xe1\x1f",
    ],
)
def test_a24_table_size_updates_are_few_at_the_beginning_and_within_bounds(block: bytes) -> None:
    """RFC 7541 sections 4.2 and 6.3: at most two, before the first field, no more than we announced."""
    with pytest.raises(HpackError):
        decoder().decode(block)


def test_a24_two_table_size_updates_are_taken() -> None:
    """RFC 7541 section 4.2: the smallest, then the last; the smallest evicts."""
    reader = decoder()
    reader.decode(literal(b"a", b"b", 0x40))
    assert reader.decode(b"\x20\x3f\xe1\x1f\x82") == [(b":method", b"GET")]
    with pytest.raises(HpackError):
        reader.decode(b"\xbe")


@pytest.mark.parametrize("coded", [b"\xff", b"\x1f\xff", b"\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfc"])
@pytest.mark.parametrize("begin", [b"\x04", b"\x44", b"\x14", b"\x00\x01a", b"\x00", b"\x40"])
def test_a24_malformed_huffman_is_refused(begin: bytes, coded: bytes) -> None:
    """RFC 7541 section 5.2, as a name and as a value of every representation."""
    with pytest.raises(HpackError):
        decoder().decode(begin + bytes((0x80 | len(coded),)) + coded + b"\x01a")


def test_a24_an_entry_larger_than_the_table_empties_it() -> None:
    """RFC 7541 section 4.4: that is no error, and the field is delivered."""
    reader = decoder(table_octets=64)
    reader.decode(literal(b"a", b"b", 0x40))
    assert reader.decode(b"\xbe") == [(b"a", b"b")]
    assert reader.decode(literal(b"a", b"c" * 32, 0x40)) == [(b"a", b"c" * 32)]
    with pytest.raises(HpackError):
        reader.decode(b"\xbe")


def test_a_name_is_taken_from_an_entry_that_its_own_insertion_evicts() -> None:
    """RFC 7541 section 4.4: a new entry may refer to one that falls out when it is added."""
    reader = decoder(table_octets=64)
    reader.decode(literal(b"name", b"v" * 20, 0x40))
    assert reader.decode(b"\x7e" + string(b"w" * 20)) == [(b"name", b"w" * 20)]
    assert reader.decode(b"\xbe") == [(b"name", b"w" * 20)]


def test_every_index_of_both_tables_is_found() -> None:
    """Indices of one octet and of two, indexed and as names."""
    reader = decoder()
    entries = [(b"name-%d" % number, b"") for number in range(100)]
    for field in entries:
        reader.decode(literal(*field, 0x40))
    for index, field in enumerate([*STATIC, *reversed(entries)], 1):
        assert reader.decode(_integer(index, 0x80, 0x7F)) == [field]
        assert reader.decode(_integer(index, 0, 0x0F) + b"\x01v") == [(field[0], b"v")]
    assert len(STATIC) + 1 == FIRST_DYNAMIC


# Never indexed


def test_a_never_indexed_field_is_marked_and_else_like_any_other() -> None:
    """RFC 7541 section 6.2.3: it compares as a pair, and is never found under the key of one."""
    [field] = decoder().decode(literal(b"token", b"1234", 0x10))
    assert isinstance(field, NeverIndexed)
    assert field == (b"token", b"1234")
    name, value = field
    assert {(name, value): 1}.get(field) is None
    assert {field: 1}[field] == 1
    assert decoder().decode(literal(b"token", b"1234"))[0].__class__ is tuple


# Memories


def test_equal_blocks_give_the_same_list_until_the_table_changes() -> None:
    """The list is remembered by the octets it came from."""
    reader = decoder()
    reader.decode(literal(b"a", b"1", 0x40))
    first, second = reader.decode(b"\x82\xbe"), reader.decode(b"\x82\xbe")
    assert second == first == [(b":method", b"GET"), (b"a", b"1")]
    assert reader.decode(b"\x82\xbe") is second
    reader.decode(literal(b"a", b"2", 0x40))
    assert reader.decode(b"\x82\xbe") == [(b":method", b"GET"), (b"a", b"2")]
    reader.decode(b"\x20\x82")
    with pytest.raises(HpackError):
        reader.decode(b"\x82\xbe")


def test_what_is_remembered_is_bounded() -> None:
    """By number and by octets: 32 blocks of 512, 64 runs of 64, 256 strings of 48 (of Huffman)."""
    reader = decoder()
    for number in range(3_000):
        text = b"%d" % number
        run = bytes(0x81 + (number >> shift) % 61 for shift in range(0, 12, 2))
        reader.decode(run + b"\x04" + huffman_string(text) + b"\x00" + string(text) + string(b"v" * (number % 600)))
        reader.decode(b"\x82" * (number % 100) + b"\x04" + huffman_string(text * 20))
    memories = (
        (reader._blocks, hpack_decode.BLOCKS_MAX, hpack_decode.BLOCK_OCTETS_MAX),
        (reader._runs, hpack_decode.RUNS_MAX, hpack_decode.RUN_OCTETS_MAX),
        (reader._strings, hpack_decode.STRINGS_MAX, hpack_decode.STRING_OCTETS_MAX),
    )
    for memory, entries_max, octets_max in memories:
        assert 0 < len(memory) <= entries_max
        assert max(map(len, memory)) <= octets_max


@pytest.mark.parametrize("name", [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"])
@pytest.mark.parametrize("flags", [0x00, 0x10, 0x40])
def test_no_secret_is_remembered(name: bytes, flags: int) -> None:
    """However the peer sent it, it is in no memory but, if the peer says so, the dynamic table."""
    reader = decoder()
    reader.decode(bytes((flags,)) + string(name) + huffman_string(b"secret"))
    reader.decode(bytes((flags,)) + string(name) + string(b"secret"))
    assert not reader._strings
    assert not reader._blocks


def test_a_never_indexed_value_is_not_remembered() -> None:
    """Whatever its name."""
    reader = decoder()
    reader.decode(b"\x10" + string(b"pin") + huffman_string(b"1234"))
    assert not reader._strings
    assert not reader._blocks
