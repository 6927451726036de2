"""HPACK against the `hpack` package, both ways and over many blocks; and the decoder against one that forgets."""

from __future__ import annotations

from typing import TypeAlias

import hpack
from hpack.exceptions import HPACKError
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.relay import huffman
from sidecar.http.relay.errors import HpackError, ListTooLarge
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import Encoder, _integer
from sidecar.http.relay.hpack_table import SECRETS, STATIC, NeverIndexed
from sidecar.http.session import Field, Fields

LIST_OCTETS = 65_536

# Few names and values, so that they come again; and any at all.
names = st.one_of(
    st.sampled_from([name for name, _ in STATIC]),
    st.sampled_from([b"traceparent", b"x-a", b"x-b", b"grpc-status"]),
    st.binary(min_size=1, max_size=20),
)
values = st.one_of(
    st.sampled_from(
        [b"", b"1", b"GET", b"https", b"application/json", b"v" * 126, b"v" * 127, b"v" * 700, b"v" * 4_100]
    ),
    st.binary(max_size=300),
)
fields = st.one_of(st.sampled_from(STATIC), st.tuples(names, values))
clean_fields = fields.filter(lambda field: not set(b"\r\n\0") & set(field[0] + field[1]))
sizes = st.one_of(st.sampled_from([0, 31, 32, 64, 100, 1_000, 4_096]), st.integers(0, 65_536))


def decoder() -> Decoder:
    return Decoder(table_octets_max=4_096, list_octets_max=LIST_OCTETS)


def oracle() -> hpack.Decoder:
    return hpack.Decoder(max_header_list_size=LIST_OCTETS)


def plain(decoded: object) -> Fields:
    assert isinstance(decoded, list)
    return [(name, value) for name, value in decoded]


def marks(decoded: object) -> list[bool]:
    """Which fields the oracle says are never to be indexed."""
    assert isinstance(decoded, list)
    return [isinstance(field, NeverIndexedHeaderTuple) for field in decoded]


# Ours reads theirs


@given(
    st.lists(st.tuples(st.lists(st.tuples(fields, st.booleans()), max_size=12), st.booleans(), st.none() | sizes)),
    st.lists(st.integers(0, 3), max_size=60),
)
def test_we_read_what_the_oracle_writes(
    heads: list[tuple[list[tuple[Field, bool]], bool, int | None]], repeats: list[int]
) -> None:
    """With Huffman and without, indexed and never indexed, through changes of the table's size, and again."""
    writer, reader, theirs = hpack.Encoder(), decoder(), oracle()
    order = [heads[number % len(heads)] for number in repeats] if heads else []
    for marked, coded, size in [*heads, *order]:
        if size is not None:
            writer.header_table_size = min(size, 4_096)
        head = [NeverIndexedHeaderTuple(*field) if never else HeaderTuple(*field) for field, never in marked]
        block = writer.encode(head, huffman=coded)
        decoded = reader.decode(block)
        assert decoded == [field for field, _ in marked]
        assert [isinstance(field, NeverIndexed) for field in decoded] == marks(theirs.decode(block, raw=True))


# Theirs reads ours


@given(
    st.lists(
        st.tuples(st.lists(clean_fields, max_size=12), st.lists(sizes, max_size=3), st.integers(1, 4)), max_size=25
    )
)
def test_the_oracle_reads_what_we_write(heads: list[tuple[Fields, list[int], int]]) -> None:
    """Through changes of the table's size at any time; so do we; and no secret is anywhere but never indexed."""
    writer, theirs, ours = Encoder(), oracle(), decoder()
    for head, changes, times in [*heads, *heads]:
        for size in changes:
            writer.peer_table_octets(size)
            theirs.max_allowed_table_size = size
        for _ in range(times):
            block = writer.encode(head)
            decoded = theirs.decode(block, raw=True)
            assert plain(decoded) == head
            assert ours.decode(block) == head
            for field in decoded:
                assert field[0] not in SECRETS or isinstance(field, NeverIndexedHeaderTuple)
        assert writer._table.octets == theirs.header_table._current_size
        assert writer._table.octets <= min(theirs.max_allowed_table_size, 4_096)


