"""Huffman strings (RFC 7541 section 5.2 and Appendix B), decoded an octet at a time.

Decoding a prefix code bit by bit costs eight steps an octet. Here the tree is walked ahead of time: its 256 inner
nodes are the states of an automaton, and each has a row that says for every octet which text those eight bits
complete (at most two symbols: none is shorter than five bits) and in which row the next octet is to be looked up. So
two look-ups an octet are all there is to do:

    texts, nexts = row
    append(texts[octet])
    row = nexts[octet]

Whatever can be wrong is a state as well, so that the loop need not look for it:

    the end          is input number 256. Where padding may end (up to seven bits, all ones: the first eight nodes on
                     the path of ones) it leads back to the root, anywhere else to `_FAILED`.
    EOS              leads to `_FAILED`, and out of `_FAILED` leads nothing.

All rows together take 2 MB and 35 ms to build; printable text visits 99 of them, 0.9 MB, common text fewer. A row is
therefore empty until it is first looked into: the IndexError builds it, and the string is begun anew. That happens
at most 256 times in the life of the process.

The code is canonical (Appendix B says so), hence its lengths alone define it.
"""

from __future__ import annotations

from typing import TypeAlias

from sidecar.http.relay.errors import HpackError

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "1416141416161617161717171717181718181617181717171715161716171718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
    "1e"
)
"""Bits of the code of each octet, and of EOS."""
_EOS = 256
_END = 256
"""The input after the last octet."""

_Row: TypeAlias = "tuple[list[bytes], list[_Row]]"


def _codes() -> list[int]:
    """The code of each symbol, by its length and then its number (what "canonical" means)."""
    codes = [0] * len(_LENGTHS)
    code = bits = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - bits
        bits = _LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return codes


def _tree(codes: list[int]) -> list[list[int]]:
    """Inner nodes, the root first: what a 0 and what a 1 leads to. A leaf is written `~symbol`."""
    nodes = [[0, 0]]
    for symbol, code in enumerate(codes):
        node = 0
        for bit in range(_LENGTHS[symbol] - 1, 0, -1):
            side = code >> bit & 1
            if not nodes[node][side]:
                nodes.append([0, 0])
                nodes[node][side] = len(nodes) - 1
            node = nodes[node][side]
        nodes[node][code & 1] = ~symbol
    return nodes


_CODES = _codes()
_NODES = _tree(_CODES)
_ROWS: list[_Row] = [([], []) for _ in _NODES]
_ROOT = _ROWS[0]
_FAILED: _Row = ([b""] * 257, [])
_FAILED[1].extend([_FAILED] * 257)


def _may_end() -> set[int]:
    """The nodes a string may end in: the root, and up to seven ones from it."""
    nodes, node = {0}, 0
    for _ in range(7):
        node = _NODES[node][1]
        nodes.add(node)
    return nodes


def _build(row: _Row) -> None:
    state = next(state for state, known in enumerate(_ROWS) if known is row)
    texts, nexts = row

    def visit(node: int, bits: int, text: bytes) -> None:
        """Go down both sides until eight bits are used up. That visits the octets in their order."""
        if node < 0:
            if ~node == _EOS:
                texts.extend([b""] * (1 << bits))
                nexts.extend([_FAILED] * (1 << bits))
                return
            text += bytes((~node,))
            node = 0
        if bits:
            visit(_NODES[node][0], bits - 1, text)
            visit(_NODES[node][1], bits - 1, text)
        else:
            texts.append(text)
            nexts.append(_ROWS[node])

    visit(state, 8, b"")
    texts.append(b"")
    nexts.append(_ROOT if state in _may_end() else _FAILED)


def decode(data: bytes) -> bytes:
    """The text of a Huffman string. Raises HpackError for EOS in it and for padding that is long or not of ones."""
    while True:
        row = _ROOT
        decoded: list[bytes] = []
        append = decoded.append
        try:
            for octet in data:
                texts, nexts = row
                append(texts[octet])
                row = nexts[octet]
            if row[1][_END] is _FAILED:
                raise HpackError("malformed Huffman string")
        except IndexError:
            _build(row)
        else:
            return b"".join(decoded)


def encode(text: bytes) -> bytes:
    """`text` as a Huffman string. Its cost grows with the square of the length: meant for short ones."""
    code = bits = 0
    for octet in text:
        code = code << _LENGTHS[octet] | _CODES[octet]
        bits += _LENGTHS[octet]
    padding = -bits % 8
    return (code << padding | (1 << padding) - 1).to_bytes((bits + padding) // 8, "big")


def encoded_octets(text: bytes) -> int:
    """How long `encode(text)` would be."""
    return (sum(map(_LENGTHS.__getitem__, text)) + 7) // 8
