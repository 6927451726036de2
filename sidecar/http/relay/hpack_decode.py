"""Header block -> fields (RFC 7541 section 3).

Most of a block is a few runs of one-octet references into the tables, with a literal here and there for what differs
from request to request. Hence

- a run is found by one regular expression, and what it means is remembered while the table stays as it is;
- literals are read in the loop itself; whatever is rare (long integers, size updates) has its own method.

Three things are remembered, each per connection and bounded, and none can change a result, because each is looked up
by everything the result depends on:

    runs      octets of a run       -> its fields and their size       forgotten when the table changes, or full
    blocks    octets of a block     -> its fields                      the same; never one with a secret in it
    strings   a Huffman string      -> its text                        forgotten when full; never a secret's

The size of the list is counted with every run and every literal before it is added, so a bomb (rows A21, A22 of the
catalogue of bad inputs) costs no more than what is allowed to begin with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sidecar.http.fields import Remembered
from sidecar.http.relay import huffman
from sidecar.http.relay.errors import HpackError, ListTooLarge
from sidecar.http.relay.hpack_table import (
    ENTRY_OVERHEAD_OCTETS,
    SECRETS,
    TABLE_OCTETS_DEFAULT,
    UNIQUE,
    NeverIndexed,
    Table,
)
from sidecar.http.session import Field, Fields

RUNS_MAX: Final = 64
RUN_OCTETS_MAX: Final = 64
BLOCKS_MAX: Final = 32
BLOCK_OCTETS_MAX: Final = 512
STRINGS_MAX: Final = 256
STRING_OCTETS_MAX: Final = 48
"""Of a Huffman string, before it is decoded."""
INTEGER_SHIFT_MAX: Final = 21
"""Four octets after the prefix: nothing here needs more than these 28 bits (row A23)."""

# Indexed fields (RFC 7541 section 6.1) whose index is in the one octet. 0x80 would be index 0, which is none.
_RUN = re.compile(rb"[\x81-\xfe]+").match
_INDICES = bytes(octet & 0x7F for octet in range(256))
_UNREMEMBERED = SECRETS | UNIQUE
"""Secrets for what they are, the others because they will not come again."""


class Decoder:
    """The receiving end of one connection's header compression."""

    __slots__ = ("_blocks", "_list_octets_max", "_runs", "_strings", "_table", "_table_octets_max")

    def __init__(self, *, table_octets_max: int, list_octets_max: int) -> None:
        """`table_octets_max`: what our SETTINGS_HEADER_TABLE_SIZE says. The table begins with that or 4,096 octets,
        whichever is less. `list_octets_max`: of one decoded list, 32 octets for each field included."""
        self._table = Table(min(table_octets_max, TABLE_OCTETS_DEFAULT))
        self._table_octets_max = table_octets_max
        self._list_octets_max = list_octets_max
        self._runs: dict[bytes, tuple[Fields, int]] = {}
        self._blocks: dict[bytes, Fields] = {}
        self._strings: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<hpack decoder, {self._table}>"

    def decode(self, block: bytes) -> Fields:
        """The fields of a whole header block. Nobody may change the list: it may be handed out again.

        A field that arrived never-indexed is `NeverIndexed`. Raises HpackError (malformed) or ListTooLarge; either
        way the decoder is of no more use."""
        remembered = self._blocks.get(block)
        if remembered is not None:
            return remembered
        try:
            fields, end, memorable = self._decode(block)
        except IndexError:
            raise HpackError("header block is cut short, or refers to no entry") from None
        if end != len(block):  # a slice beyond the end is short, but no error
            raise HpackError("header block is cut short")
        if memorable and end <= BLOCK_OCTETS_MAX:
            if len(self._blocks) >= BLOCKS_MAX:
                self._blocks.clear()
            self._blocks[block] = fields = Remembered(fields)
        return fields

    def _decode(self, block: bytes) -> tuple[Fields, int, bool]:
        """The fields, where the last one ended, and whether the block may be remembered."""
        fields: Fields = []
        runs = self._runs
        left = self._list_octets_max
        at = self._size_updates(block)
        memorable = at == 0
        end = len(block)
        while at < end:
            octet = block[at]
            if octet > 0x80:
                match = _RUN(block, at)
                if match is None:  # 0xff
                    index, at = _integer(block, at, 0x7F)
                    known = self._entries((index,), left)
                else:
                    run = match[0]
                    at += len(run)
                    known = runs.get(run) or self._run(run, left)
                fields += known[0]
                left -= known[1]
            else:
                name, at = self._name(block, at, octet)
                length = block[at]
                if length < 0x7F:
                    start = at + 1
                    at = start + length
                    value = block[start:at]
                else:
                    value, at = self._string(block, at, name not in _UNREMEMBERED and octet >> 4 != 1)
                size = len(name) + len(value) + ENTRY_OVERHEAD_OCTETS
                left -= size
                if octet < 0x10:  # RFC 7541 section 6.2.2
                    fields.append((name, value))
                    if name in _UNREMEMBERED:
                        memorable = False
                elif octet < 0x20:  # section 6.2.3
                    fields.append(NeverIndexed((name, value)))
                    memorable = False
                else:  # section 6.2.1
                    field = (name, value)
                    fields.append(field)
                    self._insert(field, size)
                    memorable = False
            if left < 0:
                raise ListTooLarge("header list is too large")
        return fields, at, memorable

    def _name(self, block: bytes, at: int, octet: int) -> tuple[bytes, int]:
        """The name of the literal that begins at `at` with `octet`, and where its value begins."""
        if octet < 0x20:
            mask = 0x0F
        elif 0x40 <= octet < 0x80:
            mask = 0x3F
        elif octet == 0x80:
            raise HpackError("index 0")
        else:
            raise HpackError("a table size update where none may be")
        index = octet & mask
        if index == 0:
            return self._string(block, at + 1, True)
        if index == mask:
            index, at = _integer(block, at, mask)
            return self._table.fields[index][0], at
        return self._table.fields[index][0], at + 1

    def _string(self, block: bytes, at: int, memorable: bool) -> tuple[bytes, int]:
        """A string literal (RFC 7541 section 5.2), and where it ends."""
        first = block[at]
        length = first & 0x7F
        if length == 0x7F:
            length, at = _integer(block, at, 0x7F)
        else:
            at += 1
        end = at + length
        text = block[at:end]
        if first < 0x80:
            return text, end
        if len(text) < length:
            raise HpackError("header block is cut short")
        strings = self._strings
        known = strings.get(text)
        if known is None:
            known = huffman.decode(text)
            if memorable and length <= STRING_OCTETS_MAX:
                if len(strings) >= STRINGS_MAX:
                    strings.clear()
                strings[text] = known
        return known, end

    def _run(self, run: bytes, left: int) -> tuple[Fields, int]:
        """The fields of a run and their size, remembered for the next."""
        known = self._entries(run.translate(_INDICES), left)
        if len(run) <= RUN_OCTETS_MAX:
            if len(self._runs) >= RUNS_MAX:
                self._runs.clear()
            self._runs[run] = known
        return known

    def _entries(self, indices: Sequence[int], left: int) -> tuple[Fields, int]:
        """The entries with these indices and their size, counted before the list is made (rows A21, A22)."""
        if len(indices) * ENTRY_OVERHEAD_OCTETS <= left:
            size = sum(map(self._table.sizes.__getitem__, indices))
            if size <= left:
                return list(map(self._table.fields.__getitem__, indices)), size
        raise ListTooLarge("header list is too large")

    def _insert(self, field: Field, size: int) -> None:
        self._table.insert(field, size)
        self._runs.clear()
        self._blocks.clear()

    def _size_updates(self, block: bytes) -> int:
        """Perform the table size updates at the beginning of `block`, at most two (RFC 7541 section 4.2); return
        where they end."""
        at = 0
        for _ in range(2):
            if block[at : at + 1] < b"\x20" or block[at] >= 0x40:
                break
            size = block[at] & 0x1F
            if size == 0x1F:
                size, at = _integer(block, at, 0x1F)
            else:
                at += 1
            if size > self._table_octets_max:
                raise HpackError("table size update beyond what was allowed")
            self._table.resize(size)
            self._runs.clear()
            self._blocks.clear()
        return at


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The integer whose prefix, all ones and worth `value`, is at `at`; and where it ends (RFC 7541 section 5.1)."""
    shift = 0
    while True:
        at += 1
        octet = block[at]
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at + 1
        shift += 7
        if shift > INTEGER_SHIFT_MAX:
            raise HpackError("integer is too long")
