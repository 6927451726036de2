"""What the encoder puts into the table, what it never does, and what the peer can make it do."""

from __future__ import annotations

import hpack
import pytest

from sidecar.http.fields import Remembered
from sidecar.http.relay import hpack_encode
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import BLOCKS_MAX, Encoder
from sidecar.http.relay.hpack_table import SECRETS, STATIC, VOLATILE, NeverIndexed
from sidecar.http.session import Field, Fields

ENCODERS_TABLE = "<hpack encoder, <hpack table, {} entries, {} of {} octets>>"


def table(entries: int, octets: int, capacity: int = 4_096) -> str:
    return ENCODERS_TABLE.format(entries, octets, capacity)


def decoder() -> Decoder:
    return Decoder(table_octets_max=4_096, list_octets_max=1 << 20)


def test_a_field_is_a_literal_then_an_entry_then_one_octet() -> None:
    """Only what was sent before is worth an entry; that one is coded with Huffman."""
    encoder, reader = Encoder(), decoder()
    head: Fields = [(b":method", b"GET"), (b"accept", b"application/json")]
    blocks = [encoder.encode(head) for _ in range(4)]
    assert blocks[0] == b"\x82\x0f\x04\x10application/json"
    assert blocks[1][:2] == b"\x82\x53"
    assert len(blocks[1]) < len(blocks[0])
    assert blocks[2] == blocks[3] == b"\x82\xbe"
    assert [reader.decode(block) for block in blocks] == [head] * 4
    assert repr(encoder) == table(1, 54)


def test_a_field_repeated_within_a_list_is_decoded_as_often() -> None:
    """The second of the two may become the entry, the third refer to it."""
    encoder, reader = Encoder(), decoder()
    head: Fields = [(b"a", b"1"), (b"a", b"1"), (b"a", b"1"), (b"b", b"2"), (b"a", b"1")]
    for _ in range(4):
        assert reader.decode(encoder.encode(head)) == head


@pytest.mark.parametrize("name", sorted(VOLATILE))
def test_a_volatile_value_is_a_plain_literal_for_ever(name: bytes) -> None:
    """Neither indexed nor coded with Huffman, however often it comes."""
    encoder = Encoder()
    blocks = {encoder.encode([(name, b"0123456789abcdef")]) for _ in range(5)}
    [block] = blocks
    assert block[0] < 0x10
    assert block.endswith(b"\x100123456789abcdef")
    assert repr(encoder) == table(0, 0)


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("value", [b"", b"secret", b"s" * 300])
def test_a_secret_is_never_indexed(name: bytes, value: bytes) -> None:
    """RFC 7541 section 7.1.3; also an empty one, which the static table happens to have."""
    encoder = Encoder()
    for _ in range(4):
        block = encoder.encode([(name, value)])
        assert block[0] & 0xF0 == 0x10
        [field] = decoder().decode(block)
        assert field == (name, value)
        assert isinstance(field, NeverIndexed)
    assert repr(encoder) == table(0, 0)


@pytest.mark.parametrize("field", [(b"x-pin", b"1234"), (b":method", b"GET"), (b":path", b"/"), (b"accept", b"a/b")])
def test_a_field_that_arrived_never_indexed_leaves_so(field: Field) -> None:
    """RFC 7541 section 6.2.3, even where the very same pair is in a table already."""
    encoder = Encoder()
    for _ in range(3):
        encoder.encode([field])
    state = repr(encoder)
    [arrived] = decoder().decode(Encoder().encode([NeverIndexed(field)]))
    for _ in range(4):
        block = encoder.encode([arrived])
        assert block[0] & 0xF0 == 0x10
        assert decoder().decode(block) == [field]
    assert repr(encoder) == state


def test_a_rebuilt_field_is_an_ordinary_one() -> None:
    """What is said of `NeverIndexed`: a new pair of its parts is not one."""
    name, value = NeverIndexed((b"x-pin", b"1234"))
    assert Encoder().encode([(name, value)])[0] == 0


