"""Fields -> header block (RFC 7541 section 3).

What to put into the dynamic table is the encoder's to decide. It is after little work for both ends rather than the
fewest octets:

1. Every field that stands in the table, as a whole, has its encoding ready: one look-up. That is most of a head.
2. A name whose values vary (`VOLATILE`) is a plain literal: not indexed, for its entry would be of no more use, and
   without Huffman, which costs either end more than a few octets do.
3. A secret (`SECRETS`, or a field that arrived `NeverIndexed`) is a never-indexed literal (RFC 7541 section 7.1.3).
4. Anything else is a plain literal the first time and remembered; the second time it is put into the table, and
   this once coded with Huffman.

A peer of ours, or whoever speaks to it, decides how many different values there are, and must not be able to keep us
busy: a name may bring `VALUES_MAX` values to our notice, and a connection `NAMES_MAX` names; beyond that a name is
volatile like those we know. So the table changes at most VALUES_MAX * NAMES_MAX times in the life of a connection.

`encode` itself changes nothing and knows only 1 to 3. If it meets anything else, the whole block is made by
`_thorough`, which checks all fields before it changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from sidecar.http.fields import Remembered
from sidecar.http.relay import huffman
from sidecar.http.relay.hpack_table import (
    ENTRY_OVERHEAD_OCTETS,
    FIRST_DYNAMIC,
    SECRETS,
    STATIC,
    TABLE_OCTETS_DEFAULT,
    VOLATILE,
    NeverIndexed,
    Table,
)
from sidecar.http.session import Field

NAMES_MAX: Final = 64
"""Names whose values may come into the table."""
NAME_OCTETS_MAX: Final = 64
VALUES_MAX: Final = 16
"""Values of one name that may be noticed."""
SEEN_MAX: Final = 64
"""Fields remembered for having been sent once."""
BLOCKS_MAX: Final = 32
"""Sections remembered (`fields.Remembered`) that are not encoded again while the table stays as it is."""
BLOCK_OCTETS_MAX: Final = 1_024
"""Of a block that is remembered: a section received in few octets may need many (it is another table there)."""
ENTRY_OCTETS_MAX: Final = 1_024
"""Of a field that may be noticed. It never takes more than half of the table either."""

_WITHOUT_INDEXING: Final = 0x00
_INCREMENTAL: Final = 0x40
_NEVER_INDEXED: Final = 0x10


def _integer(value: int, flags: int, prefix_max: int) -> bytes:
    """RFC 7541 section 5.1: `value` in a prefix that holds up to `prefix_max`, below `flags`."""
    if value < prefix_max:
        return bytes((flags | value,))
    octets = bytearray((flags | prefix_max,))
    value -= prefix_max
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_STATIC_NAMES: dict[bytes, int] = {}
for _index, (_name, _) in enumerate(STATIC, 1):
    _STATIC_NAMES.setdefault(_name, _index)
_STATIC_READY: dict[Field, bytes] = {
    field: _integer(index, 0x80, 0x7F) for index, field in enumerate(STATIC, 1) if field[0] not in SECRETS
}
_INDEXED = [
    _integer(index, 0x80, 0x7F) for index in range(len(STATIC) + TABLE_OCTETS_DEFAULT // ENTRY_OVERHEAD_OCTETS + 1)
]
_LENGTHS = [_integer(length, 0, 0x7F) for length in range(256)]


def _string(text: bytes) -> bytes:
    """RFC 7541 section 5.2, without Huffman."""
    return _integer(len(text), 0, 0x7F) + text


def _short_string(text: bytes) -> bytes:
    """RFC 7541 section 5.2, with Huffman if that is shorter."""
    octets = huffman.encoded_octets(text)
    return _integer(octets, 0x80, 0x7F) + huffman.encode(text) if octets < len(text) else _string(text)


def _named(name: bytes, flags: int) -> bytes:
    """The beginning of a literal: how it is indexed, and its name. Dynamic entries are not referred to: they move."""
    index = _STATIC_NAMES.get(name)
    if index is None:
        return bytes((flags,)) + (_short_string(name) if flags == _INCREMENTAL else _string(name))
    return _integer(index, flags, 0x3F if flags == _INCREMENTAL else 0x0F)


_LITERAL_NAMES: dict[bytes, bytes] = {
    **{name: _named(name, _WITHOUT_INDEXING) for name in VOLATILE},
    **{name: _named(name, _NEVER_INDEXED) for name in SECRETS},
}
"""How a literal begins that has one of the names known never to be worth an entry."""


class Encoder:
    """The sending end of one connection's header compression."""

    __slots__ = ("_announce", "_blocks", "_literal_names", "_noticed", "_ready", "_seen", "_table", "_table_octets_max")

    def __init__(self, *, table_octets_max: int = TABLE_OCTETS_DEFAULT) -> None:
        """`table_octets_max`: the most the table may have, whatever the peer allows; 4,096 at most."""
        self._table_octets_max = min(table_octets_max, TABLE_OCTETS_DEFAULT)
        self._table = Table(TABLE_OCTETS_DEFAULT)
        self._announce: tuple[int, int] | None = None
        """The smallest size since the last block and the one to be, if the peer changed anything."""
        self._ready: dict[Field, bytes] = _STATIC_READY
        """The encoding of every field the table has now. This and the next are replaced, never changed."""
        self._literal_names: dict[bytes, bytes] = _LITERAL_NAMES
        self._blocks: dict[int, tuple[Remembered, bytes]] = {}
        """What remembered sections were made into, by their id; holding them keeps the id theirs."""
        self._noticed: dict[bytes, int] = {}
        """How many values of a name were noticed."""
        self._seen: dict[Field, None] = {}
        """Fields noticed once, oldest first."""
        if self._table_octets_max < TABLE_OCTETS_DEFAULT:
            self.peer_table_octets(self._table_octets_max)

    def __repr__(self) -> str:
        return f"<hpack encoder, {self._table}>"

    def peer_table_octets(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE. It is taken up to our own maximum (row A25: it may say 2^32 - 1), and
        the next block says so."""
        size = min(size, self._table_octets_max)
        smallest = size if self._announce is None else min(size, self._announce[0])
        self._announce = (smallest, size)

    def encode(self, fields: Sequence[Field]) -> bytes:
        """A header block. Raises ValueError for CR, LF or NUL in a name or a value, before anything has changed."""
        if self._announce is not None:
            return self._thorough(fields)
        if type(fields) is Remembered:
            made = self._blocks.get(id(fields))
            if made is not None and made[0] is fields:
                return made[1]
        ready = self._ready
        literal_names = self._literal_names
        parts = []
        unchecked = []
        for field in fields:
            known = ready.get(field)
            if known is None:
                name, value = field
                begin = literal_names.get(name)
                if begin is None or type(field) is NeverIndexed:
                    if type(field) is NeverIndexed:
                        begin = _named(name, _NEVER_INDEXED)
                    elif self._may_notice(name):
                        return self._thorough(fields)
                    else:
                        begin = _named(name, _WITHOUT_INDEXING)
                    unchecked.append(name)
                length = len(value)
                known = begin + (_LENGTHS[length] if length < 256 else _integer(length, 0, 0x7F)) + value
                unchecked.append(value)
            parts.append(known)
        _check(b"".join(unchecked))
        block = b"".join(parts)
        if type(fields) is Remembered and len(block) <= BLOCK_OCTETS_MAX:
            if len(self._blocks) >= BLOCKS_MAX:
                self._blocks.clear()
            self._blocks[id(fields)] = fields, block
        return block

    def _thorough(self, fields: Sequence[Field]) -> bytes:
        """A block that changes something: the table, or what is remembered."""
        _check(b"".join(chain.from_iterable(fields)))
        parts = self._size_updates()
        parts += map(self._field, fields)
        return b"".join(parts)

    def _size_updates(self) -> list[bytes]:
        """RFC 7541 section 4.2: the smallest size since the last block if it came between, then the one to be."""
        if self._announce is None:
            return []
        smallest, size = self._announce
        self._announce = None
        before = self._table.capacity
        sizes = [smallest, size] if smallest < min(before, size) else [size] if size != before else []
        for size in sizes:
            self._table.resize(size)
        self._list_ready()
        return [_integer(size, 0x20, 0x1F) for size in sizes]

    def _field(self, field: Field) -> bytes:
        """Encode `field`; notice it, or put it into the table if it was noticed before."""
        known = self._ready.get(field)
        if known is not None:
            return known
        name, value = field
        if type(field) is NeverIndexed:
            return _named(name, _NEVER_INDEXED) + _string(value)
        begin = self._literal_names.get(name)
        if begin is None:
            if field in self._seen:
                return self._insert(field)
            if self._may_notice(name):
                self._notice(field)
            begin = _named(name, _WITHOUT_INDEXING)
        return begin + _string(value)

    def _may_notice(self, name: bytes) -> bool:
        return name in self._noticed or (len(self._noticed) < NAMES_MAX and len(name) <= NAME_OCTETS_MAX)

    def _notice(self, field: Field) -> None:
        """Remember that `field` was sent, if it may have an entry; too many values make its name a volatile one."""
        name = field[0]
        self._noticed[name] = values = self._noticed.get(name, 0) + 1
        if values > VALUES_MAX:
            self._literal_names = {**self._literal_names, name: _named(name, _WITHOUT_INDEXING)}
        elif _size(field) <= min(ENTRY_OCTETS_MAX, self._table.capacity // 2):
            self._seen[field] = None
            if len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]

    def _insert(self, field: Field) -> bytes:
        """RFC 7541 section 6.2.1. Huffman pays here: it is done once at either end, and the peer stores the text."""
        del self._seen[field]
        self._table.insert(field, _size(field))
        self._list_ready()
        name, value = field
        return _named(name, _INCREMENTAL) + _short_string(value)

    def _list_ready(self) -> None:
        """The table has changed, and with it every index."""
        self._blocks.clear()
        entries = self._table.fields[FIRST_DYNAMIC:]
        self._ready = {**_STATIC_READY, **dict(zip(entries, _INDEXED[FIRST_DYNAMIC:], strict=False))}


def _size(field: Field) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_OVERHEAD_OCTETS


def _check(text: bytes) -> None:
    """RFC 9113 section 8.2.1: these three must be in no field, whatever else is made of it."""
    if b"\n" in text or b"\r" in text or b"\0" in text:
        raise ValueError("CR, LF or NUL in a header field")
