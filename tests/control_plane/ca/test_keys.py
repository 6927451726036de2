"""The encrypted key: it opens with its own key-encryption key, unchanged, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certs.authority_id import key_id
from certs.svid import new_private_key
from control_plane.ca.errors import EnvelopeError
from control_plane.ca.keys import KEK_BYTES, NONCE_BYTES, seal, unseal

KEY = new_private_key()
KEK = bytes(range(32))
NONCE = bytes(range(12))
ENVELOPE = seal(KEY, kek=KEK, nonce=NONCE)


@given(st.binary(min_size=KEK_BYTES, max_size=KEK_BYTES), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_a_sealed_key_opens_with_its_kek(kek: bytes, nonce: bytes) -> None:
    """Round trip, for any KEK and nonce."""
    opened = unseal(seal(KEY, kek=kek, nonce=nonce), kek=kek)
    assert opened.private_numbers() == KEY.private_numbers()


def test_an_envelope_holds_nothing_in_clear_but_its_name_and_nonce() -> None:
    """The private number appears nowhere."""
    secret = KEY.private_numbers().private_value.to_bytes(32, "big")
    assert secret not in ENVELOPE
    assert ENVELOPE.startswith(b"hauberk-ca-key v1\n" + key_id(KEY.public_key()).encode() + b"\n" + NONCE)


def test_j06_every_flipped_bit_is_noticed() -> None:
    """Row J06: all of them, not a sample; nothing in an envelope is redundant."""
    for index in range(len(ENVELOPE)):
        for bit in range(8):
            damaged = bytearray(ENVELOPE)
            damaged[index] ^= 1 << bit
            with pytest.raises(EnvelopeError):
                unseal(bytes(damaged), kek=KEK)


@given(st.integers(0, KEK_BYTES * 8 - 1))
def test_j06_every_wrong_kek_is_noticed(bit: int) -> None:
    """Row J06: a KEK that is wrong in one bit."""
    wrong = bytearray(KEK)
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnvelopeError, match="another key-encryption key"):
        unseal(ENVELOPE, kek=bytes(wrong))


@given(st.integers(0, len(ENVELOPE) - 1))
@example(0)
def test_j06_an_envelope_cut_short_is_refused(length: int) -> None:
    """Row J06: a torn write."""
    with pytest.raises(EnvelopeError):
        unseal(ENVELOPE[:length], kek=KEK)


@given(st.binary(max_size=300))
def test_j06_garbage_is_refused(data: bytes) -> None:
    """Row J06: no plaintext fallback, no exception but ours."""
    with pytest.raises(EnvelopeError):
        unseal(data, kek=KEK)


def test_j06_an_envelope_cannot_be_passed_off_as_another_keys() -> None:
    """The name is authenticated: two envelopes under one KEK do not mix."""
    other = seal(new_private_key(), kek=KEK, nonce=NONCE[::-1])
    head = len(b"hauberk-ca-key v1\n") + 32 + 1
    with pytest.raises(EnvelopeError):
        unseal(ENVELOPE[:head] + other[head:], kek=KEK)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_kek_of_another_size_is_refused(size: int) -> None:
    """AES-256 and nothing less; both ways."""
    with pytest.raises(EnvelopeError):
        unseal(ENVELOPE, kek=bytes(size))
    with pytest.raises(EnvelopeError):
        seal(KEY, kek=bytes(size), nonce=NONCE)


def test_an_error_tells_nothing_secret() -> None:
    """Texts go to logs."""
    with pytest.raises(EnvelopeError) as caught:
        unseal(ENVELOPE, kek=bytes(32))
    assert KEK.hex() not in str(caught.value)
    assert caught.value.__cause__ is None