def test_static_entries_are_used_whole() -> None:
    """RFC 7541 Appendix A: one octet each, but for secrets."""
    encoder = Encoder()
    for index, field in enumerate(STATIC, 1):
        if field[0] not in SECRETS:
            assert encoder.encode([field]) == bytes((0x80 | index,))


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"a\r\nb: c", b"a\0"])
def test_cr_lf_and_nul_are_refused_before_anything_changes(bad: bytes) -> None:
    """In names and values, volatile, secret, never-indexed; and after fields that would have changed the table."""
    for field in (
        (b":path", bad),
        (b"cookie", bad),
        (b"accept", bad),
        (bad, b"value"),
        NeverIndexed((b"x-pin", bad)),
        NeverIndexed((bad, b"1234")),
    ):
        encoder, untouched = Encoder(), Encoder()
        for one in (encoder, untouched):
            one.encode([(b"accept", b"a/b")])
            one.peer_table_octets(1_000)
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            encoder.encode([(b":method", b"GET"), (b"accept", b"a/b"), (b"x-new", b"1"), field])
        for _ in range(3):
            head: Fields = [(b":method", b"GET"), (b"accept", b"a/b"), (b"x-new", b"1")]
            assert encoder.encode(head) == untouched.encode(head)
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            encoder.encode([(b":method", b"GET"), field])


# Table size


def test_a25_the_table_stays_at_4096_octets_whatever_the_peer_allows() -> None:
    """SETTINGS_HEADER_TABLE_SIZE is a licence, not a demand: nothing is announced, nothing grows."""
    encoder = Encoder(table_octets_max=1 << 31)
    for size in (65_536, 1 << 31, (1 << 32) - 1):
        encoder.peer_table_octets(size)
        assert encoder.encode([(b":method", b"GET")]) == b"\x82"
    for number in range(200):
        for _ in range(2):
            encoder.encode([(b"name-%d" % (number % 60), b"%d" % number * 20)])
    assert encoder._table.octets <= encoder._table.capacity == 4_096


@pytest.mark.parametrize(
    ("sizes", "announced"),
    [
        ([4_096], b""),
        ([100], b"\x3f\x45"),
        ([0], b"\x20"),
        ([0, 4_096], b"\x20\x3f\xe1\x1f"),
        ([100, 0, 65_536], b"\x20\x3f\xe1\x1f"),
        ([0, 100], b"\x20\x3f\x45"),
        ([4_096, 100, 200, 100], b"\x3f\x45"),
        ([65_536, 4_096], b""),
    ],
)
def test_size_changes_are_announced_once_smallest_first(sizes: list[int], announced: bytes) -> None:
    """RFC 7541 section 4.2."""
    encoder = Encoder()
    for size in sizes:
        encoder.peer_table_octets(size)
    assert encoder.encode([(b":method", b"GET")]) == announced + b"\x82"
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


def test_a_smaller_table_of_our_own_is_announced_in_the_first_block() -> None:
    """The peer begins with 4,096."""
    encoder = Encoder(table_octets_max=100)
    assert encoder.encode([]) == b"\x3f\x45"
    encoder.peer_table_octets(4_096)
    assert encoder.encode([]) == b""


def test_a_table_of_no_octets_takes_nothing() -> None:
    """RFC 7541 section 4.2: a peer may switch it off."""
    encoder, reader = Encoder(), decoder()
    encoder.peer_table_octets(0)
    for _ in range(5):
        assert reader.decode(encoder.encode([(b"a", b"1")])) == [(b"a", b"1")]
    assert repr(encoder) == table(0, 0, 0)


# Floods


def insertions(encoder: Encoder, lists: list[Fields]) -> int:
    """Encode all; how often the table changed."""
    changes = 0
    for fields in lists:
        before = encoder._ready
        encoder.encode(fields)
        changes += encoder._ready is not before
    return changes


def test_a_name_whose_values_vary_becomes_volatile() -> None:
    """Its values are plain literals then, also those sent again, and the table is left alone."""
    encoder = Encoder()
    values = [[(b"x-user", b"user-%d" % number)] for number in range(1_000)]
    assert insertions(encoder, [head for head in values for _ in range(2)]) <= hpack_encode.VALUES_MAX
    assert insertions(encoder, [head for head in values[500:] for _ in range(3)]) == 0
    assert encoder.encode([(b"x-user", b"user-999")]) == b"\x00\x06x-user\x08user-999"


