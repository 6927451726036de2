"""Every input that a fuzzer ever found worth keeping, again; and a word from the targets that they can fail."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from sidecar.http.engines import http2_engine
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.session import Fields
from tests.oracles import fuzz_frames, fuzz_hpack, fuzz_policy, fuzz_snapshot
from tests.oracles.fuzz import CORPUS, TARGETS
from tests.oracles.observe import begin

TARGET = {
    "frames": fuzz_frames.one_input,
    "hpack": fuzz_hpack.one_input,
    "policy": fuzz_policy.one_input,
    "snapshot": fuzz_snapshot.one_input,
}


def inputs(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


def replay(target: str) -> None:
    for path in inputs(target):
        TARGET[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_what_fuzzers_found_goes_well(target: str) -> None:
    """The whole corpus, and each input again with a few octets changed."""
    random = Random(7)
    kept = inputs(target)
    assert len(kept) > 50
    for path in kept:
        data = path.read_bytes()
        changed = bytearray(data)
        for _ in range(3):
            changed[random.randrange(len(changed))] = random.randrange(256)
        for one in (data, bytes(changed)):
            try:
                TARGET[target](one)
            except Exception as e:
                e.add_note(f"{path.name}: {one.hex()}")
                raise


def test_the_corpus_stays_small() -> None:
    """It is a part of every clone."""
    assert sum(path.stat().st_size for target in TARGETS for path in inputs(target)) < 450_000


def test_a_decoder_that_is_wrong_is_found_by_its_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that forgets the last field of a block with more than three."""
    right = Decoder.decode

    def wrong(self: Decoder, block: bytes) -> Fields:
        fields = right(self, block)
        return fields[:-1] if len(fields) > 3 else fields

    monkeypatch.setattr(Decoder, "decode", wrong)
    with pytest.raises(AssertionError, match="other fields"):
        replay("hpack")


def test_what_a_session_holds_is_counted() -> None:
    """The measure of memory sees what waits in a session."""
    player, _ = begin(http2_engine("relay"), fuzz_frames.session_of(b"\x02\x00")[1])
    before = fuzz_frames.held_octets(player.session)
    player.session.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" + bytes(9_000))
    assert 9_000 <= fuzz_frames.held_octets(player.session) - before < 20_000
