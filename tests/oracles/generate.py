"""Scripts by chance: mostly what a peer would say, and now and then what none should.

Written against `random.Random`, so that Hypothesis may be the one that draws (and then shrinks) or a seed may.
`mischief` is how often a step is wrong on purpose; a script without any goes deep into what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hpack import Encoder
from hypothesis import strategies as st

from tests.oracles import wire
from tests.oracles.heads import RESPONSES, TRAILERS, block_of, garbage, request_head, response_head
from tests.oracles.scripts import LIMITS, Act, Octets, Script, Step

CODES = (0, 1, 2, 5, 7, 8, 8, 8, 11, 13, 77)
SIZES = (0, 1, 5, 31, 32, 300, 999, 1_001, 5_000, 16_384)
REACTIONS = {
    "request": (None, None, None, "answer", "answer", "reset", "drain", "shutdown"),
    "head": (None, None, None, None, "reset", "reset_others"),
    "informational": (None, None, None, "reset"),
    "data": ("consumed", "consumed", None, None, "reset", "reset_others"),
    "trailers": (None, None, "reset_others"),
    "reset": (None, None, None, "reset_others"),
    "writable": (None, "data", "reset"),
}


class Peer:
    """What the generator knows of the connection: enough to be right when it wants to."""

    def __init__(self, random: Random, role: str, mischief: float, limits: str) -> None:
        self.random = random
        self.role = role
        self.limits = LIMITS[limits]
        self.is_full = False
        """Clients under test: they may not open another stream, so nothing is said on what they open from here on."""
        self.mischief = mischief
        self.encoder = Encoder()
        self.next_stream = 1
        self.open: list[int] = []
        """Streams on which the peer may send DATA."""
        self.bare: list[int] = []
        """Clients under test: streams whose answer has no head yet."""
        self.known: list[int] = []

    def bad(self) -> bool:
        return self.random.random() < self.mischief

    def some(self, streams: list[int]) -> int:
        """One of them; or, by mischief or for want of any, another."""
        if streams and not self.bad():
            return self.random.choice(streams)
        return self.random.choice([0, 1, 2, 3, 5, 7, 9, 101, 2**31 - 1, *self.known])

    def over(self, stream: int) -> None:
        for streams in (self.open, self.bare):
            if stream in streams and not self.bad():
                streams.remove(stream)

    # Messages

    def block(self, stream: int, block: bytes, end: bool) -> list[Octets]:
        random = self.random
        count = random.choice((0, 0, 0, 0, 1, 2)) if not self.bad() else random.choice((3, 9))
        first = random.choice((0, 1, 1, 1))
        splits = sorted(random.randint(min(first, len(block)), len(block)) for _ in range(count))
        if not self.bad():
            splits = sorted(set(splits))
        pad = random.choice((0, 0, 0, 1, 255)) if random.random() < 0.2 else 0
        flags = wire.END_STREAM if end else 0
        if random.random() < 0.15:
            depends_on = stream if self.bad() else random.choice((0, 2**31, stream ^ 2))
            fragment = block[: splits[0]] if splits else block
            prefix = wire.long(depends_on) + b"\x10"
            out = wire.header_frames(stream, prefix + fragment, flags | wire.HAS_PRIORITY, (), pad=pad)
            if splits:
                out[0] = _without(out[0], wire.END_HEADERS)
                rest = wire.header_frames(stream, block[splits[0] :], 0, [s - splits[0] for s in splits[1:]])
                rest[0] = rest[0][:3] + bytes((wire.CONTINUATION,)) + rest[0][4:]
                out += rest
        else:
            out = wire.header_frames(stream, block, flags, splits, pad=pad)
        if len(out) > 1 and self.bad():
            index = random.randrange(1, len(out) + 1)
            out[index:index] = [random.choice((wire.frame(wire.PING, 0, 0, bytes(8)), out[0], wire.frame(99)))]
        return [Octets(data) for data in out]

    def request(self) -> list[Octets]:
        """A new stream; or trailers, or a head where none belongs."""
        random = self.random
        stream = self.next_stream
        if self.bad():
            stream = random.choice((0, 2, stream + 1, stream + 10, max(1, stream - 2), self.some(self.known)))
        self.next_stream = max(self.next_stream, stream + 2) | 1
        end = random.random() < 0.4
        self.known.append(stream)
        if not end:
            self.open.append(stream)
        if self.bad() and random.random() < 0.3:
            return self.block(stream, garbage(random), end)
        return self.block(stream, block_of(random, self.encoder, request_head(random, self.bad())), end)

    def response(self) -> list[Octets]:
        if not self.bare and not self.bad():
            return self.data() if self.open else self.window_update()
        stream = self.some(self.bare or self.open)
        random = self.random
        if random.random() < 0.2:
            interim = [(b":status", random.choice((b"100", b"103", b"101", b"199")))]
            return self.block(stream, block_of(random, self.encoder, interim), self.bad())
        end = random.random() < 0.3
        if stream in self.bare:
            self.bare.remove(stream)
        if not end:
            self.open.append(stream)
        if self.bad() and random.random() < 0.3:
            return self.block(stream, garbage(random), end)
        return self.block(stream, block_of(random, self.encoder, response_head(random, self.bad())), end)

    def head(self) -> list[Octets]:
        return self.request() if self.role == "server" else self.response()

    def trailers(self) -> list[Octets]:
        if not self.open and not self.bad():
            return self.head()
        stream = self.some(self.open)
        self.over(stream)
        fields = self.random.choice(TRAILERS)
        return self.block(stream, block_of(self.random, self.encoder, fields), not self.bad())

    def data(self) -> list[Octets]:
        random = self.random
        if not self.open and not self.bad():
            return self.window_update() if self.role == "client" and not self.bare else self.head()
        stream = self.some(self.open)
        size_max = self.limits.stream_window_octets // 3 if not self.bad() else 16_384
        size = min(random.choice(SIZES) if random.random() < 0.7 else random.randint(1, 2_000), size_max)
        payload, flags = b"p" * size, 0
        if random.random() < 0.2 and size < 16_000:
            payload, flags = wire.padded(payload, random.choice((0, 1, 100, 255))), wire.PADDED
            if self.bad():
                payload = bytes((random.choice((len(payload) % 256, 255)),)) + payload[1 : random.randint(0, 3)]
        if random.random() < 0.3:
            flags |= wire.END_STREAM
            self.over(stream)
        times = 1
        if not flags & wire.END_STREAM and (0 < size < 40 or self.bad()):
            times = random.choice((1, 2, 5))
        return [Octets(wire.frame(wire.DATA, flags, stream, payload))] * times

    # Everything else

    def rst_stream(self) -> list[Octets]:
        if not self.known and not self.bad():
            return self.ping()
        stream = self.some([*self.open, *self.bare] or self.known)
        self.over(stream)
        return [self._sized(wire.RST_STREAM, stream, wire.long(self.random.choice(CODES)))]

    def window_update(self) -> list[Octets]:
        random = self.random
        stream = random.choice((self.some(self.known), self.known[-1])) if self.known and random.random() < 0.7 else 0
        increments = (1, 100, 65_535, 65_535, 2**30) if not self.bad() else (0, 2**31 - 1, 2**31, 2**31 - 65_535)
        return [self._sized(wire.WINDOW_UPDATE, stream, wire.long(random.choice(increments)))]

    def ping(self) -> list[Octets]:
        random = self.random
        payload = random.choice((b"\0" * 8, b"hbkdrain", b"hbkalive", b"abcdefgh"))
        flags = random.choice((0, 0, wire.ACK))
        stream = self.some(self.known) if self.bad() else 0
        return [self._sized(wire.PING, stream, payload, flags)]

    def settings(self) -> list[Octets]:
        random = self.random
        if random.random() < 0.3:
            return [self._sized(wire.SETTINGS, 0, b"", wire.ACK)]
        entries = [self._setting() for _ in range(random.choice((0, 1, 1, 2, 4, 5)))]
        if self.bad():
            entries *= random.choice((1, 7, 20))
        stream = self.some(self.known) if self.bad() else 0
        flags = wire.ACK if self.bad() else random.choice((0, 0, 0, 0x80))
        return [self._sized(wire.SETTINGS, stream, wire.settings(entries)[9:], flags)]

    def _setting(self) -> tuple[int, int]:
        random = self.random
        values = {
            1: (0, 100, 4_096, 4_096, 65_536),
            2: (0,) if self.role == "client" else (0, 1),
            3: (0, 1, 3, 100, 2**32 - 1),
            4: (0, 10, 65_535, 1_000, 2**31 - 1),
            5: (16_384, 16_385, 100_000, 2**24 - 1),
            6: (0, 100, 2**32 - 1),
            8: (0, 1),
            9: (0, 1),
            0xFFFF: (0, 7),
        }
        if self.bad():
            return random.randint(0, 9), random.choice((0, 1, 2, 16_383, 2**24, 2**31, 2**32 - 1))
        name = random.choice(list(values))
        value = random.choice(values[name])
        self.is_full |= name == 3 and value <= 3
        return name, value

    def goaway(self) -> list[Octets]:
        random = self.random
        last = random.choice((0, 1, 3, 2**31 - 1, 2**31 - 1))
        stream = self.some(self.known) if self.bad() else 0
        self.is_full = True
        payload = wire.long(last) + wire.long(random.choice(CODES)) + random.choice((b"", b"why"))
        return [self._sized(wire.GOAWAY, stream, payload)]

    def priority(self) -> list[Octets]:
        random = self.random
        stream = self.some(self.known or [1])
        depends_on = stream if self.bad() else random.choice((0, 2**31, stream ^ 2))
        return [self._sized(wire.PRIORITY, stream, wire.long(depends_on) + b"\x0f")]

    def strange(self) -> list[Octets]:
        """Kinds that nobody knows, and kinds that nobody may send; the latter are mischief."""
        random = self.random
        stream = self.some(self.known)
        if not self.bad():
            kind = random.choice((0x0A, 0x0C, 0x10, 0x10, 0x40, 0xFF))
            return [Octets(wire.frame(kind, random.randrange(256), stream, bytes(random.choice((0, 3, 100)))))]
        payload = wire.long(random.choice((2, 4))) + self.encoder.encode([(b":method", b"GET")])
        return [
            random.choice(
                (
                    Octets(wire.frame(wire.PUSH_PROMISE, wire.END_HEADERS, stream, payload)),
                    Octets(wire.frame(wire.CONTINUATION, wire.END_HEADERS, stream, b"")),
                    Octets(wire.frame(wire.DATA, 0, stream, b"")),
                    Octets(b"\xff\xff\xff\0\0" + wire.long(stream)),
                )
            )
        ]

    def _sized(self, kind: int, stream: int, payload: bytes, flags: int = 0) -> Octets:
        """A frame, by mischief of a wrong size."""
        if self.bad():
            payload = self.random.choice((payload[:-1], payload + b"\0", b"", payload * 2))
        return Octets(wire.frame(kind, flags, stream, payload))


def _without(data: bytes, flag: int) -> bytes:
    return data[:4] + bytes((data[4] & ~flag,)) + data[5:]


SPEAKING: dict[str, tuple[tuple[Callable[[Peer], list[Octets]], int], ...]] = {
    "server": ((Peer.head, 6), (Peer.data, 10), (Peer.trailers, 2)),
    "client": ((Peer.head, 9), (Peer.data, 11), (Peer.trailers, 3)),
}
ASIDE: tuple[tuple[Callable[[Peer], list[Octets]], int], ...] = (
    (Peer.rst_stream, 2),
    (Peer.window_update, 3),
    (Peer.ping, 2),
    (Peer.settings, 2),
    (Peer.goaway, 1),
    (Peer.priority, 1),
    (Peer.strange, 1),
)


OURS = "head head data data data trailers consumed consumed informational reset ping wait end".split()  # noqa: SIM905


def _ours(random: Random, peer: Peer) -> Act:
    """What our own side does next."""
    stream = random.choice(peer.known) if peer.known else 1
    size = random.choice((0, 1, 100, 5_000, 20_000, 70_000))
    end = random.random() < 0.4
    name = random.choice(OURS)
    peer.is_full |= name == "end"
    if name == "end":
        name = random.choice(("drain", "drain", "wait", "wait", "wait", "shutdown", "eof"))
    if name in ("head", "informational"):
        return Act(name, stream, 0, tuple(random.choice(RESPONSES) if name == "head" else ((b":status", b"103"),)), end)
    if name == "trailers":
        return Act(name, stream, 0, tuple(random.choice(TRAILERS)))
    if name == "wait":
        return Act(name, 0, random.choice((1, 20)))
    if name in ("reset", "shutdown"):
        return Act(name, stream, random.choice(CODES))
    return Act(name, stream, size, (), end)


def _request(random: Random, peer: Peer) -> Act:
    stream = peer.next_stream
    peer.is_full |= len(peer.known) >= min(peer.limits.streams_per_connection_max, peer.limits.streams_total_max)
    if not peer.is_full:
        peer.next_stream += 2
        peer.known.append(stream)
        peer.bare.append(stream)
    end = random.random() < 0.6
    fields = request_head(random, bad=False)
    if peer.bad() and random.random() < 0.1:
        fields = [*fields, (b"x", b"a\r\nb")]
    return Act("request", 0, 0, tuple(fields), end)


def _mutated(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data)) if random.random() < 0.5 else random.randrange(min(len(data), 14))
    change = random.randrange(4)
    if change == 0:
        return data[:at] + bytes((data[at] ^ (1 << random.randrange(8)),)) + data[at + 1 :]
    if change == 1:
        return data[:at] + bytes((random.randrange(256),)) + data[at + 1 :]
    if change == 2:
        return data[:at] + data[at + random.randint(1, 4) :]
    return data[:at] + bytes(random.randrange(256) for _ in range(random.randint(1, 4))) + data[at:]


def script(random: Random, role: str) -> Script:
    """One script. Sizes are such that one plays within milliseconds."""
    limits = random.choice(list(LIMITS))
    peer = Peer(random, role, random.choice((0.0, 0.0, 0.0, 0.01, 0.03, 0.15)), limits)
    mutation = random.choice((0.0, 0.0, 0.0, 0.05))
    steps: list[Step] = []
    if role == "server":
        steps.append(Octets(wire.PREFACE))
    entries = [peer._setting() for _ in range(random.choice((0, 0, 1, 3)))]
    if random.random() < 0.3:
        entries.append((4, random.choice((0, 10, 1_000))))
    if not peer.bad() or random.random() < 0.9:
        steps.append(Octets(wire.settings(entries)))
    if random.random() < 0.95:
        steps.append(Octets(wire.settings(ack=True)))
    frames = SPEAKING[role] + ASIDE
    kinds, weights = [kind for kind, _ in frames], [weight for _, weight in frames]
    ours = random.choice((0.1, 0.3, 0.5))
    for _ in range(random.choice((5, 15, 30, 50))):
        if role == "client" and (not peer.known or random.random() < 0.15):
            steps.append(_request(random, peer))
        elif random.random() < ours and peer.known:
            steps.append(_ours(random, peer))
        else:
            steps += random.choices(kinds, weights)[0](peer)
    if mutation:
        steps = [
            Octets(_mutated(random, step.data))
            if isinstance(step, Octets) and step.data and random.random() < mutation
            else step
            for step in steps
        ]
    reactions = {event: chosen for event, those in REACTIONS.items() if (chosen := random.choice(those))}
    return Script(
        role=role,
        limits=limits,
        stalled=random.random() < 0.1,
        reactions=reactions,
        cuts=tuple(random.choice((1, 3, 8, 9, 10, 30, 200, 5_000)) for _ in range(random.randint(1, 6))),
        steps=tuple(steps),
    )


@st.composite
def scripts(draw: st.DrawFn, role: str) -> Script:
    """As `script`, drawn by Hypothesis: choice by choice, so that it can make a failing one smaller, or a whole one by
    its seed, evenly spread over all there are."""
    if draw(st.booleans()):
        return script(draw(st.randoms(use_true_random=False)), role)
    return script(Random(draw(st.integers(0, 2**64 - 1))), role)
