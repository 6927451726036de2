"""Huffman strings (RFC 7541 section 5.2): every symbol, every padding, and the `hpack` package as the oracle."""

from __future__ import annotations

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.http.relay import huffman
from sidecar.http.relay.errors import HpackError

EOS = 256


def bits(text: bytes) -> str:
    """The code of `text` as ones and zeros, unpadded."""
    return "".join(code(octet) for octet in text)


def code(symbol: int) -> str:
    return format(REQUEST_CODES[symbol], f"0{REQUEST_CODES_LENGTH[symbol]}b")


def octets(ones_and_zeros: str) -> bytes:
    assert len(ones_and_zeros) % 8 == 0
    return bytes(int(ones_and_zeros[at : at + 8], 2) for at in range(0, len(ones_and_zeros), 8))


def padded(ones_and_zeros: str) -> bytes:
    return octets(ones_and_zeros + "1" * (-len(ones_and_zeros) % 8))


@pytest.mark.parametrize("symbol", range(256))
def test_every_symbol_has_its_code(symbol: int) -> None:
    """RFC 7541 Appendix B, alone and before and after every residue of bits."""
    text = bytes((symbol,))
    assert huffman.encode(text) == padded(code(symbol))
    assert huffman.decode(padded(code(symbol))) == text
    for before in (b"0", b"00", b"a0", b"&", b"&0", b":", b"&:", b"::"):
        assert huffman.decode(padded(bits(before + text + before))) == before + text + before


@given(st.binary(max_size=200))
@example(b"")
@example(bytes(range(256)))
def test_every_text_survives_and_is_coded_as_by_the_oracle(text: bytes) -> None:
    """Decoding undoes encoding; both agree with codes written down elsewhere."""
    coded = huffman.encode(text)
    assert coded == padded(bits(text))
    assert len(coded) == huffman.encoded_octets(text)
    assert huffman.decode(coded) == text


def test_a24_padding_of_eight_bits_and_more_is_refused() -> None:
    """RFC 7541 section 5.2: padding strictly longer than seven bits is an error."""
    for text in (b"", b"0", b"&", b"&&", b"a:b", bytes(range(256))):
        right = huffman.encode(text)
        for extra in (b"\xff", b"\xff\xff", b"\xff\xff\xff"):
            with pytest.raises(HpackError):
                huffman.decode(right + extra)


def test_a24_padding_not_of_ones_is_refused() -> None:
    """RFC 7541 section 5.2: padding is the most significant bits of EOS. All other paddings of all lengths."""
    for text in (b"0", b"00", b"000", b"&0", b"00000", b"&", b":", b"::::"):  # leave 1 to 7 bits between them
        code_bits = bits(text)
        room = -len(code_bits) % 8
        for padding in range((1 << room) - 1):
            tail = format(padding, f"0{room}b")
            if any(tail.startswith(code(symbol)) for symbol in range(256)):
                continue  # that is a symbol and then a shorter padding
            with pytest.raises(HpackError):
                huffman.decode(octets(code_bits + tail))


def test_a24_eos_within_a_string_is_refused() -> None:
    """RFC 7541 section 5.2: a string with EOS in it is an error, wherever it stands and whatever follows."""
    for before in (b"", b"0", b"&", b"a:b"):
        for after in (b"", b"0", b"::", b"abc" * 20):
            with pytest.raises(HpackError):
                huffman.decode(padded(bits(before) + code(EOS) + bits(after)))


@given(st.binary(max_size=40))
def test_whatever_is_accepted_is_the_code_of_its_text(data: bytes) -> None:
    """There is one code for a text; anything else, whatever it is, raises HpackError."""
    try:
        text = huffman.decode(data)
    except HpackError:
        return
    assert huffman.encode(text) == data