@given(st.lists(st.lists(st.tuples(clean_fields, st.booleans()), max_size=8), max_size=20))
def test_never_indexed_fields_cross_two_hops(heads: list[list[tuple[Field, bool]]]) -> None:
    """Decoded by us and encoded by us again, they arrive marked as they left; nothing else but secrets does."""
    first, middle_in, middle_out, last = hpack.Encoder(), decoder(), Encoder(), oracle()
    for marked in [*heads, *heads, *heads]:
        head = [NeverIndexedHeaderTuple(*field) if never else HeaderTuple(*field) for field, never in marked]
        arrived = middle_in.decode(first.encode(head))
        left = last.decode(middle_out.encode(arrived), raw=True)
        assert plain(left) == [field for field, _ in marked]
        for sent, seen in zip(arrived, left, strict=True):
            assert isinstance(seen, NeverIndexedHeaderTuple) == (isinstance(sent, NeverIndexed) or sent[0] in SECRETS)


# Blocks of any representation

Op: TypeAlias = tuple[str, int, bytes, bytes, bool]
ops: st.SearchStrategy[Op] = st.tuples(
    st.sampled_from(["indexed", "indexed", "indexed", "literal", "never", "incremental", "size"]),
    st.one_of(st.integers(1, 64), st.integers(0, 200)),
    names,
    values,
    st.booleans(),
)


def written(op: Op) -> bytes:
    """The octets of one representation, whether it is allowed or not; index 0, or none, spells out the name."""
    kind, index, name, value, coded = op
    if kind == "indexed":
        return _integer(index, 0x80, 0x7F)
    if kind == "size":
        return _integer(index * 25, 0x20, 0x1F)
    flags, prefix = {"literal": (0, 0x0F), "never": (0x10, 0x0F), "incremental": (0x40, 0x3F)}[kind]
    index = index if index <= len(STATIC) + 2 else 0
    return _integer(index, flags, prefix) + (b"" if index else string(name, coded)) + string(value, coded)


def string(text: bytes, coded: bool) -> bytes:
    data = huffman.encode(text) if coded else text
    return _integer(len(data), 0x80 if coded else 0, 0x7F) + data


blocks = st.lists(ops, max_size=8).map(lambda block: b"".join(map(written, block)))


@given(st.lists(blocks, min_size=1, max_size=6), st.lists(st.integers(0, 5), max_size=60))
def test_what_is_remembered_changes_no_result(pool: list[bytes], order: list[int]) -> None:
    """A decoder beside one whose memories are emptied before each block, and beside the oracle: the same fields, the
    same marks, the same table, or all of them refuse."""
    ours, forgetful, theirs = decoder(), decoder(), oracle()
    for number in [*range(len(pool)), *order]:
        block = pool[number % len(pool)]
        for memory in (forgetful._blocks, forgetful._runs, forgetful._strings):
            memory.clear()
        results = [outcome(ours, block), outcome(forgetful, block)]
        assert results[0] == results[1]
        try:
            expected = theirs.decode(block, raw=True)
        except HPACKError:
            assert results[0] is None
            return
        if results[0] is None:  # more than two size updates, which the oracle lets pass
            assert sum(0x20 <= octet < 0x40 for octet in block) > 2
            return
        assert results[0][0] == plain(expected)
        assert results[0][1] == marks(expected)
        assert ours._table.fields == forgetful._table.fields
        assert ours._table.fields[len(STATIC) + 1 :] == list(theirs.header_table.dynamic_entries)
        assert ours._table.sizes == [0] + [len(name) + len(value) + 32 for name, value in ours._table.fields[1:]]
        assert ours._table.octets == sum(ours._table.sizes[len(STATIC) + 1 :]) <= ours._table.capacity


def outcome(reader: Decoder, block: bytes) -> tuple[Fields, list[bool]] | None:
    """Fields and their marks; None if the block was refused."""
    try:
        decoded = reader.decode(block)
    except (HpackError, ListTooLarge):
        return None
    return list(decoded), [isinstance(field, NeverIndexed) for field in decoded]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_octets_are_read_as_by_the_oracle_or_refused(garbage: list[bytes]) -> None:
    """No other exception than the two, and nothing is accepted that the oracle refuses."""
    ours, theirs = decoder(), oracle()
    for block in garbage:
        result = outcome(ours, block)
        if result is None:
            return
        assert result[0] == plain(theirs.decode(block, raw=True))


@given(st.lists(blocks, max_size=8), st.integers(0, 2_000))
def test_no_list_is_larger_than_allowed_and_none_within_is_refused(heads: list[bytes], octets: int) -> None:
    """RFC 9113 section 6.5.2 counts 32 octets for each field; row A22."""
    free, bound = decoder(), Decoder(table_octets_max=4_096, list_octets_max=octets)
    for block in heads:
        result = outcome(free, block)
        if result is None:
            return
        size = sum(len(name) + len(value) + 32 for name, value in result[0])
        if size > octets:
            assert outcome(bound, block) is None
            return
        assert bound.decode(block) == result[0]
