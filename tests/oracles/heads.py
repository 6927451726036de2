"""Field sections, good and bad, and their HPACK: by hpack's encoder, or by hand where that would not write it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hpack import Encoder

from tests.oracles.wire import Field, integer, literal

OK: list[Field] = [(b":status", b"200"), (b"content-type", b"text/plain")]
RESPONSES: tuple[list[Field], ...] = (
    OK,
    [(b":status", b"204")],
    [(b":status", b"200"), (b"content-length", b"5"), (b"set-cookie", b"a=b")],
    [(b":status", b"404"), (b"x-long", b"v" * 3_000)],
    [(b":status", b"200"), (b"x-huge", b"v" * 20_000)],
)
TRAILERS: tuple[list[Field], ...] = ([(b"grpc-status", b"0")], [(b"x-sum", b"1"), (b"x-sum", b"2")], [])
REGULAR: tuple[Field, ...] = (
    (b"accept", b"*/*"),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"authorization", b"Bearer secret"),
    (b"content-length", b"5"),
    (b"content-length", b"0"),
    (b"te", b"trailers"),
    (b"user-agent", b"oracle/1"),
    (b"x-request-id", b"0123456789abcdef"),
    (b"x-empty", b""),
    (b"x-long", b"v" * 500),
)
WRONG: tuple[Field, ...] = (
    (b"Upper", b"1"),
    (b"", b"nameless"),
    (b":late", b"pseudo"),
    (b":status", b"100"),
    (b":path", b""),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"x-crlf", b"a\r\nb: c"),
    (b"x-nul", b"\0"),
    (b"x y", b"\xff\xfe"),
    (b"content-length", b"-1"),
    (b"x-much", b"v" * 9_000),
)


def request_head(random: Random, bad: bool) -> list[Field]:
    path = b"/" + b"".join(random.choice((b"a", b"orders", b"/", b"?q=1", b"%20")) for _ in range(random.randint(0, 4)))
    head = [
        (b":method", random.choice((b"GET", b"POST", b"HEAD", b"DELETE"))),
        (b":scheme", b"http"),
        (b":authority", b"orders.shop"),
        (b":path", path),
        *random.choices(REGULAR, k=random.choice((0, 1, 3, 6))),
    ]
    if random.random() < 0.04:
        head = [(b":method", b"CONNECT"), (b":authority", b"orders.shop:443")]
    return spoilt(random, head) if bad else head


def response_head(random: Random, bad: bool) -> list[Field]:
    head = [
        (b":status", random.choice((b"200", b"204", b"304", b"404", b"500"))),
        *random.choices(REGULAR, k=random.choice((0, 1, 3, 6))),
    ]
    return spoilt(random, head) if bad else head


def spoilt(random: Random, head: list[Field]) -> list[Field]:
    """The same head with one thing wrong."""
    what = random.randrange(6)
    if what == 0:
        return head[1:]
    if what == 1:
        return [*head, head[0]]
    if what == 2:
        return head[::-1]
    if what == 3:
        return [*head, *[(b"x-many", b"")] * random.choice((15, 120, 2_100))]
    if what == 4:
        return [random.choice(WRONG), *head]
    return [*head, random.choice(WRONG)]


def block_of(random: Random, encoder: Encoder, fields: Sequence[Field]) -> bytes:
    """A header block for `fields`, in one of the many ways there are."""
    how = random.random()
    if how < 0.75:
        return encoder.encode(list(fields), huffman=random.random() < 0.7)
    if how < 0.85:
        return literal(fields, *random.choice(((0x00, 4), (0x10, 4))))
    if how < 0.95:
        return _size_updates(random, encoder) + encoder.encode(list(fields))
    return encoder.encode([(name, value, True) for name, value in fields])


def _size_updates(random: Random, encoder: Encoder) -> bytes:
    """RFC 7541 section 4.2. hpack's encoder writes one itself when told of a size; so may the block have two."""
    size = random.choice((0, 64, 4_096))
    encoder.header_table_size = size
    return integer(random.choice((0, size)), 5, 0x20) if random.random() < 0.5 and size == 0 else b""


def garbage(random: Random) -> bytes:
    """What HPACK decoders fail on, or ought to, and noise."""
    return random.choice(
        (
            b"\x80",  # index 0
            b"\xff\x80\x80\x80\x80\x80\x80\x80\x01",  # an integer that runs on
            integer(70, 7, 0x80) + b"\xff",
            integer(4_097, 5, 0x20),  # a table larger than we allow
            b"\x82\x3f\xe1\x1f",  # a size update after a field
            b"\x00\x01a",  # ends before its value
            b"\x00\x81\xff\x01b",  # Huffman: EOS as padding of eight bits
            b"\x00\x7f\xff\xff\xff\x7f",
            bytes(random.randrange(256) for _ in range(random.randint(0, 20))),
            literal([(b"x" * 100, b"y" * 100)], 0x40, 6) + bytes((0xBE,)) * random.choice((10, 400, 5_000)),
            b"",
        )
    )