def test_a_flood_of_values_leaves_the_entries_of_others() -> None:
    """One name cannot push out what others use."""
    encoder = Encoder()
    for _ in range(2):
        encoder.encode([(b"accept", b"a/b")])
    insertions(encoder, [[(b"x-user", b"user-%d" % (number // 2))] for number in range(1_000)])
    assert len(encoder.encode([(b"accept", b"a/b")])) == 1


def test_what_was_seen_once_is_forgotten_after_others() -> None:
    """The oldest first: a field that comes again too late is a literal once more."""
    encoder = Encoder()
    for number in range(hpack_encode.SEEN_MAX + 1):
        encoder.encode([(b"name-%d" % (number % 10), b"%d" % number)])
    assert len(encoder._seen) == hpack_encode.SEEN_MAX
    assert encoder.encode([(b"name-1", b"1")])[0] == 0x40
    assert encoder.encode([(b"name-0", b"0")])[0] == 0x00
    assert encoder.encode([(b"name-0", b"0")])[0] == 0x40


def test_a_flood_of_names_and_values_changes_the_table_a_bounded_number_of_times() -> None:
    """NAMES_MAX * VALUES_MAX times in the life of a connection, and what is remembered is bounded as well."""
    encoder = Encoder()
    heads: list[Fields] = [
        [(b"name-%d" % (number % 200), b"%d" % (number // 200)), (b"n" * (number % 100 + 1), b"v" * (number % 2_000))]
        for number in range(8_000)
        for _ in range(2)
    ]
    assert insertions(encoder, heads) <= hpack_encode.NAMES_MAX * hpack_encode.VALUES_MAX
    assert len(encoder._noticed) <= hpack_encode.NAMES_MAX
    assert max(map(len, encoder._noticed)) <= hpack_encode.NAME_OCTETS_MAX
    assert len(encoder._seen) <= hpack_encode.SEEN_MAX
    assert all(len(name) + len(value) <= hpack_encode.ENTRY_OCTETS_MAX for name, value in encoder._seen)
    assert len(encoder._literal_names) <= len(VOLATILE | SECRETS) + hpack_encode.NAMES_MAX
    assert len(encoder._ready) <= len(STATIC) + 128
    assert insertions(encoder, [*heads, *heads]) <= hpack_encode.NAMES_MAX * hpack_encode.VALUES_MAX


def test_a_remembered_section_is_encoded_once_while_the_table_stays_as_it_is() -> None:
    """The very same list gives the very same block; one that is only equal is encoded for itself."""
    encoder, reader = Encoder(), hpack.Decoder()
    section = Remembered([(b":status", b"200"), (b"date", b"today"), (b"server", b"x")])

    def decoded(block: bytes) -> list[tuple[bytes, bytes]]:
        return [(bytes(name), bytes(value)) for name, value in reader.decode(block, raw=True)]

    for _ in range(3):  # noticed, put into the table, referred to
        assert decoded(encoder.encode(section)) == section
    first = encoder.encode(section)
    assert encoder.encode(section) is first
    assert decoded(first) == section
    other = Remembered(section)
    assert encoder.encode(other) == first
    assert encoder.encode(other) is not first


def test_a_remembered_section_is_encoded_anew_when_the_table_has_changed() -> None:
    """Every index has moved."""
    encoder, reader = Encoder(), hpack.Decoder()
    section = Remembered([(b":status", b"200"), (b"server", b"x")])
    for number in range(8):
        for fields in (section, [(b":status", b"200"), (b"x-name-%d" % (number // 2), b"v")]):
            decoded = [(bytes(n), bytes(v)) for n, v in reader.decode(encoder.encode(fields), raw=True)]
            assert decoded == fields


def test_remembered_sections_that_come_and_go_cost_bounded_memory() -> None:
    """A flood of different ones clears the memory; nothing that is held is mistaken for another."""
    encoder, reader = Encoder(), hpack.Decoder()
    for number in range(1_000):
        section = Remembered([(b":status", b"200"), (b"date", b"%d" % number)])
        decoded = [(bytes(n), bytes(v)) for n, v in reader.decode(encoder.encode(section), raw=True)]
        assert decoded == section
        assert len(encoder._blocks) <= BLOCKS_MAX


def test_a21_a_section_that_was_small_and_is_large_here_is_not_remembered() -> None:
    """A few references into a full table, of a peer's choosing, must not pin their text on every other connection."""
    encoder = Encoder()
    section = Remembered([(b":status", b"200"), *[(b"date", b"x" * hpack_encode.BLOCK_OCTETS_MAX)] * 10])
    assert encoder.encode(section) == encoder.encode(section)
    assert not encoder._blocks
    assert encoder.encode(small := Remembered([(b":status", b"200")])) is encoder.encode(small)
